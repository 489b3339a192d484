"""Paths and header names, spelled once for both sides."""

from __future__ import annotations

from typing import Final

BOOTSTRAP_PATH: Final = "/.well-known/llmgw"
METADATA_PATH: Final = "/.well-known/oauth-authorization-server"
JWKS_PATH: Final = "/.well-known/jwks.json"
TOKEN_PATH: Final = "/oauth/token"  # noqa: S105 -- a path, not a credential
REVOKE_PATH: Final = "/oauth/revoke"
"""RFC 7009."""
ME_PATH: Final = "/v1/me"
USAGE_PATH: Final = "/v1/me/usage"

REQUEST_ID: Final = "request-id"
"""The header that Claude Code records in its telemetry: ours, so that audit rows and telemetry join."""
LLMGW_REQUEST_ID: Final = "x-llmgw-request-id"
COST: Final = "x-llmgw-cost-usd"
BUDGET_REMAINING: Final = "x-llmgw-budget-remaining-usd"
MAX_TOKENS: Final = "x-llmgw-max-tokens"
"""The `max_tokens` that was sent instead of the one asked for: a cap, a default, a budget that is nearly used up."""
THINKING_TOKENS: Final = "x-llmgw-thinking-tokens"
"""The thinking budget that was sent instead of the one asked for: a policy's cap, or a default."""
TARGET: Final = "x-llmgw-target"
MODEL: Final = "x-llmgw-model"
"""The model that answers, where it is not the one that was named: the caller's default."""
GUARDRAIL: Final = "x-llmgw-guardrail"
"""The guardrail of Bedrock that looked at request and answer, by the name that the configuration gives it."""
PROJECT: Final = "x-llmgw-project"
"""What a request is charged to besides its person."""
SHOULD_RETRY: Final = "x-should-retry"
AMZN_ERROR_TYPE: Final = "x-amzn-errortype"
DPOP: Final = "DPoP"
AGENT_VERSION: Final = "x-llmgw-agent-version"

EVENT_STREAM: Final = "application/vnd.amazon.eventstream"
"""The exact content type of a Bedrock stream; Claude Code ends the turn on any other."""
SERVER_SENT: Final = "text/event-stream"
