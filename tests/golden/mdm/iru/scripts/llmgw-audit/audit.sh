#!/bin/sh
# Rendered by `llmgw mdm render`: change org.toml and render again.
# Whether this machine leads Claude Code to the gateway, and to nothing else.
set -u
llmgw=/opt/llmgw/bin/llmgw
helper=/opt/llmgw/bin/llmgw-token
gateway=https://llm.corp.example
state() {
  if [ ! -x "$helper" ] || [ ! -x "$llmgw" ]; then
    echo "agent missing"
  elif "$llmgw" mdm show --gateway "$gateway" >/dev/null 2>&1; then
    echo "in force"
  else
    echo "not in force"
  fi
}
found="$(state)"
echo "$found"
[ "$found" = "in force" ]
