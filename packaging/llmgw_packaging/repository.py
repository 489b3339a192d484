"""Signed repositories for apt and for dnf, from a folder of packages: `python -m llmgw_packaging.repository --help`.

apt trusts `InRelease` and, by the hashes in it, everything else. dnf trusts each package's own signature and that of
`repomd.xml`. The key stays in gpg, so it may as well be on a token: only gpg and rpmsign ever use it.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from llmgw_packaging.rpm import ToolError

if TYPE_CHECKING:
    from collections.abc import Sequence

SUITE: Final = "stable"
COMPONENT: Final = "main"
KEY: Final = "llmgw.asc"
AR_HEADER: Final = 60
SOURCES: Final = """\
Types: deb
URIs: {address}/apt
Suites: stable
Components: main
Signed-By: /etc/apt/keyrings/llmgw.asc
"""
REPO: Final = """\
[llmgw]
name=llmgw
baseurl={address}/yum
gpgkey={address}/llmgw.asc
gpgcheck=1
repo_gpgcheck=1
"""


def main() -> int:
    """Make the repositories; 1 and a line that says why if they could not be made."""
    parser = argparse.ArgumentParser(prog="llmgw_packaging.repository", description=__doc__)
    parser.add_argument("packages", type=Path, help="folder with .deb and .rpm files")
    parser.add_argument("--out", type=Path, required=True, help="folder for the repositories; it must not exist")
    parser.add_argument("--key", required=True, help="fingerprint of the signing key in gpg's keyring")
    parser.add_argument(
        "--address", required=True, help="where the folder will be served, such as https://pkg.corp.example"
    )
    parser.add_argument(
        "--epoch", type=int, default=int(os.environ.get("SOURCE_DATE_EPOCH") or 0), help="time of the index"
    )
    asked = parser.parse_args()
    epoch = asked.epoch or int(datetime.now(UTC).timestamp())
    try:
        write(asked.packages, asked.out, key=asked.key, address=asked.address.rstrip("/"), epoch=epoch)
    except (OSError, ToolError) as error:
        sys.stderr.write(f"llmgw: no repositories: {error}\n")
        return 1
    return 0


def write(packages: Path, out: Path, *, key: str, address: str, epoch: int) -> None:
    """Both repositories, the public key, and what a machine needs to use them. ToolError if a tool fails."""
    if out.exists():
        raise ToolError(f"{out} is there already. Name a folder that is not, and put it into service in one step")
    debs, rpms = sorted(packages.glob("*.deb")), sorted(packages.glob("*.rpm"))
    if not debs and not rpms:
        raise ToolError(f"{packages} holds no packages. Run: make packages")
    fresh = Path(tempfile.mkdtemp(dir=out.absolute().parent, prefix=".repository-"))
    try:
        fresh.chmod(0o755)
        (fresh / KEY).write_bytes(_run("gpg", "--batch", "--armor", "--export", key))
        if debs:
            apt(debs, fresh / "apt", key=key, epoch=epoch)
            (fresh / "llmgw.sources").write_text(SOURCES.format(address=address), encoding="utf-8")
        if rpms:
            yum(rpms, fresh / "yum", key=key, epoch=epoch)
            (fresh / "llmgw.repo").write_text(REPO.format(address=address), encoding="utf-8")
        fresh.rename(out)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise


def apt(debs: Sequence[Path], out: Path, *, key: str, epoch: int) -> None:
    """A repository for apt (sources.list(5), deb822): pool, indices by architecture, signed release file."""
    (out / "pool").mkdir(parents=True)
    stanzas: dict[str, list[str]] = {}
    for path in debs:
        content = path.read_bytes()
        fields = control(content)
        fields += f"Filename: pool/{path.name}\nSize: {len(content)}\nSHA256: {hashlib.sha256(content).hexdigest()}\n"
        architecture = next(line[14:] for line in fields.splitlines() if line.startswith("Architecture: "))
        stanzas.setdefault(architecture, []).append(fields)
        (out / "pool" / path.name).write_bytes(content)
    everywhere = stanzas.pop("all", [])
    release = out / "dists" / SUITE
    for architecture in stanzas or {"amd64": [], "arm64": []}:
        index = "\n".join([*stanzas.get(architecture, []), *everywhere]).encode()
        folder = release / COMPONENT / f"binary-{architecture}"
        folder.mkdir(parents=True)
        (folder / "Packages").write_bytes(index)
        (folder / "Packages.gz").write_bytes(gzip.compress(index, mtime=0))
    files = sorted(path for path in release.rglob("*") if path.is_file())
    sums = "".join(
        f" {hashlib.sha256(path.read_bytes()).hexdigest()} {path.stat().st_size} {path.relative_to(release)}\n"
        for path in files
    )
    text = (
        f"Origin: llmgw\nLabel: llmgw\nSuite: {SUITE}\nCodename: {SUITE}\n"
        f"Date: {format_datetime(datetime.fromtimestamp(epoch, UTC)).replace('+0000', 'UTC')}\n"
        f"Architectures: {' '.join(sorted(stanzas) or ('amd64', 'arm64'))}\nComponents: {COMPONENT}\nSHA256:\n{sums}"
    )
    (release / "Release").write_text(text, encoding="utf-8")
    sign = ("gpg", "--batch", "--local-user", key, "--digest-algo", "SHA256", "--output")
    _run(*sign, str(release / "InRelease"), "--clearsign", str(release / "Release"))
    _run(*sign, str(release / "Release.gpg"), "--armor", "--detach-sign", str(release / "Release"))


def yum(rpms: Sequence[Path], out: Path, *, key: str, epoch: int) -> None:
    """A repository for dnf: every package signed, and the index of them."""
    out.mkdir(parents=True)
    for path in rpms:
        shutil.copyfile(path, out / path.name)
    # Without its path rpmsign signs nothing, and says nothing.
    home = os.environ.get("GNUPGHOME") or str(Path.home() / ".gnupg")
    names = [str(out / path.name) for path in rpms]
    macros = {"_gpg_name": key, "_gpg_path": home, "__gpg": shutil.which("gpg") or "gpg"}
    _run("rpmsign", *(w for each in macros.items() for w in ("--define", " ".join(each))), "--addsign", *names)
    _run("createrepo_c", "--quiet", "--revision", str(epoch), "--set-timestamp-to-revision", str(out))
    index = out / "repodata" / "repomd.xml"
    _run("gpg", "--batch", "--local-user", key, "--armor", "--output", f"{index}.asc", "--detach-sign", str(index))


def control(content: bytes) -> str:
    """The control file of a Debian package: the second member of its archive (deb(5))."""
    at = 8
    for _ in range(3):
        name, size = content[at : at + 16].strip(), int(content[at + 48 : at + 58])
        body = content[at + AR_HEADER : at + AR_HEADER + size]
        if name == b"control.tar.gz":
            with tarfile.open(fileobj=io.BytesIO(body)) as archive:
                file = archive.extractfile("./control")
                return file.read().decode() if file else ""
        at += AR_HEADER + size + size % 2
    raise ToolError("this is no Debian package of ours: it has no control.tar.gz")


def _run(*words: str) -> bytes:
    """What a tool prints; ToolError if it is missing or fails."""
    program = shutil.which(words[0])
    if program is None:
        raise ToolError(f"there is no {words[0]} here. Install it")
    done = subprocess.run([program, *words[1:]], capture_output=True, check=False)  # noqa: S603 -- tools of the system, with words of ours
    if done.returncode:
        raise ToolError(f"{words[0]} failed:\n" + done.stderr.decode(errors="replace").strip()[-1000:])
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
