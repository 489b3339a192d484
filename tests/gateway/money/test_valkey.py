"""The same decisions in Valkey, and a server that is flushed, killed, stopped, or full of other people's keys."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import ssl
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmgw_gateway.money.rates import AwayError, Full, Windows
from llmgw_gateway.money.valkey import MOST_TOGETHER, Valkey, library
from llmgw_wire.secret import Secret
from tests.gateway.money import take_slots
from tests.gateway.money.limiting import requests, slots, tokens
from tests.lab import certificates
from tests.lab.loopback import HOST
from tests.lab.valkey import Valkey as Server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from llmgw_gateway.money.limits import LimitRef
    from tests.lab.certificates import ServerCertificate

ALL = (requests(600), tokens(100_000), slots(3))
SLOT = ALL[2].key
DOCUMENTATION = Path(__file__).parents[3] / "docs" / "gateway.md"
LEASE = 30


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that nobody harms."""
    with Server(tmp_path_factory.mktemp("valkey")) as server:
        yield server


def replica(server: Server, **more: Any) -> Valkey:
    """One replica; patient, because a shared machine is sometimes slow."""
    return Valkey(Secret(server.url), **{"prefix": "llmgw", "timeout_ms": 2_000, "lease_seconds": LEASE, **more})


@pytest.fixture
async def valkey(shared: Server) -> AsyncIterator[Valkey]:
    with shared.client() as client:
        client.flushall()
    running = replica(shared)
    await running.start()
    yield running
    await running.close()


async def back(valkey: Valkey) -> None:
    async with asyncio.timeout(30):
        while not valkey.available:  # noqa: ASYNC110 -- no event of ours: the server's return
            await asyncio.sleep(0.02)


# The differential test: two levels of each kind, limits that leak much within the milliseconds of a history.

LIMITS = (requests(60_000), tokens(6_000_000), slots(2), requests(7, "team"), tokens(50, "team"), slots(3, "team"))
ATTEMPTS = st.sampled_from("abcdef")
subsets = st.lists(st.sampled_from(LIMITS), unique_by=lambda ref: ref.key, min_size=1)
buckets = st.sampled_from([ref for ref in LIMITS if not ref.is_slots])
places = st.lists(st.sampled_from([ref.key for ref in LIMITS if ref.is_slots]), unique=True)
steps = st.one_of(
    st.tuples(st.just("admit"), ATTEMPTS, subsets, st.sampled_from([0, 1, 20, 60, 40_000, 7_000_000])),
    st.tuples(st.just("correct"), buckets, st.integers(-100_000, 100_000)),
    st.tuples(st.just("renew"), ATTEMPTS, places),
    st.tuples(st.just("release"), ATTEMPTS, places),
)


set_back = st.sampled_from([5, 30_000, 59_999, 60_001, 3_600_000])
"""Milliseconds by which the clock is set back: what was kept is of a later time then."""


def age(client: Any, windows: Windows, ref: LimitRef, milliseconds: int) -> None:
    """Let what is kept of a bucket be of a later time, at both."""
    kept = client.get(f"{{t}}:{ref.key}") if not ref.is_slots else None
    if kept is not None:
        content, at = kept.split()
        client.set(f"{{t}}:{ref.key}", b"%s %d" % (content, int(at) + milliseconds), px=10_000_000)
    if ref.key in windows._buckets:
        number, moment, limit = windows._buckets[ref.key]
        windows._buckets[ref.key] = (number, moment + milliseconds, limit)


def in_valkey(step: tuple[Any, ...], life: int, keys: dict[str, int]) -> list[Any]:
    """The operation as the function reads it."""

    def number(key: str) -> int:
        return keys.setdefault(key, len(keys) + 1)

    match step:
        case ("admit", attempt, limits, amount):
            takes = [
                [int(ref.is_slots), number(ref.key), ref.limit, amount if ref.kind == "tokens" else 1] for ref in limits
            ]
            return ["admit", attempt, life, takes]
        case ("correct", ref, difference):
            return ["correct", [[number(ref.key), ref.limit, difference]]]
        case (name, attempt, chosen):
            return [name, attempt, *([life] if name == "renew" else []), [number(key) for key in chosen]]
    raise AssertionError(step)


def in_process(windows: Windows, step: tuple[Any, ...], life: int, now: int) -> list[int]:
    """The same in process, answered in the same form."""
    match step:
        case ("admit", attempt, limits, amount):
            full = windows.admit(attempt, limits, (1, amount, amount, 1), now, now + life)
            return [full.index + 1, full.used, full.wait] if full else [0]
        case ("correct", ref, difference):
            windows.correct(ref.key, ref.limit, difference, now)
        case ("renew", attempt, chosen):
            windows.renew(attempt, chosen, now + life)
        case (_, attempt, chosen):
            windows.release(attempt, chosen)
    return []


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.lists(steps, min_size=1, max_size=6) | set_back, min_size=1, max_size=25),
    st.sampled_from([1, 4, 60_000]),
)
def test_valkey_and_the_process_decide_alike(shared: Server, history: list[list[Any] | int], life: int) -> None:
    """Random histories, in batches; the process is told the time by which the server decided. Leases of 1 ms expire."""
    windows = Windows()
    with shared.client() as client:
        client.flushall()
        client.function_load(library().code, replace=True)
        for batch in history:
            if isinstance(batch, int):
                for ref in LIMITS:
                    age(client, windows, ref, batch)
                continue
            keys: dict[str, int] = {}
            operations = [in_valkey(step, life, keys) for step in batch]
            operations.append(
                ["used", [[int(ref.is_slots), keys.setdefault(ref.key, len(keys) + 1), ref.limit] for ref in LIMITS]]
            )
            (now,), *answers = client.fcall(
                library().name, len(keys), *(f"{{t}}:{key}" for key in keys), json.dumps(operations)
            )
            expected = [in_process(windows, step, life, now) for step in batch]
            assert answers == [*expected, windows.used(LIMITS, now)]
            assert all(client.pttl(key) > 0 for key in client.scan_iter()), "every key expires"


async def test_the_client_says_what_the_function_reads(valkey: Valkey) -> None:
    for attempt in "abc":
        assert Full.read(await valkey.admit(attempt, ALL, (1, 30_000, 30_000, 1))) is None
    assert await valkey.used(ALL[2:]) == [3]
    refused = Full.read(await valkey.admit("d", ALL[2:], (1, 1, 1, 1)))
    assert refused == Full(0, 3, 0)
    assert Full.read(await valkey.admit("d", (tokens(1), *ALL[2:]), (1, 1, 1, 1))) is not None
    valkey.release("a", [SLOT])
    valkey.correct([(tokens(1).key, 1, -90_000)])
    assert await valkey.used((tokens(1), ALL[2])) == [0, 2]
    valkey.renew("a", [SLOT])
    assert await valkey.used(ALL[2:]) == [3]


async def test_a_batch_larger_than_one_call_is_answered_in_order(valkey: Valkey) -> None:
    limit = (requests(MOST_TOGETHER + 50),)
    answers = await asyncio.gather(*(valkey.admit(f"a{n}", limit, (1, 1, 1, 1)) for n in range(MOST_TOGETHER + 60)))
    admitted = [Full.read(answer) is None for answer in answers]
    assert all(admitted[: MOST_TOGETHER + 50]), "as if one after another"
    assert admitted.count(False) > 0


async def test_all_keys_have_one_hash_tag_and_end_by_themselves(shared: Server, valkey: Valkey) -> None:
    await valkey.admit("a", ALL, (1, 10, 10, 1))
    await valkey.count_replicas()
    with shared.client() as client:
        keys = {key.decode(): client.pttl(key) for key in client.scan_iter()}
    assert set(keys) == {f"{{llmgw}}:{name}" for name in (*(ref.key for ref in ALL), "replicas")}
    assert all(0 < life <= (LEASE + 1) * 1000 for life in keys.values())


async def test_replicas_know_how_many_they_are_and_two_organisations_do_not_meet(
    shared: Server, valkey: Valkey
) -> None:
    other, stranger = replica(shared), replica(shared, prefix="other")
    for each in (other, stranger):
        await each.start()
    await valkey.count_replicas()
    assert (valkey.replicas, other.replicas, stranger.replicas) == (2, 2, 1)
    await stranger.admit("a", ALL, (1, 1, 1, 1))
    assert await valkey.used(ALL) == [0, 0, 0]
    for each in (other, stranger):
        await each.close()
    await valkey.count_replicas()
    assert valkey.replicas == 1, "who hangs up is no longer counted"


async def test_a_flushed_server_is_taught_again_without_anybody_noticing(shared: Server, valkey: Valkey) -> None:
    await valkey.admit("a", ALL, (1, 10, 10, 1))
    shared.flush()
    assert await valkey.used(ALL) == [0, 0, 0]
    assert valkey.available


async def test_a_killed_server_is_away_at_once_and_back_by_itself(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Server(tmp_path) as server:
        valkey = replica(server)
        changes: list[bool] = []
        valkey.on_change = changes.append
        await valkey.start()
        await valkey.admit("a", ALL, (1, 10, 10, 1))
        server.kill()
        with caplog.at_level(logging.WARNING, "llmgw.valkey"):
            for _ in range(20):
                with pytest.raises(AwayError):
                    await valkey.used(ALL)
            server.start()
            await back(valkey)
        assert await valkey.used(ALL) == [0, 0, 0]
        assert changes == [False, True]
        assert [record.message.partition(":")[0] for record in caplog.records] == [
            "Valkey is away (ConnectionError)",
            "Valkey is back",
        ]
        assert server.password not in caplog.text
        await valkey.close()


async def test_a_stopped_server_keeps_nobody_waiting_and_what_it_did_late_is_harmless(tmp_path: Path) -> None:
    with Server(tmp_path) as server:
        valkey = replica(server, timeout_ms=50)
        await valkey.start()
        await back(valkey)
        server.pause()
        asked = [valkey.admit(f"a{number}", ALL, (1, 10, 10, 1)) for number in range(100)]
        for answer in asked:
            with pytest.raises(AwayError):
                await answer
        with pytest.raises(AwayError):  # nobody waits for it any more
            valkey.used(ALL).result()
        server.resume()
        await back(valkey)
        with server.client() as client:
            assert client.zcard(f"{{llmgw}}:{SLOT}") <= ALL[2].limit
        await valkey.close()


async def test_a_password_that_was_replaced_is_read_again_with_the_next_connection(tmp_path: Path) -> None:
    with Server(tmp_path) as server:
        former = server.url
        valkey = replica(server, reread=lambda: Secret(server.url))
        await valkey.start()
        await back(valkey)
        with server.client() as client:
            client.config_set("requirepass", "latter")
            server.url = former.replace(server.password, "latter")
            client.client_kill_filter(_type="normal", skipme=True)
        with contextlib.suppress(AwayError):
            await valkey.used(ALL)
        await back(valkey)
        assert await valkey.used(ALL) == [0, 0, 0]
        await valkey.close()


async def test_it_starts_without_the_server_and_finds_it_later(tmp_path: Path) -> None:
    server = Server(tmp_path)
    valkey = replica(server)
    await valkey.start()
    assert not valkey.available
    with server:
        await back(valkey)
        assert await valkey.used(ALL) == [0, 0, 0]
        await valkey.close()


async def test_a_server_that_evicts_is_named_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with Server(tmp_path, "--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru") as server:
        valkey = replica(server)
        with caplog.at_level(logging.WARNING, "llmgw.valkey"):
            await valkey.start()
            await valkey._greet()
        assert [record.message for record in caplog.records] == [
            "Valkey evicts keys when it is full (maxmemory-policy allkeys-lru): set it to noeviction"
        ]
        await valkey.close()


RIGHTS = "+fcall +function|load +info +time +get +set +del +zadd +zrem +zcard +zscore +zremrangebyscore +pexpire"


async def test_the_rights_that_the_documentation_names_are_enough(tmp_path: Path) -> None:
    assert f"~{{llmgw}}:* {RIGHTS}" in DOCUMENTATION.read_text(encoding="utf-8")
    with Server(tmp_path) as server:
        with server.client() as client:
            client.execute_command("ACL", "SETUSER", "gateway", "on", ">canary", "~{llmgw}:*", *RIGHTS.split())
        valkey = Valkey(
            Secret(f"redis://gateway:canary@{HOST}:{server.port}/0"),
            prefix="llmgw",
            timeout_ms=2_000,
            lease_seconds=LEASE,
        )
        await valkey.start()
        for attempt in "abcd":
            await valkey.admit(attempt, ALL, (1, 10, 10, 1))
        await valkey.admit("a", ALL, (1, 10, 10, 1))
        valkey.correct([(ALL[0].key, ALL[0].limit, -600)])
        valkey.renew("a", [SLOT])
        valkey.release("b", [SLOT])
        assert (await valkey.used(ALL))[2] == 2
        assert valkey.available
        await valkey.close()


@contextlib.asynccontextmanager
async def over_tls(server: Server, certificate: ServerCertificate) -> AsyncIterator[int]:
    """A port that speaks TLS before the server: the one from the package cannot."""

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection(HOST, server.port)

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            with contextlib.suppress(ConnectionError):
                while data := await source.read(65_536):
                    sink.write(data)
            sink.close()

        await asyncio.gather(pump(reader, inner_writer), pump(inner_reader, writer))

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.certificate, certificate.key)
    front = await asyncio.start_server(relay, HOST, 0, ssl=context)
    async with front:
        yield front.sockets[0].getsockname()[1]


async def test_over_tls_it_believes_only_whom_it_is_told_to(shared: Server, tmp_path: Path) -> None:
    certificate = certificates.issue(tmp_path)
    async with over_tls(shared, certificate) as port:
        address = Secret(f"rediss://:{shared.password}@{HOST}:{port}/0")
        for ca_file, believed in ((str(certificate.ca), True), ("", False)):
            valkey = Valkey(address, prefix="tls", timeout_ms=2_000, lease_seconds=LEASE, ca_file=ca_file)
            await valkey.start()
            assert valkey.available is believed
            await valkey.close()


def test_three_processes_together_never_pass_the_slots(shared: Server) -> None:
    with shared.client() as client:
        client.flushall()
    argv = [sys.executable, "-m", "tests.gateway.money.take_slots", shared.url]
    running = [subprocess.Popen([*argv, str(n)], stdout=subprocess.PIPE, text=True) for n in range(3)]
    most = [int(process.communicate(timeout=120)[0]) for process in running]
    assert [process.returncode for process in running] == [0, 0, 0]
    assert max(most) <= take_slots.SLOTS
    with shared.client() as client:
        assert client.zcard(f"{{llmgw}}:{SLOT}") == 0


async def test_a_killed_holder_s_slot_is_free_one_lease_later(shared: Server, valkey: Valkey) -> None:
    argv = [sys.executable, "-m", "tests.gateway.money.take_slots", shared.url, "hold"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as holder:  # noqa: ASYNC220 -- nothing else runs
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with shared.client() as client:
            ((_, ends),) = client.zrange(f"{{llmgw}}:{SLOT}", 0, -1, withscores=True)
        holder.kill()
    one: tuple[LimitRef, ...] = (slots(1),)
    async with asyncio.timeout(30):
        while Full.read(await valkey.admit("next", one, (1, 1, 1, 1))) is not None:  # noqa: ASYNC110 -- the same
            await asyncio.sleep(0.05)
    with shared.client() as client:
        seconds, microseconds = client.time()
    assert seconds * 1000 + microseconds / 1000 >= ends
