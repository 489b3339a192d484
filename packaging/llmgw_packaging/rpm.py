"""RPM packages: a spec file and a staged tree, put together by rpmbuild."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from llmgw_packaging.tree import Link

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llmgw_packaging.release import Release
    from llmgw_packaging.tree import Tree

SPEC: Final = """\
Name: {name}
Version: {version}
Release: 1
Summary: {summary}
License: Apache-2.0
Group: Applications/Internet
Packager: {maintainer}
Vendor: {vendor}
AutoReqProv: no
{relations}
%description
{description}

{scripts}%files
{files}
%changelog
* {date} {maintainer} - {version}-1
- See NEWS.md.gz
"""
MACROS: Final = {
    # Nothing is to be done to files that are finished: no stripping, no compiling, no links by build id.
    "__os_install_post": "%{nil}",
    "_build_id_links": "none",
    "_enable_debug_packages": "0",
    "debug_package": "%{nil}",
    # The same bytes on every machine and at every time.
    "_buildhost": "localhost",
    "_binary_payload": "w3.xzdio",
    "clamp_mtime_to_source_date_epoch": "1",
    "use_source_date_epoch_as_buildtime": "1",
    "source_date_epoch_from_changelog": "0",
}


@dataclass(frozen=True, slots=True)
class Package:
    """One binary package, as a spec file says it."""

    name: str
    release: Release
    architecture: str
    summary: str
    description: str
    tree: Tree
    relations: tuple[str, ...] = ()
    """Lines such as `Requires: python3`."""
    scripts: Mapping[str, str] = field(default_factory=dict)
    """`post` and its like, for /bin/sh."""
    ghosts: frozenset[str] = frozenset()
    """Paths of the tree that a script makes: they are not in the package, but belong to it."""
    configuration: frozenset[str] = frozenset()
    """Paths that an upgrade leaves as the administrator has made them."""

    @property
    def file_name(self) -> str:
        """As rpmbuild names it."""
        return f"{self.name}-{self.release.version}-1.{self.architecture}.rpm"


class ToolError(Exception):
    """A tool that builds a package is missing, or has failed; the text ends with what it said."""


def build(package: Package) -> bytes:
    """The package; ToolError if there is no rpmbuild here, or it fails."""
    program = shutil.which("rpmbuild")
    if program is None:
        raise ToolError("there is no rpmbuild here. Install it (Debian: rpm; Fedora: rpm-build), or leave rpm out")
    with tempfile.TemporaryDirectory(prefix="llmgw-rpm-") as name:
        top = Path(name)
        root, spec = top / "root", top / f"{package.name}.spec"
        package.tree.stage(root)
        spec.write_text(_spec(package), encoding="utf-8")
        macros = {**MACROS, "_topdir": str(top), "_rpmdir": str(top / "out"), "_rpmfilename": "package.rpm"}
        defined = [word for key, value in macros.items() for word in ("--define", f"{key} {value}")]
        done = subprocess.run(  # noqa: S603 -- rpm's own tool, with words of ours
            [
                program,
                "-bb",
                "--quiet",
                "--noclean",
                *defined,
                f"--target={package.architecture}",
                f"--buildroot={root}",
                spec,
            ],
            env={
                "PATH": "/usr/bin:/bin",
                "HOME": name,
                "LC_ALL": "C.UTF-8",
                "SOURCE_DATE_EPOCH": str(package.release.epoch),
            },
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise ToolError(f"rpmbuild failed for {package.file_name}:\n" + "\n".join(done.stderr.splitlines()[-8:]))
        return (top / "out" / "package.rpm").read_bytes()


def _spec(package: Package) -> str:
    date = datetime.fromtimestamp(package.release.epoch, UTC).strftime("%a %b %d %Y")
    return SPEC.format(
        name=package.name,
        version=package.release.version,
        summary=package.summary,
        maintainer=package.release.maintainer,
        vendor=package.release.maintainer.partition(" <")[0],
        relations="".join(f"{line}\n" for line in package.relations),
        description=package.description.strip().replace("%", "%%"),
        scripts="".join(f"%{name}\n{text.replace('%', '%%')}\n" for name, text in package.scripts.items()),
        files=_files(package),
        date=date,
    )


def _files(package: Package) -> str:
    lines = [f'%dir %attr(0755,root,root) "/{folder}"' for folder in package.tree.own_folders()]
    for path, entry in package.tree.entries():
        mark = "%ghost " if path in package.ghosts else ""
        mark += "%config(noreplace) " if path in package.configuration else ""
        mark += "%doc " if path.startswith(("usr/share/man/", "usr/share/doc/")) else ""
        mark += "%license " if path.startswith("usr/share/licenses/") else ""
        mode = "-" if isinstance(entry, Link) else f"{entry.mode:04o}"
        lines.append(f'{mark}%attr({mode},root,root) "/{path}"')
    return "".join(f"{line}\n" for line in lines)
