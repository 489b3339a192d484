"""Usage: every grouping of the same days has the same sums, they are the ledger's, and the days are the budgets'."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmgw_gateway.call import Usage
from llmgw_gateway.money import own_usage, periods
from llmgw_gateway.money.usage import DIMENSIONS, Line, Span, Sums, total, usage
from llmgw_wire.messages import UsageReport
from tests.gateway.money import accounts, history
from tests.gateway.money.history import Attempt

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

BERLIN = ZoneInfo("Europe/Berlin")
ZONES = ["UTC", "Europe/Berlin", "America/Havana", "Australia/Lord_Howe", "Asia/Kathmandu", "Pacific/Apia"]
"""Havana changes its clocks at midnight, Lord Howe by half an hour; in 2026 Apia stands still on the far side."""
START = int(datetime(2026, 3, 1, tzinfo=UTC).timestamp() * 1000)
YEAR = 365 * 86_400_000
counts = st.integers(0, 10**7)
usages = st.builds(Usage, counts, counts, counts, counts, counts)
attempts = st.builds(
    Attempt,
    admitted=st.integers(START, START + YEAR),
    person=st.sampled_from(["per_ada", "per_grace", "per_gone"]),
    team=st.sampled_from(["", "payments"]),
    project=st.sampled_from(["", "atlas"]),
    key=st.sampled_from(["ses_1", "ses_2"]),
    model=st.sampled_from(["claude-sonnet-4-5", "claude-opus-4-5"]),
    usage=usages,
    cost=st.none() | counts,
    late=st.none() | counts,
    outcome=st.sampled_from(["ok", "client_gone", "released"]),
    hold=counts,
)


WHOLE = """SELECT COALESCE(SUM(cost), 0), COALESCE(SUM(input_tokens), 0), COALESCE(SUM(output_tokens), 0),
           COUNT(DISTINCT attempt_id), COUNT(DISTINCT operation_id) FROM ledger"""


def operation(name: str, first: Attempt, more: list[Attempt]) -> list[Attempt]:
    """Retries and fallbacks of one operation follow each other within the hour."""
    return [
        replace(each, operation=name, admitted=first.admitted + number * 1_200_000)
        for number, each in enumerate([first, *more])
    ]


def read(store: Path, by: str, span: Span) -> list[Line]:
    with history.reading(store) as connection:
        return usage(connection, by, span)


def local(milliseconds: int, zone: ZoneInfo) -> date:
    return datetime.fromtimestamp(milliseconds / 1000, zone).date()


def expected(some: Sequence[Attempt], group: Callable[[Attempt], str], span: Span) -> dict[str, Sums]:
    """The same sums, in plain Python from what was written."""
    firsts: dict[str, int] = {}
    for number, each in sorted(enumerate(some), key=lambda pair: (pair[1].admitted, pair[0])):
        firsts.setdefault(each.operation or str(number), number)
    sums: dict[str, Sums] = {}
    for number, each in enumerate(some):
        day = local(each.admitted, span.zone)
        if (span.since and day < span.since) or (span.until and day > span.until):
            continue
        used = each.usage
        sums[group(each)] = sums.get(group(each), Sums()) + Sums(
            operations=int(number in firsts.values()),
            attempts=1,
            input_tokens=used.input,
            output_tokens=used.output,
            cache_read_tokens=used.cache_read,
            cache_write_5m_tokens=used.cache_write_5m,
            cache_write_1h_tokens=used.cache_write_1h,
            cost=each.charged,
            estimated=0 if each.known else each.charged,
        )
    return sums


@settings(max_examples=60)
@given(
    some=st.lists(st.tuples(attempts, st.lists(attempts, max_size=2)), max_size=12),
    zone=st.sampled_from(ZONES),
    days=st.tuples(*[st.none() | st.dates(date(2026, 2, 20), date(2027, 3, 10))] * 2),
)
def test_any_grouping_of_any_days_has_the_sums_of_what_happened(
    empty_store: Path,
    some: list[tuple[Attempt, list[Attempt]]],
    zone: str,
    days: tuple[date | None, date | None],
) -> None:
    happened = [each for number, (first, more) in enumerate(some) for each in operation(f"req_{number}", first, more)]
    since, until = days if None in days else sorted(days)  # type: ignore[type-var] # neither is None
    with tempfile.TemporaryDirectory() as folder:
        store = Path(shutil.copy(empty_store, Path(folder) / "gateway.db"))
        history.write(store, happened)
        span = Span(ZoneInfo(zone), since, until)
        groups: dict[str, Callable[[Attempt], str]] = {
            "user": lambda each: each.person,
            "team": lambda each: each.team,
            "project": lambda each: each.project,
            "key": lambda each: each.key,
            "model": lambda each: each.model,
            "day": lambda each: local(each.admitted, span.zone).isoformat(),
            "outcome": lambda each: each.ended,
        }
        assert set(groups) == set(DIMENSIONS)
        totals = set()
        for by, group in groups.items():
            lines = read(store, by, span)
            assert {line.of[by]: line.sums for line in lines} == expected(happened, group, span)
            totals.add(total(lines))
        assert len(totals) == 1
        if since is until is None:
            (sums,) = totals
            assert accounts.rows(store, WHOLE) == [
                (sums.cost, sums.input_tokens, sums.output_tokens, sums.attempts, sums.operations)
            ]


@settings(max_examples=30)
@given(some=st.lists(attempts, min_size=1, max_size=12), zone=st.sampled_from(ZONES))
def test_a_month_of_usage_is_the_month_of_a_budget(empty_store: Path, some: list[Attempt], zone: str) -> None:
    place = ZoneInfo(zone)
    with tempfile.TemporaryDirectory() as folder:
        store = Path(shutil.copy(empty_store, Path(folder) / "gateway.db"))
        charged = [
            replace(each, budgets=(accounts.budget("organisation", 10**12, period_key=month),))
            for each in some
            for month in [periods.key(each.admitted / 1000, "month", place)]
        ]
        history.write(store, charged)
        for (_, month), (spent, held, _) in accounts.counters(store).items():
            first = date.fromisoformat(f"{month}-01")
            last = (first + timedelta(days=32)).replace(day=1) - timedelta(days=1)
            assert held == 0
            assert total(read(store, "user", Span(place, first, last))).cost == spent


def at(text: str, zone: ZoneInfo = BERLIN) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=zone).timestamp() * 1000)


def test_days_of_23_and_25_hours_are_days(store: Path) -> None:
    moments = [
        *("2026-03-28T23:59:59", "2026-03-29T00:00:00", "2026-03-29T23:59:59", "2026-03-30T00:00:00"),
        *("2026-10-24T23:59:59", "2026-10-25T00:00:00", "2026-10-25T23:59:59", "2026-10-26T00:00:00"),
    ]
    history.write(store, [Attempt(at(moment), cost=1) for moment in moments])
    lines = read(store, "day", Span(BERLIN))
    assert [(line.label, line.sums.cost) for line in lines] == [
        ("2026-03-28", 1),
        ("2026-03-29", 2),
        ("2026-03-30", 1),
        ("2026-10-24", 1),
        ("2026-10-25", 2),
        ("2026-10-26", 1),
    ]
    assert total(read(store, "day", Span(BERLIN, date(2026, 3, 29), date(2026, 3, 29)))).cost == 2


def test_an_operation_counts_once_where_its_first_attempt_does(store: Path) -> None:
    retried = [
        Attempt(at("2026-11-20T23:59:58"), operation="req_1", cost=0, outcome="timeout", model="claude-opus-4-5"),
        Attempt(at("2026-11-21T00:00:03"), operation="req_1", cost=7),
        Attempt(at("2026-11-21T00:00:09"), operation="req_2", cost=5),
    ]
    history.write(store, retried)
    for by in DIMENSIONS:
        assert (total(read(store, by, Span(BERLIN))).operations, total(read(store, by, Span(BERLIN))).attempts) == (
            2,
            3,
        )
    assert {line.label: line.sums.operations for line in read(store, "day", Span(BERLIN))} == {
        "2026-11-20": 1,
        "2026-11-21": 1,
    }
    # Two reports of adjacent days add up, too.
    days = [date(2026, 11, 20), date(2026, 11, 21)]
    assert sum(total(read(store, "model", Span(BERLIN, day, day))).operations for day in days) == 2


def test_a_late_truth_replaces_the_estimate_and_belongs_to_the_day_of_its_attempt(store: Path) -> None:
    swept = Attempt(at("2026-11-20T12:00:00"), late=40, usage=Usage(input=5, output=9), hold=1_000)
    history.write(store, [swept, Attempt(at("2026-11-20T13:00:00"), cost=None, outcome="upstream_broken", hold=60)])
    (line,) = read(store, "day", Span(BERLIN))
    assert (line.label, line.sums.cost, line.sums.estimated) == ("2026-11-20", 100, 60)
    assert (line.sums.input_tokens, line.sums.output_tokens) == (5, 9)
    assert {each.label for each in read(store, "outcome", Span(BERLIN))} == {"ok", "upstream_broken"}


def test_people_are_shown_by_address_or_name_and_the_erased_by_their_id(store: Path) -> None:
    history.introduce(store, "per_ada", "Ada Lovelace", "ada@example.com")
    history.introduce(store, "per_grace", "Grace Hopper")
    history.introduce(store, "per_blank")
    people = ["per_ada", "per_grace", "per_blank", "per_gone"]
    history.write(store, [Attempt(START, person, cost=10 - number) for number, person in enumerate(people)])
    lines = read(store, "user", Span(BERLIN))
    assert [line.label for line in lines] == ["ada@example.com", "Grace Hopper", "per_blank", "per_gone"]
    assert lines[0].of == {"user": "per_ada", "name": "Ada Lovelace", "email": "ada@example.com"}


def test_two_people_of_one_name_are_two_people(store: Path) -> None:
    for person in ("per_1", "per_2"):
        history.introduce(store, person, "Ada Lovelace")
    history.write(store, [Attempt(START, person, cost=1) for person in ("per_1", "per_2", "per_2")])
    assert [line.sums.cost for line in read(store, "user", Span(BERLIN))] == [2, 1]


@pytest.mark.parametrize("by", DIMENSIONS)
def test_nothing_settled_is_nothing(store: Path, by: str) -> None:
    assert read(store, by, Span(BERLIN)) == []
    assert total([]) == Sums()


def test_an_entry_without_its_attempt_still_shows_in_the_sums(store: Path) -> None:
    history.write(store, [Attempt(at("2026-11-20T12:00:00"), cost=3)])
    with history.writing(store) as connection:
        connection.exec_driver_sql("DELETE FROM attempts")
    for by in DIMENSIONS:
        assert total(read(store, by, Span(BERLIN, date(2026, 11, 20), date(2026, 11, 20)))).cost == 3


def test_what_was_corrected_by_another_estimate_is_an_estimate_still(store: Path) -> None:
    history.write(store, [Attempt(START, late=30, hold=20)])
    with history.writing(store) as connection:
        connection.exec_driver_sql("UPDATE ledger SET estimated = 1")
    (line,) = read(store, "model", Span(BERLIN))
    assert (line.sums.cost, line.sums.estimated) == (30, 30)


@settings(max_examples=30)
@given(some=st.lists(attempts, max_size=12), zone=st.sampled_from(ZONES), now=st.integers(START, START + YEAR))
def test_what_one_person_sees_is_what_that_person_did(
    empty_store: Path, some: list[Attempt], zone: str, now: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = Path(shutil.copy(empty_store, Path(folder) / "gateway.db"))
        history.write(store, some)
        with history.reading(store) as connection:
            seen = own_usage.report(connection, "per_ada", ZoneInfo(zone), now / 1000)
            with pytest.raises(ValueError, match="of somebody"):
                own_usage.report(connection, "", ZoneInfo(zone), now / 1000)
    mine = [each for each in some if each.person == "per_ada"]
    today = local(now, ZoneInfo(zone))
    assert [period.name for period in seen.periods] == ["today", "week", "month"]
    for period in seen.periods:
        since = date.fromisoformat(period.since)
        assert since <= today
        span = Span(ZoneInfo(zone), since)
        for lines, group in ((period.models, lambda each: each.model), (period.projects, lambda each: each.project)):
            sums = expected(mine, group, span)
            assert {(each.name, each.requests, each.cost, each.estimated) for each in lines} == {
                (name, each.operations, each.cost, each.estimated) for name, each in sums.items()
            }
        whole = expected(mine, lambda _: "", span).get("", Sums())
        assert (period.total.cost, period.total.input_tokens) == (whole.cost, whole.input_tokens)
    month, week = seen.periods[2], seen.periods[1]
    assert month.since == today.replace(day=1).isoformat()
    assert date.fromisoformat(week.since).weekday() == 0


def test_a_report_of_a_moment_ago_is_the_same_one() -> None:
    reports, made = own_usage.Reports(), UsageReport("UTC", ())
    reports.put("per_ada", 100.0, made)
    assert reports.get("per_ada", 114.0) is made
    assert reports.get("per_grace", 100.0) is None
    assert reports.get("per_ada", 115.0) is None
    assert reports.get("per_ada", 99.0) is None  # the clock was set back
    for number in range(own_usage.MOST_KEPT):
        reports.put(f"per_{number}", 100.0, made)
    assert reports.get("per_ada", 100.0) is None
