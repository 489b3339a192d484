"""`make packages`: every installer, with checksums, in one folder."""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from llmgw_agent.errors import AgentError
from llmgw_mdm.organization import load
from llmgw_packaging import (
    agent,
    compiled,
    deb,
    flatpkg,
    gateway,
    intune,
    linux,
    macos,
    organization,
    rpm,
    runtime,
    sbom,
    signing,
    windows,
    windows_settings,
)
from llmgw_packaging.compiled import CompiledError
from llmgw_packaging.release import MAINTAINER, Release
from llmgw_packaging.targets import LINUX
from llmgw_packaging.wheels import LockError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from llmgw_packaging.compiled import Compiled
    from llmgw_packaging.installation import Product
    from llmgw_packaging.wheels import Wheel

SUMS: Final = "SHA256SUMS"
FOR_LINUX: Final = ("deb", "rpm", "image")
FORMATS: Final = (*FOR_LINUX, "msi")


@dataclass(frozen=True, slots=True)
class Built:
    """One package, and what is in it that is not ours."""

    name: str
    content: bytes
    wheels: Sequence[Wheel] = ()
    runtime: runtime.Runtime | None = None
    modules: Sequence[Compiled] = ()
    note: str = ""
    """What whoever builds is told of it beside its size."""


def main() -> int:
    """Build what was asked for; 1 and a line that says why if it could not be."""
    asked = _arguments()
    release = Release(asked.epoch, maintainer=asked.maintainer)
    try:
        modules = _modules(asked)
        asked.out.mkdir(parents=True, exist_ok=True)
        names = []
        for built in _built(asked, release, modules):
            name, content = built.name, built.content
            (asked.out / name).write_bytes(content)
            bill = sbom.bill(name, content, release, built.wheels, built.runtime, built.modules)
            (asked.out / f"{name}{sbom.SUFFIX}").write_bytes(bill)
            names += [name, f"{name}{sbom.SUFFIX}"]
            _say(f"{asked.out / name}  {len(content) / 1e6:.1f} MB{built.note}")
        write_sums(asked.out, names)
    except (AgentError, CompiledError, LockError, OSError, rpm.ToolError) as error:
        _say(f"no packages: {error}")
        return 1
    return 0


def write_sums(folder: Path, names: Sequence[str]) -> None:
    """SHA-256 of these files, as `sha256sum --check` reads it."""
    lines = [f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in sorted(names)]
    (folder / SUMS).write_text("".join(lines), encoding="utf-8")


def _modules(asked: argparse.Namespace) -> tuple[Compiled, ...]:
    """What the folders of `--compiled` hold, before anything is built; CompiledError if a folder is for no package."""
    found = compiled.read(asked.compiled)
    interpreters = set()
    for target in (LINUX[each] for each in asked.architecture or LINUX):
        if {"deb", "rpm"} & set(asked.format):
            interpreters |= {(python, target.machine) for python in target.pythons}
        if "image" in asked.format:
            interpreters.add((gateway.IMAGE_PYTHON, target.machine))
    for each in found:
        if (each.python, each.machine) not in interpreters:
            raise CompiledError(
                f"no package that was asked for runs {each}. Leave the folder out, or ask for a package that does "
                f"(--architecture, --format; the image has Python {gateway.IMAGE_PYTHON})"
            )
    compiled.check(found, gateway.own(), gateway.ANY)
    return found


def _built(asked: argparse.Namespace, release: Release, modules: Sequence[Compiled]) -> Iterator[Built]:
    if set(asked.format) & set(FOR_LINUX):
        for architecture in asked.architecture or LINUX:
            yield from _linux(asked, release, architecture)
            yield from _gateway(asked, release, architecture, modules)
    sign = signing.by(asked.sign_windows)
    for given in asked.runtime:
        archive, _, sha256 = given.rpartition("=")
        found = runtime.read(Path(archive), sha256)
        if found.platform == "macos":
            flat, wheels = macos.build(found, asked.store, release)
            yield Built(flat.file_name, flatpkg.build(flat), wheels, found)
        else:
            product, wheels = windows.agent(found, asked.store, release, sign)
            yield from _for_windows(product, windows.agent_msi(product, found), sign, wheels, found)
    if asked.org:
        yield from _settings(asked, release, sign)


def _linux(asked: argparse.Namespace, release: Release, architecture: str) -> Iterator[Built]:
    target = LINUX[architecture]
    built = agent.build(target, asked.store, release)
    if "deb" in asked.format:
        package = linux.agent_deb(built, target, architecture)
        yield Built(package.file_name, deb.build(package), built.wheels)
    if "rpm" in asked.format:
        other = linux.agent_rpm(built, target, architecture)
        yield Built(other.file_name, rpm.build(other), built.wheels)


def _gateway(
    asked: argparse.Namespace, release: Release, architecture: str, modules: Sequence[Compiled]
) -> Iterator[Built]:
    target = LINUX[architecture]

    def built(name: str, content: bytes, served: agent.Agent, pythons: Sequence[str]) -> Built:
        note = f", {compiled.note(served.compiled, target.machine, pythons)}" if modules else ""
        return Built(name, content, served.wheels, modules=served.compiled, note=note)

    if {"deb", "rpm"} & set(asked.format):
        served = gateway.build(target, asked.store, release, modules=modules)
        if "deb" in asked.format:
            package = gateway.debian(served, target, architecture)
            yield built(package.file_name, deb.build(package), served, target.pythons)
        if "rpm" in asked.format:
            other = gateway.redhat(served, target, architecture)
            yield built(other.file_name, rpm.build(other), served, target.pythons)
    if "image" in asked.format:
        context, served = gateway.image(target, asked.store, release, modules=modules)
        name = f"llmgw-gateway-{release.version}-image-{architecture}.tar.gz"
        yield built(name, context, served, [gateway.IMAGE_PYTHON])


def _settings(asked: argparse.Namespace, release: Release, sign: Callable[[str, bytes], bytes]) -> Iterator[Built]:
    platforms = load(asked.org).platforms
    if "linux" in platforms:
        settings = organization.build(asked.org, release)
        if "deb" in asked.format:
            package = linux.organization_deb(settings)
            yield Built(package.file_name, deb.build(package))
        if "rpm" in asked.format:
            other = linux.organization_rpm(settings)
            yield Built(other.file_name, rpm.build(other))
    if "windows" in platforms and "msi" in asked.format:
        product, org = windows_settings.product(asked.org, release)
        yield from _for_windows(product, windows_settings.build(product, org), sign)


def _for_windows(
    product: Product,
    content: bytes,
    sign: Callable[[str, bytes], bytes],
    wheels: Sequence[Wheel] = (),
    found: runtime.Runtime | None = None,
) -> Iterator[Built]:
    """An installer, and the same in Intune's container."""
    signed = sign(product.file_name, content)
    yield Built(product.file_name, signed, wheels, found)
    yield Built(*intune.wrapped(product, signed), wheels, found)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="llmgw_packaging", description="Build the installers.")
    parser.add_argument("--out", type=Path, default=Path("dist"), help="folder for the packages (default: dist)")
    parser.add_argument("--store", type=Path, default=Path(".lab/wheels"), help="keeps wheels between builds")
    parser.add_argument("--org", type=Path, help="org.toml: also build the organisation's settings as packages")
    parser.add_argument("--architecture", action="append", choices=tuple(LINUX), help="default: all")
    parser.add_argument("--format", action="append", choices=FORMATS, help="default: all")
    parser.add_argument(
        "--runtime",
        action="append",
        default=[],
        metavar="ARCHIVE=SHA256",
        help="Python for macOS (arm64) or for Windows (x64): also build the installer for it; may be repeated",
    )
    parser.add_argument(
        "--compiled",
        action="append",
        default=[],
        type=Path,
        metavar="FOLDER",
        help="modules of the gateway that llmgw_packaging.compiling compiled for a Python and machine; may be repeated",
    )
    parser.add_argument("--sign-windows", metavar="COMMAND", help="signs the file that it is given, in place")
    parser.add_argument("--maintainer", default=MAINTAINER, help="who publishes the packages, as NAME <ADDRESS>")
    parser.add_argument(
        "--epoch",
        type=int,
        default=int(os.environ.get("SOURCE_DATE_EPOCH") or time.time()),
        help="the time that files bear, in seconds since 1970 (default: SOURCE_DATE_EPOCH, else now)",
    )
    asked = parser.parse_args()
    asked.format = asked.format or list(FORMATS)
    return asked


def _say(text: str) -> None:
    sys.stderr.write(f"llmgw: {text}\n")


if __name__ == "__main__":
    sys.exit(main())
