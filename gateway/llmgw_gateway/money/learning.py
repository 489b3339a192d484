"""What calls have turned out to be, so that the next hold is close to the bill. Pure: the time is an argument.

A coding agent sends nearly the same prompt again and again, billed mostly as cache reads, and asks for far more output
than it takes. So three things are learned: bytes per token of each model, how a session's last prompt was billed (while
the provider's cache remembers it), and the ninth decile of recent answers. All of it for each person: nobody's holds
are moved by what another one sends. Everything is bounded.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from llmgw_gateway.call import Usage
from llmgw_gateway.money.estimate import BYTES_PER_TOKEN, EXPECTED_OUTPUT

if TYPE_CHECKING:
    from collections.abc import Hashable

CACHE_SECONDS: Final = 300
"""How long a provider keeps a five-minute cache entry after its last use."""
RECENT: Final = 40
FEWEST: Final = 5
"""With fewer answers than this, the general expectation stands."""
MOST_KEPT: Final = 20_000
WEIGHT: Final = 0.1
"""Of a new observation in a running average."""
V = TypeVar("V")


class _Habit:
    """What a person's calls of one model were like."""

    __slots__ = ("bytes_per_token", "ordered", "output", "outputs")

    def __init__(self, bytes_per_token: float, output: int) -> None:
        self.bytes_per_token = bytes_per_token
        self.outputs: deque[int] = deque()
        """The most recent ones."""
        self.ordered: list[int] = []
        """The same by size: to keep it so is cheaper than to sort them for each call."""
        self.output = output
        """To expect of the next call. Kept, because each call asks for it twice."""

    def answered(self, output: int) -> None:
        """One more answer."""
        if len(self.outputs) == RECENT:
            del self.ordered[bisect_left(self.ordered, self.outputs.popleft())]
        self.outputs.append(output)
        insort(self.ordered, output)
        count = len(self.ordered)
        if count >= FEWEST:
            self.output = max(1, self.ordered[(count * 9) // 10])


class _Bill:
    """How a session's last prompt was billed."""

    __slots__ = ("at", "prompt", "usage")

    def __init__(self, usage: Usage, prompt: int, at: float) -> None:
        self.usage = usage
        self.prompt = prompt
        """All of its tokens; more than none."""
        self.at = at


NOBODY: Final = _Habit(float(BYTES_PER_TOKEN), EXPECTED_OUTPUT)
"""What is expected of whom nothing is known."""


class _Kept(Generic[V]):
    """A dictionary that forgets its oldest entries."""

    def __init__(self) -> None:
        self._entries: OrderedDict[Hashable, V] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Hashable) -> V | None:
        return self._entries.get(key)

    def keep(self, key: Hashable, value: V) -> None:
        """The newest, whether it was known or not."""
        self._entries[key] = value
        self._entries.move_to_end(key)
        if len(self._entries) > MOST_KEPT:
            self._entries.popitem(last=False)


class Learned:
    """What one process has seen. A new process starts from the general expectation and learns within minutes."""

    def __init__(self) -> None:
        self._habits: _Kept[_Habit] = _Kept()
        self._sessions: _Kept[_Bill] = _Kept()

    def observe(self, *, model: str, person: str, session: str, size: int, usage: Usage, now: float) -> None:
        """Learn from a call whose usage is completely known. `size` is its body in bytes; `session` may be empty."""
        who = (person, model)
        habit = self._habits.get(who)
        if habit is None:
            habit = _Habit(NOBODY.bytes_per_token, NOBODY.output)
        self._habits.keep(who, habit)
        habit.answered(usage.output)
        prompt = usage.prompt
        if prompt > 0 and size > 0:
            # Text has three to five bytes a token; pictures lie far out on either side.
            ratio = min(max(size / prompt, 1.0), 50.0)
            habit.bytes_per_token += WEIGHT * (ratio - habit.bytes_per_token)
            if session:
                self._sessions.keep((person, session, model), _Bill(usage, prompt, now))

    def expect(
        self, *, model: str, person: str, session: str, size: int, most_prompt: int, most_output: int, now: float
    ) -> Usage:
        """The usage to expect of a call that is about to be made: no more than the model takes and may give."""
        habit = self._habits.get((person, model)) or NOBODY
        prompt = min(int(size / habit.bytes_per_token), most_prompt)
        output = min(most_output, habit.output)
        last = self._sessions.get((person, session, model))
        if last is None:
            return Usage(prompt, output)
        billed, whole = last.usage, last.prompt
        read, written = billed.cache_read, billed.cache_write_5m
        if now - last.at > CACHE_SECONDS:
            # The cache has forgotten: what was read from it has to be written again.
            read, written = 0, read + written
        return Usage(
            billed.input * prompt // whole,
            output,
            read * prompt // whole,
            written * prompt // whole,
            billed.cache_write_1h * prompt // whole,
        )
