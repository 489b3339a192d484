"""What can go wrong, by name. No file but `edge.py` knows what a code looks like on the wire."""

from __future__ import annotations

from llmgw_wire.errors import ErrorCode


class GatewayError(Exception):
    """A refusal or failure with a message written for the person who caused it.

    The message says what happened, to what, and what to do next; it never quotes a credential or a body.
    """

    def __init__(self, code: ErrorCode, message: str, *, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.retry_after = retry_after
        """Whole seconds, sent as `retry-after` (clients ignore the date form)."""


class ClientGoneError(Exception):
    """The client hung up before its request was complete: ordinary, and nobody is there to be told."""


class ConfigurationError(Exception):
    """The configuration cannot be used. Carries every fault that was found, not just the first."""

    def __init__(self, source: str, faults: list[str]) -> None:
        super().__init__(f"{source}: {len(faults)} fault(s)")
        self.source = source
        self.faults = faults


class StoreError(Exception):
    """The store cannot be opened or is not ours; the message says which file and what to do."""


class StoreAwayError(GatewayError):
    """The store did not answer in time; a caller may try again.

    `uncertain`: the work may have been done all the same (its COMMIT was on the way). Work with an id of its own can be
    handed in again, or taken back under that id; otherwise nothing was done, and nothing will be.
    """

    def __init__(self, *, uncertain: bool) -> None:
        done = "whether anything was charged will be known when it is back" if uncertain else "nothing was charged"
        super().__init__(
            ErrorCode.STORE_UNAVAILABLE, f"The gateway's store is not available; {done}. Try again.", retry_after=2
        )
        self.uncertain = uncertain
