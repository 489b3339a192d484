"""Bills of materials as macOS's installer wants them: a store of numbered blocks with the paths in a B-tree.

The format is Apple's and not documented; this follows what `bomutils` writes, which macOS takes. All numbers are
big-endian. Block 0 is empty. Leaves of the tree hold pairs of blocks: what is known of a path, and its name.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final

from llmgw_packaging.tree import RUNNABLE, Link

if TYPE_CHECKING:
    from llmgw_packaging.tree import File, Tree

HEADER_BYTES: Final = 512
LEAF: Final = 256
"""Paths in one leaf."""
FILE, FOLDER, LINK = 1, 2, 3
ARCHITECTURE: Final = 3
REVERSED: Final = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
REGULAR, DIRECTORY, SYMLINK = 0o100000, 0o040000, 0o120000


class _Store:
    """Numbered blocks and named ones."""

    def __init__(self) -> None:
        self._blocks: list[bytes] = [b""]
        self._names: list[tuple[str, int]] = []

    def add(self, content: bytes) -> int:
        self._blocks.append(content)
        return len(self._blocks) - 1

    def replace(self, number: int, content: bytes) -> None:
        self._blocks[number] = content

    def name(self, name: str, number: int) -> None:
        self._names.append((name, number))

    def tree(self, first: int, paths: int, block_bytes: int = 4096) -> int:
        return self.add(struct.pack(">4sIIIIB", b"tree", 1, first, block_bytes, paths, 0))

    def content(self) -> bytes:
        variables = struct.pack(">I", len(self._names))
        for name, number in self._names:
            variables += struct.pack(">IB", number, len(name)) + name.encode()
        at, pointers, body = HEADER_BYTES, [], []
        for block in self._blocks:
            pointers.append(struct.pack(">II", at if block else 0, len(block)))
            body.append(block)
            at += len(block)
        index = struct.pack(">I", len(pointers)) + b"".join(pointers) + struct.pack(">IIIII", 2, 0, 0, 0, 0)
        header = struct.pack(
            ">8sIIIIII", b"BOMStore", 1, len(self._blocks) - 1, at + len(variables), len(index), at, len(variables)
        )
        return header.ljust(HEADER_BYTES, b"\0") + b"".join(body) + variables + index


def build(tree: Tree, epoch: int) -> bytes:
    """The bill of a tree that is installed at /."""
    store = _Store()
    entries = _in_order(tree)
    ids = {path: number for number, (path, _) in enumerate(entries, start=1)}
    store.name("BomInfo", store.add(struct.pack(">IIIIIII", 1, len(entries) + 1, 1, 0, 0, tree.size() & 0xFFFFFFFF, 0)))
    pairs = []
    for path, entry in entries:
        about = store.add(_about(entry, epoch))
        known = store.add(struct.pack(">II", ids[path], about))
        parent, _, name = path.rpartition("/")
        parent_id = 0 if path == "." else ids[parent or "."]
        pairs.append((known, store.add(struct.pack(">I", parent_id) + name.encode() + b"\0")))
    store.name("Paths", store.tree(_leaves(store, pairs), len(entries)))
    store.name("HLIndex", store.tree(_leaves(store, []), 0))
    index = store.tree(_leaves(store, []), 0, 128)
    store.name("VIndex", store.add(struct.pack(">IIIB", 1, index, 0, 0)))
    store.name("Size64", store.tree(_leaves(store, []), 0))
    return store.content()


def checksum(content: bytes) -> int:
    """POSIX's cksum: the CRC of zlib on reversed bits, of the content and then its length."""
    length = len(content)
    tail = length.to_bytes((length.bit_length() + 7) // 8, "little")
    crc = zlib.crc32(tail.translate(REVERSED), zlib.crc32(content.translate(REVERSED), 0xFFFFFFFF))
    return int(f"{crc:032b}"[::-1], 2)


def _in_order(tree: Tree) -> list[tuple[str, File | Link | None]]:
    """Every path, folders too (None), level by level: parents have lower numbers, and names within one are sorted."""
    found: list[tuple[str, File | Link | None]] = [(".", None)]
    rest: list[tuple[str, File | Link | None]] = [*((folder, None) for folder in tree.folders()), *tree.entries()]
    order = {".": 0}
    for depth in range(1, 1 + max((len(PurePosixPath(path).parts) for path, _ in rest), default=0)):
        level = [each for each in rest if len(PurePosixPath(each[0]).parts) == depth]
        level.sort(key=lambda each: (order[str(PurePosixPath(each[0]).parent)], each[0]))
        order |= {path: len(found) + number for number, (path, _) in enumerate(level)}
        found += level
    return found


def _about(entry: File | Link | None, epoch: int) -> bytes:
    if entry is None:
        kind, mode, size, check, target = FOLDER, DIRECTORY | RUNNABLE, 0, 0, b""
    elif isinstance(entry, Link):
        target = entry.target.encode() + b"\0"
        kind, mode, size, check = LINK, SYMLINK | RUNNABLE, len(target) - 1, checksum(target[:-1])
    else:
        kind, mode, size, check, target = FILE, REGULAR | entry.mode, len(entry.content), checksum(entry.content), b""
    return struct.pack(">BBHHIIIIBII", kind, 1, ARCHITECTURE, mode, 0, 0, epoch, size, 1, check, len(target)) + target


def _leaves(store: _Store, pairs: list[tuple[int, int]]) -> int:
    """Leaves that know their neighbours; one node above them if there are several. The first block to read."""
    parts = [pairs[at : at + LEAF] for at in range(0, len(pairs), LEAF)] or [[]]
    numbers = [store.add(b"") for _ in parts]
    for at, part in enumerate(parts):
        after = numbers[at + 1] if at + 1 < len(numbers) else 0
        before = numbers[at - 1] if at else 0
        content = b"".join(struct.pack(">II", *pair) for pair in part)
        store.replace(numbers[at], struct.pack(">HHII", 1, len(part), after, before) + content)
    if len(parts) == 1:
        return numbers[0]
    above = b"".join(struct.pack(">II", number, part[-1][1]) for number, part in zip(numbers, parts, strict=True))
    return store.add(struct.pack(">HHII", 0, len(parts), 0, 0) + above)
