"""Which budgets concern a call, and their names. Pure.

The key of a budget holds level, subject, model, period and unit, never an amount: changing a limit keeps what is spent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from llmgw_gateway.money import periods
from llmgw_gateway.money.items import Payer
from llmgw_gateway.money.levels import BudgetRef, Throttle
from llmgw_gateway.money.overrides import Overrides
from llmgw_gateway.money.scope import LEVELS, applies, particularity, subject, whose
from llmgw_gateway.money.tariffs import version_for
from llmgw_wire.messages import BudgetView

if TYPE_CHECKING:
    from collections.abc import Sequence
    from zoneinfo import ZoneInfo

    from llmgw_gateway.call import Account, Target
    from llmgw_gateway.sections.budgeting import Budget

_ADJECTIVE = {"day": "daily", "week": "weekly", "month": "monthly"}
_UNIT = {"usd": "", "tokens": "token ", "weighted_tokens": "weighted-token "}


MOST_KNOWN = 10_000


class Charged(Struct, frozen=True, gc=False):
    """What a call is charged to, and who pays for it: one value for all calls of an account to a target."""

    budgets: tuple[BudgetRef, ...]
    payer: Payer


class Budgets:
    """The configured budgets of one organisation, with the adjustments of their limits that are in force.

    `price_version` is that of the catalogue by which calls are priced.
    """

    def __init__(
        self, budgets: Sequence[Budget], zone: ZoneInfo, overrides: Overrides | None = None, price_version: str = ""
    ) -> None:
        self._budgets = sorted(budgets, key=lambda budget: LEVELS.index(budget.level))
        self._zone = zone
        self._overrides = overrides or Overrides()
        self._price_version = price_version
        self._known: dict[tuple[Account, str | None], tuple[BudgetRef, ...]] = {}
        self._charged: dict[tuple[Account, Target], Charged] = {}
        self._known_from = self._known_until = 0.0
        self._known_version = -1

    def concerning(self, account: Account, now: float, model: str | None = None) -> tuple[BudgetRef, ...]:
        """The budgets that a call of `model` by `account` has to pass; with model None all of the account's.

        The same question has the same answer until a period ends or a limit changes.
        """
        self._forget(now)
        known = self._known.get((account, model))
        if known is None:
            known = self._known[account, model] = self._concerning(account, now, model)
        return known

    def charged(self, account: Account, now: float, target: Target) -> Charged:
        """What a call to a target is charged to. The same question has the same answer, too."""
        self._forget(now)
        known = self._charged.get((account, target))
        if known is None:
            payer = Payer(
                account.person_id,
                account.key,
                account.team,
                account.project,
                target.model,
                target.title,
                version_for(self._price_version, target),
            )
            known = self._charged[account, target] = Charged(self.concerning(account, now, target.model), payer)
        return known

    def _forget(self, now: float) -> None:
        version = self._overrides.version
        if (
            not self._known_from <= now < self._known_until
            or version != self._known_version
            or len(self._known) > MOST_KNOWN
            or len(self._charged) > MOST_KNOWN
        ):
            self._known, self._charged, self._known_version = {}, {}, version
            self._known_from, self._known_until = now, self._changes_at(now)

    def _changes_at(self, now: float) -> float:
        """Until when nothing changes by itself."""
        ends = [periods.end(now, period, self._zone).timestamp() for period in ("day", "week", "month")]
        return min(*ends, self._overrides.changes_at(now))

    def _concerning(self, account: Account, now: float, model: str | None) -> tuple[BudgetRef, ...]:
        chosen: dict[tuple[str, ...], Budget] = {}
        for budget in self._budgets:
            if model is not None and budget.model not in ("", model):
                continue
            if not applies(budget, account):
                continue
            key = (budget.level, budget.model, budget.period, budget.unit)
            if key not in chosen or particularity(budget) > particularity(chosen[key]):
                chosen[key] = budget
        return tuple(self._reference(budget, account, now) for budget in chosen.values())

    def _reference(self, budget: Budget, account: Account, now: float) -> BudgetRef:
        key = f"{budget.level}/{subject(budget, account)}/{budget.model}/{budget.period}/{budget.unit}"
        paced = budget.throttle_per_minute
        return BudgetRef(
            budget=key,
            name=_name(budget, account),
            level=budget.level,
            period=budget.period,
            model=budget.model,
            period_key=periods.key(now, budget.period, self._zone),
            unit=budget.unit,
            limit=self._overrides.limit(key, budget.limit, int(now * 1000)),
            overshoot=budget.overshoot,
            clamp=budget.near_limit == "clamp",
            thresholds=budget.thresholds,
            throttle=Throttle(budget.throttle_percent, paced) if paced else None,
            allowance=budget.allowance,
            resets_at=periods.end(now, budget.period, self._zone).strftime("%Y-%m-%dT%H:%M:%SZ"),
        )


def _name(budget: Budget, account: Account) -> str:
    """As a refusal calls it: "monthly budget", "weekly budget of team payments for claude-opus-5-5"."""
    return f"{_ADJECTIVE[budget.period]} {_UNIT[budget.unit]}budget{whose(budget, account)}"


def view(budget: BudgetRef, spent: int, held: int) -> BudgetView:
    """A budget as its owner sees it."""
    return BudgetView(
        name=budget.name,
        level=budget.level,
        period=budget.period,
        model=budget.model or None,
        unit=budget.unit,
        period_key=budget.period_key,
        limit=budget.limit,
        spent=spent,
        held=held,
        overshoot_limit=budget.overshoot,
        resets_at=budget.resets_at,
    )


def parts(key: str) -> tuple[str, str, str, str, str]:
    """Level, subject, model, period and unit of a budget's key; names of teams and projects may hold slashes."""
    level, rest = key.split("/", 1)
    subject, model, period, unit = rest.rsplit("/", 3)
    return level, subject, model, period, unit
