"""The audit trail: one JSON line for each request, metadata only, written on every way out.

No prompt, no answer, no credential, no name: who a `person_id` is stands in the store alone. One thread chains the
lines (`spool.py`), appends and flushes them in batches; what waits is bounded, and a full spool turns readiness off.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import random
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec

from llmgw_gateway.errors import ClientGoneError, GatewayError
from llmgw_gateway.observe.line import now
from llmgw_gateway.observe.spool import Spool
from llmgw_wire.errors import ErrorCode, status_in

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path
    from types import TracebackType

    from llmgw_gateway.observe.chain import Head, Key
    from llmgw_gateway.observe.entry import Entry

MOST_WAITING: Final = 10_000
"""Entries that were begun and are not on disk yet."""
COLLECT_SECONDS: Final = 0.05
"""Between two times that the writer is woken: to wake it for each line costs more than the line."""
MOST_BYTES: Final = 256 << 20
"""Of one file; then the next is begun."""
CLIENT_GONE: Final = "client_gone"
CLIENT_CLOSED: Final = 499
"""The status of a request whose client did not wait: nobody saw it (nginx's convention)."""
CLOSE_SECONDS: Final = 5
RETRY_SECONDS: Final = 1
log: Final = logging.getLogger("llmgw.audit")
_encoder: Final = msgspec.json.Encoder()
_names: Final = random.Random()  # noqa: S311 -- names, no secrets
_END: Final = object()


class Audit:
    """Appends entries to one chain of files. `most_waiting` bounds what is begun and not on disk."""

    def __init__(
        self,
        path: Path,
        key: Key,
        *,
        writer: str = "",
        most_waiting: int = MOST_WAITING,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        """`writer` names this gateway's trail among those of other replicas."""
        self.writer = writer
        self._spool = Spool(path, key, writer=writer, most_bytes=most_bytes)
        self._most = most_waiting
        self._lines: queue.SimpleQueue[list[bytes] | object] = queue.SimpleQueue()
        self._collected: list[bytes] = []
        self._woken = float("-inf")
        """When the writer was woken last."""
        # Counted by one thread each: what is begun and handed in on the loop's, what is on disk on the writer's.
        self._begun = 0
        self._given = 0
        self._written = 0
        self._ended = False
        self.head: Head | None = None  # how far the chain goes on disk; replaced by the writer, never changed in place
        self._given_up = threading.Event()
        self._writer = threading.Thread(target=self._write, name="audit-writer", daemon=True)

    def start(self) -> None:
        """Open the file (0600), repair what a crash has torn, start the writer. OSError when it cannot be opened."""
        self._spool.open()
        self.head = self._spool.head
        self._writer.start()

    @property
    def full(self) -> bool:
        """Whether there is no room for another entry, or nobody who writes: this replica must not take more work."""
        return self._ended or self._begun - self._written >= self._most

    @property
    def most_waiting(self) -> int:
        """At so many entries that are not on disk new work is refused."""
        return self._most

    @property
    def unwritten(self) -> int:
        """Entries that were begun and are not on disk."""
        return self._begun - self._written

    def entry(self, entry: Entry) -> _Writing:
        """Write `entry` when the block is left, however it is left.

        Its place is taken on entering, so that what has begun can always be written. GatewayError(STORE_UNAVAILABLE)
        when there is none.
        """
        return _Writing(self, entry)

    def begin(self) -> None:
        """Take the place of one entry."""
        if self.full:
            raise GatewayError(
                ErrorCode.STORE_UNAVAILABLE,
                "The gateway cannot write its audit trail; try again.",
                retry_after=2,
            )
        self._begun += 1

    def put(self, entry: Entry) -> None:
        """Hand in what was begun."""
        self._collect(_encoder.encode(entry.line()))

    def note(self, record: Mapping[str, object]) -> None:
        """Write a record that is about no request. It has a `kind`, which stands first; requests have none."""
        self._begun += 1
        self._collect(_encoder.encode({**record, "time": now()}))

    async def on_disk(self) -> None:
        """Wait until what was handed in is on disk; GatewayError(STORE_UNAVAILABLE) when it never will be."""
        given = self._given
        while self._written < given:
            if self._ended or self._given_up.is_set():
                raise GatewayError(ErrorCode.STORE_UNAVAILABLE, "The gateway cannot write its audit trail; try again.")
            await asyncio.sleep(COLLECT_SECONDS)

    def begin_anew(self) -> None:
        """Write what comes in a new file: the one that is there has lost what the store was told of."""
        self._hand_over()
        self._lines.put(self._spool.begin_anew)

    def follow(self, *, most_waiting: int, most_bytes: int) -> None:
        """Take other bounds into use."""
        self._most = most_waiting
        self._lines.put(partial(self._spool.follow, most_bytes))

    def rekey(self, key: Key) -> None:
        """Seal what comes with another key, in a new file."""
        self._hand_over()
        self._lines.put(partial(self._spool.rekey, key))

    def _collect(self, body: bytes) -> None:
        if not self._collected:
            wait = self._woken + COLLECT_SECONDS - time.monotonic()
            asyncio.get_running_loop().call_later(max(0.0, wait), self._hand_over)
        self._collected.append(body)
        self._given += 1

    def _hand_over(self) -> None:
        """Give the writer what was collected."""
        if self._collected:
            self._woken = time.monotonic()
            self._lines.put(self._collected)
            self._collected = []

    def close(self, *, seconds: float = CLOSE_SECONDS) -> int:
        """Write what waits, then stop. Returns how many entries the disk did not take in time."""
        self._hand_over()
        self._lines.put(_END)
        self._writer.join(seconds)
        self._given_up.set()
        self._writer.join(RETRY_SECONDS)
        if not self._writer.is_alive():  # else a write hangs in the kernel, and the thread ends with the process
            self._spool.close()
        return self.unwritten

    def _write(self) -> None:
        try:
            self._follow()
        except BaseException:
            self._ended = True
            raise

    def _follow(self) -> None:
        ended = False
        while not ended:
            found: list[bytes] = []
            item = self._lines.get()
            while isinstance(item, list):
                found += item
                if self._lines.empty():
                    break
                item = self._lines.get_nowait()
            if found and self._append(found):
                self._written += len(found)
            if callable(item):  # for the spool, between two batches
                item()
            ended = item is _END

    def _append(self, bodies: list[bytes]) -> bool:
        """Append and flush; while the disk refuses, keep trying: the spool fills, and readiness turns red."""
        if not self._until_done(self._spool.turn):
            return False
        self._spool.take(bodies)
        if not self._until_done(self._spool.flush):
            return False
        self.head = self._spool.head
        return True

    def _until_done(self, step: Callable[[], None]) -> bool:
        refused = False
        while True:
            try:
                step()
            except OSError as error:
                if not refused:
                    log.error("the audit trail cannot be written: %s", error.strerror)  # noqa: TRY400 -- one line, no trace
                refused = True
                if self._given_up.wait(RETRY_SECONDS):
                    return False
            else:
                if refused:
                    log.warning("the audit trail can be written again")
                return True


class _Writing:
    """One entry, from the request's begin to its end."""

    __slots__ = ("_audit", "_entry")

    def __init__(self, audit: Audit, entry: Entry) -> None:
        self._audit = audit
        self._entry = entry

    async def __aenter__(self) -> Entry:
        self._audit.begin()
        return self._entry

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        entry = self._entry
        if isinstance(error, GatewayError):
            entry.code, entry.status = error.code.value, status_in(entry.dialect, error.code)
        elif isinstance(error, ClientGoneError):
            entry.code, entry.status = CLIENT_GONE, CLIENT_CLOSED
        elif isinstance(error, asyncio.CancelledError):
            entry.code, entry.status = ErrorCode.DRAINING.value, ErrorCode.DRAINING.wire.status
        elif error is not None:
            entry.code, entry.status = "internal", entry.status or 500
        self._audit.put(entry)


def new_request_id() -> str:
    """A name for a request: unique, and no secret."""
    return f"req_{_names.getrandbits(96):024x}"
