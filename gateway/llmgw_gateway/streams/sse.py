"""Server-sent events as the Anthropic dialect writes them: an `event:` line, a `data:` line, a blank line."""

from __future__ import annotations

PING = b'event: ping\ndata: {"type": "ping"}\n\n'


def encode(kind: str, data: bytes) -> bytes:
    """One event. `data` is JSON without line breaks, as every upstream sends it; one that has some is folded."""
    if b"\n" in data or b"\r" in data:
        # In JSON a line break can only stand between members: inside a string it is escaped.
        data = data.replace(b"\r", b" ").replace(b"\n", b" ")
    return b"event: " + kind.encode() + b"\ndata: " + data + b"\n\n"
