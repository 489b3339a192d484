#!/bin/sh
# Rendered by `llmgw mdm render`: change org.toml and render again.
set -eu
umask 022
[ "$(id -u)" = 0 ] || { echo "llmgw: run this as root" >&2; exit 1; }

# A file that others may have written: theirs stays.
if [ -e /etc/codex/managed_config.toml ] && ! grep -qxF '# Rendered by llmgw mdm render: change org.toml and render again.' /etc/codex/managed_config.toml; then
  echo 'llmgw: /etc/codex/managed_config.toml is somebody else'"'"'s: take what was rendered out of it' >&2
  exit 1
fi
rm -f /etc/codex/managed_config.toml
rmdir "$(dirname /etc/codex/managed_config.toml)" 2>/dev/null || true
