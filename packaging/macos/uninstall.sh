#!/bin/sh
# Takes llmgw off this Mac; run it as root. What users have in their homes and keychains is theirs.
set -eu

helper=/opt/llmgw/bin/llmgw-token
folder="${LLMGW_CLAUDE_FOLDER:-/Library/Application Support/ClaudeCode}"
[ "$(id -u)" = 0 ] || { echo "llmgw: run this as root" >&2; exit 1; }
rm -f "$folder/managed-settings.d/50-llmgw.json"
# A managed file that names a helper which is gone stops Claude Code.
named="$(find "$folder" "/Library/Managed Preferences/com.anthropic.claudecode.plist" -type f \
  -exec grep -lF "$helper" {} + 2>/dev/null)" || true
if [ -n "$named" ]; then
  echo "llmgw: Claude Code would still run $helper. Take this away first, then repeat: $named" >&2
  exit 1
fi
rmdir "$folder/managed-settings.d" "$folder" 2>/dev/null || true
console="$(stat -f %u /dev/console)"
if [ "$console" -ge 500 ]; then
  launchctl bootout "gui/$console/com.llmgw.agent" 2>/dev/null || true
fi
rm -f /Library/LaunchAgents/com.llmgw.agent.plist
for name in llmgw llmgw-token; do
  if [ "$(readlink "/usr/local/bin/$name")" = "/opt/llmgw/bin/$name" ]; then
    rm -f "/usr/local/bin/$name"
  fi
done
rm -rf /opt/llmgw
pkgutil --forget com.llmgw.agent >/dev/null 2>&1 || true
