"""What is asked of the books, what they answer, and the rows they hold. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec import Struct

from llmgw_gateway.call import Usage
from llmgw_gateway.money.amounts import NOTHING, Amounts
from llmgw_gateway.money.levels import Denial

if TYPE_CHECKING:
    from llmgw_gateway.money.estimate import Terms
    from llmgw_gateway.money.levels import BudgetRef

SETTLEMENT: Final = "settlement"
CORRECTION: Final = "correction"
RELEASED: Final = "released"
"""The outcome of an attempt that was admitted and never sent."""
LEASE_EXPIRED: Final = "lease_expired"
"""The outcome of a swept attempt, as reports show it."""
TRUTH_MILLISECONDS: Final = 2 * 3600 * 1000
"""How long the truth about a swept attempt may take: longer than any answer. Until then its worst case counts."""


class Payer(Struct, frozen=True, gc=False, array_like=True):
    """Who pays for what, by which prices: a row of the store that many attempts share."""

    person_id: str
    access_key: str
    team: str
    project: str
    model: str
    target: str
    price_version: str


class Paying(Struct, frozen=True, gc=False, array_like=True):
    """Who and what an attempt is for: known from its admission on."""

    operation_id: str
    payer: Payer
    admitted_at: int


class Admission(Struct, frozen=True, gc=False):
    """What is asked of the store before an attempt is dispatched. Times in milliseconds since the epoch."""

    attempt_id: str
    paying: Paying
    terms: Terms
    budgets: tuple[BudgetRef, ...]
    lease_until: int


class Admitted(Struct, frozen=True, gc=False):
    """An attempt may be dispatched."""

    hold: Amounts
    ceiling: Amounts
    max_tokens: int
    """What the call may produce at most: less than it asked for when it was clamped."""
    remaining: int | None
    """Micro-USD left in the tightest budget after this attempt's hold; None without a budget in money."""
    clamped_by: str = ""
    """The name of the budget for which max_tokens was reduced."""


class Renewal(Struct, frozen=True, gc=False):
    """Keep an attempt until `lease_until`, remember what it has cost so far, and hold at least `hold` if that fits."""

    attempt_id: str
    observed: Amounts
    lease_until: int
    hold: Amounts = NOTHING


class Settlement(Struct, frozen=True, gc=False):
    """What an attempt came to in the end. `charge` None: unknown, charged at the larger of hold and what was seen."""

    attempt_id: str
    outcome: str
    now: int
    charge: Amounts | None
    usage: Usage = Usage()
    observed: Amounts = NOTHING
    swept: bool = False
    """Nobody said so: its lease has ended. Whoever sent it may still be alive and bring the truth."""


def unknown(attempt_id: str, now: int, outcome: str = "internal") -> Settlement:
    """Charged at the larger of hold and what was seen: nobody can say what it came to."""
    return Settlement(attempt_id, outcome, now, charge=None)


def released(attempt_id: str, now: int) -> Settlement:
    """It was never sent, and costs nothing."""
    return Settlement(attempt_id, RELEASED, now, charge=NOTHING)


class Undo(Struct, frozen=True, gc=False):
    """Take back an admission that nobody waited for: it may have been committed, or may yet be.

    Its COMMIT can be under way on a connection that was lost. So the attempt's row is written in its place before it is
    released: either that waits for the COMMIT and finds what it did, or the COMMIT finds its key taken.
    """

    attempt_id: str
    paying: Paying
    now: int


def instead(refused: Settlement | Undo) -> Settlement:
    """What is settled in place of what the books refuse: unknown is charged, but what was taken back was never sent."""
    if isinstance(refused, Undo):
        return released(refused.attempt_id, refused.now)
    return unknown(refused.attempt_id, refused.now)


class Sweep(Struct, frozen=True, gc=False):
    """Settle every attempt whose lease has ended: its outcome is unknown, so it is never refunded."""

    now: int


class Draw(Struct, frozen=True, gc=False):
    """An attempt that was dispatched on allowances while the store was away: as the journal of its replica has it."""

    attempt_id: str
    paying: Paying
    places: tuple[tuple[str, str], ...]
    """Budget and period of each budget that concerns it, all in money."""
    allowances: tuple[str, ...]
    """One for each place."""
    hold: Amounts
    ceiling: Amounts


class Replay(Struct, frozen=True, gc=False):
    """Enter a draw into the ledger as it ended: the charge moves from what its allowances hold into `spent`."""

    draw: Draw
    end: Settlement

    @property
    def attempt_id(self) -> str:
        """Of the draw."""
        return self.draw.attempt_id


Item = Admission | Renewal | Settlement | Undo | Sweep | Replay
Answer = Admitted | Denial | bool | int


class Attempt(Struct, gc=False):
    """An attempt that is not over."""

    attempt_id: str
    operation_id: str
    payer_id: int
    admitted_at: int
    counters: tuple[int, ...]
    hold: Amounts
    ceiling: Amounts
    observed: Amounts
    lease_until: int
    """Of a swept attempt: until when the truth about it may come."""
    swept: bool = False


class Entry(Struct, frozen=True, gc=False):
    """One row of the ledger: of which attempt, and by what it ended."""

    kind: str
    attempt: Attempt
    end: Settlement
    charge: Amounts
    usage: Usage


class Estimate(Struct, frozen=True, gc=False):
    """What the ledger says of a swept attempt, until the truth comes."""

    charge: Amounts
    usage: Usage


class Crossing(Struct, frozen=True, gc=False):
    """A counter has reached a threshold of its limit."""

    counter_id: int
    percent: int
    limit: int
    spent: int
    at: int
