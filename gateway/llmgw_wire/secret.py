"""A string that must never be printed."""

from __future__ import annotations

import hashlib
import hmac


def _octets(value: str) -> bytes:
    """Headers of any bytes arrive as text with lone surrogates, which UTF-8 itself refuses."""
    return value.encode("utf-8", "surrogatepass")


class Secret:
    """Holds a credential. It has no printable form: `repr`, `str`, `format` and pickling never show it.

    The only way to the value is `reveal`, which is easy to find in a review.
    """

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the value itself; call this only where it goes on the wire or into encrypted storage."""
        return self._value

    def fingerprint(self) -> str:
        """Return eight hexadecimal digits of its SHA-256: enough to tell two apart in a log, useless to anyone else."""
        return hashlib.sha256(_octets(self._value)).hexdigest()[:8]

    def __repr__(self) -> str:
        return f"Secret({self.fingerprint()})" if self._value else "Secret(empty)"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return format(repr(self), spec)

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(_octets(self._value), _octets(other._value))

    def __hash__(self) -> int:
        return hash(self._value)

    def __reduce__(self) -> str:
        msg = "a Secret cannot be pickled"
        raise TypeError(msg)
