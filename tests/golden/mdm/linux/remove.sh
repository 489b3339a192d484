#!/bin/sh
# Rendered by `llmgw mdm render`: change org.toml and render again.
set -eu
umask 022
[ "$(id -u)" = 0 ] || { echo "llmgw: run this as root" >&2; exit 1; }

rm -f /etc/claude-code/managed-settings.d/50-llmgw.json
rmdir "$(dirname /etc/claude-code/managed-settings.d/50-llmgw.json)" 2>/dev/null || true
rm -f /etc/llmgw/managed.toml
rmdir "$(dirname /etc/llmgw/managed.toml)" 2>/dev/null || true
