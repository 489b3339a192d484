"""Flat packages of macOS's installer: a xar archive of a distribution and one component, written here.

The component is `Payload` and `Scripts` (gzip of cpio, odc format), `Bom` and `PackageInfo`. It is not signed: that
needs Apple's tools (packaging/README.md).
"""

from __future__ import annotations

import gzip
import hashlib
import struct
import zlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final
from xml.sax.saxutils import escape, quoteattr

from llmgw_packaging import bom
from llmgw_packaging.tree import RUNNABLE, Link, Tree

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llmgw_packaging.release import Release

KIB: Final = 1024
SHA1: Final = 1
SHA1_BYTES: Final = 20
INFO: Final = """\
<?xml version="1.0" encoding="utf-8"?>
<pkg-info format-version="2" identifier={identifier} version={version} install-location="/" auth="root" \
overwrite-permissions="true" relocatable="false" postinstall-action="none">
    <payload numberOfFiles="{count}" installKBytes="{kibibytes}"/>
    <scripts>
{scripts}    </scripts>
</pkg-info>
"""
DISTRIBUTION: Final = """\
<?xml version="1.0" encoding="utf-8"?>
<installer-gui-script minSpecVersion="1">
    <title>{title}</title>
    <options customize="never" require-scripts="false" rootVolumeOnly="true" hostArchitectures={architecture}/>
    <volume-check><allowed-os-versions><os-version min={oldest}/></allowed-os-versions></volume-check>
    <choices-outline><line choice="default"/></choices-outline>
    <choice id="default"><pkg-ref id={identifier}/></choice>
    <pkg-ref id={identifier} version={version} installKBytes="{kibibytes}">#component.pkg</pkg-ref>
</installer-gui-script>
"""


@dataclass(frozen=True, slots=True)
class Package:
    """One installer."""

    file_name: str
    identifier: str
    """As `pkgutil` lists it."""
    title: str
    release: Release
    architecture: str
    oldest: str
    """Version of macOS."""
    tree: Tree
    scripts: Mapping[str, str]
    """`preinstall`, `postinstall`."""


def build(package: Package) -> bytes:
    """The installer; the same package always gives the same bytes."""
    epoch = package.release.epoch
    scripts = Tree()
    for name, text in package.scripts.items():
        scripts.put(name, text, RUNNABLE)
    values = {
        "identifier": quoteattr(package.identifier),
        "version": quoteattr(package.release.version),
        "kibibytes": -(-package.tree.size() // KIB),
    }
    info = INFO.format(
        **values,
        count=len(package.tree.folders()) + len(package.tree.entries()) + 1,
        scripts="".join(f'        <{name} file="./{name}"/>\n' for name in package.scripts),
    )
    distribution = DISTRIBUTION.format(
        **values,
        title=escape(package.title),
        architecture=quoteattr(package.architecture),
        oldest=quoteattr(package.oldest),
    )
    component = {
        "Bom": bom.build(package.tree, epoch),
        "PackageInfo": info.encode(),
        "Payload": gzip.compress(cpio(package.tree, epoch), mtime=0),
        "Scripts": gzip.compress(cpio(scripts, epoch), mtime=0),
    }
    return xar({"Distribution": distribution.encode()}, {"component.pkg": component}, epoch)


def cpio(tree: Tree, epoch: int) -> bytes:
    """A cpio archive in the old character format (odc, as POSIX.1-1988 has it): folders, files, links."""
    parts = [_cpio_entry(0, ".", bom.DIRECTORY | RUNNABLE, b"", epoch)]
    number = 0
    for folder in tree.folders():
        number += 1
        parts.append(_cpio_entry(number, f"./{folder}", bom.DIRECTORY | RUNNABLE, b"", epoch))
    for path, entry in tree.entries():
        number += 1
        if isinstance(entry, Link):
            parts.append(_cpio_entry(number, f"./{path}", bom.SYMLINK | RUNNABLE, entry.target.encode(), epoch))
        else:
            parts.append(_cpio_entry(number, f"./{path}", bom.REGULAR | entry.mode, entry.content, epoch))
    parts.append(_cpio_entry(0, "TRAILER!!!", 0, b"", 0))
    return b"".join(parts)


def _cpio_entry(number: int, name: str, mode: int, content: bytes, epoch: int) -> bytes:
    encoded = name.encode() + b"\0"
    links = 2 if mode & bom.DIRECTORY and not mode & bom.REGULAR else 1
    header = f"070707{0:06o}{number:06o}{mode:06o}{0:06o}{0:06o}{links:06o}{0:06o}"
    header += f"{epoch:011o}{len(encoded):06o}{len(content):011o}"
    return header.encode() + encoded + content


def xar(files: Mapping[str, bytes], folders: Mapping[str, Mapping[str, bytes]], epoch: int) -> bytes:
    """A xar archive: header, compressed table of contents, and a heap that begins with the table's SHA-1."""
    heap = _Heap()
    entries = [heap.file(name, content) for name, content in files.items()]
    for name, inner in folders.items():
        inside = "".join(heap.file(each, content) for each, content in inner.items())
        entries.append(
            f'<file id="{heap.next()}"><name>{escape(name)}</name><type>directory</type>'
            f"<mode>0755</mode>{inside}</file>"
        )
    when = datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    table = (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<xar><toc><creation-time>{when}</creation-time>'
        f'<checksum style="sha1"><offset>0</offset><size>{SHA1_BYTES}</size></checksum>'
        f"{''.join(entries)}</toc></xar>\n"
    ).encode()
    packed = zlib.compress(table, 9)
    header = struct.pack(">4sHHQQI", b"xar!", 28, 1, len(packed), len(table), SHA1)
    return header + packed + hashlib.sha1(packed, usedforsecurity=False).digest() + heap.content()


class _Heap:
    """The files' contents one after another, and their entries in the table."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._at = SHA1_BYTES
        self._number = 0

    def next(self) -> int:
        self._number += 1
        return self._number

    def content(self) -> bytes:
        return b"".join(self._parts)

    def file(self, name: str, content: bytes) -> str:
        # What is compressed already stays as it is.
        is_packed = content[:2] == b"\x1f\x8b"
        stored = content if is_packed else zlib.compress(content, 9)
        style = "application/octet-stream" if is_packed else "application/x-gzip"
        sums = [hashlib.sha1(each, usedforsecurity=False).hexdigest() for each in (stored, content)]
        entry = (
            f'<file id="{self.next()}"><name>{escape(name)}</name><type>file</type><mode>0644</mode><data>'
            f"<length>{len(stored)}</length><offset>{self._at}</offset><size>{len(content)}</size>"
            f'<encoding style="{style}"/><archived-checksum style="sha1">{sums[0]}</archived-checksum>'
            f'<extracted-checksum style="sha1">{sums[1]}</extracted-checksum></data></file>'
        )
        self._parts.append(stored)
        self._at += len(stored)
        return entry
