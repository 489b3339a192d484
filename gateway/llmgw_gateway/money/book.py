"""The rules of the books, on rows in memory: admit, top up, renew, settle, sweep, correct, replay. Pure.

A `Book` holds the rows that one transaction has locked. Items are applied in order, as if one after another; what they
changed is written back by `posting.py`. Whatever crashes, an attempt ends as one settlement and at most one correction
(I1), counters are the sums of what they count (I2), and doing anything again changes nothing (I6).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from llmgw_gateway.call import Usage
from llmgw_gateway.money.amounts import MONEY, NOTHING, TOKENS, difference, larger, only, smaller
from llmgw_gateway.money.decide import decide, throttled
from llmgw_gateway.money.items import (
    CORRECTION,
    LEASE_EXPIRED,
    SETTLEMENT,
    TRUTH_MILLISECONDS,
    Admission,
    Admitted,
    Answer,
    Attempt,
    Crossing,
    Entry,
    Estimate,
    Item,
    Payer,
    Renewal,
    Replay,
    Settlement,
    Sweep,
    Undo,
    released,
)
from llmgw_gateway.money.levels import BudgetRef, Counter, Denial, Level


@dataclass(slots=True)
class Book:
    """What one transaction has locked, and what it will write."""

    counters: dict[int, Counter]
    attempts: dict[str, Attempt]
    finished: set[str]
    """Attempts whose settlement is in the ledger for good: anything about them is a replay."""
    estimates: dict[str, Estimate]
    """What swept attempts were settled at."""
    places: dict[tuple[str, str], int]
    """Counters by budget and period."""
    payers: dict[Payer, int]
    """Their ids."""
    levels: dict[int, tuple[list[Level], tuple[int, ...]]] = field(default_factory=dict)
    """By the identity of a tuple of budgets: calls of one person come with the same one, and it outlives the book."""
    added: dict[str, Attempt] = field(default_factory=dict)
    changed: dict[str, Attempt] = field(default_factory=dict)
    """Maybe of those that were added, too: an attempt is written as it began, and then as it became."""
    closed: set[str] = field(default_factory=set)
    entries: list[Entry] = field(default_factory=list)
    crossings: list[Crossing] = field(default_factory=list)
    dirty: set[int] = field(default_factory=set)

    def apply(self, item: Item) -> Answer:
        """Do one thing."""
        if isinstance(item, Admission):
            return self.admit(item)
        if isinstance(item, Settlement):
            return self.settle(item)
        if isinstance(item, Renewal):
            return self.renew(item)
        if isinstance(item, Undo):
            return self.settle(released(item.attempt_id, item.now))
        if isinstance(item, Replay):
            return self.replay(item)
        return self.sweep(item)

    def admit(self, asked: Admission) -> Admitted | Denial:
        """Decide for all budgets together; hold in all of them, or in none."""
        name, paying = asked.attempt_id, asked.paying
        now = paying.admitted_at
        levels, ids = self._found(asked.budgets, now)
        if name in self.finished or name in self.attempts:
            return self._again(asked, levels)
        answer = decide(levels, asked.terms, now)
        if isinstance(answer, Denial):
            return answer
        hold, ceiling = answer.hold, answer.ceiling
        remaining: int | None = None
        for level in levels:
            budget, counter = level
            if budget.throttle is not None and throttled(level):
                counter.paced_at = now
            unit = counter.unit
            counter.held = held = counter.held + hold[unit]
            counter.exposure += ceiling[unit] - hold[unit]
            if unit == MONEY:
                left = budget.limit - counter.spent - held
                if remaining is None or left < remaining:
                    remaining = left
        self.dirty.update(ids)
        payer = self.payers[paying.payer]
        attempt = Attempt(name, paying.operation_id, payer, now, ids, hold, ceiling, NOTHING, asked.lease_until)
        self.attempts[name] = self.added[name] = attempt
        return Admitted(hold, ceiling, answer.max_tokens, remaining, answer.clamped_by)

    def _found(self, budgets: tuple[BudgetRef, ...], now: int) -> tuple[list[Level], tuple[int, ...]]:
        """The counters of budgets, and their ids. Looked up once for all calls of a person in this transaction."""
        found = self.levels.get(id(budgets))
        if found is None:
            levels = [(budget, self.counters[self.places[budget.budget, budget.period_key]]) for budget in budgets]
            for budget, counter in levels:
                if counter.limit != budget.limit or counter.thresholds != budget.thresholds:
                    self._watch(budget, counter, now)
            found = self.levels[id(budgets)] = levels, tuple(counter.counter_id for _, counter in levels)
        return found

    def _again(self, asked: Admission, levels: list[Level]) -> Admitted:
        """The answer to an admission whose first answer was lost on its way: the same."""
        known = self.attempts.get(asked.attempt_id)
        hold, ceiling, max_tokens = NOTHING, NOTHING, asked.terms.max_tokens
        if known is not None:
            # In tokens a ceiling is the largest prompt and max_tokens, so it tells whether that was clamped.
            clamped = known.ceiling[TOKENS] - asked.terms.ceiling(TOKENS, 0)
            hold, ceiling, max_tokens = known.hold, known.ceiling, min(max_tokens, max(clamped, 0))
        clamping = (budget.name for budget, _ in levels if budget.clamp and max_tokens < asked.terms.max_tokens)
        return Admitted(hold, ceiling, max_tokens, _remaining(levels), next(clamping, ""))

    def renew(self, renewal: Renewal) -> bool:
        """Extend a lease and top up the hold. False: what it grew by does not fit into every limit, it stays as it was.

        A top-up moves exposure into the hold, so I5 is not asked again; what does not fit stays covered by the
        overshoot. An attempt that was settled meanwhile stays settled.
        """
        attempt = self.attempts.get(renewal.attempt_id)
        if attempt is None or attempt.swept:
            return False
        attempt.observed, attempt.lease_until = larger(attempt.observed, renewal.observed), renewal.lease_until
        self.changed[attempt.attempt_id] = attempt
        wanted = larger(attempt.hold, smaller(renewal.hold, attempt.ceiling))
        more = difference(wanted, attempt.hold)
        if more == NOTHING:
            return True
        counters = [self.counters[each] for each in attempt.counters]
        if any(counter.spent + counter.held + more[counter.unit] > counter.limit for counter in counters):
            return False
        for counter in counters:
            counter.held += more[counter.unit]
            counter.exposure -= more[counter.unit]
            self.dirty.add(counter.counter_id)
        attempt.hold = wanted
        return True

    def settle(self, settlement: Settlement) -> bool:
        """Move a hold into `spent`. True: an entry was written. False: it had been, nothing changed."""
        attempt = self.attempts.get(settlement.attempt_id)
        if attempt is None:
            return False
        if attempt.swept:
            return self._correct(attempt, settlement)
        charge = settlement.charge
        if charge is None:
            charge = larger(attempt.hold, larger(attempt.observed, settlement.observed))
        hold, ceiling = attempt.hold, attempt.ceiling
        for each in attempt.counters:
            counter = self.counters[each]
            unit = counter.unit
            counter.held -= hold[unit]
            counter.exposure -= ceiling[unit] - hold[unit]
            counter.spent += charge[unit]
            if counter.thresholds:
                self._announce(counter, settlement.now)
        self.dirty.update(attempt.counters)
        self.entries.append(Entry(SETTLEMENT, attempt, settlement, charge, settlement.usage))
        if settlement.swept:
            self._await_truth(attempt, Estimate(charge, settlement.usage), settlement.now)
        else:
            self._close(attempt)
        return True

    def _await_truth(self, attempt: Attempt, estimate: Estimate, now: int) -> None:
        """Keep what was swept: the truth may come late, and must find room below the bound, so its ceiling counts."""
        attempt.swept, attempt.lease_until = True, now + TRUTH_MILLISECONDS
        self.estimates[attempt.attempt_id] = estimate
        self.changed[attempt.attempt_id] = attempt
        for each in attempt.counters:
            counter = self.counters[each]
            counter.exposure += max(0, attempt.ceiling[counter.unit] - estimate.charge[counter.unit])

    def replay(self, replay: Replay) -> bool:
        """Enter an attempt of an outage. True: an entry was written. False: it had been, nothing changed.

        The charge was held beforehand, so no limit is asked again. Where an allowance was written off meanwhile, its
        counter was charged all of it: what had been drawn on it is not charged there twice.
        """
        draw, end = replay.draw, replay.end
        if draw.attempt_id in self.finished:
            return False
        charge = end.charge
        if charge is None:
            # As for any attempt whose process died: the hold, which is what was expected. Nobody will bring the truth.
            charge = larger(draw.hold, end.observed)
        charged = []
        for place, allowance_id in zip(draw.places, draw.allowances, strict=True):
            allowance = self.attempts.get(allowance_id)
            if allowance is None:
                continue
            counter = self.counters[self.places[place]]
            charged.append(counter.counter_id)
            moved = only(counter.unit, min(charge[counter.unit], allowance.hold[counter.unit]))
            counter.held -= moved[counter.unit]
            allowance.hold, allowance.ceiling = difference(allowance.hold, moved), difference(allowance.ceiling, moved)
            self.changed[allowance_id] = allowance
            self._spend(counter, charge[counter.unit], end.now)
        paying = draw.paying
        attempt = Attempt(
            draw.attempt_id, paying.operation_id, self.payers[paying.payer], paying.admitted_at, tuple(charged),
            draw.hold, draw.ceiling, end.observed, 0,
        )  # fmt: skip
        self.entries.append(Entry(SETTLEMENT, attempt, end, charge, end.usage))
        self.finished.add(draw.attempt_id)
        return True

    def sweep(self, sweep: Sweep) -> int:
        """Settle what has lost its lease, and forget what was swept so long ago that no truth will come. How many."""
        lost = 0
        for attempt in list(self.attempts.values()):
            if attempt.lease_until >= sweep.now:
                continue
            if not attempt.swept:
                lost += self.settle(Settlement(attempt.attempt_id, LEASE_EXPIRED, sweep.now, charge=None, swept=True))
            else:
                self._forgo(attempt)
                self._close(attempt)
        return lost

    def _correct(self, attempt: Attempt, late: Settlement) -> bool:
        """What its owner says of a swept attempt: one correction, by the difference. False: it says nothing new.

        The owner may not know either, but have seen more than the sweeper knew of: unknown is never less than that.
        """
        estimate = self.estimates[attempt.attempt_id]
        charge = late.charge
        if charge is None:
            charge = larger(estimate.charge, late.observed)
            if charge == estimate.charge:
                return False
        change = difference(charge, estimate.charge)
        self._forgo(attempt)
        for each in attempt.counters:
            counter = self.counters[each]
            self._spend(counter, change[counter.unit], late.now)
        # Tokens are corrected like money, by the difference: a sum over the ledger is right for both.
        usage = Usage(
            late.usage.input - estimate.usage.input,
            late.usage.output - estimate.usage.output,
            late.usage.cache_read - estimate.usage.cache_read,
            late.usage.cache_write_5m - estimate.usage.cache_write_5m,
            late.usage.cache_write_1h - estimate.usage.cache_write_1h,
        )
        self.entries.append(Entry(CORRECTION, attempt, late, change, usage))
        self._close(attempt)
        return True

    def _forgo(self, attempt: Attempt) -> None:
        """Stop counting what a swept attempt may still cost."""
        charge = self.estimates[attempt.attempt_id].charge
        for each in attempt.counters:
            counter = self.counters[each]
            counter.exposure -= max(0, attempt.ceiling[counter.unit] - charge[counter.unit])
            self.dirty.add(each)

    def _close(self, attempt: Attempt) -> None:
        """The attempt is over."""
        del self.attempts[attempt.attempt_id]
        self.finished.add(attempt.attempt_id)
        self.changed.pop(attempt.attempt_id, None)
        if self.added.pop(attempt.attempt_id, None) is None:
            self.closed.add(attempt.attempt_id)

    def _watch(self, budget: BudgetRef, counter: Counter, now: int) -> None:
        """Remember limit and thresholds with the counter: whoever settles, sweeps or corrects announces by them."""
        counter.limit, counter.thresholds = budget.limit, budget.thresholds
        passed = [percent for percent in budget.thresholds if counter.spent * 100 >= percent * budget.limit]
        # A raised limit arms the thresholds again that are no longer reached.
        counter.crossed = min(counter.crossed, max(passed, default=0))
        self.dirty.add(counter.counter_id)
        self._announce(counter, now)

    def _spend(self, counter: Counter, amount: int, now: int) -> None:
        counter.spent += amount
        self.dirty.add(counter.counter_id)
        self._announce(counter, now)

    def _announce(self, counter: Counter, now: int) -> None:
        """Each threshold once, in the transaction in which it is reached."""
        if not counter.thresholds or counter.crossed >= counter.thresholds[-1]:
            return
        for percent in counter.thresholds:
            if counter.spent * 100 < percent * counter.limit:
                return  # they ascend
            if percent > counter.crossed and counter.limit > 0:
                counter.crossed = percent
                self.crossings.append(Crossing(counter.counter_id, percent, counter.limit, counter.spent, now))


def _remaining(levels: list[tuple[BudgetRef, Counter]]) -> int | None:
    left = [budget.limit - counter.spent - counter.held for budget, counter in levels if counter.unit == MONEY]
    return min(left) if left else None
