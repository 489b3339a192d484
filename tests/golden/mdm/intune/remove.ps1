# Rendered by `llmgw mdm render`: change org.toml and render again.
# Takes Claude Code's policy away again.
Set-StrictMode -Version 2.0
$ErrorActionPreference = 'Stop'
$key = 'HKLM:\SOFTWARE\Policies\ClaudeCode'
$name = 'Settings'

if (Test-Path -LiteralPath $key) {
    # Other people's values under the key stay.
    Remove-ItemProperty -LiteralPath $key -Name $name -ErrorAction SilentlyContinue
}
Write-Output 'removed'
exit 0
