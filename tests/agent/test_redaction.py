"""What a person shows to others holds no credential."""

from __future__ import annotations

import pytest

from llmgw_agent.redaction import redacted

JWT = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhZGEifQ.c2lnbmF0dXJl"


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        (f"Authorization: Bearer {JWT}", JWT),
        (f"said {JWT}, and more", JWT),
        ("authorization: bearer opaque-token-1", "opaque-token-1"),
        ('"apiKey": "0123456789"', "0123456789"),
        ("export OPENAI_API_KEY=0123456789", "0123456789"),
        ("aws_session_token = llmgw-local-abc", "llmgw-local-abc"),
        ("llmgw-local-abc_DEF", "abc_DEF"),
        ("AKIAIOSFODNN7EXAMPLE", "AKIAIOSFODNN7"),
        ("HTTPS_PROXY=http://me:hunter22@proxy:3128", "hunter22"),
        ("sk-ant-api03-abcdefghijkl", "abcdefghijkl"),
        ("-----BEGIN EC PRIVATE KEY-----\nMHc\n-----END EC PRIVATE KEY-----", "MHc"),
        ("password: correct-horse", "correct-horse"),
    ],
)
def test_a_credential_is_hidden_by_its_name_or_its_shape(text: str, secret: str) -> None:
    assert secret not in redacted(text)
    assert "[hidden]" in redacted(text)


@pytest.mark.parametrize(
    "text",
    [
        '"apiKeyHelper": "/usr/local/bin/llmgw-token"',
        '"CLAUDE_CODE_API_KEY_HELPER_TTL_MS": "240000"',
        '"ANTHROPIC_AUTH_TOKEN": ""',
        "token_endpoint=https://llm.corp.example/oauth/token",
        "new gateway token, 600 s",
        "http://127.0.0.1:4711/v1",
    ],
)
def test_what_is_none_stays(text: str) -> None:
    assert redacted(text) == text
