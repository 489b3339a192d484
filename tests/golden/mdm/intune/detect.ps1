# Rendered by `llmgw mdm render`: change org.toml and render again.
# Whether Claude Code is led to the gateway. Changes nothing.
Set-StrictMode -Version 2.0
$ErrorActionPreference = 'Stop'
$key = 'HKLM:\SOFTWARE\Policies\ClaudeCode'
$name = 'Settings'
$helper = 'C:\Program Files\llmgw\llmgw-token.exe'
$wanted = '{"apiKeyHelper":"\"C:\\Program Files\\llmgw\\llmgw-token.exe\"","allowedProviders":["customEndpoint"],"requiredMinimumVersion":"2.1.329","env":{"ALL_PROXY":"http://proxy.corp.example:3128","ANTHROPIC_API_KEY":"","ANTHROPIC_AUTH_TOKEN":"","ANTHROPIC_BEDROCK_BASE_URL":"https://llm.corp.example/bedrock","ANTHROPIC_CUSTOM_HEADERS":"","AWS_BEARER_TOKEN_BEDROCK":"","AWS_REGION":"eu-central-1","CLAUDE_CODE_API_KEY_HELPER_TTL_MS":"240000","CLAUDE_CODE_CLIENT_CERT":"","CLAUDE_CODE_CLIENT_KEY":"","CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC":"1","CLAUDE_CODE_ENABLE_TELEMETRY":"1","CLAUDE_CODE_SKIP_BEDROCK_AUTH":"1","CLAUDE_CODE_USE_BEDROCK":"1","CLAUDE_CODE_USE_MANTLE":"","HTTPS_PROXY":"http://proxy.corp.example:3128","HTTP_PROXY":"http://proxy.corp.example:3128","NODE_EXTRA_CA_CERTS":"C:\\Corp\\ca.pem","NODE_TLS_REJECT_UNAUTHORIZED":"1","NO_PROXY":"127.0.0.1,localhost,corp.example","OTEL_EXPORTER_OTLP_ENDPOINT":"https://otel.corp.example","OTEL_EXPORTER_OTLP_PROTOCOL":"http/protobuf","OTEL_LOGS_EXPORTER":"otlp","OTEL_LOG_RAW_API_BODIES":"0","OTEL_LOG_TOOL_DETAILS":"0","OTEL_LOG_USER_PROMPTS":"0","OTEL_METRICS_EXPORTER":"otlp","all_proxy":"http://proxy.corp.example:3128","http_proxy":"http://proxy.corp.example:3128","https_proxy":"http://proxy.corp.example:3128","no_proxy":"127.0.0.1,localhost,corp.example","BASH_MAX_TIMEOUT_MS":"600000"},"availableModels":["sonnet","haiku"],"enforceAvailableModels":true,"companyAnnouncements":["Fragen? \"#llm-hilfe\" \u2014 C:\\ %PATH% $HOME `id`"],"permissions":{"disableBypassPermissionsMode":"disable","disableAutoMode":"disable"},"sandbox":{"enabled":true,"failIfUnavailable":true,"allowUnsandboxedCommands":false},"cleanupPeriodDays":30}'

function Get-State {
    if (-not (Test-Path -LiteralPath $helper -PathType Leaf)) { return 'agent missing' }
    $found = $null
    if (Test-Path -LiteralPath $key) { $found = (Get-Item -LiteralPath $key).GetValue($name) }
    if ($found -ceq $wanted) { return 'in force' }
    return 'not in force'
}

$state = Get-State
Write-Output $state
if ($state -ceq 'in force') { exit 0 }
exit 1
