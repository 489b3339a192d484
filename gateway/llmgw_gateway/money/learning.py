"""What calls have turned out to be, so that the next hold is close to the bill. Pure: the time is an argument.

A coding agent sends nearly the same prompt again and again, billed mostly as cache reads, and asks for far more output
than it takes. So three things are learned: bytes per token of each model, how a session's last prompt was billed (while
the provider's cache remembers it), and the ninth decile of recent answers. All of it for each person: nobody's holds
are moved by what another one sends. Everything is bounded.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from llmgw_gateway.call import Usage
from llmgw_gateway.money.estimate import BYTES_PER_TOKEN, EXPECTED_OUTPUT

if TYPE_CHECKING:
    from collections.abc import Hashable

CACHE_SECONDS = 300
"""How long a provider keeps a five-minute cache entry after its last use."""
RECENT = 40
FEWEST = 5
"""With fewer answers than this, the general expectation stands."""
MOST_KEPT = 20_000
WEIGHT = 0.1
"""Of a new observation in a running average."""
V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Shares:
    """How a prompt was billed: the share of each class. They sum to 1."""

    input: float = 1.0
    cache_read: float = 0.0
    cache_write_5m: float = 0.0
    cache_write_1h: float = 0.0


class _Kept(OrderedDict["Hashable", V], Generic[V]):
    """A dictionary that forgets its oldest entries."""

    def keep(self, key: Hashable, value: V) -> None:
        self[key] = value
        self.move_to_end(key)
        if len(self) > MOST_KEPT:
            self.popitem(last=False)


class Learned:
    """What one process has seen. A new process starts from the general expectation and learns within minutes."""

    def __init__(self) -> None:
        self._bytes_per_token: _Kept[float] = _Kept()
        self._outputs: _Kept[deque[int]] = _Kept()
        self._sessions: _Kept[tuple[Shares, float]] = _Kept()

    def observe(self, *, model: str, person: str, session: str, size: int, usage: Usage, now: float) -> None:
        """Learn from a call whose usage is completely known. `size` is its body in bytes; `session` may be empty."""
        prompt = usage.prompt
        if prompt > 0 and size > 0:
            before = self._bytes_per_token.get((person, model), float(BYTES_PER_TOKEN))
            # Text has three to five bytes a token; pictures lie far out on either side.
            ratio = min(max(size / prompt, 1.0), 50.0)
            self._bytes_per_token.keep((person, model), before + WEIGHT * (ratio - before))
            if session:
                shares = Shares(
                    usage.input / prompt,
                    usage.cache_read / prompt,
                    usage.cache_write_5m / prompt,
                    usage.cache_write_1h / prompt,
                )
                self._sessions.keep((person, session, model), (shares, now))
        outputs = self._outputs.get((person, model)) or deque(maxlen=RECENT)
        outputs.append(usage.output)
        self._outputs.keep((person, model), outputs)

    def expect(
        self, *, model: str, person: str, session: str, size: int, most_prompt: int, most_output: int, now: float
    ) -> Usage:
        """The usage to expect of a call that is about to be made: no more than the model takes and may give."""
        prompt = size / self._bytes_per_token.get((person, model), float(BYTES_PER_TOKEN))
        prompt = min(prompt, most_prompt)
        shares, seen = self._sessions.get((person, session, model), (Shares(), now))
        if now - seen > CACHE_SECONDS:
            # The cache has forgotten: what was read from it has to be written again.
            shares = Shares(shares.input, 0.0, shares.cache_read + shares.cache_write_5m, shares.cache_write_1h)
        return Usage(
            input=round(prompt * shares.input),
            output=min(most_output, self._output(person, model)),
            cache_read=round(prompt * shares.cache_read),
            cache_write_5m=round(prompt * shares.cache_write_5m),
            cache_write_1h=round(prompt * shares.cache_write_1h),
        )

    def _output(self, person: str, model: str) -> int:
        recent = self._outputs.get((person, model))
        if recent is None or len(recent) < FEWEST:
            return EXPECTED_OUTPUT
        return max(1, sorted(recent)[(len(recent) * 9) // 10])
