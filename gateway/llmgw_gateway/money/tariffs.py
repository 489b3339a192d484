"""The prices of today, looked up once a day: prices change at midnight UTC. Pure: the time is an argument."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmgw_gateway.call import Target
    from llmgw_gateway.money.prices import Catalogue, Tariff

DAY_SECONDS = 86_400


class Tariffs:
    """What each model costs today in each geography."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._day = 0
        self._known: dict[tuple[str, str], Tariff] = {}

    def of(self, target: Target, now: float) -> Tariff:
        """The tariff of a target at a moment (seconds since the epoch); LookupError without a price."""
        day = int(now // DAY_SECONDS)
        if day != self._day:
            self._day, self._known = day, {}
        key = (target.model, target.geography)
        tariff = self._known.get(key)
        if tariff is None:
            today = datetime.fromtimestamp(now, UTC).date()
            tariff = self._catalogue.tariff(target.model, geography=target.geography, day=today)
            self._known[key] = tariff
        return tariff
