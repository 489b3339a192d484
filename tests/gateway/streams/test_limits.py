"""What is due when on one stream: computed, so nobody has to wait for it."""

from __future__ import annotations

import pytest

from llmgw_gateway.sections.upstream import Bedrock, Streams
from llmgw_gateway.streams.limits import Limits, Timers

LIMITS = Limits(
    gate_seconds=15, first_content_seconds=300, idle_seconds=290, idle_with_pings_seconds=600, ping_seconds=20
)
DISPATCHED, HEAD = 1000.0, 1010.0


def timers(*, pings: bool = True) -> Timers:
    return Timers(LIMITS, DISPATCHED, HEAD, pings=pings)


def test_first_the_gate_opens_counted_from_the_dispatch() -> None:
    assert timers().next() == (DISPATCHED + 15, "open")


@pytest.mark.parametrize(("pings", "due"), [(True, (HEAD + 20, "ping")), (False, (DISPATCHED + 300, "first_content"))])
def test_then_pings_where_there_are_any_until_the_first_event_is_overdue(
    pings: bool,  # noqa: FBT001 -- a table
    due: tuple[float, str],
) -> None:
    each = timers(pings=pings)
    each.opened = True
    assert each.next() == due
    each.written_at = DISPATCHED + 290
    assert each.next() == (DISPATCHED + 300, "first_content")


@pytest.mark.parametrize(("pings", "idle"), [(True, 600), (False, 290)])
def test_a_provider_that_began_has_its_idle_time_from_its_last_byte(pings: bool, idle: float) -> None:  # noqa: FBT001
    each = timers(pings=pings)
    each.opened = each.begun = True
    each.waiting_since = 2000
    each.written_at = 2000 + idle - 1
    assert each.next() == (2000 + idle, "idle")


def test_at_the_same_moment_a_dead_provider_is_given_up_and_not_pinged() -> None:
    each = timers()
    each.opened = each.begun = True
    each.waiting_since, each.written_at = 2000, 2580
    assert each.next() == (2600, "idle")


def test_while_its_bytes_are_being_written_the_provider_owes_nothing() -> None:
    each = timers(pings=False)
    each.opened = each.begun = True
    each.waiting_since = None
    assert each.next() is None


def test_every_limit_of_the_configuration_counts() -> None:
    bedrock = Bedrock(region="us-east-1", first_content_seconds=1, idle_seconds=2, idle_with_pings_seconds=3)
    streams = Streams(gate_seconds=4, ping_seconds=5, stall_seconds=6, drain_seconds=7, most_drains=8)
    assert Limits.of(bedrock, streams) == Limits(4, 1, 2, 3, 5, 6, 7, most_drains=8)
    assert Limits.of(Bedrock(region="us-east-1"), Streams()) == Limits()
