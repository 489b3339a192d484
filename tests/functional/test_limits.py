"""Limits through the real gateway: who is refused, what a client is told, what an outage of Valkey costs: nothing."""

from __future__ import annotations

import itertools
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import anthropic
import httpx2
import pytest

from llmgw_wire.headers import USAGE_PATH
from tests.functional import ledger
from tests.functional.device import ANTHROPIC, Device, Reply
from tests.lab.fixtures import valkey
from tests.lab.gateway import Gateway
from tests.lab.scripted import Answer, ScriptedBedrock
from tests.lab.usage import Usage

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.lab.canaille import Canaille
    from tests.lab.valkey import Valkey

__all__ = ["valkey"]

MESSAGES: Any = [{"role": "user", "content": "Say hello."}]


def limit(gateway: Gateway, *limits: dict[str, object], server: Valkey | None = None) -> None:
    gateway.document["limits"] = list(limits)
    if server is not None:
        gateway.document["valkey"] = {"url_file": "valkey.url"}
        address = gateway.folder / "valkey.url"
        address.touch(mode=0o600)
        address.write_text(server.url, encoding="ascii")
    gateway.restart()


@pytest.mark.parametrize("where", ["in process", "valkey"])
def test_a_full_limit_refuses_with_429_and_says_which_how_much_and_when(
    gateway: Gateway, ada: Device, scripted: ScriptedBedrock, valkey: Valkey, where: str
) -> None:
    limit(gateway, {"level": "user", "requests_per_minute": 2}, server=valkey if where == "valkey" else None)
    assert [ada.ask().status, ada.ask(stream=True).status] == [200, 200]
    for reply in (ada.ask(), ada.ask_bedrock(stream=True)):
        assert (reply.status, reply.error["type"], reply.error["code"]) == (429, "rate_limit_error", "rate_exceeded")
        assert 1 <= int(reply.headers["retry-after"]) <= 60
        assert "x-should-retry" not in reply.headers
        for part in ("Your request limit is reached", "of 2 requests a minute are in use", "Try again in", "#llm-help"):
            assert part in reply.error["message"]
    assert len(scripted.calls) == 2
    (shown,) = ada.me()["limits"]
    assert (shown["kind"], shown["limit"], shown["remaining"]) == ("requests", 2, 0)
    ledger.settled(gateway.db, 2)


@pytest.mark.configured(limits=[{"level": "user", "concurrent": 1}])
def test_the_anthropic_sdk_waits_as_it_is_told_and_then_succeeds(ada: Device, scripted: ScriptedBedrock) -> None:
    scripted.script(Answer(hold_after=1))
    seen: list[tuple[int, str, float]] = []

    def note(response: httpx2.Response) -> None:
        seen.append((response.status_code, response.headers.get("retry-after", ""), time.monotonic()))
        scripted.release_all()

    with (
        httpx2.Client(trust_env=False, event_hooks={"response": [note]}) as plain,
        anthropic.Anthropic(base_url=ada.url, auth_token=ada.token, max_retries=5, http_client=plain) as client,
        ada.streaming() as running,
    ):
        assert running.status == 200
        reading = threading.Thread(target=running.read)
        reading.start()
        try:
            answer = client.messages.create(model="claude-sonnet-5-5", max_tokens=50, messages=MESSAGES)
        finally:
            scripted.release_all()
            reading.join()
    assert answer.content
    assert [status for status, *_ in seen][:1] == [429]
    assert seen[-1][0] == 200
    assert all(later[2] - earlier[2] >= int(earlier[1]) for earlier, later in itertools.pairwise(seen))


@pytest.mark.configured(
    budgets=[{"level": "user", "limit_usd": 0}],
    limits=[{"level": "user", "requests_per_minute": 1, "tokens_per_minute": 10, "concurrent": 1}],
)
def test_a_refused_budget_costs_no_request_and_no_slot(ada: Device) -> None:
    assert [ada.ask().status for _ in range(4)] == [402] * 4
    assert [shown["used"] for shown in ada.me()["limits"]] == [0, 0, 0]


@pytest.mark.configured(limits=[{"level": "user", "concurrent": 3}])
def test_concurrent_requests_never_pass_the_slots(gateway: Gateway, ada: Device, scripted: ScriptedBedrock) -> None:
    scripted.default = Answer(hold_after=1)
    with ThreadPoolExecutor(20) as pool:
        replies = [pool.submit(ada.ask, stream=True) for _ in range(20)]
        while sum(reply.done() for reply in replies) < 17 or len(scripted.calls) < 3:
            ada.request("GET", "/healthz")
        used = ada.me()["limits"][0]["used"]
        scripted.release_all()
        statuses = [reply.result().status for reply in replies]
    assert (used, statuses.count(200), statuses.count(429), len(scripted.calls)) == (3, 3, 17, 3)
    ledger.settled(gateway.db, 3)
    assert ada.me()["limits"][0]["used"] == 0


@pytest.mark.configured(limits=[{"level": "user", "concurrent": 1}])
def test_the_slot_of_a_client_that_left_is_free_while_its_answer_is_drained(
    gateway: Gateway, ada: Device, scripted: ScriptedBedrock
) -> None:
    # Far more events than it takes to notice that the client has left.
    scripted.script(Answer("word " * 1000, pieces=1000, pause_seconds=600))
    with ThreadPoolExecutor(1) as pool:
        opening = pool.submit(lambda: ada.streaming().__enter__())
        while not scripted.calls:
            ada.request("GET", "/healthz")
        scripted.calls[0].step()  # the first event opens the answer
        opening.result().close()
    while ada.ask().status == 429:
        scripted.calls[0].step()
    assert not scripted.calls[0].finished, "the drain goes on"
    scripted.release_all()
    ledger.settled(gateway.db, 2)


@pytest.mark.configured(limits=[{"level": "provider", "model": "claude-sonnet-4-5", "tokens_per_minute": 10_000}])
def test_tokens_are_debt_when_a_call_takes_more_than_was_expected(
    gateway: Gateway, ada: Device, scripted: ScriptedBedrock
) -> None:
    scripted.script(Answer(usage=Usage(input=10, output=100_000, cache_read=900_000)))
    assert ada.ask().status == 200
    ledger.settled(gateway.db, 1)
    refused = ada.ask()
    assert (refused.status, refused.headers["retry-after"]) == (429, "60")
    assert "The token limit of the cloud account for claude-sonnet-4-5 is reached" in refused.error["message"]
    (shown,) = ada.me()["limits"]
    assert 400_000 < shown["used"] <= 500_010, "output counts five times, reads from the cache not at all"
    assert ada.ask(model="claude-opus-5-5").status == 200


def test_an_outage_of_valkey_under_load_loses_no_request_and_no_money(
    gateway: Gateway, ada: Device, valkey: Valkey
) -> None:
    """Flushed, killed, started, stopped and woken while people work: every call is answered, every one is settled."""
    limit(gateway, {"level": "user", "requests_per_minute": 100_000, "concurrent": 1_000}, server=valkey)
    stop = threading.Event()
    statuses: list[int] = []

    def work() -> None:
        while not stop.is_set():
            statuses.append(ada.ask(stream=len(statuses) % 2 == 0).status)

    def some_calls() -> None:
        begun = len(statuses)
        while len(statuses) < begun + 20:
            ada.request("GET", "/healthz")

    with ThreadPoolExecutor(4) as pool:
        working = [pool.submit(work) for _ in range(4)]
        try:
            for harm in (valkey.flush, valkey.kill, valkey.start, valkey.wait_ready, valkey.pause):
                some_calls()
                harm()
            some_calls()  # they do not wait for a server that is stopped
            valkey.resume()
            some_calls()
        finally:
            valkey.resume()
            stop.set()
    for worker in working:
        worker.result()
    assert set(statuses) == {200}
    ledger.settled(gateway.db, len(statuses))
    log = gateway.log.read_text(encoding="utf-8")
    assert "Valkey is away" in log
    assert valkey.password not in log


def test_two_gateways_share_a_limit_and_a_restart_forgets_nothing(
    gateway: Gateway,
    ada: Device,
    valkey: Valkey,
    tmp_path: Path,
    canaille: Canaille,
    scripted: ScriptedBedrock,
    sign_in: Callable[[str], str],
) -> None:
    rule = {"level": "organisation", "requests_per_minute": 3}
    other = Gateway(
        tmp_path / "other",
        issuers=[canaille.issuer_section()],
        endpoint=scripted.endpoint,
        region=scripted.region,
        credentials=scripted.key.environment(),
    )
    with other:
        limit(other, rule, server=valkey)
        limit(gateway, rule, server=valkey)
        grace = Device(other.url)
        grace.exchange(sign_in("grace"))
        assert [person.ask().status for person in (ada, grace, ada, grace, ada)] == [200, 200, 200, 429, 429]
        gateway.restart()
        assert ada.ask().status == 429


@pytest.mark.configured(server={"questions_per_minute": 1}, limits=[{"level": "user", "requests_per_minute": 1}])
def test_questions_that_cost_nothing_are_limited_too_and_take_nothing_of_the_limits_of_calls(
    gateway: Gateway, ada: Device, sign_in: Callable[[str], str]
) -> None:

    def question(method: str, path: str) -> Reply:
        return ada.request(method, path, json.dumps(ANTHROPIC).encode() if method == "POST" else None)

    questions = [("GET", "/v1/me"), ("GET", "/v1/models"), ("GET", USAGE_PATH), ("POST", "/v1/messages/count_tokens")]
    assert question("GET", "/v1/me").status == 200
    for each in questions:
        refused = question(*each)
        assert (refused.status, refused.error["code"]) == (429, "rate_exceeded")
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert "Your limit on questions is reached: 1 of 1 requests a minute" in refused.error["message"]
    assert ada.ask().status == 200
    grace = Device(gateway.url)
    grace.exchange(sign_in("grace"))
    assert grace.request("GET", "/v1/me").status == 200
