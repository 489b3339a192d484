"""Cabinets ([MS-CAB]): files in one folder, compressed by MSZIP ([MS-MCI]). The same files, the same bytes. Pure."""

from __future__ import annotations

import struct
import zlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

HEADER: Final = struct.Struct("<4sIIIIIBBHHHHH")
FOLDER: Final = struct.Struct("<IHH")
FILE: Final = struct.Struct("<IIHHHH")
DATA: Final = struct.Struct("<IHH")
MSZIP: Final = 1
LEVEL: Final = 6
"""Of zlib: 9 takes three times as long for a hundredth less."""
ARCHIVE: Final = 0x20
BLOCK: Final = 32768
"""Bytes before compression in every block but the last."""
MOST_BLOCKS: Final = 0xFFFF
EARLIEST: Final = 1980
"""The first year that a file in a cabinet can bear."""


def build(files: Mapping[str, bytes], epoch: int) -> bytes:
    """The cabinet, with files in this order.

    Args:
        files: Content by name; names are ASCII.
        epoch: The time that they bear, in seconds since 1970, cut to two seconds by the format.

    Raises:
        ValueError: More than 2 GB, or more than 65,535 files.
    """
    blocks = list(_blocks(b"".join(files.values())))
    if len(blocks) > MOST_BLOCKS or len(files) > MOST_BLOCKS:
        raise ValueError("this is more than a cabinet holds")
    entries, at = [], 0
    for name, content in files.items():
        about = FILE.pack(len(content), at, 0, *_moment(epoch), ARCHIVE)
        entries.append(about + name.encode("ascii") + b"\0")
        at += len(content)
    table, data = b"".join(entries), b"".join(blocks)
    first_file = HEADER.size + FOLDER.size
    first_data = first_file + len(table)
    head = HEADER.pack(
        *(b"MSCF", 0, first_data + len(data), 0, first_file, 0),
        *(3, 1),  # the format's version: 1.3, the minor number first
        *(1, len(files), 0, 0, 0),
    )
    return head + FOLDER.pack(first_data, len(blocks), MSZIP) + table + data


def _blocks(content: bytes) -> Iterator[bytes]:
    """Every block may refer back to the one before it, which is its decompressor's dictionary."""
    before = b""
    for at in range(0, len(content), BLOCK):
        plain = content[at : at + BLOCK]
        packer = zlib.compressobj(LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS, 9, zlib.Z_DEFAULT_STRATEGY, before)
        packed = b"CK" + packer.compress(plain) + packer.flush()
        before = plain
        sizes = struct.pack("<HH", len(packed), len(plain))
        yield DATA.pack(_checksum(sizes, _checksum(packed)), len(packed), len(plain)) + packed


def _checksum(content: bytes, seed: int = 0) -> int:
    """Exclusive or of little-endian words; what is left over counts with its first byte as the highest."""
    whole = len(content) & ~3
    found = seed
    # All words at once: words in even and in odd places are folded in halves until one is left.
    number = int.from_bytes(content[:whole], "little")
    bits = whole * 8
    while bits > 32:  # noqa: PLR2004 -- one word
        half = (bits // 32 + 1) // 2 * 32
        number = (number >> half) ^ (number & ((1 << half) - 1))
        bits = half
    found ^= number
    if rest := content[whole:]:
        found ^= int.from_bytes(rest, "big")
    return found


def _moment(epoch: int) -> tuple[int, int]:
    """Date and time as DOS has them, in UTC."""
    when = datetime.fromtimestamp(epoch, UTC)
    if when.year < EARLIEST:
        return 1 << 5 | 1, 0
    date = (when.year - EARLIEST) << 9 | when.month << 5 | when.day
    return date, when.hour << 11 | when.minute << 5 | when.second // 2
