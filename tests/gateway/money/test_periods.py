"""Periods: every instant has one, and its end is the first instant that has another."""

from __future__ import annotations

import zoneinfo
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llmgw_gateway.money import periods

zones = st.sampled_from(sorted(zoneinfo.available_timezones())).map(ZoneInfo)
kinds = st.sampled_from(["day", "week", "month"])
# Past the oddities of the last century; the present is all that a budget ever asks for.
instants = st.datetimes(datetime(2015, 1, 1), datetime(2040, 1, 1), timezones=st.just(UTC)).map(  # noqa: DTZ001
    lambda moment: moment.timestamp()
)


def at(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


SANTIAGO, CAIRO, BEIRUT, HAVANA = (
    ZoneInfo(f"{name}") for name in ("America/Santiago", "Africa/Cairo", "Asia/Beirut", "America/Havana")
)


@given(instants, kinds, zones)
@example(at("2024-09-07T12:00:00+00:00"), "day", SANTIAGO)  # the next day begins at 01:00
@example(at("2024-04-06T12:00:00+00:00"), "day", SANTIAGO)  # a day of 25 hours, its last hour twice
@example(at("2024-04-07T02:30:00+00:00"), "day", SANTIAGO)  # in the first of the two
@example(at("2024-04-07T03:30:00+00:00"), "day", SANTIAGO)  # in the second
@example(at("2023-04-27T12:00:00+00:00"), "day", CAIRO)
@example(at("2023-10-26T20:30:00+00:00"), "day", CAIRO)
@example(at("2024-03-30T12:00:00+00:00"), "month", BEIRUT)
@example(at("2024-11-02T12:00:00+00:00"), "day", HAVANA)  # midnight comes twice
@example(at("2023-12-31T12:00:00+00:00"), "week", ZoneInfo("Pacific/Kiritimati"))
@example(at("2024-02-29T12:00:00+00:00"), "month", ZoneInfo("Asia/Kathmandu"))
def test_the_end_is_the_first_instant_with_another_key(now: float, kind: periods.Period, zone: ZoneInfo) -> None:
    end = periods.end(now, kind, zone)
    key = periods.key(now, kind, zone)
    assert end.tzinfo is UTC
    assert end.timestamp() > now
    assert periods.key(end.timestamp(), kind, zone) != key
    assert periods.key((end - timedelta(microseconds=1)).timestamp(), kind, zone) == key


@given(instants, kinds, zones, st.floats(0, 1))
def test_between_an_instant_and_its_end_the_key_stays(
    now: float, kind: periods.Period, zone: ZoneInfo, share: float
) -> None:
    end = periods.end(now, kind, zone).timestamp()
    between = min(now + (end - now) * share, end - 0.001)
    if between >= now:
        assert periods.key(between, kind, zone) == periods.key(now, kind, zone)


@given(instants, kinds, zones)
def test_keys_sort_like_the_times_they_name_and_fit_their_column(
    now: float, kind: periods.Period, zone: ZoneInfo
) -> None:
    key = periods.key(now, kind, zone)
    assert key < periods.key(periods.end(now, kind, zone).timestamp(), kind, zone)
    assert len(key) <= 16


@pytest.mark.parametrize(
    ("moment", "kind", "zone", "key"),
    [
        ("2026-11-21T05:00:00+00:00", "day", "UTC", "2026-11-21"),
        ("2026-11-21T05:00:00+00:00", "week", "UTC", "2026-W47"),
        ("2026-11-21T05:00:00+00:00", "month", "UTC", "2026-11"),
        # ISO 8601: the week belongs to the year that has its Thursday.
        ("2027-01-01T12:00:00+00:00", "week", "UTC", "2026-W53"),
        ("2027-01-03T23:59:59+00:00", "week", "UTC", "2026-W53"),
        ("2027-01-04T00:00:00+00:00", "week", "UTC", "2027-W01"),
        ("2024-12-30T00:00:00+00:00", "week", "UTC", "2025-W01"),
        # The same instant, three days.
        ("2026-12-31T11:30:00+00:00", "day", "Pacific/Kiritimati", "2027-01-01"),
        ("2026-12-31T11:30:00+00:00", "day", "Pacific/Pago_Pago", "2026-12-31"),
        ("2026-12-31T18:20:00+00:00", "month", "Asia/Kathmandu", "2027-01"),
        ("2026-12-31T18:10:00+00:00", "month", "Asia/Kathmandu", "2026-12"),
    ],
)
def test_a_key_is_what_a_calendar_on_the_wall_says(moment: str, kind: periods.Period, zone: str, key: str) -> None:
    assert periods.key(at(moment), kind, ZoneInfo(zone)) == key


@pytest.mark.parametrize(("day", "hours"), [("2026-03-29", 23), ("2026-10-25", 25), ("2026-06-01", 24)])
def test_a_day_has_the_hours_that_it_has(day: str, hours: int) -> None:
    zone = ZoneInfo("Europe/Berlin")
    start = datetime.fromisoformat(day).replace(tzinfo=zone)
    assert periods.end(start.timestamp(), "day", zone) - start.astimezone(UTC) == timedelta(hours=hours)
