"""How a connection to an upstream fails."""

from __future__ import annotations

from aiohttp import ClientError


class UnreachableError(ClientError):
    """No connection could be made: nothing was sent."""


class BrokenError(ClientError):
    """An answer broke off, or is no HTTP. A request was sent, or may have been."""
