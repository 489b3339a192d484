"""A plain mutation fuzzer, for machines without atheris and for the seconds that every test run spends on it."""

from __future__ import annotations

import random
import struct
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CORPUS = Path(__file__).parent / "corpus"
MOST_BYTES = 65_536
SCRAPS = (
    *(b'"usage":', b'"message":', b"{", b"}", b"[", b"]", b'"', b",", b":", b"\\u0000", b"\x00", b"\n", b"\r", b"\xff"),
    *(b"null", b"true", b"-1", b"0", b"1e999", b"9" * 30, b"9" * 5000, b"[" * 2000, b'{"type":"message_start"'),
    *(b'"output_tokens":', b'"input_tokens":', b'"stop_reason":"x"', b'"type":"error"', b"message_stop", b"\\ud800"),
    *(b":message-type", b"exception", b":exception-type", b"\x07\x00\x05", b"\x00\x00", b"\x7f\xff", b"\xff\xff"),
)


def corpus(target: str) -> list[Path]:
    """The checked-in inputs of a target: seeds, and what fuzzing has found."""
    return sorted((CORPUS / target).iterdir())


def mutated(seeds: list[bytes], source: random.Random) -> Iterator[bytes]:
    """Inputs without end: each a seed that was changed in a few places."""
    while True:
        data = bytearray(source.choice(seeds))
        for _ in range(source.choice((1, 1, 2, 3, 5, 8))):
            _change(data, seeds, source)
        yield bytes(data[:MOST_BYTES])


def run(target: Callable[[bytes], None], seeds: list[bytes], source: random.Random, *, inputs: int) -> bytes | None:
    """Try so many inputs; the first that breaks a promise, or None."""
    for _, data in zip(range(inputs), mutated(seeds, source), strict=False):
        try:
            target(data)
        except Exception:  # noqa: BLE001 -- whatever it is, it is a finding
            return data
    return None


def run_for(target: Callable[[bytes], None], seeds: list[bytes], *, seconds: float) -> tuple[int, bytes | None]:
    """The same for so many seconds; also how many inputs that were."""
    ends, tried, source = time.monotonic() + seconds, 0, random.Random()  # noqa: S311 -- not for secrets
    while time.monotonic() < ends:
        found = run(target, seeds, source, inputs=1000)
        tried += 1000
        if found is not None:
            return tried, found
    return tried, None


def _change(data: bytearray, seeds: list[bytes], source: random.Random) -> None:
    at = source.randint(0, len(data))
    match source.randint(0, 6):
        case 0 if at < len(data):
            data[at] ^= 1 << source.randint(0, 7)
        case 1 if at < len(data):
            data[at] = source.choice((0, 1, 0x7F, 0x80, 0xFF, source.randint(0, 255)))
        case 2:
            data[at:at] = source.choice(SCRAPS)
        case 3:
            del data[at : at + source.choice((1, 2, 4, 16, 64))]
        case 4:
            other = source.choice(seeds)
            begin = source.randint(0, len(other))
            data[at : at + source.randint(0, 8)] = other[begin : begin + source.randint(0, 64)]
        case 5:
            data[at:at] = data[max(0, at - source.randint(1, 64)) : at]
        case _:
            data[at : at + 4] = struct.pack(">I", source.choice((0, 1, 16, 2**16, 2**24, 2**31, 2**32 - 1)))
