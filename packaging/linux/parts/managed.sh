# A managed file of Claude Code that names a helper which is gone stops Claude Code for everybody on this machine.
# `owner PATH` succeeds if a package owns the file: then it goes with that package, which has to go first.
release_claude_code() {
  folder=/etc/claude-code
  helper=/opt/llmgw/bin/llmgw-token
  ours="$folder/managed-settings.d/50-llmgw.json"
  if [ -f "$ours" ] && ! owner "$ours"; then
    rm -f "$ours"
    rmdir "$folder/managed-settings.d" "$folder" 2>/dev/null || true
  fi
  for file in "$folder/managed-settings.json" "$folder/managed-settings.d"/*.json; do
    if [ -f "$file" ] && grep -qF "$helper" "$file"; then
      echo "llmgw: $file makes Claude Code run $helper. Take that file away first, then remove llmgw." >&2
      return 1
    fi
  done
}
