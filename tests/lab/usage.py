"""Token counts as the upstream reported them: what a ledger must agree with."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Self


@dataclass(frozen=True)
class Usage:
    """The counts of one call by class, named as in the gateway's audit line."""

    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_write_5m: int = 0
    cache_write_1h: int = 0

    @classmethod
    def read(cls, usage: dict[str, Any]) -> Self:
        """From an Anthropic `usage` object. Without the split by lifetime, a cache write is one of five minutes."""
        split = usage.get("cache_creation") or {}
        written = usage.get("cache_creation_input_tokens") or 0
        long = split.get("ephemeral_1h_input_tokens", 0)
        return cls(
            input=usage.get("input_tokens") or 0,
            output=usage.get("output_tokens") or 0,
            cache_read=usage.get("cache_read_input_tokens") or 0,
            cache_write_5m=split.get("ephemeral_5m_input_tokens", written - long),
            cache_write_1h=long,
        )

    def anthropic(self) -> dict[str, Any]:
        """The Anthropic `usage` object."""
        return {
            "input_tokens": self.input,
            "output_tokens": self.output,
            "cache_read_input_tokens": self.cache_read,
            "cache_creation_input_tokens": self.cache_write_5m + self.cache_write_1h,
            "cache_creation": {
                "ephemeral_5m_input_tokens": self.cache_write_5m,
                "ephemeral_1h_input_tokens": self.cache_write_1h,
            },
        }


class UsageMeter:
    """Adds up a stream: `message_delta` overrides what `message_start` said, member by member."""

    def __init__(self) -> None:
        self._usage: dict[str, Any] = {}

    def see(self, event: dict[str, Any]) -> None:
        if event.get("type") == "message_start":
            self._usage |= event["message"].get("usage") or {}
        elif event.get("type") == "message_delta":
            self._usage |= event.get("usage") or {}

    @property
    def usage(self) -> Usage | None:
        return Usage.read(self._usage) if self._usage else None


def of_message(body: bytes) -> Usage | None:
    """The usage of a complete (not streamed) answer; None when it has none, as an error has."""
    try:
        usage = json.loads(body).get("usage")
    except (ValueError, AttributeError):
        return None
    return Usage.read(usage) if usage else None
