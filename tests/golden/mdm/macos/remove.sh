#!/bin/sh
# Rendered by `llmgw mdm render`: change org.toml and render again.
set -eu
umask 022
[ "$(id -u)" = 0 ] || { echo "llmgw: run this as root" >&2; exit 1; }

rm -f '/Library/Application Support/ClaudeCode/managed-settings.d/50-llmgw.json'
rmdir "$(dirname '/Library/Application Support/ClaudeCode/managed-settings.d/50-llmgw.json')" 2>/dev/null || true
# What an MDM has installed, only the MDM can take away.
profiles remove -identifier example.corp.com.anthropic.claudecode 2>/dev/null || true
profiles remove -identifier example.corp.com.llmgw.agent 2>/dev/null || true
profiles remove -identifier example.corp.com.anthropic.claudefordesktop 2>/dev/null || true
profiles remove -identifier example.corp.com.openai.codex 2>/dev/null || true
