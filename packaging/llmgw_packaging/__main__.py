"""`make packages`: every installer, with checksums, in one folder."""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from llmgw_agent.errors import AgentError
from llmgw_packaging import agent, deb, flatpkg, gateway, linux, macos, organization, rpm, sbom
from llmgw_packaging.release import MAINTAINER, Release
from llmgw_packaging.targets import LINUX
from llmgw_packaging.wheels import LockError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from llmgw_packaging.wheels import Wheel

SUMS: Final = "SHA256SUMS"
FORMATS: Final = ("deb", "rpm", "image")


def main() -> int:
    """Build what was asked for; 1 and a line that says why if it could not be."""
    asked = _arguments()
    release = Release(asked.epoch, maintainer=asked.maintainer)
    try:
        asked.out.mkdir(parents=True, exist_ok=True)
        names = []
        for name, content, wheels in _built(asked, release):
            (asked.out / name).write_bytes(content)
            (asked.out / f"{name}{sbom.SUFFIX}").write_bytes(sbom.bill(name, content, release, wheels))
            names += [name, f"{name}{sbom.SUFFIX}"]
            _say(f"{asked.out / name}  {len(content) / 1e6:.1f} MB")
        write_sums(asked.out, names)
    except (AgentError, LockError, OSError, rpm.ToolError) as error:
        _say(f"no packages: {error}")
        return 1
    return 0


def write_sums(folder: Path, names: Sequence[str]) -> None:
    """SHA-256 of these files, as `sha256sum --check` reads it."""
    lines = [f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in sorted(names)]
    (folder / SUMS).write_text("".join(lines), encoding="utf-8")


def _built(asked: argparse.Namespace, release: Release) -> Iterator[tuple[str, bytes, Sequence[Wheel]]]:
    """File name, content, and the wheels in it."""
    for architecture in asked.architecture or LINUX:
        yield from _agents(asked, release, architecture)
        yield from _gateways(asked, release, architecture)
    if asked.runtime:
        archive, _, sha256 = asked.runtime.rpartition("=")
        flat, wheels = macos.build(macos.runtime(Path(archive), sha256), asked.store, release)
        yield flat.file_name, flatpkg.build(flat), wheels
    if asked.org:
        settings = organization.build(asked.org, release)
        if "deb" in asked.format:
            package = linux.organization_deb(settings)
            yield package.file_name, deb.build(package), ()
        if "rpm" in asked.format:
            other = linux.organization_rpm(settings)
            yield other.file_name, rpm.build(other), ()


def _agents(
    asked: argparse.Namespace, release: Release, architecture: str
) -> Iterator[tuple[str, bytes, Sequence[Wheel]]]:
    target = LINUX[architecture]
    built = agent.build(target, asked.store, release)
    if "deb" in asked.format:
        package = linux.agent_deb(built, target, architecture)
        yield package.file_name, deb.build(package), built.wheels
    if "rpm" in asked.format:
        other = linux.agent_rpm(built, target, architecture)
        yield other.file_name, rpm.build(other), built.wheels


def _gateways(
    asked: argparse.Namespace, release: Release, architecture: str
) -> Iterator[tuple[str, bytes, Sequence[Wheel]]]:
    target = LINUX[architecture]
    served = gateway.build(target, asked.store, release)
    if "deb" in asked.format:
        package = gateway.debian(served, target, architecture)
        yield package.file_name, deb.build(package), served.wheels
    if "rpm" in asked.format:
        other = gateway.redhat(served, target, architecture)
        yield other.file_name, rpm.build(other), served.wheels
    if "image" in asked.format:
        context, held = gateway.image(target, asked.store, release)
        yield f"llmgw-gateway-{release.version}-image-{architecture}.tar.gz", context, held.wheels


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="llmgw_packaging", description="Build the installers.")
    parser.add_argument("--out", type=Path, default=Path("dist"), help="folder for the packages (default: dist)")
    parser.add_argument("--store", type=Path, default=Path(".lab/wheels"), help="keeps wheels between builds")
    parser.add_argument("--org", type=Path, help="org.toml: also build the organisation's settings as packages")
    parser.add_argument("--architecture", action="append", choices=tuple(LINUX), help="default: all")
    parser.add_argument("--format", action="append", choices=FORMATS, help="default: all")
    parser.add_argument(
        "--runtime", metavar="ARCHIVE=SHA256", help="Python for macOS (arm64): also build the installer for Macs"
    )
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
