"""Budget periods by name. The period is part of a counter's key: a new one is a new row, and no job resets anything."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

Period = Literal["day", "week", "month"]


def key(now: float, period: Period, zone: ZoneInfo) -> str:
    """The name of the period that holds `now` (seconds since the epoch): 2026-11-21, 2026-W47 or 2026-11."""
    local = datetime.fromtimestamp(now, zone)
    if period == "day":
        return local.strftime("%Y-%m-%d")
    if period == "week":
        year, week, _ = local.isocalendar()
        return f"{year}-W{week:02d}"
    return local.strftime("%Y-%m")


def end(now: float, period: Period, zone: ZoneInfo) -> datetime:
    """When the period that holds `now` ends: the next local midnight that begins another one, in UTC.

    Computed on local dates, so that a day of 23 or 25 hours is a day.
    """
    today = datetime.fromtimestamp(now, zone).date()
    if period == "day":
        following = today + timedelta(days=1)
    elif period == "week":
        following = today + timedelta(days=8 - today.isoweekday())
    else:
        following = (today.replace(day=1) + timedelta(days=32)).replace(day=1)
    return datetime(following.year, following.month, following.day, tzinfo=zone).astimezone(UTC)
