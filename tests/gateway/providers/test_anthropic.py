"""What is sent to an upstream in the Anthropic format: members as they were, nothing that costs more than tokens."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from llmgw_gateway.dialects import anthropic, bedrock, openai_request
from llmgw_gateway.errors import ConfigurationError, GatewayError
from llmgw_gateway.providers import bridge, bridging
from llmgw_gateway.providers.credentials import ApiKey
from llmgw_wire.errors import ErrorCode

if TYPE_CHECKING:
    from pathlib import Path

MODEL, NAMED = "claude-sonnet-5-5", "claude-sonnet-5-5-20260928"
SAY = [{"role": "user", "content": "hi"}]


def sent(body: dict[str, Any] | str, betas: str = "", known: bridging.Table | None = None) -> tuple[bytes, str]:
    written = body if isinstance(body, str) else json.dumps(body)
    return bridge.message(anthropic.read(written.encode(), betas), MODEL, NAMED, known)


def test_every_member_keeps_its_bytes_and_its_place() -> None:
    said = '[{"role":"user", "content":"\\u00fc"}]'
    body = f'{{"max_tokens":9,"temperature":1.50e0,"model":"x","messages":{said},"new":{{"b":1,"a":2}}}}'
    assert sent(body)[0].decode() == body.replace('"x"', f'"{NAMED}"')


def test_of_a_member_that_stands_there_twice_one_is_sent_that_was_judged() -> None:
    body = '{"model":"a","max_tokens":9,"messages":[],"max_tokens":99999}'
    call = anthropic.read(body.encode(), "")
    assert json.loads(bridge.message(call, MODEL, NAMED)[0])["max_tokens"] == call.max_tokens
    assert bridge.message(call, MODEL, NAMED)[0].count(b"max_tokens") == 1


def test_a_lowered_cap_is_what_is_sent() -> None:
    call = anthropic.read(json.dumps({"model": "x", "max_tokens": 99, "messages": SAY}).encode(), "")
    call.clamp(7)
    assert json.loads(bridge.message(call, MODEL, NAMED)[0])["max_tokens"] == 7


@pytest.mark.parametrize(
    ("betas", "passed"),
    [
        ("a-new-one-2027-01-01", "a-new-one-2027-01-01"),
        ("a,a , b,", "a,b"),
        ("fast-mode-2026-02-01,mcp-client-2025-11-20,oauth-2025-04-20", ""),
        ("compact-2099-01-01", ""),
        ("x\r\nx-api-key: y", ""),
        ("ü, " + "x" * 200, ""),
    ],
)
def test_betas_go_on_but_those_that_cost_more_or_are_no_names(betas: str, passed: str) -> None:
    assert sent({"model": "x", "max_tokens": 9, "messages": SAY}, betas)[1] == passed


def test_a_beta_goes_with_its_member() -> None:
    body = {"model": "x", "max_tokens": 9, "messages": SAY, "context_management": {"edits": []}}
    assert "context_management" in json.loads(sent(body, "context-management-2025-06-27")[0])
    assert "context_management" not in json.loads(sent(body, "compact-2026-01-12")[0])


@pytest.mark.parametrize("kind", ["custom", "bash_20250124", "text_editor_20250728", "memory_20250818", None])
def test_tools_that_the_client_runs_go_on(kind: str | None) -> None:
    tool = {"name": "t", "input_schema": {}} | ({"type": kind} if kind else {})
    assert json.loads(sent({"model": "x", "max_tokens": 9, "messages": SAY, "tools": [tool]})[0])["tools"] == [tool]


@pytest.mark.parametrize(
    "tools", ['[{"type":"web_search_20250305"}]', '[{"type":"web_se\\u0061rch_20250305"}]', '"x"', "[1]"]
)
def test_tools_that_the_provider_runs_are_refused_however_they_are_spelled(tools: str) -> None:
    with pytest.raises(GatewayError) as caught:
        sent(f'{{"model":"x","max_tokens":9,"messages":[],"tools":{tools}}}')
    assert caught.value.code is ErrorCode.REQUEST_MALFORMED


def test_a_row_of_the_operator_allows_a_tool() -> None:
    known = bridging.extended(bridging.table(), '[[tools]]\nname = "web_search_"\n', "x", None)
    tools = [{"type": "web_search_20250305", "name": "web_search"}]
    assert b"web_search" in sent({"model": "x", "max_tokens": 9, "messages": SAY, "tools": tools}, known=known)[0]


def test_what_is_null_asks_for_nothing() -> None:
    assert sent({"model": "x", "max_tokens": 9, "messages": SAY, "container": None})


def test_bedrocks_envelope_becomes_anthropics() -> None:
    body = {"anthropic_version": "bedrock-2023-05-31", "anthropic_beta": ["b-1"], "max_tokens": 9, "messages": SAY}
    call = bedrock.read(json.dumps(body).encode(), MODEL, stream=True)
    written, betas = bridge.message(call, MODEL, NAMED)
    assert json.loads(written) == {"model": NAMED, "max_tokens": 9, "messages": SAY, "stream": True}
    assert betas == "b-1"
    broken = bedrock.read(json.dumps(body | {"anthropic_beta": "b"}).encode(), MODEL, stream=False)
    with pytest.raises(GatewayError, match="anthropic_beta"):
        bridge.message(broken, MODEL, NAMED)


def test_openais_request_becomes_one_of_anthropic() -> None:
    chat = openai_request.read(json.dumps({"model": MODEL, "messages": SAY, "stream": True}).encode())
    chat.call.clamp(5)
    document = json.loads(bridge.message(chat.call, MODEL, NAMED)[0])
    assert (document["model"], document["stream"], document["max_tokens"]) == (NAMED, True, 5)


async def test_a_key_is_read_again_and_a_bad_one_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "key"
    with pytest.raises(ConfigurationError):
        await ApiKey(path).start()
    path.touch(mode=0o600)
    path.write_text("first\n", encoding="ascii")
    key = ApiKey(path)
    await key.start()
    assert key.current().reveal() == "first"
    for bad in ("", "two words", "line\r\nx-other: 1", "ü"):
        path.write_text(bad, encoding="utf-8")
        await key._refresh()
        assert key.current().reveal() == "first"
    path.chmod(0o644)
    path.write_text("open-to-all", encoding="ascii")
    await key._refresh()
    assert key.current().reveal() == "first"
    path.chmod(0o600)
    await key._refresh()
    assert key.current().reveal() == "open-to-all"
    assert "open-to-all" not in repr(key.current())
    key.stop()
