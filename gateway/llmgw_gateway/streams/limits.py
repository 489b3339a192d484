"""How long and how much of a stream: each limit is there because somebody does not go on. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from llmgw_gateway.sections.upstream import Bedrock, Streams

MOST_ANSWER: Final = 64 * 1024 * 1024
"""Bytes of the largest answer that is read."""
Due = Literal["open", "ping", "first_content", "idle"]


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of every stream. Times are in seconds."""

    gate_seconds: float = 15
    """After dispatch; so long the status line waits for the first event: a failure before can still be a status."""
    first_content_seconds: float = 300
    """After dispatch; a provider that has said nothing by then is given up."""
    idle_seconds: float = 290
    """Silence of a provider that has begun: below what clients bear that cannot be sent pings."""
    idle_with_pings_seconds: float = 600
    """The same where pings keep the client waiting. A provider that is dead must not be kept alive by them."""
    ping_seconds: float = 15
    """Silence towards the client after which it gets a ping, where its dialect has one."""
    stall_seconds: float = 60
    """A client that takes no byte for so long is gone."""
    drain_seconds: float = 300
    """So long an answer is read without its client."""
    drain_bytes: int = MOST_ANSWER
    most_drains: int = 256
    """Drains that run without a client: beyond it, and beyond the other two, an answer is charged as unknown."""

    @classmethod
    def of(cls, bedrock: Bedrock, streams: Streams) -> Limits:
        """The limits of a configuration."""
        return cls(
            gate_seconds=streams.gate_seconds,
            first_content_seconds=bedrock.first_content_seconds,
            idle_seconds=bedrock.idle_seconds,
            idle_with_pings_seconds=bedrock.idle_with_pings_seconds,
            ping_seconds=streams.ping_seconds,
            stall_seconds=streams.stall_seconds,
            drain_seconds=streams.drain_seconds,
            most_drains=streams.most_drains,
        )


class Timers:
    """What is due next on one stream. All times are on one monotonic clock, which the caller reads."""

    __slots__ = ("_dispatched_at", "_limits", "_pings", "begun", "opened", "waiting_since", "written_at")

    def __init__(self, limits: Limits, dispatched_at: float, now: float, *, pings: bool) -> None:
        self._limits = limits
        self._dispatched_at = dispatched_at
        self._pings = pings
        self.opened = False
        """Whether the head is out."""
        self.begun = False
        """Whether the first event is here."""
        self.waiting_since: float | None = now
        """Since when the provider is waited for; None while its last bytes are being written."""
        self.written_at = now
        """When the client was last sent something."""

    def next(self) -> tuple[float, Due] | None:
        """The moment at which something is due, and what; None while nothing is."""
        limits = self._limits
        due: list[tuple[float, Due]] = []
        if self.waiting_since is not None:
            # What the provider has to do comes first: at the same moment a dead one is given up, not pinged.
            if not self.begun:
                due.append((self._dispatched_at + limits.first_content_seconds, "first_content"))
            else:
                due.append((self.waiting_since + self._idle, "idle"))
        if not self.opened:
            due.append((self._dispatched_at + limits.gate_seconds, "open"))
        elif self._pings:
            due.append((self.written_at + limits.ping_seconds, "ping"))
        return min(due, key=lambda each: each[0], default=None)

    @property
    def _idle(self) -> float:
        return self._limits.idle_with_pings_seconds if self._pings else self._limits.idle_seconds
