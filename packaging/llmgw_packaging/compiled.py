"""Compiled modules of the gateway, made by compiling.py, for packages: checked against the source that a package takes.

A folder is for one version of Python and one machine. Extensions lie
beside the `.py` files: an interpreter takes those that bear its own ABI (PEP 3149), every other one takes the `.py`.
What is not whole, or was made of other source, is refused: nobody would see from outside that old code runs.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from llmgw_packaging.compiling import COMPILED, PACKAGES
from llmgw_packaging.tree import File
from llmgw_packaging.wheels import fields

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from llmgw_packaging.tree import Tree
    from llmgw_packaging.wheels import Target

EXTENSION: Final = re.compile(r"(.+)\.cpython-3(\d+)-(x86_64|aarch64)-linux-gnu\.so")
"""The name of a module, the ABI's version of Python, and the machine."""
LIBRARY: Final = re.compile(r"[0-9a-f]+__mypyc")
"""Where the code of all modules is; the extension beside each only leads there."""
MODULES: Final = frozenset(f"llmgw_gateway/{name}" for name in COMPILED)
GLIBC: Final = re.compile(rb"GLIBC_(\d+)\.(\d+)")
"""A version of the C library whose symbols an extension wants (ELF, `.gnu.version_r`)."""
OLDEST_GLIBC: Final = (2, 28)
"""What the wheels in a package want (targets.py)."""
METADATA: Final = ".dist-info/METADATA"
AGAIN: Final = "Compile it again from this source (make compiled), on a machine and with a Python of its kind"


class CompiledError(Exception):
    """A folder's compiled modules are not to be packaged; the text says which file is why, and what to do."""


@dataclass(frozen=True, slots=True)
class Compiled:
    """The modules of one folder for one interpreter."""

    folder: Path
    python: str
    """Major and minor."""
    machine: str
    """As `platform.machine()` says it there."""
    extensions: Mapping[str, bytes]
    """Contents by path below the folder."""
    mypyc: Mapping[str, bytes]
    """Metadata and licence of mypyc, whose runtime is in them."""

    @property
    def glibc(self) -> tuple[int, int]:
        """The C library that they want, at least."""
        named = {version for content in self.extensions.values() for version in GLIBC.findall(content)}
        return max(((int(major), int(minor)) for major, minor in named), default=OLDEST_GLIBC)

    @property
    def about(self) -> dict[str, list[str]]:
        """METADATA of mypyc, by lower-case name."""
        return fields(next(content for path, content in self.mypyc.items() if path.endswith(METADATA)).decode())

    def __str__(self) -> str:
        return f"{self.folder} (Python {self.python}, {self.machine})"


def read(folders: Sequence[Path]) -> tuple[Compiled, ...]:
    """What the folders hold, by Python and machine; CompiledError if one of them is not whole, or two are the same."""
    found: dict[tuple[str, str], Compiled] = {}
    for folder in folders:
        held = _read(folder)
        if len(held) > 1:
            raise CompiledError(
                f"{folder} holds modules for several interpreters, and some may have been made of another source. "
                "Compile for each into a folder of its own"
            )
        for each in held:
            other = found.setdefault((each.python, each.machine), each)
            if other is not each:
                raise CompiledError(f"{other} and {folder} hold modules for the same interpreter. Name one of them")
    return tuple(found[key] for key in sorted(found))


def check(chosen: Sequence[Compiled], tree: Tree, place: str) -> None:
    """CompiledError unless each was compiled from the very source that `tree` has below `place`."""
    ours = tuple(f"{place}/{each}/" for each in PACKAGES)
    packaged = {
        path.removeprefix(f"{place}/"): entry.content
        for path, entry in tree.entries()
        if isinstance(entry, File) and path.startswith(ours) and path.endswith(".py")
    }
    for folder in dict.fromkeys(each.folder for each in chosen):
        compiled = _contents(folder, (path for package in PACKAGES for path in (folder / package).rglob("*.py")))
        for path in sorted(packaged.keys() | compiled.keys()):
            if path not in compiled:
                raise CompiledError(f"{folder / path} is missing, but part of the package. {AGAIN}")
            if path not in packaged:
                raise CompiledError(f"{folder / path} is no part of the package any more. {AGAIN}")
            if packaged[path] != compiled[path]:
                raise CompiledError(f"{folder / path} differs from what is packaged now. {AGAIN}")


def fitting(found: Sequence[Compiled], target: Target) -> tuple[Compiled, ...]:
    """Those that an interpreter of this target loads."""
    return tuple(each for each in found if each.machine == target.machine and each.python in target.pythons)


def add(tree: Tree, place: str, chosen: Sequence[Compiled]) -> None:
    """Put extensions below `place`, readable as those of wheels are, with the licence of what is in them."""
    # Two folders were usually compiled by the same mypyc.
    files = {path: content for each in chosen for path, content in (*each.mypyc.items(), *each.extensions.items())}
    for path, content in files.items():
        tree.put(f"{place}/{path}", content)


def glibc(chosen: Sequence[Compiled]) -> tuple[int, int]:
    """The C library that a package with these wants."""
    return max([OLDEST_GLIBC, *(each.glibc for each in chosen)])


def note(chosen: Sequence[Compiled], machine: str, pythons: Sequence[str]) -> str:
    """Which of these interpreters get compiled modules, and which do not, for whoever builds."""
    found = {each.python for each in chosen}
    others = ", ".join(each for each in pythons if each not in found)
    if not found:
        return f"nothing compiled: no folder is for Python {others} on {machine}"
    return f"compiled for Python {', '.join(sorted(found))}" + (f", not for {others}" if others else "")


def _read(folder: Path) -> list[Compiled]:
    by_interpreter: dict[tuple[str, str], dict[str, Path]] = {}
    for path in sorted([*folder.rglob("*.so"), *folder.rglob("*.pyd")]):
        name = path.relative_to(folder).as_posix()
        named = EXTENSION.fullmatch(name)
        if named is None:
            raise CompiledError(
                f"{path} is for no interpreter that a package is for: they are CPython's for Linux, x86_64 or aarch64, "
                "with the ABI in the name. Remove it, or name another folder"
            )
        module, minor, machine = named.groups()
        by_interpreter.setdefault((f"3.{minor}", machine), {})[module] = path
    if not by_interpreter:
        raise CompiledError(f"{folder} holds no compiled modules. {AGAIN}")
    return [_whole(folder, *key, files) for key, files in by_interpreter.items()]


def _whole(folder: Path, python: str, machine: str, files: dict[str, Path]) -> Compiled:
    """All modules of COMPILED and their library: one of them in Python would be there twice, for others still in C."""
    libraries = [name for name in files if LIBRARY.fullmatch(name)]
    which = f"{folder} (Python {python}, {machine})"
    if len(libraries) != 1:
        raise CompiledError(f"{which} has {len(libraries)} files of the name HASH__mypyc, not one. {AGAIN}")
    if more := sorted(files.keys() - MODULES - set(libraries)):
        raise CompiledError(f"{files[more[0]]} is of a module that is not compiled any more. {AGAIN}")
    if gone := sorted(MODULES - files.keys()):
        raise CompiledError(f"{which} has no extension of {gone[0]}: one without others does not run. {AGAIN}")
    return Compiled(folder, python, machine, _contents(folder, files.values()), _mypyc(folder))


def _mypyc(folder: Path) -> dict[str, bytes]:
    found = _contents(folder, (path for path in sorted(folder.glob("mypyc-*.dist-info/**/*")) if path.is_file()))
    named = [path for path in found if path.endswith(METADATA)]
    if len(named) != 1:
        raise CompiledError(f"{folder} names {len(named)} versions of mypyc (mypyc-*.dist-info), not one. {AGAIN}")
    return found


def _contents(folder: Path, paths: Iterable[Path]) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
