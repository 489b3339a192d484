"""The packages on a Debian that booted: installed, used, upgraded under a live session, and taken off again."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.request import Request

import pytest

from llmgw_packaging import agent, deb, linux, organization
from llmgw_packaging import gateway as gateways
from llmgw_packaging.targets import LINUX
from tests.lab import machine, toml_text
from tests.lab.agent import sign_in
from tests.lab.fixtures import canaille, scripted
from tests.lab.gateway import Gateway
from tests.lab.loopback import answers, opener
from tests.lab.machine import Machine

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from llmgw_packaging.release import Release
    from tests.lab.canaille import Canaille
    from tests.lab.process import Finished
    from tests.lab.scripted import ScriptedBedrock

__all__ = ["canaille", "scripted"]

pytestmark = [pytest.mark.long, pytest.mark.skipif(not machine.available(), reason=machine.NEEDS)]
# What belongs to nobody's package: logs, caches, dpkg's own books, and what users have.
OF_NOBODY = (
    *("var/log", "var/cache", "var/lib/dpkg", "var/lib/apt", "var/lib/systemd/timers", "var/lib/systemd/random-seed"),
    *("var/tmp", "home", "root", "tmp", "proc", "sys", "dev", "run"),
)


@pytest.fixture
def gateway(tmp_path: Path, canaille: Canaille, scripted: ScriptedBedrock) -> Iterator[Gateway]:
    with Gateway(
        tmp_path / "gateway",
        issuers=[canaille.issuer_section()],
        endpoint=scripted.endpoint,
        region=scripted.region,
        credentials=scripted.key.environment(),
    ) as running:
        yield running


@pytest.fixture
def laptop(tmp_path: Path) -> Iterator[Machine]:
    with Machine(tmp_path / "laptop") as running:
        yield running


@pytest.fixture
def packages(
    laptop: Machine, gateway: Gateway, tmp_path: Path, store: Path, architecture: str, release: Release
) -> str:
    """Packages of two versions of the agent, and of an organisation that uses this gateway; the folder inside."""
    org = tmp_path / "org.toml"
    org.write_text(
        f'[organization]\nname = "Example"\nidentifier = "example.corp"\n[gateway]\nurl = "{gateway.url}"\n',
        encoding="utf-8",
    )
    # Debian 12 has 3.11; that a package for several versions works on it is part of what is tried.
    target = replace(LINUX[architecture], pythons=("3.11", "3.12"))
    for version in ("1.2.3", "1.2.4"):
        package = linux.agent_deb(agent.build(target, store, replace(release, version=version)), target, architecture)
        (laptop.root / "srv" / f"llmgw_{version}.deb").write_bytes(deb.build(package))
    own = linux.organization_deb(organization.build(org, release))
    (laptop.root / "srv" / "llmgw-org.deb").write_bytes(deb.build(own))
    return "/srv"


def files(laptop: Machine) -> set[str]:
    """Everything on its disk that a package may have put there."""
    found = set()
    for path in laptop.root.rglob("*"):
        name = path.relative_to(laptop.root).as_posix()
        if not name.startswith(OF_NOBODY):
            found.add(name)
    return found


def is_active(laptop: Machine, unit: str) -> str:
    return laptop.as_user("systemctl", "--user", "is-active", unit).stdout.strip()


def who(gateway: Gateway, token: str) -> str:
    """Whom the gateway takes the bearer for."""
    request = Request(f"{gateway.url}/v1/me", headers={"Authorization": f"Bearer {token.strip()}"})  # noqa: S310 -- the laboratory's own gateway
    with opener().open(request, timeout=10) as answer:
        return str(json.load(answer)["name"])


@contextmanager
def asking(laptop: Machine) -> Iterator[list[Finished]]:
    """Asks for tokens, one after another, from before the block until after it; the answers."""
    answers: list[Finished] = []
    first, over = threading.Event(), threading.Event()

    def ask() -> None:
        while not over.is_set():
            answers.append(laptop.as_user("llmgw-token"))
            first.set()
        answers.append(laptop.as_user("llmgw-token"))

    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(ask)
        first.wait(machine.SECONDS)
        try:
            yield answers
        finally:
            over.set()
            asked.result()


def test_install_sign_in_upgrade_remove(laptop: Machine, packages: str, gateway: Gateway, canaille: Canaille) -> None:
    before = files(laptop)
    laptop.must("dpkg", "-i", f"{packages}/llmgw_1.2.3.deb", f"{packages}/llmgw-org.deb")
    laptop.unlock_keyring()

    # The socket is there although nobody started anything; asking starts the agent.
    assert laptop.as_user("systemctl", "--user", "is-active", "llmgw.socket").stdout.strip() == "active"
    assert laptop.as_user("systemctl", "--user", "is-active", "llmgw.service").stdout.strip() == "inactive"
    refused = laptop.as_user("/opt/llmgw/bin/llmgw-token")
    assert (refused.exit_code, refused.stdout) == (4, "")
    assert laptop.as_user("systemctl", "--user", "is-active", "llmgw.service").stdout.strip() == "active"
    socket = f"/run/user/{machine.USER_ID}/llmgw/agent.sock"
    other = laptop.do("runuser", "-u", "nobody", "--", "curl", "--unix-socket", socket, "http://llmgw.local/token")
    assert other.exit_code != 0

    sign_in(
        laptop.inside("llmgw", "login", "--no-browser"),
        machine.ENVIRONMENT,
        laptop.folder,
        canaille.person("ada").sign_in,
    )
    token = laptop.as_user("llmgw-token")
    assert token.exit_code == 0
    assert who(gateway, token.stdout) == "Ada Lovelace"

    # Nobody who asks during an upgrade is turned away, and nobody has to sign in again.
    old = laptop.as_user("systemctl", "--user", "show", "--property=MainPID", "llmgw.service").stdout
    with asking(laptop) as answers:
        laptop.must("dpkg", "-i", f"{packages}/llmgw_1.2.4.deb")
    assert {each.exit_code for each in answers} == {0}, [each.stderr for each in answers if each.exit_code]
    new = laptop.as_user("systemctl", "--user", "show", "--property=MainPID", "llmgw.service").stdout
    assert old != new
    assert laptop.as_user("llmgw-token").exit_code == 0

    # The agent alone cannot go; both go, the settings first.
    assert laptop.do("dpkg", "--remove", "llmgw").exit_code != 0
    laptop.must("apt-get", "purge", "--yes", "llmgw")
    log = (laptop.root / "var/log/dpkg.log").read_text(encoding="utf-8")
    assert log.index(" remove llmgw-org-example-corp") < log.index(" remove llmgw:")
    assert laptop.as_user("systemctl", "--user", "is-active", "llmgw.service").stdout.strip() == "inactive"
    assert laptop.do("pgrep", "--full", "llmgw_agent").exit_code == 1
    assert files(laptop) - before == set()


def test_a_gateway_is_installed_configured_upgraded_and_removed(
    laptop: Machine,
    store: Path,
    architecture: str,
    release: Release,
    canaille: Canaille,
    scripted: ScriptedBedrock,
    tmp_path: Path,
) -> None:
    target = replace(LINUX[architecture], pythons=("3.11",))
    for version in ("1.2.3", "1.2.4"):
        served = gateways.build(target, store, replace(release, version=version))
        package = deb.build(gateways.debian(served, target, architecture))
        (laptop.root / "srv" / f"gateway_{version}.deb").write_bytes(package)
    before = files(laptop)
    laptop.must("dpkg", "-i", "/srv/gateway_1.2.3.deb")
    # Nobody starts one that is not configured.
    assert laptop.do("systemctl", "is-active", "llmgw-gateway").stdout.strip() == "inactive"
    etc = laptop.root / "etc" / "llmgw-gateway"
    assert etc.joinpath("cluster.secret").stat().st_mode & 0o077 == 0

    document = Gateway(
        tmp_path / "gateway",
        issuers=[canaille.issuer_section()],
        endpoint=scripted.endpoint,
        region=scripted.region,
        credentials={},
    ).document
    document["store"]["path"] = "/var/lib/llmgw-gateway/gateway.db"
    document["audit"]["path"] = "/var/log/llmgw-gateway/audit.jsonl"
    (etc / "gateway.toml").write_text(toml_text.dump(document), encoding="utf-8")
    keys = "".join(f"{name}={value}\n" for name, value in scripted.key.environment().items())
    (laptop.root / "etc" / "default" / "llmgw-gateway").write_text(keys, encoding="utf-8")
    laptop.must("systemctl", "enable", "--now", "--quiet", "llmgw-gateway")
    ready = f"{document['server']['public_url']}/readyz"
    laptop.program.wait_until(lambda: answers(ready), "serving a gateway", seconds=machine.SECONDS)

    # What the administrator has written stays, and the gateway changes over.
    old = laptop.must("systemctl", "show", "--property=MainPID", "llmgw-gateway")
    laptop.must("dpkg", "-i", "/srv/gateway_1.2.4.deb")
    assert (etc / "gateway.toml").read_text(encoding="utf-8") == toml_text.dump(document)
    assert laptop.must("systemctl", "show", "--property=MainPID", "llmgw-gateway") != old
    laptop.program.wait_until(lambda: answers(ready), "serving a gateway", seconds=machine.SECONDS)

    laptop.must("dpkg", "--purge", "llmgw-gateway")
    assert not answers(ready)
    assert (laptop.root / "var/lib/llmgw-gateway/gateway.db").is_file()
    kept = ("var/lib/llmgw-gateway", "etc/passwd", "etc/group", "etc/shadow", "etc/gshadow", "etc/.pwd.lock")
    assert [name for name in files(laptop) - before if not name.startswith(kept)] == []
