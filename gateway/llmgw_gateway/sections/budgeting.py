"""The section `[[budgets]]` of the configuration."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Literal

from msgspec import Meta

from llmgw_gateway.call import MICRO
from llmgw_gateway.sections.reading import Section

if TYPE_CHECKING:
    from pathlib import Path

Usd = Decimal
TokenCount = Annotated[int, Meta(ge=0, le=10**15)]
Percent = Annotated[int, Meta(ge=1, le=100)]
Period = Literal["day", "week", "month"]
MOST_USD = 1_000_000_000


class Budget(Section, frozen=True, kw_only=True):
    """A limit on money or tokens. Every budget that concerns a call must admit it.

    Of several for the same person, model, period and unit the most particular counts: one for this person, then one for
    the team's members, then the general one.
    """

    level: Literal["organisation", "team", "project", "user", "key"]
    limit_usd: Usd | None = None
    limit_tokens: TokenCount | None = None
    limit_weighted_tokens: TokenCount | None = None
    """A token counts as many input tokens of its model as it costs: output about five, a cache read a tenth."""
    of: str = ""
    """Which team, project, person (by e-mail) or key; empty: each of them has one of their own."""
    team: str = ""
    """Level user only: for the members of this team."""
    model: str = ""
    """Only calls of this model count; empty: all do."""
    overshoot_usd: Usd | None = None
    """The published bound: how far running requests may exceed the limit at worst. Default: a quarter, at least 5."""
    overshoot_tokens: TokenCount | None = None
    """The same for both kinds of tokens. Default: a quarter, at least 1,000,000."""
    period: Period = "month"
    near_limit: Literal["refuse", "clamp"] = "refuse"
    """What happens to a call that does not fit: refused, or sent with the largest max_tokens that fits."""
    thresholds: tuple[Percent, ...] = (50, 80, 95)
    """Percent of the limit; each is announced once in a period."""
    throttle_percent: Percent = 90
    throttle_per_minute: Annotated[int, Meta(ge=0, le=600)] = 0
    """From throttle_percent of the limit on only so many calls a minute are admitted; 0: no throttle."""
    when_store_away: Literal["closed", "allowance"] = "closed"
    """What happens to calls while the store is away: refused, or admitted on what was set aside beforehand."""
    allowance_usd: Usd | None = None
    """What one replica sets aside of this limit, and may spend of it during one outage of the store."""

    @property
    def unit(self) -> Literal["usd", "tokens", "weighted_tokens"]:
        """What is counted."""
        if self.limit_usd is not None:
            return "usd"
        return "tokens" if self.limit_tokens is not None else "weighted_tokens"

    @property
    def limit(self) -> int:
        """Micro-USD or tokens."""
        if self.limit_usd is not None:
            return int(self.limit_usd * MICRO)
        return self.limit_tokens or self.limit_weighted_tokens or 0

    @property
    def overshoot(self) -> int:
        """Micro-USD or tokens."""
        if self.limit_usd is not None:
            usd = self.overshoot_usd if self.overshoot_usd is not None else max(self.limit_usd / 4, Decimal(5))
            return int(usd * MICRO)
        return self.overshoot_tokens if self.overshoot_tokens is not None else max(self.limit // 4, 1_000_000)

    @property
    def allowance(self) -> int:
        """Micro-USD; 0: closed."""
        return int((self.allowance_usd or 0) * MICRO)

    @property
    def identity(self) -> str:
        """No two budgets may be for the same calls, period and unit."""
        return f"{self.level}/{self.of}/{self.team}/{self.model}/{self.period}/{self.unit}"

    def faults(self, _base: Path) -> list[str]:
        """An amount below zero, beyond reason or too fine, a combination that means nothing."""
        names = ("limit_usd", "overshoot_usd", "allowance_usd")
        amounts: dict[str, Decimal] = {name: getattr(self, name) or Decimal(0) for name in names}
        found = [
            f"{name}: must be between 0 and {MOST_USD}"
            for name, usd in amounts.items()
            if not (usd.is_finite() and 0 <= usd <= MOST_USD)
        ]
        found += [
            f"{name}: {usd} has more than six decimals; money is counted in whole micro-USD"
            for name, usd in amounts.items()
            if usd.is_finite() and 0 <= usd <= MOST_USD and usd * MICRO % 1
        ]
        limits = (self.limit_usd, self.limit_tokens, self.limit_weighted_tokens)
        if sum(limit is not None for limit in limits) != 1:
            found.append("limit_usd: give exactly one of limit_usd, limit_tokens and limit_weighted_tokens")
        else:
            other = "overshoot_tokens" if self.unit == "usd" else "overshoot_usd"
            if getattr(self, other) is not None:
                found.append(f"{other}: does not go with a limit in {self.unit}")
        if list(self.thresholds) != sorted(set(self.thresholds)):
            found.append("thresholds: must ascend")
        if self.of and self.level == "organisation":
            found.append("of: there is one organisation only")
        if self.team and (self.level != "user" or self.of):
            found.append('team: goes with level = "user" and without `of`')
        return found + self._allowance_faults()

    def _allowance_faults(self) -> list[str]:
        if (self.when_store_away == "allowance") != (self.allowance_usd is not None):
            return ['allowance_usd: goes with when_store_away = "allowance", and that needs it']
        if self.allowance_usd is None:
            return []
        if self.limit_usd is None:
            return ["allowance_usd: goes with limit_usd: only money is set aside"]
        if not 0 < self.allowance_usd <= self.limit_usd:
            return [f"allowance_usd: must be more than 0 and at most limit_usd, not {self.allowance_usd}"]
        return []
