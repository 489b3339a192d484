"""The audit trail: one JSON line for each request, metadata only, written on every way out.

No prompt, no answer, no credential, no name: who a `person_id` is stands in the store alone. Lines are appended by one
thread and flushed to disk in batches; what waits is bounded, and a full spool turns readiness off.
"""

from __future__ import annotations

import asyncio
import logging
import os
import queue
import random
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import msgspec

from llmgw_gateway.errors import ClientGoneError, GatewayError
from llmgw_wire.errors import ErrorCode, status_in

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from llmgw_gateway.call import Account, Call, Caller, Grant, Outcome, Target

MOST_WAITING: Final = 10_000
"""Entries that were begun and are not on disk yet."""
COLLECT_SECONDS: Final = 0.02
"""Between two times that the writer is woken: to wake it for each line costs more than the line."""
CLIENT_GONE: Final = "client_gone"
CLIENT_CLOSED: Final = 499
"""The status of a request whose client did not wait: nobody saw it (nginx's convention)."""
CLOSE_SECONDS: Final = 5
RETRY_SECONDS: Final = 1
log = logging.getLogger("llmgw.audit")
_encoder = msgspec.json.Encoder()
_names = random.Random()  # noqa: S311 -- names, no secrets


@dataclass(slots=True)
class Entry:
    """One request as it will be remembered. Fields are filled in as the pipeline learns them."""

    request_id: str
    method: str
    path: str
    dialect: str = ""
    person_id: str = ""
    team: str = ""
    project: str = ""
    session: str = ""
    token_id: str = ""
    model: str = ""
    target: str = ""
    policy: str = ""
    """Which policy allowed the call."""
    capped: bool = False
    """Whether a policy lowered its `max_tokens`."""
    thinking_tokens: int | None = None
    """What a policy lowered its thinking budget to."""
    stream: bool = False
    request_bytes: int = 0
    address: str = ""
    """Where the client is, as far as the proxies in front are trusted to say."""
    client_session: str = ""
    """The `x-claude-code-session-id` of the request: groups the calls of one coding session."""
    status: int = 0
    code: str = "ok"
    outcome: Outcome | None = None
    began: float = field(default_factory=time.monotonic)

    def caller(self, caller: Caller) -> None:
        """Note who calls."""
        self.person_id, self.session, self.token_id = caller.person_id, caller.session, caller.token_id

    def account(self, account: Account) -> None:
        """Note who pays."""
        self.team, self.project = account.team, account.project

    def call(self, call: Call) -> None:
        """Note what is asked."""
        self.model, self.stream, self.request_bytes = printable(call.model), call.stream, call.size

    def granted(self, target: Target) -> None:
        """Note where it goes."""
        self.model, self.target = target.model, target.invoke_id

    def permitted(self, grant: Grant) -> None:
        """Note what policy says."""
        self.policy, self.capped, self.thinking_tokens = grant.policy, grant.capped, grant.thinking_tokens
        self.granted(grant.target)

    def document(self) -> dict[str, Any]:
        """The audit line."""
        outcome = self.outcome
        usage = outcome.usage if outcome else None
        return {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "request_id": self.request_id,
            "person_id": self.person_id,
            "team": self.team,
            "project": self.project,
            "session": self.session,
            "token_id": self.token_id,
            "dialect": self.dialect,
            "method": self.method,
            "path": self.path,
            "model": self.model,
            "target": self.target,
            "policy": self.policy,
            "stream": self.stream,
            "request_bytes": self.request_bytes,
            "address": self.address,
            "client_session": self.client_session,
            "status": self.status,
            "code": self.code,
            "outcome": outcome.note if outcome else "",
            "tokens": {
                "input": usage.input if usage else 0,
                "output": usage.output if usage else 0,
                "cache_read": usage.cache_read if usage else 0,
                "cache_write_5m": usage.cache_write_5m if usage else 0,
                "cache_write_1h": usage.cache_write_1h if usage else 0,
            },
            "cost_micro_usd": outcome.cost if outcome else 0,
            "estimated": outcome.estimated if outcome else False,
            "latency_ms": round(self.seconds * 1000, 1),
        }

    @property
    def seconds(self) -> float:
        """Since the request began."""
        return time.monotonic() - self.began


class Audit:
    """Appends entries to one file. `most_waiting` bounds what is begun and not on disk."""

    def __init__(self, path: Path, *, most_waiting: int = MOST_WAITING) -> None:
        self._path = path
        self._most = most_waiting
        self._lines: queue.SimpleQueue[list[bytes] | None] = queue.SimpleQueue()
        self._collected: list[bytes] = []
        self._woken = float("-inf")
        """When the writer was woken last."""
        # Counted by one thread each: what is begun on the loop's, what is on disk on the writer's.
        self._begun = 0
        self._written = 0
        self._given_up = threading.Event()
        self._thread = threading.Thread(target=self._write, name="audit-writer", daemon=True)

    def start(self) -> None:
        """Open the file (0600) and start the writer. OSError when it cannot be opened."""
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._file = os.fdopen(descriptor, "ab", buffering=0)
        self._thread.start()

    @property
    def full(self) -> bool:
        """Whether there is no room for another entry: this replica must not take more work."""
        return self.unwritten >= self._most

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
        if not self._collected:
            wait = self._woken + COLLECT_SECONDS - time.monotonic()
            asyncio.get_running_loop().call_later(max(0.0, wait), self._hand_over)
        self._collected.append(_encoder.encode(entry.document()) + b"\n")

    def _hand_over(self) -> None:
        """Give the writer what was collected."""
        if self._collected:
            self._woken = time.monotonic()
            self._lines.put(self._collected)
            self._collected = []

    def close(self, *, seconds: float = CLOSE_SECONDS) -> int:
        """Write what waits, then stop. Returns how many entries the disk did not take in time."""
        self._hand_over()
        self._lines.put(None)
        self._thread.join(seconds)
        self._given_up.set()
        self._thread.join(RETRY_SECONDS)
        if not self._thread.is_alive():  # else a write hangs in the kernel, and the thread ends with the process
            self._file.close()
        return self.unwritten

    def _write(self) -> None:
        while True:
            batches = [self._lines.get()]
            while not self._lines.empty():
                batches.append(self._lines.get_nowait())
            lines = [line for batch in batches if batch is not None for line in batch]
            if self._append(b"".join(lines)):
                self._written += len(lines)
            if None in batches:
                return

    def _append(self, data: bytes) -> bool:
        """Append and flush; while the disk refuses, keep trying: the spool fills, and readiness turns red."""
        while data:
            try:
                data = data[self._file.write(data) :]
                os.fsync(self._file.fileno())
            except OSError as error:
                log.error("the audit trail cannot be written: %s", error.strerror)  # noqa: TRY400 -- one line, no trace
                if self._given_up.wait(RETRY_SECONDS):
                    return False
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


def printable(text: str, most: int = 200) -> str:
    """A client's text as it may stand in a log: cut, and without control characters."""
    if text.isprintable():
        return text[:most]
    return "".join(c for c in text if c.isprintable())[:most]
