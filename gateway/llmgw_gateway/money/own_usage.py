"""What one person used today, this week and this month, as that person may see it. Queries only.

The same sums as the operator's (`usage.py`), of the caller's own attempts and of nobody else's.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from llmgw_gateway.money.usage import Span, Sums, total, usage
from llmgw_wire.messages import UsageLine, UsagePeriod, UsageReport

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

    from sqlalchemy import Connection

    from llmgw_gateway.money.usage import Line

FRESH_SECONDS: Final = 15.0
"""A report that is asked for again within this is the same one: who watches it in a loop costs one query."""
MOST_KEPT: Final = 1024


def report(connection: Connection, person_id: str, zone: ZoneInfo, now: float) -> UsageReport:
    """The three periods that contain `now` (seconds since the epoch), in the organisation's time zone."""
    if not person_id:
        raise ValueError("usage is of somebody")
    today = datetime.fromtimestamp(now, zone).date()
    starts = {"today": today, "week": today - timedelta(days=today.weekday()), "month": today.replace(day=1)}
    periods = []
    for name, since in starts.items():
        span = Span(zone, since)
        models = usage(connection, "model", span, person_id)
        projects = usage(connection, "project", span, person_id)
        periods.append(
            UsagePeriod(
                name=name,
                since=since.isoformat(),
                total=_line("", total(models)),
                models=tuple(map(_shown, models)),
                projects=tuple(map(_shown, projects)),
            )
        )
    return UsageReport(zone.key, tuple(periods))


class Reports:
    """The reports of a moment ago, by person."""

    def __init__(self) -> None:
        self._made: dict[str, tuple[float, UsageReport]] = {}

    def get(self, person_id: str, now: float) -> UsageReport | None:
        """The report, if it is not old."""
        made, known = self._made.get(person_id, (float("-inf"), None))
        return known if 0 <= now - made < FRESH_SECONDS else None

    def put(self, person_id: str, now: float, made: UsageReport) -> None:
        """Keep it; the oldest go."""
        self._made.pop(person_id, None)
        self._made[person_id] = (now, made)
        while len(self._made) > MOST_KEPT:
            del self._made[next(iter(self._made))]


def _shown(line: Line) -> UsageLine:
    return _line(next(iter(line.of.values())), line.sums)


def _line(name: str, sums: Sums) -> UsageLine:
    return UsageLine(
        name=name,
        requests=sums.operations,
        input_tokens=sums.input_tokens,
        output_tokens=sums.output_tokens,
        cache_read_tokens=sums.cache_read_tokens,
        cache_write_tokens=sums.cache_write_5m_tokens + sums.cache_write_1h_tokens,
        cost=sums.cost,
        estimated=sums.estimated,
    )
