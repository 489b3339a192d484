"""What a company sets beats everything else, and only root can have set it. Here "root" is whoever runs the tests."""

from __future__ import annotations

import os
import plistlib
import sys
from typing import TYPE_CHECKING

import pytest

from llmgw_agent import managed, settings
from llmgw_agent.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

GATEWAY = "https://gw.corp.example"
COMPANY = f'gateway_url = "{GATEWAY}"\nsign_in_methods = ["browser"]\nforward_port = 0\n'


@pytest.fixture
def company(tmp_path: Path) -> Path:
    path = tmp_path / "managed.toml"
    path.write_text(COMPANY)
    path.chmod(0o644)
    return path


def load(home: Path, *company: Path, owner: int | None = None, **environ: str) -> settings.Settings:
    owner = os.getuid() if owner is None else owner
    return settings.load({"LLMGW_HOME": str(home), "HOME": str(home)} | environ, company, owner)


def test_the_company_beats_variable_and_file(home: Path, company: Path) -> None:
    (home / "config.toml").write_text(
        'gateway_url = "https://file.example"\nca_file = "/etc/hosts"\nforward_port = 41\n'
    )
    given = load(home, company, LLMGW_GATEWAY_URL="https://variable.example", LLMGW_SIGN_IN_METHODS="device")
    assert (given.gateway_url, given.sign_in_methods, given.forward_port) == (GATEWAY, ("browser",), 0)
    assert given.sources == {
        "gateway_url": str(company),
        "sign_in_methods": str(company),
        "forward_port": str(company),
        "ca_file": f"{home}/config.toml",
    }


def test_without_the_company_the_variable_beats_the_file(home: Path, tmp_path: Path) -> None:
    (home / "config.toml").write_text('gateway_url = "https://file.example"\n')
    given = load(home, tmp_path / "missing.toml", LLMGW_GATEWAY_URL="https://variable.example", LLMGW_CA_FILE="")
    assert given.sources == {"gateway_url": "LLMGW_GATEWAY_URL"}


def test_a_property_list_says_the_same_and_the_person_s_beats_the_machine_s(home: Path, tmp_path: Path) -> None:
    machine, person = tmp_path / "a.plist", tmp_path / "b.plist"
    machine.write_bytes(plistlib.dumps({"gateway_url": GATEWAY, "forward_port": 41}))
    person.write_bytes(plistlib.dumps({"forward_port": 42, "sign_in_methods": ["paste"]}, fmt=plistlib.FMT_BINARY))
    for path in (machine, person):
        path.chmod(0o644)
    given = load(home, machine, person)
    assert (given.gateway_url, given.forward_port, given.sign_in_methods) == (GATEWAY, 42, ("paste",))


def test_all_faults_of_all_places_at_once(home: Path, company: Path) -> None:
    (home / "config.toml").write_text("gateway = 1\n")
    company.write_text(
        'ca_file = "missing.pem"\nsign_in_methods = ["telepathy"]\nforward_port = "x"\ninsecure = true\n'
    )
    with pytest.raises(ConfigurationError) as failure:
        load(home, company, LLMGW_GATEWAY_URL="http://variable.example")
    for fault in (
        f"{home}/config.toml: 'gateway' is not a setting",
        f"{company}: forward_port is not a whole number",
        f"{company}: 'insecure' is not a setting",
        "LLMGW_GATEWAY_URL: gateway_url must begin with https://",
        f"{company}: ca_file 'missing.pem' is not",
        f"{company}: sign_in_methods names 'telepathy'",
    ):
        assert fault in failure.value.message


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o666])
def test_a_file_that_others_can_write_is_not_believed(home: Path, company: Path, mode: int) -> None:
    company.chmod(mode)
    with pytest.raises(ConfigurationError, match="is not believed"):
        load(home, company, LLMGW_GATEWAY_URL=GATEWAY)


def test_a_file_of_somebody_else_is_not_believed(home: Path, company: Path) -> None:
    with pytest.raises(ConfigurationError, match="is not believed"):
        load(home, company, owner=os.getuid() + 1, LLMGW_GATEWAY_URL=GATEWAY)


def test_a_link_and_a_pipe_are_no_files(home: Path, company: Path, tmp_path: Path) -> None:
    (tmp_path / "link.toml").symlink_to(company)
    os.mkfifo(tmp_path / "pipe.toml", 0o644)
    for name, words in (("link.toml", "cannot be read"), ("pipe.toml", "is not believed")):
        with pytest.raises(ConfigurationError, match=words):
            load(home, tmp_path / name, LLMGW_GATEWAY_URL=GATEWAY)


@pytest.mark.parametrize(
    ("name", "content"),
    [("x.toml", b"gateway_url = "), ("x.toml", b"\xff"), ("x.plist", b"<plist>"), ("x.plist", plistlib.dumps([1]))],
)
def test_a_file_that_cannot_be_read_stops_the_agent(home: Path, tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    (tmp_path / name).chmod(0o644)
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load(home, tmp_path / name, LLMGW_GATEWAY_URL=GATEWAY)


def test_no_variable_moves_the_company_s_places(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before = managed.paths()
    for name in ("HOME", "LLMGW_HOME", "XDG_CONFIG_HOME", "XDG_CONFIG_DIRS", "USER", "LOGNAME"):
        monkeypatch.setenv(name, str(tmp_path))
    assert managed.paths() == before
    assert all(str(path).startswith("/Library/" if sys.platform == "darwin" else "/etc/") for path in before)
