"""docs/roll-out.md, typed by a test: from `git clone` to `claude` on a laptop. Prints what its reader would see.

Nothing is done that the page does not say, but for what its reader brings along: names, certificates, an account at an
identity provider, a cloud, and a laptop with Claude Code.
"""

from __future__ import annotations

import os
import re
import shutil
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.lab import certificates, machine, namespace, node, toml_text
from tests.lab.agent import sign_in
from tests.lab.claude import executable
from tests.lab.fixtures import canaille, scripted
from tests.lab.loopback import free_port
from tests.lab.machine import Machine
from tests.lab.process import Finished, run
from tests.packaging.conftest import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.lab.canaille import Canaille
    from tests.lab.scripted import ScriptedBedrock

__all__ = ["canaille", "scripted"]

GUIDE = REPOSITORY / "docs" / "roll-out.md"
BLOCK = re.compile(r"^```(console|toml)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINE = re.compile(r"(build\$|gateway#|laptop#|dev\$) (.+)")
HOST, PORT = "llm.corp.example", ":8443"
BUILD_SECONDS = 1200


def steps() -> list[tuple[str, str]]:
    """(`build$` and its like, command), or (path, content) of a file on the gateway, as the page has them."""
    found = []
    for kind, text in BLOCK.findall(GUIDE.read_text(encoding="utf-8")):
        if kind == "toml":
            first, _, content = text.partition("\n")
            found.append((first.removeprefix("# "), content))
            continue
        for line in text.splitlines():
            command = LINE.fullmatch(line)
            assert command, f"{line!r} does not say where it is typed"
            found.append((command[1], command[2]))
    return found


def test_the_page_says_where_everything_is_typed() -> None:
    places = [place for place, _ in steps()]
    assert places[0] == "build$"
    assert {*places} == {"build$", "gateway#", "laptop#", "dev$", "/etc/llmgw-gateway/gateway.toml"}


@dataclass
class Reader:
    """Whoever follows the page, with what they have of their own."""

    folder: Path
    gateway: Machine
    laptop: Machine
    canaille: Canaille
    cloud: ScriptedBedrock
    port: int
    etc: Path
    """What the name service of the reader's own machine knows."""
    transcript: list[str] = field(default_factory=list)

    def follow(self) -> None:
        """Type everything; each command has to succeed."""
        for place, text in steps():
            if place.startswith("/"):
                self._write(place, text)
                continue
            command = text.replace(f"{HOST}{PORT}", f"{HOST}:{self.port}")
            done = self._type(place, command)
            self.transcript.append(f"{place} {command}\n{done.stdout}{done.stderr}")
            assert done.exit_code == 0, "\n".join([*self.transcript, self.gateway.program.tail()])

    def _write(self, path: str, content: str) -> None:
        document = tomllib.loads(content.replace(PORT, f":{self.port}"))
        document["issuers"] = [self.canaille.issuer_section()]
        document["bedrock"] = {"region": self.cloud.region, "endpoint": self.cloud.endpoint}
        # Both machines share this one's addresses.
        document["server"] |= {"admin_listen": f"127.0.0.1:{free_port()}"}
        (self.gateway.root / path.lstrip("/")).write_text(toml_text.dump(document), encoding="utf-8")
        keys = "".join(f"{name}={value}\n" for name, value in self.cloud.key.environment().items())
        (self.gateway.root / "etc/default/llmgw-gateway").write_text(keys, encoding="utf-8")
        self.transcript.append(f"gateway# editor {path}")

    def _type(self, place: str, command: str) -> Finished:
        if place == "build$":
            return self._build(command)
        if place == "dev$":
            return self._develop(command)
        where = self.gateway if place == "gateway#" else self.laptop
        return where.do("sh", "-c", f"cd /root && {command}", seconds=machine.SECONDS)

    def _build(self, command: str) -> Finished:
        words = command.split()
        if words[0] == "cd":
            self.folder /= words[1]
            # What an earlier build has downloaded; the lock says whether it is right.
            (self.folder / ".lab").symlink_to(REPOSITORY / ".lab")
            shutil.copy(self.folder.parent / "corp-ca.pem", self.folder)
            return Finished(0, "", "")
        if words[0] == "scp":
            target = {"root@gateway:": self.gateway, "root@laptop:": self.laptop}[words[-1]]
            for path in (path for each in words[1:-1] for path in self.folder.glob(each)):
                shutil.copy(path, target.root / "root")
            return Finished(0, "", "")
        command = command.replace("https://git.corp.example/llmgw.git", f"{REPOSITORY} llmgw")
        # The registry that this machine uses, and its proxy, are its own business.
        env = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
        command_there = namespace.enter(self.etc, ["sh", "-c", command])
        return run(command_there, env=env, folder=self.folder, seconds=BUILD_SECONDS)

    def _develop(self, command: str) -> Finished:
        if command.startswith("llmgw login"):
            argv = self.laptop.inside(*command.split())
            visit = self.canaille.person("ada").sign_in
            return Finished(0, sign_in(argv, machine.ENVIRONMENT, self.laptop.folder, visit), "")
        return self.laptop.as_user("sh", "-c", f"cd && {command}", seconds=machine.SECONDS)


@pytest.fixture
def reader(tmp_path: Path, canaille: Canaille, scripted: ScriptedBedrock) -> Iterator[Reader]:
    names = certificates.issue(tmp_path / "certificates", host=HOST)
    with Machine(tmp_path / "gateway") as gateway, Machine(tmp_path / "laptop") as laptop:
        own = Path("/etc/hosts").read_bytes()
        etc = namespace.write(tmp_path / "etc", {"hosts": own + f"\n127.0.0.1 {HOST}\n".encode()})
        for each in (gateway, laptop):
            shutil.copy(etc / "hosts", each.root / "etc/hosts")
            shutil.copy(names.ca, each.root / "root/corp-ca.pem")
        shutil.copy(names.certificate, gateway.root / "root/llm.pem")
        shutil.copy(names.key, gateway.root / "root/llm.key")
        shutil.copy(names.ca, tmp_path / "corp-ca.pem")
        shutil.copy(executable(), laptop.root / "usr/bin/claude")
        laptop.unlock_keyring()
        yield Reader(tmp_path, gateway, laptop, canaille, scripted, free_port(), etc)


@pytest.mark.long
@pytest.mark.skipif(not machine.available(), reason=machine.NEEDS)
@pytest.mark.skipif(not node.available(), reason="needs Node and npm for the real `claude`")
@pytest.mark.skipif(not (REPOSITORY / ".git").exists(), reason="needs a repository to be cloned")
def test_whoever_follows_the_page_has_an_answer_on_a_laptop(reader: Reader, tmp_path: Path) -> None:
    try:
        reader.follow()
    finally:
        (tmp_path / "transcript.txt").write_text("\n".join(reader.transcript), encoding="utf-8")
        print("\n".join(reader.transcript))
    said = dict(entry.split("\n", 1) for entry in reader.transcript if "\n" in entry)
    assert said["dev$ claude -p 'Say hello.'"].strip() == reader.cloud.default.text
    (used,) = [text for command, text in said.items() if "usage" in command]
    assert "ada" in used.lower()
