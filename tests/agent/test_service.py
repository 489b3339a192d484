"""The agent under a service manager: units that systemd accepts, a socket that is handed over, install and back."""

from __future__ import annotations

import contextlib
import json
import os
import plistlib
import shutil
import socket as sockets
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from llmgw_agent import listener, service
from llmgw_agent.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ACTIVATE = shutil.which("systemd-socket-activate")
VERIFY = shutil.which("systemd-analyze")
DAEMON = [sys.executable, "-I", "-m", "llmgw_agent.daemon"]
SECONDS = 20


@pytest.fixture
def configured(environ: dict[str, str], home: Path) -> dict[str, str]:
    (home / "config.toml").write_text('gateway_url = "http://127.0.0.1:9"\n')
    return environ


def llmgw(environ: dict[str, str], *words: str) -> tuple[int, str, str]:
    argv = [sys.executable, "-c", "from llmgw_agent.cli import main; main()", *words]
    done = subprocess.run(argv, env=environ, capture_output=True, text=True, timeout=SECONDS, check=False)
    return done.returncode, done.stdout, done.stderr


@contextlib.contextmanager
def activated(environ: dict[str, str], path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """systemd's own tool: listens, and becomes the daemon at the first connection."""
    path.parent.mkdir(mode=0o700, exist_ok=True)
    names = [f"--setenv={name}" for name in environ]
    command = [str(ACTIVATE), f"--listen={path}", *names, *DAEMON]
    with subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        try:
            deadline = time.monotonic() + SECONDS
            while not path.exists():
                assert time.monotonic() < deadline
                assert process.poll() is None
                time.sleep(0.01)
            yield process
        finally:
            process.kill()


@pytest.mark.skipif(ACTIVATE is None, reason="needs systemd-socket-activate")
def test_the_daemon_serves_on_the_socket_it_is_handed_and_leaves_it(
    configured: dict[str, str], socket_path: Path
) -> None:
    with activated(configured, socket_path) as process:
        code, _, stderr = llmgw(configured, "token")
        assert (code, stderr) == (4, "llmgw: you are not signed in. Run: llmgw login\n")
        document = json.loads(llmgw(configured, "status", "--json")[1])
        assert document["daemon"]["pid"] == process.pid
        assert llmgw(configured, "daemon", "stop")[0] == 0
        assert process.wait(SECONDS) == 0
        assert socket_path.exists()


@pytest.mark.skipif(ACTIVATE is None, reason="needs systemd-socket-activate")
def test_a_socket_at_another_place_is_refused(configured: dict[str, str], socket_path: Path, tmp_path: Path) -> None:
    with activated(configured, tmp_path / "other.sock") as process:
        with sockets.socket(sockets.AF_UNIX) as client:
            client.connect(str(tmp_path / "other.sock"))
            assert process.wait(SECONDS) == 8
        assert process.stderr is not None
        assert f"listens elsewhere than at {socket_path}".encode() in process.stderr.read()


def test_what_was_meant_for_another_process_is_not_taken(tmp_path: Path) -> None:
    for environ in ({}, {"LISTEN_PID": "1", "LISTEN_FDS": "1"}, {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "x"}):
        assert listener.inherited(tmp_path / "s", environ) is None
        assert environ == {}


def test_only_the_socket_that_was_bound_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "s"
    path.touch()
    bound = listener.identity(path)
    (tmp_path / "t").touch()
    (tmp_path / "t").replace(path)
    listener.remove(path, bound)
    assert path.exists()
    listener.remove(path, listener.identity(path))
    assert not path.exists()
    listener.remove(path, bound)


@pytest.mark.skipif(VERIFY is None, reason="needs systemd-analyze")
def test_systemd_takes_the_units(tmp_path: Path) -> None:
    strange = 'a "b" %h $HOME \\ c'
    made = service.units(tmp_path / "run" / "agent.sock", {"LLMGW_HOME": strange, "LLMGW_CA_FILE": ""})
    for name, text in made.items():
        (tmp_path / name).write_text(text)
    env = {"PATH": os.environ["PATH"], "SYSTEMD_UNIT_PATH": f"{tmp_path}:", "XDG_RUNTIME_DIR": str(tmp_path)}
    command = [str(VERIFY), "--user", "--man=no", "verify", *(str(tmp_path / name) for name in made)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert [line for line in done.stderr.splitlines() if "llmgw" in line] == []
    assert 'Environment="LLMGW_HOME=a \\"b\\" %%h $HOME \\\\ c"' in made["llmgw.service"]
    assert "LLMGW_CA_FILE" not in made["llmgw.service"]


def test_the_launchd_agent_is_a_property_list() -> None:
    document = plistlib.loads(service.agent_plist({"LLMGW_GATEWAY_URL": "https://gw.example", "HOME": "/x"}, "/p"))
    assert document["ProgramArguments"] == ["/p", "-I", "-m", "llmgw_agent.daemon"]
    assert document["EnvironmentVariables"] == {"LLMGW_GATEWAY_URL": "https://gw.example"}
    assert document["KeepAlive"] == {"SuccessfulExit": False}


@pytest.fixture
def manager(configured: dict[str, str], tmp_path: Path) -> Path:
    """A service manager that writes down what it is told; `code` in its folder is what it answers."""
    folder = tmp_path / "bin"
    folder.mkdir()
    command = folder / "systemctl"
    command.write_text(f'#!/bin/sh\necho "$@" >> {folder}/told\necho active\nexit $(cat {folder}/code)\n')
    command.chmod(0o755)
    (folder / "code").write_text("0")
    configured["PATH"] = f"{folder}:{configured['PATH']}"
    return folder


@pytest.mark.skipif(sys.platform != "linux", reason="systemd")
def test_install_status_and_uninstall(configured: dict[str, str], manager: Path) -> None:
    units = service.files(configured)
    assert llmgw(configured, "service", "status")[1].startswith("The service is not installed")
    code, stdout, stderr = llmgw(configured, "service", "install")
    assert (code, stderr) == (0, "")
    assert stdout.startswith("The service is installed (active):")
    assert {path: path.read_bytes() for path in units} == units
    told = (manager / "told").read_text()
    assert "--user daemon-reload\n" in told
    assert "--user enable --now llmgw.socket llmgw.service\n" in told
    assert json.loads(llmgw(configured, "service", "status", "--json")[1])["service"]["installed"] is True
    assert llmgw(configured, "service", "uninstall")[0] == 0
    assert "--user disable --now llmgw.socket llmgw.service\n" in (manager / "told").read_text()
    assert not any(path.exists() for path in units)
    assert llmgw(configured, "service", "uninstall")[0] == 2


@pytest.mark.skipif(sys.platform != "linux", reason="systemd")
def test_what_the_service_manager_does_not_take_leaves_nothing(configured: dict[str, str], manager: Path) -> None:
    (manager / "code").write_text("1")
    code, stdout, stderr = llmgw(configured, "service", "install")
    assert (code, stdout) == (6, "")
    assert "systemctl did not take the service (active)" in stderr
    units = service.files(configured)
    assert not any(path.exists() for path in units)
    path = next(iter(units))
    path.write_text("[Unit]\nDescription=of somebody\n")
    with pytest.raises(ConfigurationError, match="not of llmgw"):
        service.install(configured)
    assert "of somebody" in path.read_text()
