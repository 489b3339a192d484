"""Reading a request: what is judged is what is sent, and what is not judged is not touched."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llmgw_gateway.dialects import anthropic, bedrock, messages
from llmgw_gateway.errors import GatewayError
from llmgw_gateway.providers import bridge
from llmgw_wire.errors import ErrorCode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from llmgw_gateway.call import Call

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def malformed(read: Callable[[], object]) -> str:
    with pytest.raises(GatewayError) as caught:
        read()
    assert caught.value.code is ErrorCode.REQUEST_MALFORMED
    return caught.value.message


def by_bedrock(body: bytes) -> Call:
    return bedrock.read(body, "m", stream=False)


def by_anthropic(body: bytes) -> Call:
    return anthropic.read(body, "")


@pytest.mark.parametrize(
    ("written", "most"),
    [("1", 1), ("32000", 32_000), ("10000000", 10_000_000), (" 7 ", 7)],
)
def test_a_cap_on_the_output_is_read(written: str, most: int) -> None:
    assert by_bedrock(b'{"max_tokens":%s}' % written.encode()).max_tokens == most


def test_no_cap_is_none() -> None:
    assert by_bedrock(b"{}").max_tokens == 0


@pytest.mark.parametrize(
    "written",
    ["0", "-1", "10000001", "1.5", "1e400", "true", "null", '"1"', "[1]", "{}", "9" * 30, "9" * 5000, "-0", "0x10"],
)
def test_a_cap_that_is_no_positive_whole_number_is_refused(written: str) -> None:
    # An unreadable cap must never mean "no cap", nor the default of someone else.
    body = b'{"model":"m","max_tokens":%s}' % written.encode()
    for read in (by_bedrock, by_anthropic):
        malformed(lambda read=read: read(body))  # type: ignore[misc]


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b'"text"', b"{", b'{"a":1}x', b"{'a':1}", b"\xff", b'{"a":NaN}'])
def test_what_is_no_json_object_is_refused(body: bytes) -> None:
    for read in (by_bedrock, by_anthropic):
        assert "JSON" in malformed(lambda read=read: read(body))  # type: ignore[misc]


@given(st.binary(max_size=60) | values.map(lambda value: json.dumps(value).encode()))
@example(b'{"\xff":1}')
@example(b'{"model":"\xff"}')
@example(b'{"model":"m","max_tokens":\xff}')
@example(b'{"model":"m","stream":"\xff"}')
@example(b'{"a":' + b"[" * 100_000)
@example(b'{"model":"\\ud800"}')
def test_a_body_of_any_bytes_is_read_or_malformed_and_nothing_worse(body: bytes) -> None:
    for read in (by_bedrock, by_anthropic):
        code = None
        try:
            bridge.invoke_body(read(body), "m")
        except GatewayError as error:
            code = error.code
        assert code in {None, ErrorCode.REQUEST_MALFORMED}


@pytest.mark.parametrize(
    ("body", "name"),
    [
        (b"{}", "model"),
        (b'{"model":null}', "model"),
        (b'{"model":5}', "model"),
        (b'{"model":["m"]}', "model"),
        (b'{"model":"m","stream":"yes"}', "stream"),
        (b'{"model":"m","stream":1}', "stream"),
        (b'{"model":"m","max_tokens":"5"}', "max_tokens"),
    ],
)
def test_a_member_of_the_wrong_kind_is_named(body: bytes, name: str) -> None:
    assert f"'{name}'" in malformed(lambda: by_anthropic(body))


def test_a_request_is_read() -> None:
    body = b'{"model":"m","max_tokens":5,"stream":true,"messages":[]}'
    call = anthropic.read(body, " one, two ,,three")
    assert (call.model, call.max_tokens, call.stream, call.size) == ("m", 5, True, len(body))
    assert call.betas == ("one", "two", "three")
    assert anthropic.read(b'{"model":"m","stream":null}', "").stream is False
    assert anthropic.read(b'{"model":"m"}', "").betas == ()


# --- what is sent is what was judged ---------------------------------------------------------------------------------

DOUBLES = [
    b'{"max_tokens":1,"max_tokens":32000}',
    b'{"max_tokens":32000,"max_tokens":1}',
    b'{"max_tokens":1,"max\\u005ftokens":32000}',
    b'{"\\u006dax_tokens":32000,"max_tokens":1}',
    b'{"max_tokens":1,"messages":[],"max_tokens":7,"max_tokens":32000}',
]


@pytest.mark.parametrize("body", DOUBLES)
def test_a_cap_named_twice_shows_the_provider_no_other_value_than_us(body: bytes) -> None:
    call = by_bedrock(body)
    names = [name for name, _ in pairs(bridge.invoke_body(call, "m")) if name == "max_tokens"]
    sent = dict(pairs(bridge.invoke_body(call, "m")))
    assert (names, sent["max_tokens"]) == (["max_tokens"], call.max_tokens)


@given(
    st.lists(
        st.tuples(st.sampled_from(["max_tokens", "stream", "model"]), st.booleans(), st.integers(1, 9)), max_size=6
    )
)
def test_no_spelling_of_a_double_member_gets_past(members: list[tuple[str, bool, int]]) -> None:
    def spelled(name: str, escaped: bool) -> str:  # noqa: FBT001 -- drawn
        return "".join(f"\\u{ord(c):04x}" for c in name) if escaped else name

    body = "{" + ",".join(f'"{spelled(name, escaped)}":{value}' for name, escaped, value in members) + "}"
    call = by_bedrock(body.encode())
    sent = pairs(bridge.invoke_body(call, "m"))
    assert len({name for name, _ in sent}) == len(sent)
    assert dict(sent).get("max_tokens", 0) == call.max_tokens


def pairs(body: bytes) -> list[tuple[str, Any]]:
    """The top-level members of a body in their order, doubles among them."""
    found: list[list[tuple[str, Any]]] = []

    def note(members: list[tuple[str, Any]]) -> dict[str, Any]:
        found.append(members)
        return dict(members)

    json.loads(body, object_pairs_hook=note)
    return found[-1]


spaces = st.text(" \t\r\n", max_size=3)


@st.composite
def written(draw: st.DrawFn) -> bytes:
    """A JSON value in any spelling: spaces, escapes, numbers that a parser would write in another way."""
    text = json.dumps(draw(values), ensure_ascii=draw(st.booleans()), indent=draw(st.none() | st.integers(0, 2)))
    odd = st.sampled_from(["1.0", "1e2", "-0", "12345678901234567890123", '"\\u00e9\\/"', '{"a":1,"a":2}', "1.10"])
    return (draw(st.just(text) | odd)).encode()


@given(st.dictionaries(st.text(max_size=8), written(), max_size=5), spaces)
def test_members_that_are_not_judged_go_upstream_byte_for_byte_and_in_their_order(
    members: dict[str, bytes], space: str
) -> None:
    members = {f"x{name}": value for name, value in members.items()}
    gap = space.encode()
    parts = [json.dumps(name).encode() + gap + b":" + gap + value for name, value in members.items()]
    call = by_bedrock(gap + b"{" + gap + (gap + b"," + gap).join(parts) + gap + b"}" + gap)
    sent = bridge.invoke_body(call, "m")
    position = 0
    for value in members.values():
        position = sent.index(value, position) + len(value)
    assert list(messages.members_of(sent)) == list(members)
    assert [bytes(raw) for raw in messages.members_of(sent).values()] == list(members.values())


def test_a_released_call_keeps_nothing_of_the_prompt() -> None:
    call = by_anthropic(b'{"model":"m","messages":["secret"]}')
    call.release()
    assert call.body is None
    assert call.members is None


def spellings(word: str) -> list[str]:
    """A word as JSON may write it: plain, one letter escaped, all of them, in either case of the digits."""
    escaped = [f"\\u{ord(letter):04x}" for letter in word]
    one = [word[:at] + escaped[at] + word[at + 1 :] for at in range(len(word))]
    return [word, *one, "".join(escaped), "".join(escaped).upper().replace("\\U", "\\u")]


def spelled_members(name: str, value: str) -> Iterator[bytes]:
    for spelled in spellings(name):
        for other in spellings(value):
            for gap in ("", " ", "\r\n\t "):
                yield f'"{spelled}"{gap}:{gap}"{other}"'.encode()


@pytest.mark.parametrize("value", ["image", "document"])
def test_a_picture_or_document_is_seen_in_every_spelling(value: str) -> None:
    # Its tokens are not bounded by its bytes: unseen, its ceiling would be far below what it can cost.
    for member in spelled_members("type", value):
        body = b'{"model":"m","messages":[{"content":[{"source":{},%s}]}]}' % member
        assert dict(json.loads(body)["messages"][0]["content"][0])["type"] == value
        assert by_bedrock(body).media, body
        assert by_anthropic(body).media, body


def test_a_wish_for_a_cache_of_an_hour_is_seen_in_every_spelling() -> None:
    for member in spelled_members("ttl", "1h"):
        body = b'{"model":"m","system":[{"cache_control":{"type":"ephemeral",%s}}]}' % member
        assert by_bedrock(body).long_cache, body
        assert by_anthropic(body).long_cache, body


@pytest.mark.parametrize(
    "block",
    [
        {"type": "ephemeral", "ttl": "5m"},
        {"type": "ephemeral"},
        {"type": "text", "text": '"type": "image", "ttl": "1h"'},
        {"type": "text", "text": 'é \u0001 "type":"document"'},
        {"type": "text", "text": "\\u0022type\\u0022:\\u0022image\\u0022"},
        {"text": "image", "type": "text"},
        {"type": "imagery"},
    ],
)
@pytest.mark.parametrize("ascii_only", [True, False])
def test_what_only_talks_of_them_is_neither(block: dict[str, str], ascii_only: bool) -> None:  # noqa: FBT001 -- drawn
    body = json.dumps({"model": "m", "messages": [{"content": [block]}]}, ensure_ascii=ascii_only).encode()
    call = by_anthropic(body)
    assert (call.media, call.long_cache) == (False, False)


COMPACTIONS = [
    b'{"edits":[{"type":"compact_20260112"}]}',
    b'{"edits":[{"type":"comp\\u0061ct_20260112","trigger":{"type":"input_tokens","value":50000}}]}',
    b'{"edits":[{"type":"clear_tool_uses_20250919"},{"type":"compact_20260904"}]}',
]


@pytest.mark.parametrize("edits", COMPACTIONS)
def test_a_compaction_by_the_provider_is_refused_in_every_spelling(edits: bytes) -> None:
    """It passes over the context as often as it likes, and bills each time: no ceiling would hold."""
    assert "compact in the client" in malformed(lambda: by_bedrock(b'{"max_tokens":5,"context_management":%s}' % edits))
    body = b'{"model":"m","max_tokens":5,"messages":[],"context_management":%s}' % edits
    for betas in ("", "compact-2026-01-12", "compact-2026-09-04"):
        sent = bridge.invoke_body(anthropic.read(body, betas), "claude-opus-5-5")
        assert b"context_management" not in sent
        assert b"compact" not in sent


def test_what_only_clears_the_context_or_talks_of_compaction_is_none() -> None:
    edits = b'{"edits":[{"type":"clear_tool_uses_20250919"}]}'
    assert by_bedrock(b'{"context_management":%s}' % edits).members is not None
    assert by_bedrock(b'{"messages":[{"role":"user","content":"a compact car"}]}').members is not None
