"""The scripted cloud's answers in the format of Converse, which is not Anthropic's."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tests.lab import aws_frames

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.lab.scripted import Call
    from tests.lab.usage import Usage


def usage_of(usage: Usage) -> dict[str, Any]:
    """Converse's `usage`: the split by lifetime stands beside the sum of what was written to the cache."""
    written = usage.cache_write_5m + usage.cache_write_1h
    split = [
        {"ttl": ttl, "inputTokens": count}
        for ttl, count in (("5m", usage.cache_write_5m), ("1h", usage.cache_write_1h))
        if count
    ]
    return {
        "inputTokens": usage.input,
        "outputTokens": usage.output,
        "totalTokens": usage.input + usage.output + usage.cache_read + written,
        "cacheReadInputTokens": usage.cache_read,
        "cacheWriteInputTokens": written,
        "cacheDetails": split,
    }


def answer(call: Call) -> dict[str, Any]:
    """A whole answer."""
    said = call.answer
    content: list[dict[str, Any]] = [{"text": said.text}] if said.text else []
    if said.tool:
        content.append({"toolUse": _tool(call) | {"input": said.tool_input}})
    document = {
        "output": {"message": {"role": "assistant", "content": content}},
        "stopReason": _reason(call),
        "metrics": {"latencyMs": 100},
    }
    return document | ({"usage": usage_of(said.usage)} if said.usage else {})


def frames(call: Call) -> Iterator[bytes]:
    """The frames of a streamed answer: each is an event of its own, where Invoke has chunks."""
    return (aws_frames.event(kind, payload) for kind, payload in events(call))


def events(call: Call) -> list[tuple[str, dict[str, Any]]]:
    """The events of a streamed answer, each with its type."""
    return list(_events(call))


def _events(call: Call) -> Iterator[tuple[str, dict[str, Any]]]:
    said = call.answer
    yield "messageStart", {"role": "assistant"}
    index = 0
    if said.text:
        for piece in _pieces(said.text, said.pieces):
            yield "contentBlockDelta", {"contentBlockIndex": index, "delta": {"text": piece}}
        yield "contentBlockStop", {"contentBlockIndex": index}
        index += 1
    if said.tool:
        yield "contentBlockStart", {"contentBlockIndex": index, "start": {"toolUse": _tool(call)}}
        for piece in _pieces(json.dumps(said.tool_input), said.pieces):
            yield "contentBlockDelta", {"contentBlockIndex": index, "delta": {"toolUse": {"input": piece}}}
        yield "contentBlockStop", {"contentBlockIndex": index}
    yield "messageStop", {"stopReason": _reason(call)}
    metrics: dict[str, Any] = {"metrics": {"latencyMs": 100}}
    yield "metadata", metrics | ({"usage": usage_of(said.usage)} if said.usage else {})


def _tool(call: Call) -> dict[str, Any]:
    return {"toolUseId": f"tooluse_{call.number:020d}", "name": call.answer.tool}


def _reason(call: Call) -> str:
    if call.guarding.blocked is not None:
        return "guardrail_intervened"
    return "tool_use" if call.answer.tool else "end_turn"


def _pieces(text: str, count: int) -> list[str]:
    size = max(1, -(-len(text) // count))
    return [text[start : start + size] for start in range(0, len(text), size)]
