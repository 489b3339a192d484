from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from typing import TYPE_CHECKING

import pytest

from llmgw_packaging import linux, repository, rpm, sbom
from llmgw_packaging.__main__ import write_sums
from llmgw_packaging.rpm import ToolError
from tests.lab import machine

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from llmgw_packaging.agent import Agent
    from llmgw_packaging.organization import Settings
    from llmgw_packaging.release import Release

needs_gpg = pytest.mark.skipif(not (shutil.which("gpg") and shutil.which("gpgv")), reason="needs gpg and gpgv")
RPM_TOOLS = ("rpmbuild", "rpmsign", "rpmkeys", "createrepo_c")


@pytest.fixture(scope="module")
def key() -> Iterator[str]:
    """A throw-away key; its fingerprint. gpg's socket wants a short path."""
    with tempfile.TemporaryDirectory(prefix="gpg-") as home, pytest.MonkeyPatch.context() as patch:
        patch.setenv("GNUPGHOME", home)
        made = ["gpg", "--batch", "--passphrase", "", "--quick-generate-key", "Example Corp IT", "rsa2048", "sign"]
        subprocess.run(made, check=True, capture_output=True)
        listed = subprocess.run(["gpg", "--batch", "--list-keys", "--with-colons"], check=True, capture_output=True)
        yield next(line.split(":")[9] for line in listed.stdout.decode().splitlines() if line.startswith("fpr"))
        subprocess.run(["gpgconf", "--kill", "all"], check=False)


@pytest.fixture
def packages(agent_deb: bytes, tmp_path: Path) -> Path:
    folder = tmp_path / "dist"
    folder.mkdir()
    (folder / "llmgw_1.2.3_amd64.deb").write_bytes(agent_deb)
    return folder


def is_signed(folder: Path, keyring: Path) -> bool:
    """Whether apt's index bears the signature of the key, as apt asks gpgv."""
    release = folder / "apt" / "dists" / "stable"
    checks = [["InRelease"], ["Release.gpg", "Release"]]
    base = ["gpgv", "--quiet", "--keyring", str(keyring)]
    codes = [
        subprocess.run([*base, *names], cwd=release, check=False, capture_output=True).returncode for names in checks
    ]
    return codes == [0, 0]


def flip(path: Path, at: int = -1) -> None:
    content = bytearray(path.read_bytes())
    content[at if at >= 0 else len(content) // 2] ^= 1
    path.write_bytes(content)


@needs_gpg
def test_apt_s_index_is_signed_and_a_flipped_bit_is_refused(packages: Path, key: str, tmp_path: Path) -> None:
    out = tmp_path / "repository"
    repository.write(packages, out, key=key, address="https://pkg.corp.example", epoch=1_700_000_000)
    keyring = tmp_path / "key.gpg"
    subprocess.run(["gpg", "--dearmor", "--output", keyring, out / "llmgw.asc"], check=True, capture_output=True)
    assert is_signed(out, keyring)
    release = out / "apt" / "dists" / "stable"
    for line in (release / "Release").read_text(encoding="utf-8").partition("SHA256:\n")[2].splitlines():
        digest, size, name = line.split()
        content = (release / name).read_bytes()
        assert (hashlib.sha256(content).hexdigest(), len(content)) == (digest, int(size))
    index = (release / "main" / "binary-amd64" / "Packages").read_text(encoding="utf-8")
    stated = dict(line.split(": ", 1) for line in index.splitlines() if ": " in line)
    assert stated["SHA256"] == hashlib.sha256((out / "apt" / stated["Filename"]).read_bytes()).hexdigest()
    assert "URIs: https://pkg.corp.example/apt" in (out / "llmgw.sources").read_text(encoding="utf-8")
    flip(release / "InRelease", (release / "InRelease").read_bytes().index(b"Origin") + 1)
    assert not is_signed(out, keyring)


@needs_gpg
def test_a_key_that_cannot_sign_leaves_no_repository(packages: Path, key: str, tmp_path: Path) -> None:
    out = tmp_path / "repository"
    with pytest.raises(ToolError, match="gpg failed"):
        repository.write(packages, out, key=key[::-1], address="https://pkg.corp.example", epoch=0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dist"]


@needs_gpg
@pytest.mark.long
@pytest.mark.skipif(not machine.available(), reason=machine.NEEDS)
def test_apt_installs_from_it_and_refuses_what_was_changed(packages: Path, key: str, tmp_path: Path) -> None:
    root = machine.copy(tmp_path / "root")
    place = root / "srv" / "repository"
    repository.write(packages, place, key=key, address="file:/srv/repository", epoch=1_700_000_000)
    shutil.copy(place / "llmgw.asc", root / "etc" / "apt" / "keyrings" / "llmgw.asc")
    shutil.copy(place / "llmgw.sources", root / "etc" / "apt" / "sources.list.d" / "llmgw.sources")
    only = ["-o", "Dir::Etc::SourceList=/dev/null", "-o", "Dir::Etc::SourceParts=/etc/apt/sources.list.d"]

    def apt(*words: str) -> int:
        command = ["chroot", str(root), "apt-get", "--quiet", *only, *words]
        return subprocess.run(command, check=False, capture_output=True).returncode

    index = place / "apt" / "dists" / "stable" / "main" / "binary-amd64" / "Packages"
    content = index.read_bytes()
    for path in index.parent.iterdir():
        flip(path)
    assert apt("update", "--error-on=any") != 0
    index.write_bytes(content)
    shutil.rmtree(root / "var/lib/apt/lists")
    repository.write(packages, tmp_path / "again", key=key, address="file:/srv/repository", epoch=1_700_000_000)
    shutil.rmtree(place)
    shutil.copytree(tmp_path / "again", place)
    assert apt("update", "--error-on=any") == 0
    assert apt("install", "--yes", "--no-install-recommends", "llmgw") == 0
    assert (root / "opt/llmgw/bin/llmgw-token").is_file()


@needs_gpg
@pytest.mark.long
@pytest.mark.skipif(not all(map(shutil.which, RPM_TOOLS)), reason="needs rpm and createrepo_c")
def test_rpms_are_signed_and_a_flipped_bit_is_refused(settings: Settings, key: str, tmp_path: Path) -> None:
    package = linux.organization_rpm(settings)
    dist = tmp_path / "dist"
    dist.mkdir()
    (dist / package.file_name).write_bytes(rpm.build(package))
    out = tmp_path / "repository"
    repository.write(dist, out, key=key, address="https://pkg.corp.example", epoch=1_700_000_000)
    books = ["--dbpath", str(tmp_path / "books")]
    subprocess.run(["rpmkeys", *books, "--import", out / "llmgw.asc"], check=True)
    signed = out / "yum" / package.file_name

    def checked() -> str:
        words = ["rpmkeys", *books, "--checksig", "--define", "_pkgverify_level all", str(signed)]
        return subprocess.run(words, check=False, capture_output=True, text=True).stdout

    assert checked().rstrip().endswith("digests signatures OK")
    index = out / "yum" / "repodata" / "repomd.xml"
    subprocess.run(["gpg", "--batch", "--verify", f"{index}.asc", index], check=True, capture_output=True)
    flip(signed, len(signed.read_bytes()) - 20)
    assert "NOT OK" in checked()


def test_a_bill_names_every_library_with_its_hash(built: Agent, agent_deb: bytes, release: Release) -> None:
    document = json.loads(sbom.bill("llmgw.deb", agent_deb, release, built.wheels))
    assert document["metadata"]["component"]["hashes"][0]["content"] == hashlib.sha256(agent_deb).hexdigest()
    named = {each["name"]: each for each in document["components"]}
    assert {"aiohttp", "cryptography", "keyring", "msal"} <= set(named)
    assert all(each["hashes"][0]["content"] and each["licenses"] for each in named.values())
    metadata = {path for path, _ in built.tree.entries() if path.endswith(".dist-info/METADATA")}
    assert len(metadata) == len(named)
    assert document == json.loads(sbom.bill("llmgw.deb", agent_deb, release, built.wheels))


def test_checksums_are_read_by_others(tmp_path: Path) -> None:
    for name in ("a.deb", "b.rpm"):
        (tmp_path / name).write_bytes(os.urandom(8))
    write_sums(tmp_path, ["b.rpm", "a.deb"])
    check = ["sha256sum", "--check", "--strict", "SHA256SUMS"]
    assert subprocess.run(check, cwd=tmp_path, check=False, capture_output=True).returncode == 0
    flip(tmp_path / "a.deb", 0)
    assert subprocess.run(check, cwd=tmp_path, check=False, capture_output=True).returncode == 1
