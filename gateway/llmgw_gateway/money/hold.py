"""What is kept for one attempt while it runs, and what it is charged in the end."""

from __future__ import annotations

import string
from typing import TYPE_CHECKING, Final

from llmgw_gateway.call import Outcome, Usage
from llmgw_gateway.money import items
from llmgw_gateway.money.amounts import NOTHING
from llmgw_gateway.money.estimate import charged

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from llmgw_gateway.money.amounts import Amounts
    from llmgw_gateway.money.prices import Tariff

LONGEST_NOTE: Final = 64
_NOTE: Final = frozenset(string.ascii_letters + string.digits + "_")


class Hold:
    """What is kept for one attempt, and what became of it."""

    __slots__ = (
        "amounts",
        "attempt_id",
        "ceiling",
        "clamped_by",
        "max_tokens",
        "model",
        "outcome",
        "person",
        "remaining",
        "renewed",
        "session",
        "size",
        "tariff",
    )

    def __init__(
        self,
        attempt_id: str,
        admitted: items.Admitted,
        tariff: Tariff,
        *,
        model: str,
        person: str,
        session: str,
        size: int,
        renewed: float,
    ) -> None:
        self.attempt_id = attempt_id
        self.remaining = admitted.remaining
        """Micro-USD left in the tightest budget after this hold; None without a budget in money."""
        self.amounts = admitted.hold
        """Held in each unit; grows while the attempt runs."""
        self.ceiling = admitted.ceiling
        """The most that it can come to."""
        self.max_tokens = admitted.max_tokens
        """The most output that was admitted."""
        self.clamped_by = admitted.clamped_by
        """The budget for which that is less than was asked for; empty: none."""
        self.tariff = tariff
        """Of the day on which the attempt was admitted."""
        self.model = model
        self.person = person
        self.session = session
        self.size = size
        self.renewed = renewed
        """When the lease was last extended, on the monotonic clock."""
        self.outcome = Outcome()

    def cost(self, usage: Usage) -> int:
        """What `usage` costs in micro-USD, by the price of the day the attempt was admitted."""
        return self.tariff.price(usage.prompt).cost(usage)

    def seen(self) -> Amounts:
        """What is certain so far. A stream tells its output at the end: until then each piece is at least a token."""
        usage = self.outcome.usage
        if self.outcome.pieces > usage.output:
            usage = Usage(
                usage.input, self.outcome.pieces, usage.cache_read, usage.cache_write_5m, usage.cache_write_1h
            )
        return charged(self.tariff.price(usage.prompt), usage)

    def close(self, now: int) -> items.Settlement:
        """Decide what the attempt is charged. Unknown usage is never zero; what was never sent costs nothing."""
        outcome = self.outcome
        note = outcome.note
        if not _NOTE.issuperset(note) or len(note) > LONGEST_NOTE:  # upstreams name their own exceptions
            note = "".join(filter(_NOTE.__contains__, note))[:LONGEST_NOTE]
        if not outcome.dispatched:
            return items.released(self.attempt_id, now)
        if outcome.refused_upstream:
            return items.Settlement(self.attempt_id, note, now, charge=NOTHING)
        if outcome.completeness == "complete":
            exact = charged(self.tariff.price(outcome.usage.prompt), outcome.usage)
            outcome.cost = exact[0]
            return items.Settlement(self.attempt_id, note, now, charge=exact, usage=outcome.usage)
        outcome.estimated = True
        seen = self.seen()
        outcome.cost = max(self.amounts[0], seen[0])  # what the ledger charges for the unknown
        return items.Settlement(self.attempt_id, note, now, charge=None, usage=outcome.usage, observed=seen)


class Running:
    """An attempt as a block of `async with`. A class, because `asynccontextmanager` costs more."""

    __slots__ = ("_begin", "_finish", "_hold")

    def __init__(self, begin: Coroutine[None, None, Hold], finish: Callable[[Hold], None]) -> None:
        self._begin = begin
        self._finish = finish

    async def __aenter__(self) -> Hold:
        self._hold = await self._begin
        return self._hold

    async def __aexit__(self, *raised: object) -> None:
        self._finish(self._hold)
