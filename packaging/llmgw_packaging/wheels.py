"""The locked dependencies for any platform: chosen by its markers, fetched by pip, unpacked here.

pip would evaluate markers for the machine that it runs on, so they are evaluated here; it then downloads exactly what
the lock names, with its hashes. Nothing is built and nothing is executed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from email.parser import Parser
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename

from llmgw_packaging.tree import Tree

SOURCES: Final = (".c", ".h", ".hash", ".pxd", ".pxi", ".pyx")
"""What wheels carry for compilers; nobody compiles on a laptop."""


@dataclass(frozen=True, slots=True)
class Target:
    """A platform, and the versions of Python that a package for it works with."""

    name: str
    sys_platform: str
    machine: str
    """As `platform.machine()` says it there."""
    tags: tuple[str, ...]
    """Platform tags of wheels that run there (PEP 425), as pip is to be told."""
    pythons: tuple[str, ...]

    def environment(self, python: str) -> dict[str, str]:
        """What markers see there (PEP 508)."""
        return {
            "implementation_name": "cpython",
            "implementation_version": f"{python}.0",
            "os_name": "nt" if self.sys_platform == "win32" else "posix",
            "platform_machine": self.machine,
            "platform_python_implementation": "CPython",
            "platform_release": "",
            "platform_system": {"linux": "Linux", "darwin": "Darwin", "win32": "Windows"}[self.sys_platform],
            "platform_version": "",
            "python_full_version": f"{python}.99",
            "python_version": python,
            "sys_platform": self.sys_platform,
        }


@dataclass(frozen=True, slots=True)
class Pin:
    """One line of a lock file."""

    name: str
    version: str
    hashes: frozenset[str]


@dataclass(frozen=True, slots=True)
class Wheel:
    """A downloaded wheel, whose hash is one of the lock's."""

    pin: Pin
    path: Path
    sha256: str

    def metadata(self) -> dict[str, list[str]]:
        """Its METADATA, by lower-case name."""
        with zipfile.ZipFile(self.path) as archive:
            name = next(each for each in archive.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", each))
            return fields(archive.read(name).decode())


class LockError(Exception):
    """The lock file and what could be had do not agree; the text says where."""


def fields(text: str) -> dict[str, list[str]]:
    """What METADATA of a library says, by lower-case name."""
    found: dict[str, list[str]] = {}
    for key, value in Parser().parsestr(text, headersonly=True).items():
        found.setdefault(key.lower(), []).append(value)
    return found


def pins(lock: Path, environment: dict[str, str]) -> list[Pin]:
    """What a lock file (requirements format, with hashes) wants in an environment."""
    found = []
    text = re.sub(r"(?m)^\s*#.*\n?", "", lock.read_text(encoding="utf-8")).replace("\\\n", " ")
    for line in filter(None, (each.strip() for each in text.splitlines())):
        stated, *options = line.split(" --hash=")
        requirement = Requirement(stated.strip())
        version = next(iter(requirement.specifier)).version
        if not options or {each.partition(":")[0] for each in options} != {"sha256"}:
            raise LockError(f"{lock} has no SHA-256 for {requirement.name}. Run: make lock")
        if requirement.marker is None or requirement.marker.evaluate(environment):
            hashes = frozenset(each.partition(":")[2].strip() for each in options)
            found.append(Pin(canonicalize_name(requirement.name), version, hashes))
    return found


def fetch(target: Target, python: str, lock: Path, store: Path) -> list[Wheel]:
    """The wheels of a lock file for one Python of a target, from `store` or, once, from the package index."""
    wanted = pins(lock, target.environment(python))
    lines = [
        f"{pin.name}=={pin.version} {' '.join(f'--hash=sha256:{each}' for each in sorted(pin.hashes))}\n"
        for pin in wanted
    ]
    key = hashlib.sha256(repr((lines, target.tags, python)).encode()).hexdigest()[:16]
    folder = store / f"{target.name}-{python}-{key}"
    if not folder.is_dir():
        store.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(dir=store, prefix=".new-"))
        try:
            requirements = fresh / "requirements.txt"
            requirements.write_text("".join(lines), encoding="utf-8")
            _download(requirements, fresh, target, python)
            requirements.unlink()
            # Two builds at once: whoever comes second finds it done.
            with contextlib.suppress(OSError):
                fresh.rename(folder)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    return _checked(wanted, folder)


def unpack(wheel: Wheel, folder: str) -> Tree:
    """The files of a wheel below `folder`, none executable. Its scripts are left out: packages bring their own."""
    tree = Tree()
    with zipfile.ZipFile(wheel.path) as archive:
        for info in sorted(archive.infolist(), key=lambda each: each.filename):
            name = info.filename
            if name.endswith(("/", ".dist-info/RECORD", *SOURCES)):
                continue
            top, _, rest = name.partition("/")
            if top.endswith(".data"):
                kind, _, name = rest.partition("/")
                if kind not in {"purelib", "platlib"}:
                    continue
            if name.startswith("/") or ".." in name.split("/"):
                raise LockError(f"{wheel.path.name} wants to write outside its folder ({name})")
            tree.put(f"{folder}/{name}", archive.read(info))
    return tree


def _download(requirements: Path, folder: Path, target: Target, python: str) -> None:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary=:all:", "--require-hashes", "--implementation=cp", f"--python-version={python}"]
    command += [f"--abi={each}" for each in (f"cp{python.replace('.', '')}", "abi3", "none")]
    command += [f"--platform={each}" for each in target.tags]
    done = subprocess.run(  # noqa: S603 -- our own interpreter, with words of ours
        [*command, f"--requirement={requirements}", f"--dest={folder}"],
        env={**os.environ, "PIP_NO_INPUT": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()[-6:]
        raise LockError(f"the wheels for {target.name}, Python {python}, cannot be had:\n" + "\n".join(said))


def _checked(wanted: list[Pin], folder: Path) -> list[Wheel]:
    """Every pin with its file; LockError if one is missing, too many, or not what the lock says."""
    files: dict[tuple[str, str], Path] = {}
    for path in sorted(folder.glob("*.whl")):
        name, version, _, _ = parse_wheel_filename(path.name)
        files[str(name), str(version)] = path
    found = []
    for pin in wanted:
        if (pin.name, pin.version) not in files:
            raise LockError(f"{folder} has no wheel of {pin.name} {pin.version}. Remove the folder and build again")
        path = files.pop((pin.name, pin.version))
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        if digest not in pin.hashes:
            raise LockError(f"{path} is not what the lock file says. Remove it and build again")
        found.append(Wheel(pin, path, digest))
    if files:
        raise LockError(f"{folder} holds more than the lock file names. Remove the folder and build again")
    return found
