"""Everything at once against the promises about money. `tests.lab.history` decides: it shares no code with the gateway.

Both columns of the design's section 8: "embedded" is one process on a file, "company" three replicas on PostgreSQL
and Valkey.
"""

from __future__ import annotations

import random
import signal
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any

import pytest

from tests.functional.trial import until
from tests.gateway.store.proxy import Proxy
from tests.lab.postgres import Postgres
from tests.lab.scripted import Answer, ScriptedBedrock
from tests.lab.usage import Usage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.functional.trial import Trial
    from tests.lab.scripted import Call
    from tests.lab.valkey import Valkey

CROWD = 200
AMPLE = {"level": "user", "limit_usd": 100, "overshoot_usd": 100}
CREW = 6
"""Attempts under way at each kill."""
EVENTS = 8
"""Of a streamed answer in these tests, by the scripted cloud's own writing."""
STEPS: dict[str, dict[str, Any]] = {
    "nothing has been answered": {"stream": False, "hold_after": 0},
    "the head is there": {"stream": True, "hold_after": 0},
    "the answer has begun": {"stream": True, "hold_after": 1},
    "the middle": {"stream": True, "hold_after": 4},
    "only the last event is missing": {"stream": True, "hold_after": EVENTS},
    "all was sent": {"stream": True},
    "all was sent at once": {"stream": False},
    "some were sent": {"stream": True},
}
"""Where a kill finds the attempts; the last three race with their settlement, the last with everything."""


@pytest.fixture(params=["embedded", "company"])
def column(request: pytest.FixtureRequest) -> dict[str, Any]:
    """What `begin` needs for each column in turn."""
    if request.param == "embedded":
        return {}
    company: dict[str, Any] = request.getfixturevalue("company")
    return company


def answers(count: int, first: int = 0, **more: Any) -> list[Answer]:
    """Each with a usage that no other has, so that none can stand for another."""
    numbers = range(first, first + count)
    return [Answer(usage=Usage(1000 + number, 100, cache_read=number), **more) for number in numbers]


def crowd(trial: Trial, count: int, chance: random.Random | None = None, **more: Any) -> list[int]:
    """So many clients at once on all replicas; with `chance` each hangs up somewhere. Their statuses."""

    def one(number: int) -> int:
        leave = None if chance is None else moments[number]
        dialect = ("anthropic", "bedrock")[number % 2]
        replica = number % len(trial.gateways)
        return trial.ask(f"client {number}", replica=replica, dialect=dialect, leave_after=leave, **more).status

    moments = [chance.randrange(2500) for _ in range(count)] if chance is not None else []
    with ThreadPoolExecutor(count) as pool:
        asked = [pool.submit(one, number) for number in range(count)]
        until(lambda: sum(each.done() for each in asked) + len(trial.cloud.calls) >= count, "all heard")
        trial.cloud.release_all()
        return [each.result() for each in asked]


@pytest.mark.parametrize("overshoot", [2.0, 0.25], ids=["the limit decides", "the worst case decides"])
def test_two_hundred_at_once_stay_within_the_published_bound(
    begin: Callable[..., Trial], column: dict[str, Any], scripted: ScriptedBedrock, overshoot: float
) -> None:
    trial = begin({"level": "user", "limit_usd": 0.05, "overshoot_usd": overshoot}, **column)
    # None ends before all were heard: what is admitted is admitted at once, and costs more than was expected.
    scripted.script(*answers(CROWD, first=2000, hold_after=1))
    statuses = crowd(trial, CROWD)
    trial.rest()
    (budget,) = trial.ada.me()["budgets"]
    assert set(statuses) == {200, 402}
    assert budget["spent"] - budget["limit"] <= budget["overshoot_limit"] == overshoot * 1_000_000
    assert budget["spent"] == trial.billed() > budget["limit"]
    assert budget["held"] == 0
    assert trial.faults() == []


def test_two_hundred_that_hang_up_anywhere_are_charged_what_the_provider_counted(
    begin: Callable[..., Trial], column: dict[str, Any], scripted: ScriptedBedrock
) -> None:
    trial = begin(AMPLE, **column)
    scripted.script(*answers(CROWD, text="word " * 100, pause_seconds=0.01))
    crowd(trial, CROWD, random.Random(20261121))  # noqa: S311 -- no secret
    trial.rest()
    assert trial.spent() == trial.billed()
    assert len(scripted.calls) == CROWD
    assert trial.faults() == []


def reached(calls: list[Call], step: str, least: int) -> bool:
    """Whether the attempts of a round are where the kill wants them."""
    hold = STEPS[step].get("hold_after")
    if step == "some were sent":
        return len(calls) >= least
    if hold is None:
        return len(calls) == CREW and all(call.ended.is_set() for call in calls)
    return len(calls) == CREW and all(call.events_sent >= hold for call in calls)


def killed(trial: Trial, kills: int, chance: random.Random) -> None:
    """Kill a gateway again and again, at every step in turn; others take over, or it starts again."""
    steps = list(STEPS)
    with ThreadPoolExecutor(CREW * 2) as pool:
        for number in range(kills):
            step = steps[number % len(steps)]
            victim = trial.gateways[number % len(trial.gateways)]
            shape = dict(STEPS[step])
            stream = shape.pop("stream")
            known = len(trial.cloud.calls)
            trial.cloud.script(*answers(CREW, number * CREW, **shape))
            asked = [
                pool.submit(
                    trial.ask,
                    f"kill {number} client {client}",
                    replica=trial.gateways.index(victim),
                    stream=stream,
                    dialect=("anthropic", "bedrock")[client % 2],
                )
                for client in range(CREW)
            ]
            least = chance.randrange(1, CREW + 1)
            until(lambda: reached(trial.cloud.calls[known:], step, least), step)  # noqa: B023 -- called at once
            victim.program.send_signal(signal.SIGKILL)
            victim.program.wait(seconds=10)
            wait(asked)
            trial.cloud.release_all()
            trial.cloud.forget_script()
            trial.restart(victim)


def test_a_gateway_that_is_killed_at_any_step_loses_and_doubles_nothing(
    begin: Callable[..., Trial], column: dict[str, Any]
) -> None:
    trial = begin(AMPLE, **column)
    trial.crashes = True
    kills = len(STEPS)
    killed(trial, kills, random.Random(20261121))  # noqa: S311 -- no secret
    assert trial.ask("afterwards").status == 200
    trial.sweep()
    assert trial.running() == []
    unknown = [entry for entry in trial.books().entries if entry.outcome == "lease_expired"]
    assert len(unknown) >= kills // len(STEPS) * CREW * 5, "five of eight steps leave every attempt without an end"
    assert trial.faults() == []


@pytest.mark.long
def test_a_hundred_kills_are_settled_when_their_leases_have_ended(
    begin: Callable[..., Trial], column: dict[str, Any]
) -> None:
    trial = begin(AMPLE, **column)
    trial.crashes = True
    killed(trial, 104, random.Random(20261122))  # noqa: S311 -- no secret
    trial.rest(seconds=120)
    assert {entry.outcome for entry in trial.books().entries} >= {"ok", "lease_expired"}
    assert trial.faults() == []


@pytest.mark.long
def test_a_gateway_that_sleeps_past_its_leases_brings_the_truth_when_it_wakes(
    begin: Callable[..., Trial], column: dict[str, Any], scripted: ScriptedBedrock
) -> None:
    """At every step; meanwhile others may have settled its attempts as unknown: one correction follows."""
    trial = begin(AMPLE, **column)
    trial.crashes = True
    sleeper = trial.gateway
    shapes = [dict(shape) for shape in STEPS.values() if "hold_after" in shape]
    with ThreadPoolExecutor(len(shapes)) as pool:
        asked = []
        for number, shape in enumerate(shapes):
            stream = shape.pop("stream")
            scripted.script(*answers(1, number, **shape))
            asked.append(pool.submit(trial.ask, f"sleeper {number}", stream=stream))
            until(lambda: len(scripted.calls) == number + 1, "dispatched")  # noqa: B023 -- called at once
        sleeper.program.send_signal(signal.SIGSTOP)
        if len(trial.gateways) > 1:
            trial.rest(seconds=120)  # the others settle what has lost its lease
            assert {entry.outcome for entry in trial.books().entries} == {"lease_expired"}
        else:
            until(trial.lease_ended, "past its lease", seconds=120)
        sleeper.program.send_signal(signal.SIGCONT)
        scripted.release_all()
        assert [each.result().status for each in asked] == [200] * len(shapes)
    until(lambda: trial.spent() == trial.billed(), "corrected", seconds=60)
    trial.rest()
    assert trial.faults() == []


@pytest.fixture
def fragile() -> Iterator[Postgres]:
    """A PostgreSQL of the test's own: it will be killed."""
    with Postgres() as server:
        yield server


@pytest.mark.parametrize("ending", [pytest.param("restart", marks=pytest.mark.long), "kill"])
def test_the_database_goes_away_under_load_and_nothing_is_lost_or_doubled(
    begin: Callable[..., Trial], fragile: Postgres, scripted: ScriptedBedrock, ending: str
) -> None:
    """Clients may be told 503; what was dispatched is charged exactly, because no gateway died."""
    trial = begin(AMPLE, replicas=3, database=fragile.url(fragile.database()))
    count = 150
    scripted.script(*answers(count, pause_seconds=0.01))
    with ThreadPoolExecutor(25) as pool:
        asked = [pool.submit(trial.ask, f"client {number}", replica=number % 3) for number in range(count)]
        for part in (count // 4, count // 2):
            until(lambda: len(trial.clients) >= part, "under load")  # noqa: B023 -- called at once
            if ending == "kill":
                fragile.kill()
                fragile.start()
                fragile.wait_ready()
            else:
                fragile.restart()
        statuses = [each.result().status for each in asked]
    assert set(statuses) <= {200, 503}
    assert statuses.count(200) > 0
    trial.rest()
    assert trial.spent() == trial.billed()
    assert trial.faults() == []


@pytest.mark.parametrize(
    "before",
    [
        pytest.param(False, id="the answer is lost"),
        pytest.param(True, id="the commit is lost", marks=pytest.mark.long),
    ],
)
def test_commits_whose_outcome_nobody_knows_are_neither_lost_nor_doubled(
    begin: Callable[..., Trial],
    postgres: Postgres,
    scripted: ScriptedBedrock,
    before: bool,  # noqa: FBT001 -- a case
) -> None:
    """The network between gateways and database breaks while they commit, again and again, under load."""
    count = 150
    with Proxy(postgres.port) as network:
        database = postgres.url(postgres.database()).replace(f":{postgres.port}/", f":{network.port}/")
        trial = begin(AMPLE, replicas=3, database=database)
        scripted.script(*answers(count))
        network.before = before
        with ThreadPoolExecutor(25) as pool:
            asked = [pool.submit(trial.ask, f"client {number}", replica=number % 3) for number in range(count)]
            for part in range(1, 6):
                until(lambda: len(trial.clients) >= part * count // 8, "under load")  # noqa: B023 -- called at once
                network.cut_commits = 3
            statuses = [each.result().status for each in asked]
        network.cut_commits = 0
        assert network.cuts >= 3
        trial.rest()
        assert set(statuses) <= {200, 503}
        assert trial.spent() == trial.billed()
        assert trial.faults() == []
        trial.close()


def test_valkey_goes_away_under_load_and_no_money_is_lost(
    begin: Callable[..., Trial], company: dict[str, Any], valkey: Valkey, scripted: ScriptedBedrock
) -> None:
    """What is lost there is an empty window: nobody is refused, and every call is charged exactly."""
    trial = begin(AMPLE, **company)
    count = 150
    scripted.script(*answers(count, pause_seconds=0.01))
    with ThreadPoolExecutor(25) as pool:
        asked = [pool.submit(trial.ask, f"client {number}", replica=number % 3) for number in range(count)]
        for part, harm in enumerate((valkey.flush, valkey.kill, valkey.start, valkey.flush), start=1):
            until(lambda: len(trial.clients) >= part * count // 6, "under load")  # noqa: B023 -- called at once
            if harm == valkey.flush:
                valkey.wait_ready()
            harm()
        statuses = [each.result().status for each in asked]
    assert set(statuses) == {200}
    trial.rest()
    assert trial.spent() == trial.billed()
    assert trial.faults() == []


def test_a_replica_that_stops_in_the_middle_of_its_work_stops_nobody_else(
    begin: Callable[..., Trial], company: dict[str, Any], scripted: ScriptedBedrock
) -> None:
    """Each in turn is stopped under load, perhaps with a transaction open, until the others have answered many more."""
    trial = begin(AMPLE, **company)
    rounds, count = 3, 60
    scripted.script(*answers(rounds * count))
    with ThreadPoolExecutor(count) as pool:
        for number in range(rounds):
            victim = trial.gateways[number % 3]
            known = len(trial.clients)
            asked = [
                pool.submit(trial.ask, f"round {number} client {client}", replica=client % 3) for client in range(count)
            ]
            until(lambda: len(trial.clients) > known + number, "under load")  # noqa: B023 -- called at once
            victim.program.send_signal(signal.SIGSTOP)
            try:
                others = [each for client, each in enumerate(asked) if client % 3 != number % 3]
                served = [each.result().status for each in others]
            finally:
                victim.program.send_signal(signal.SIGCONT)
            assert set(served) <= {200, 503}
            assert {each.result().status for each in asked} <= {200, 503}
    trial.rest()
    assert trial.spent() == trial.billed()
    assert trial.faults() == []
