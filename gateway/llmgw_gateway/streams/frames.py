"""One message of a stream, whatever cut it out of the bytes."""

from __future__ import annotations

from msgspec import Struct


class Frame(Struct, frozen=True, gc=False):
    """One message. Only string headers are kept: all that decide anything (`:event-type` and its kin) are strings."""

    headers: dict[str, str]
    payload: bytes

    @property
    def exception(self) -> str | None:
        """The name of the exception that this frame reports, or None for an event."""
        kind = self.headers.get(":message-type")
        if kind == "exception":
            return self.headers.get(":exception-type", "unknownException")
        if kind == "error":
            return self.headers.get(":error-code", "unknownError")
        return None
