"""The prices of today, looked up once a day: prices change at midnight UTC. Pure: the time is an argument."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from llmgw_gateway.call import Target
    from llmgw_gateway.money.prices import Catalogue, Tariff

DAY_SECONDS: Final = 86_400


SURCHARGE: Final = "~"
"""In a ledger row's version of prices, before the rate of the guardrail that was added to them."""


def version_for(version: str, target: Target) -> str:
    """How a ledger row calls the prices of a call: those of the catalogue, and what its guardrail adds."""
    return f"{version}{SURCHARGE}{target.guard.rate}" if target.guard is not None and target.guard.rate else version


def surcharge_in(version: str) -> int:
    """The rate that was added, in micro-USD for a million tokens; 0: none."""
    rate = version.partition(SURCHARGE)[2]
    return int(rate) if rate else 0


class Tariffs:
    """What each model costs today in each geography."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._day = 0
        self._known: dict[tuple[str, str, int], Tariff] = {}

    def of(self, target: Target, now: float) -> Tariff:
        """The tariff of a target at a moment (seconds since the epoch); LookupError without a price."""
        day = int(now // DAY_SECONDS)
        if day != self._day:
            self._day, self._known = day, {}
        rate = target.guard.rate if target.guard is not None else 0
        key = (target.model, target.geography, rate)
        tariff = self._known.get(key)
        if tariff is None:
            today = datetime.fromtimestamp(now, UTC).date()
            tariff = self._catalogue.tariff(target.model, geography=target.geography, day=today)
            tariff = self._known[key] = tariff.dearer_by(rate) if rate else tariff
        return tariff
