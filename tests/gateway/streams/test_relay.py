"""The relay between real sockets: clients that leave, that take nothing, that must not get the rest."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import pytest
from aiohttp import web

from llmgw_gateway.call import Outcome, Usage
from llmgw_gateway.dialects import anthropic, bedrock
from llmgw_gateway.errors import GatewayError
from llmgw_gateway.streams.body import Body
from llmgw_gateway.streams.limits import Limits
from llmgw_gateway.streams.meter import Meter
from llmgw_gateway.streams.refusals import StreamRefused
from llmgw_gateway.streams.relay import Relay
from llmgw_wire.errors import ErrorCode
from tests.lab import aws_frames

if TYPE_CHECKING:
    from collections.abc import Callable

    from llmgw_gateway.streams.answer import Writer

WATCHDOG = 30
"""Seconds after which a test that hangs has failed."""
SMALL = 4096
USAGE = Usage(input=10, output=20)
START = {"type": "message_start", "message": {"usage": {"input_tokens": 10, "output_tokens": 1}}}
END: list[dict[str, Any]] = [{"type": "message_delta", "usage": {"output_tokens": 20}}, {"type": "message_stop"}]


def delta(size: int = 5) -> dict[str, Any]:
    return {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "x" * size}}


class Endless:
    """An upstream that does not mind waiting."""

    def pause(self) -> None: ...

    def resume(self) -> None: ...


@dataclass
class Bench:
    """One answer from an upstream that the test feeds to a client that the test plays."""

    relay: Relay
    writer: Writer = field(default_factory=anthropic.EventWriter)
    outcome: Outcome = field(default_factory=Outcome)
    relaying: asyncio.Event = field(default_factory=asyncio.Event)
    handled: asyncio.Event = field(default_factory=asyncio.Event)
    refused: StreamRefused | GatewayError | None = None
    dispatched_at: float | None = None
    cancel_stops_billing: bool = False
    opened: int = 0
    """How often the head was said to be out."""
    request: web.BaseRequest | None = None

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self.upstream = Body(Endless())
        self._runner = web.ServerRunner(web.Server(self._handle, access_log=None), shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL)  # a client that does not read is soon noticed
        client.settimeout(0)
        await loop.sock_connect(client, self._runner.addresses[0])
        self.reader, self.client = await asyncio.open_connection(sock=client, limit=SMALL)
        self.client.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        return self

    async def __aexit__(self, *_: object) -> None:
        self.client.transport.abort()
        await self._runner.cleanup()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        transport = request.transport
        assert isinstance(transport, asyncio.Transport)
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL)
        transport.set_write_buffer_limits(high=SMALL)
        meter, session = Meter(), "ses_1"
        self.request = request
        asyncio.get_running_loop().call_soon(self.relaying.set)  # after the relay's first step
        try:
            return await self.relay.run(
                request,
                self.upstream,
                self.writer,
                bedrock.inner_event,
                {},
                meter,
                self.outcome,
                session,
                dispatched_at=self.dispatched_at,
                cancel_stops_billing=self.cancel_stops_billing,
                opens=self._count,
            )
        except StreamRefused as refused:
            self.refused = refused
            return web.Response(status=refused.status)
        except GatewayError as error:
            self.refused = error
            return web.Response(status=error.code.wire.status)
        finally:
            self.handled.set()

    def _count(self) -> None:
        self.opened += 1

    def feed(self, *events: dict[str, Any], end: bool = False) -> None:
        for event in events:
            self.upstream.feed(aws_frames.chunk(event))
        if end:
            self.upstream.finish()

    async def until_handled(self) -> None:
        async with asyncio.timeout(WATCHDOG):
            await self.handled.wait()

    async def begun(self) -> None:
        """The head and the first event are with the client."""
        self.feed(START)
        async with asyncio.timeout(WATCHDOG):
            await self.reader.readuntil(b"chunk" if isinstance(self.writer, bedrock.EventWriter) else b"message_start")

    async def leave(self) -> None:
        self.client.transport.abort()

    async def feed_until(self, condition: Any, size: int = 5) -> None:
        """The model goes on talking until something happens."""
        async with asyncio.timeout(WATCHDOG):
            while not condition():
                self.feed(delta(size))
                await asyncio.sleep(0)

    async def rest(self) -> bytes:
        async with asyncio.timeout(WATCHDOG):
            return await self.reader.read(-1)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WATCHDOG):
        while not condition():  # noqa: ASYNC110 -- what sockets do has no event
            await asyncio.sleep(0)


def nobody(_session: str) -> bool:
    return False


async def test_what_was_seen_of_a_running_answer_is_known_at_once() -> None:
    # The hold of an attempt is topped up by it, while the answer goes on.
    async with Bench(Relay(nobody)) as bench:
        await bench.begun()
        assert (bench.outcome.completeness, bench.outcome.usage.prompt) == ("partial", USAGE.prompt)
        bench.feed(delta(), delta())
        assert bench.outcome.pieces == 2


async def test_an_answer_reaches_its_client_whole_and_is_metered() -> None:
    async with Bench(Relay(nobody)) as bench:
        await bench.begun()
        bench.feed(delta(), *END, end=True)
        await bench.until_handled()
        bench.client.write_eof()
        assert b"message_stop" in await bench.rest()
    assert (bench.outcome.note, bench.outcome.completeness, bench.outcome.usage) == ("ok", "complete", USAGE)


@pytest.mark.parametrize("size", [50_000, 5_000_000], ids=["at the end of the body", "in the middle"])
async def test_a_client_that_takes_no_byte_is_gone_after_a_while_and_charged_exactly(size: int) -> None:
    # The smaller answer fits into aiohttp's buffer: nobody waits for its client before the end of the body is written.
    async with Bench(Relay(nobody, Limits(stall_seconds=0.05))) as bench:
        bench.feed(START, delta(size), *END, end=True)
        await bench.until_handled()
    assert bench.outcome.note == "client_gone"
    assert (bench.outcome.completeness, bench.outcome.usage) == ("complete", USAGE)


async def test_the_upstream_is_drained_when_the_client_leaves() -> None:
    relay = Relay(nobody)
    async with Bench(relay) as bench:
        await bench.begun()
        await bench.leave()
        await bench.feed_until(lambda: relay.drains == 1)
        bench.feed(*END, end=True)
        await bench.until_handled()
    assert (bench.outcome.note, bench.outcome.completeness, bench.outcome.usage) == ("client_gone", "complete", USAGE)
    assert relay.drains == 0


@pytest.mark.parametrize(
    "limits",
    [Limits(most_drains=0), Limits(drain_seconds=0), Limits(drain_bytes=1000)],
    ids=["too many", "too long", "too much"],
)
async def test_a_drain_beyond_its_bounds_ends_as_unknown(limits: Limits) -> None:
    relay = Relay(nobody, limits)
    async with Bench(relay) as bench:
        await bench.begun()
        await bench.leave()
        await bench.feed_until(bench.handled.is_set, 500)
    assert (bench.outcome.note, bench.outcome.completeness) == ("drain_capped", "partial")
    assert relay.drains == 0


async def test_a_drain_within_its_bounds_is_not_capped() -> None:
    relay = Relay(nobody, Limits(most_drains=1, drain_bytes=10_000_000))
    async with Bench(relay) as bench, Bench(relay) as other:
        for each in (bench, other):
            await each.begun()
        await bench.leave()
        await bench.feed_until(lambda: relay.drains == 1)
        await other.leave()
        await other.feed_until(other.handled.is_set)
        bench.feed(*END, end=True)
        await bench.until_handled()
    assert (bench.outcome.note, other.outcome.note) == ("client_gone", "drain_capped")


@pytest.mark.parametrize(
    ("writer", "mark"),
    [(anthropic.EventWriter, b"authentication_error"), (bedrock.EventWriter, b"validationException")],
    ids=["anthropic", "bedrock"],
)
async def test_an_ended_session_gets_a_terminal_event_and_its_answer_is_settled_exactly(
    writer: type[Writer], mark: bytes
) -> None:
    ended: set[str] = set()
    relay = Relay(ended.__contains__)
    async with Bench(relay, writer()) as bench:
        await bench.begun()
        await relay.end_revoked()
        bench.feed(delta())
        ended.add("ses_1")
        await relay.end_revoked()
        await bench.feed_until(lambda: relay.drains == 1)  # from here on it counts like a client that left
        bench.feed(delta(77), *END, end=True)
        await bench.until_handled()
        rest = await bench.rest()
    assert mark in rest
    assert b"llmgw login" in rest
    after = rest[rest.index(mark) :]
    assert after.endswith(b"\r\n0\r\n\r\n")
    for event in (b"message_stop", b":event-type", b"x" * 77):
        assert event not in after
    assert (bench.outcome.note, bench.outcome.completeness, bench.outcome.usage) == ("revoked", "complete", USAGE)
    assert relay.drains == 0


async def test_an_ended_session_does_not_even_get_the_first_event() -> None:
    ended: set[str] = set()
    relay = Relay(ended.__contains__, Limits(gate_seconds=3600))
    async with Bench(relay) as bench:
        await bench.relaying.wait()
        ended.add("ses_1")
        await relay.end_revoked()
        bench.feed(START, *END, end=True)
        await bench.until_handled()
        rest = await bench.rest()
    assert b"authentication_error" in rest
    assert b"message_start" not in rest
    assert (bench.outcome.note, bench.outcome.usage) == ("revoked", USAGE)


async def test_an_ended_session_with_a_client_that_takes_nothing_is_settled_all_the_same() -> None:
    ended = {"ses_1"}
    relay = Relay(ended.__contains__, Limits(stall_seconds=0.05))
    async with Bench(relay) as bench:
        bench.feed(START, delta(5_000_000))
        await bench.relaying.wait()
        await relay.end_revoked()
        bench.feed(*END, end=True)
        await bench.until_handled()
    assert (bench.outcome.completeness, bench.outcome.usage) == ("complete", USAGE)


async def test_a_failure_as_the_first_event_is_free_whether_or_not_the_head_had_to_leave() -> None:
    for limits in (Limits(gate_seconds=3600), Limits(gate_seconds=0)):
        async with Bench(Relay(nobody, limits)) as bench:
            if not limits.gate_seconds:
                async with asyncio.timeout(WATCHDOG):
                    await bench.reader.readuntil(b"\r\n\r\n")
            bench.upstream.feed(aws_frames.exception("throttlingException", "slow down"))
            bench.upstream.finish()
            await bench.until_handled()
        assert bench.outcome.refused_upstream
        assert (bench.refused is None) is (not limits.gate_seconds)


async def test_a_failure_after_the_first_event_is_not_free() -> None:
    async with Bench(Relay(nobody)) as bench:
        await bench.begun()
        bench.upstream.feed(aws_frames.exception("throttlingException", "slow down"))
        bench.upstream.finish()
        await bench.until_handled()
    assert not bench.outcome.refused_upstream
    assert bench.outcome.note == "upstream_throttlingException"


async def test_silence_is_filled_with_pings_where_the_dialect_has_one() -> None:
    async with Bench(Relay(nobody, Limits(gate_seconds=0, ping_seconds=0.01))) as bench:
        async with asyncio.timeout(WATCHDOG):
            await bench.reader.readuntil(b"event: ping")
        bench.feed(START, *END, end=True)
        await bench.until_handled()
    assert bench.outcome.note == "ok"


async def test_a_dead_provider_is_given_up_though_its_client_is_kept_waiting_with_pings() -> None:
    limits = Limits(gate_seconds=0, ping_seconds=0.01, idle_with_pings_seconds=0.2, idle_seconds=3600)
    async with Bench(Relay(nobody, limits)) as bench:
        await bench.begun()
        await bench.until_handled()
        bench.client.write_eof()
        rest = await bench.rest()
    assert b"event: ping" in rest
    assert rest.index(b"event: error") > rest.rindex(b"event: ping")
    assert rest.endswith(b"\r\n0\r\n\r\n")
    assert (bench.outcome.note, bench.outcome.completeness) == ("upstream_idle", "partial")


async def test_the_idle_time_of_a_dialect_without_pings_is_its_own() -> None:
    limits = Limits(idle_with_pings_seconds=3600, idle_seconds=0.05)
    async with Bench(Relay(nobody, limits), bedrock.EventWriter()) as bench:
        await bench.begun()
        await bench.until_handled()
    assert bench.outcome.note == "upstream_idle"


@pytest.mark.parametrize("gate", [0, 3600], ids=["after the head", "before the head"])
async def test_a_provider_that_does_not_begin_is_given_up(gate: float) -> None:
    async with Bench(Relay(nobody, Limits(gate_seconds=gate, first_content_seconds=0.05))) as bench:
        await bench.until_handled()
        bench.client.write_eof()
        rest = await bench.rest()
    assert (bench.outcome.note, bench.outcome.completeness) == ("upstream_timeout", "none")
    assert not bench.outcome.refused_upstream, "the prompt may have been billed"
    if gate:
        assert isinstance(bench.refused, GatewayError)
        assert bench.refused.code is ErrorCode.UPSTREAM_TIMEOUT
    else:
        assert b"event: error" in rest


async def test_the_gate_counts_from_the_dispatch() -> None:
    async with Bench(Relay(nobody, Limits(gate_seconds=100)), dispatched_at=time.monotonic() - 100) as bench:
        async with asyncio.timeout(WATCHDOG):
            head = await bench.reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 ")
        assert bench.opened == 1
        bench.feed(START, *END, end=True)
        await bench.until_handled()
    assert (bench.outcome.note, bench.opened) == ("ok", 1)


async def test_the_head_is_out_when_the_prompt_may_be_let_go() -> None:
    async with Bench(Relay(nobody, Limits(gate_seconds=3600))) as bench:
        await bench.relaying.wait()
        assert bench.opened == 0
        await bench.begun()
        assert bench.opened == 1
        bench.feed(*END, end=True)
        await bench.until_handled()


async def test_a_client_that_leaves_in_silence_is_noticed_without_a_write() -> None:
    relay = Relay(nobody, Limits(ping_seconds=0.01))
    freed = asyncio.Event()
    async with Bench(relay, bedrock.EventWriter(), Outcome(client_left=freed.set)) as bench:
        await bench.begun()
        await bench.leave()
        async with asyncio.timeout(WATCHDOG):
            await freed.wait()
        assert relay.drains == 1
        bench.feed(*END, end=True)
        await bench.until_handled()
    assert (bench.outcome.note, bench.outcome.usage, relay.drains) == ("client_gone", USAGE, 0)


async def test_a_silent_drain_ends_in_time() -> None:
    relay = Relay(nobody, Limits(ping_seconds=0.01, drain_seconds=0.05))
    async with Bench(relay) as bench:
        await bench.begun()
        await bench.leave()
        await bench.until_handled()
    assert (bench.outcome.note, bench.outcome.completeness, relay.drains) == ("drain_capped", "partial", 0)


async def test_where_cancelling_stops_the_bill_nothing_is_read_for_a_client_that_left() -> None:
    relay = Relay(nobody, Limits(ping_seconds=0.01))
    async with Bench(relay, cancel_stops_billing=True) as bench:
        await bench.begun()
        await bench.leave()
        await bench.until_handled()
    assert (bench.outcome.note, bench.outcome.completeness, relay.drains) == ("client_gone", "partial", 0)


async def test_a_slow_reader_pauses_the_provider_and_nothing_piles_up() -> None:
    piece, count = 50_000, 200
    async with Bench(Relay(nobody)) as bench:
        await bench.begun()
        request = bench.request
        assert request is not None
        assert request.transport is not None
        fed = 0

        async def provide() -> None:
            nonlocal fed
            for _ in range(count):
                await until(lambda: not bench.upstream._size)  # as TCP would
                bench.feed(delta(piece))
                fed += 1

        providing = asyncio.create_task(provide())
        await until(lambda: request.protocol._paused and bool(bench.upstream._size))
        assert fed < 10, "the relay waits for its client before it takes more"
        assert request.transport.get_write_buffer_size() < 10 * piece
        reading = asyncio.create_task(bench.reader.read(-1))
        await providing
        bench.feed(*END, end=True)
        await bench.until_handled()
        bench.client.write_eof()
        async with asyncio.timeout(WATCHDOG):
            assert (await reading).count(b"event: content_block_delta") == count
    assert (bench.outcome.note, bench.outcome.usage) == ("ok", USAGE)


EXCEPTION = aws_frames.exception("throttlingException", "slow down")
OVERLOADED = aws_frames.chunk({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}})


@pytest.mark.parametrize("writer", [anthropic.EventWriter, bedrock.EventWriter], ids=["anthropic", "bedrock"])
@pytest.mark.parametrize("failure", [EXCEPTION, OVERLOADED], ids=["exception", "error event"])
async def test_how_the_network_cuts_a_stream_does_not_change_what_its_client_is_told(
    writer: type[Writer], failure: bytes
) -> None:
    """An event and the failure after it in one read: the event is content, so it is no refusal any more."""
    async with Bench(Relay(nobody, Limits(gate_seconds=3600)), writer()) as bench:
        bench.upstream.feed(aws_frames.chunk(START) + failure + aws_frames.chunk(delta(77)) + b"junk")
        await bench.until_handled()
        bench.client.write_eof()
        rest = await bench.rest()
    assert bench.refused is None
    assert not bench.outcome.refused_upstream
    assert bench.outcome.note in {"upstream_throttlingException", "upstream_overloaded_error"}
    assert rest.startswith(b"HTTP/1.1 200 ")
    assert rest.endswith(b"\r\n0\r\n\r\n")
    if failure is EXCEPTION:
        assert b"slow down" in rest
        assert b"x" * 77 not in rest
        assert base64.b64encode(b"x" * 60) not in rest, "nothing comes after an exception"


async def test_an_error_event_that_comes_first_is_a_refusal_with_its_own_status() -> None:
    async with Bench(Relay(nobody)) as bench:
        bench.upstream.feed(OVERLOADED)
        await bench.until_handled()
    assert isinstance(bench.refused, StreamRefused)
    assert (bench.refused.status, bench.outcome.refused_upstream) == (529, True)
    assert json.loads(bench.refused.body)["error"]["message"] == "Overloaded"
