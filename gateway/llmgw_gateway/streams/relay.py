"""Between upstream and client: the first-chunk gate, metering, keep-alive, and what happens when either side goes away.

The answer is read to its end even when the client is gone: Bedrock bills it anyway, and only its last event tells the
cost. A client that hangs up is the ordinary case for a coding agent, not an error.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Final

import aiohttp

from llmgw_gateway.errors import GatewayError
from llmgw_gateway.store.polling import until_next
from llmgw_gateway.streams.answer import Answer
from llmgw_gateway.streams.eventstream import EventStreamError, FrameParser
from llmgw_gateway.streams.limits import Limits
from llmgw_gateway.streams.refusals import StreamRefused
from llmgw_gateway.streams.responses import Streamed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from aiohttp import web

    from llmgw_gateway.call import Outcome
    from llmgw_gateway.streams.answer import Parser, Writer
    from llmgw_gateway.streams.body import Body
    from llmgw_gateway.streams.frames import Frame
    from llmgw_gateway.streams.meter import Meter

FOLLOW_SECONDS: Final = 1
"""How long a relay may go on after this replica has learned that its session was ended."""
log: Final = logging.getLogger("llmgw.relay")


class Relay:
    """Relays streams of one process; counts the drains that run without a client.

    `has_ended` says of which sessions the relays have to stop; the drains that settle them go on.
    """

    def __init__(self, has_ended: Callable[[str], bool], limits: Limits | None = None) -> None:
        self.drains = 0
        self._has_ended = has_ended
        self._limits = limits or Limits()
        self._open: set[Answer] = set()
        self._follower: asyncio.Task[None] | None = None

    def follow(self, limits: Limits) -> None:
        """Take other limits into use: what runs keeps those that it began with."""
        self._limits = limits

    def start(self) -> None:
        """Begin to follow which sessions end."""
        self._follower = asyncio.create_task(self._follow(), name="relays")

    def stop(self) -> None:
        """Stop following."""
        if self._follower is not None:
            self._follower.cancel()

    def unready(self) -> str:
        """Why this replica should get no requests; empty when there is no reason."""
        gone = self._follower is not None and self._follower.done()
        return "answers of ended sessions are not cut off any more" if gone else ""

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(until_next(FOLLOW_SECONDS))
            await self.end_revoked()

    async def end_revoked(self) -> None:
        """End the relays of ended sessions, each with a terminal event."""
        revoked = [answer.revoke() for answer in self._open if self._has_ended(answer.session)]
        for failure in await asyncio.gather(*revoked, return_exceptions=True):
            if isinstance(failure, Exception):
                log.error("a relay of an ended session could not be ended in words: %s", type(failure).__name__)

    async def run(
        self,
        request: web.BaseRequest,
        content: Body,
        writer: Writer,
        inner: Callable[[Frame], bytes | None],
        headers: Mapping[str, str],
        meter: Meter,
        outcome: Outcome,
        session: str,
        *,
        dispatched_at: float | None = None,
        cancel_stops_billing: bool = False,
        opens: Callable[[], None] = lambda: None,
        parser: Parser | None = None,
    ) -> web.StreamResponse:
        """Relay one stream to its end. `outcome` holds the usage and how it ended, on every way out.

        `parser` reads AWS's event stream by default.
        `dispatched_at` is on the monotonic clock, and now by default; `opens` is called when the head leaves. With
        `cancel_stops_billing` nothing is read for a client that has gone. Before the head StreamRefused when the
        provider's first event is an error, and GatewayError (UPSTREAM_INVALID, UPSTREAM_TIMEOUT) when it fails.
        """
        answer = Answer(
            request,
            writer,
            inner,
            headers,
            meter,
            outcome,
            session,
            self._limits,
            time.monotonic() if dispatched_at is None else dispatched_at,
            self._canceled if cancel_stops_billing else self._drains,
            opens,
            parser or FrameParser(),
        )
        self._open.add(answer)
        try:
            await self._pump(answer, content)
            await answer.flushed()
        except asyncio.CancelledError:
            outcome.note = "shutdown"
            if not answer.framing.opened:
                raise
            answer.fail("overloaded_error", "The gateway is shutting down; the answer was cut off. Try again.")
            await answer.flushed()
        finally:
            answer.close()
            self._open.discard(answer)
            if answer.gone:
                self.drains -= 1
        return Streamed(answer.framing)

    async def _pump(self, answer: Answer, content: Body) -> None:
        try:
            await answer.read(content)
        except EventStreamError as error:
            answer.outcome.note = "upstream_corrupt"
            answer.fail("api_error", f"The provider's stream is corrupt: {error}.")
        except TimeoutError:
            self._timed_out(answer)
        except aiohttp.ClientError:
            answer.outcome.note = "upstream_broken"
            answer.fail("api_error", "The connection to the provider broke in the middle of the answer.")
        except (GatewayError, StreamRefused):
            raise
        except Exception:
            # A fault of ours: once the head is out, no error response can follow it.
            answer.outcome.note = "internal"
            if not answer.framing.opened:
                raise
            log.exception("a relay failed")
            answer.fail("api_error", "The gateway failed in the middle of the answer.")
        else:
            if answer.stopped != "drain":
                answer.end()

    def _timed_out(self, answer: Answer) -> None:
        """Somebody's time is up: the provider's, or that of an answer which nobody reads."""
        if answer.stopped == "cancel":
            return
        if answer.stopped == "drain":
            answer.outcome.note = "drain_capped"
        elif answer.stopped == "first_content":
            answer.outcome.note = "upstream_timeout"
            answer.fail("overloaded_error", "The provider accepted the request and did not begin to answer.")
        elif answer.stopped == "idle":
            answer.outcome.note = "upstream_idle"
            answer.fail("overloaded_error", "The provider went silent in the middle of the answer.")
        else:
            answer.outcome.note = "upstream_too_long"
            answer.fail("overloaded_error", "The answer took longer than this gateway waits for any.")

    def _drains(self, answer: Answer) -> None:
        """Read on for the usage of an answer that nobody takes, within bounds."""
        self.drains += 1
        answer.stop("drain", self._limits.drain_seconds if self.drains <= self._limits.most_drains else 0)

    def _canceled(self, answer: Answer) -> None:
        """Nothing more is billed once the connection ends."""
        self.drains += 1
        answer.stop("cancel")
