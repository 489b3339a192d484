#!/bin/sh
# Rendered by `llmgw mdm render`: change org.toml and render again.
set -eu
umask 022
[ "$(id -u)" = 0 ] || { echo "llmgw: run this as root" >&2; exit 1; }

# A file that others may have written: theirs stays.
if [ -e /etc/codex/managed_config.toml ] && ! grep -qxF '# Rendered by llmgw mdm render: change org.toml and render again.' /etc/codex/managed_config.toml; then
  echo 'llmgw: /etc/codex/managed_config.toml is somebody else'"'"'s: put what is rendered into it' >&2
  exit 1
fi

put() {
  mkdir -p "$(dirname "$1")"
  # Beside it, then renamed: a program that reads meanwhile finds the old file or the new one, never half of one.
  # Its name is hidden and has another ending: nobody takes it for a drop-in.
  new="$(dirname "$1")/.llmgw-new.$$"
  trap 'rm -f "$new"' EXIT
  cat > "$new"
  chmod 0644 "$new"
  mv -f "$new" "$1"
}

put /etc/codex/managed_config.toml <<'LLMGW-END-OF-FILE'
# Rendered by llmgw mdm render: change org.toml and render again.
model_provider = "llmgw"
model = "gpt-oss-120b"
# What the gateway cannot serve: a search on OpenAI's servers, and tools in namespaces.
web_search = "disabled"

[features]
multi_agent = false

[model_providers.llmgw]
name = "Beispiel \"Süd\" & Söhne"
base_url = "https://llm.corp.example/openai/v1"
wire_api = "responses"

[model_providers.llmgw.auth]
command = "/opt/llmgw/bin/llmgw-token"
timeout_ms = 10000
refresh_interval_ms = 240000
LLMGW-END-OF-FILE
