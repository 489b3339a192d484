"""How the records of one audit file hang together: each is sealed together with the seal of the one before it. Pure.

A seal is HMAC-SHA-256 under a key that is not in the file: whoever can write the file, and cannot read the key, can
neither change a record nor write all of them anew (docs/decisions/0011-audit-chain.md).
"""

from __future__ import annotations

import hmac
from typing import Final

from msgspec import Struct

FIRST: Final = bytes(32)
"""What stands in the place of a seal before the first record."""
_MARK: Final = b',"seal":"'
_END: Final = b'"}\n'
_SEAL_HEX: Final = 64
LEAST: Final = len(_MARK) + _SEAL_HEX + len(_END)


class Key(Struct, frozen=True):
    """The key of a chain, derived from a secret of the company's."""

    key_id: str
    """Names it in the files, so that a verifier knows which of several to take. It tells nothing about the key."""
    secret: bytes


class Head(Struct, frozen=True):
    """How far a chain goes."""

    chain: str
    day: str
    """YYYY-MM-DD in UTC, of its first record."""
    count: int
    """Records, the opening one included."""
    seal: str
    """Of the last one."""


def key_of(secret: bytes) -> Key:
    """The key that belongs to a secret: a use of its own, so that a secret may have others."""
    return Key(_tag(secret, b"llmgw audit key id").hex()[:8], _tag(secret, b"llmgw audit chain"))


def sealed(key: Key, previous: bytes, number: int, body: bytes) -> tuple[bytes, bytes]:
    """The line of a record, and its seal. `body` is a JSON object with at least one member; it gets a number first."""
    record = b'{"seq":%d,' % number + body[1:-1]
    seal = _tag(key.secret, previous + record)
    return b'%b,"seal":"%b"}\n' % (record, seal.hex().encode()), seal


def opened(line: bytes) -> tuple[bytes, bytes] | None:
    """The record and the seal of a line; None for what is no line of ours."""
    if len(line) < LEAST or not line.endswith(_END) or line[-LEAST : len(_MARK) - LEAST] != _MARK:
        return None
    try:
        seal = bytes.fromhex(line[-len(_END) - _SEAL_HEX : -len(_END)].decode("ascii"))
    except ValueError:
        return None
    return line[:-LEAST], seal


def holds(key: Key, previous: bytes, record: bytes, seal: bytes) -> bool:
    """Whether a record is the one that was sealed after `previous`."""
    return hmac.compare_digest(_tag(key.secret, previous + record), seal)


def anchor_seal(key: Key, head: Head, writer: str) -> str:
    """What vouches for a head outside of its file."""
    return _tag(
        key.secret, "\n".join(("anchor", head.chain, head.day, str(head.count), head.seal, writer)).encode()
    ).hex()


def change_seal(key: Key, change_id: str, said: str) -> str:
    """What vouches for a change that says why rows of changes are gone, or why their texts are others."""
    return _tag(key.secret, f"change\n{change_id}\n{said}".encode()).hex()


def _tag(secret: bytes, message: bytes) -> bytes:
    return hmac.digest(secret, message, "sha256")  # by its name: then all of it is done in C
