"""Tokens for another machine: a socket that leads here, serves one verb, and ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.lab.agent import installed
from tests.lab.environment import clean_environment
from tests.lab.process import run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.lab.system import System

SECONDS = 20


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A short one: a socket's path is limited to about a hundred bytes, and pytest's own folders use most of them."""
    with tempfile.TemporaryDirectory(prefix="llmgw-") as folder:
        yield Path(folder)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def ask(path: str, target: str, method: str = "GET", host: str = "llmgw.local") -> bytes:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(SECONDS)
        client.connect(path)
        client.sendall(f"{method} {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        answer = b""
        while part := client.recv(65536):
            answer += part
    return answer


def test_a_container_s_socket_gives_tokens_and_nothing_else(system: System) -> None:
    made = json.loads(system.agent.command("forward", "container", "box", "--json").stdout)["pass"]
    place = Path(made["socket"])
    assert stat.S_IMODE(place.stat().st_mode) == 0o600
    assert stat.S_IMODE(place.parent.stat().st_mode) == 0o700
    assert ask(made["socket"], "/token").startswith(b"HTTP/1.1 200 ")
    for method, target in (
        *(("GET", "/status"), ("GET", "/whoami"), ("GET", "/usage"), ("GET", "/passes")),
        *(("POST", "/logout"), ("POST", "/stop"), ("POST", "/forward"), ("POST", "/passes"), ("POST", "/token")),
    ):
        assert ask(made["socket"], target, method).startswith(b"HTTP/1.1 400 "), target
    assert ask(made["socket"], "/token", host="evil.example").startswith(b"HTTP/1.1 403 ")

    listed = system.agent.command("forward", "list")
    assert made["id"] in listed.stdout
    assert "box" in listed.stdout
    assert system.agent.command("forward", "revoke", made["id"]).exit_code == 0
    assert not place.parent.exists()
    assert system.agent.command("forward", "list").stdout == "There is no socket for another machine.\n"
    assert system.agent.command("forward", "revoke", made["id"]).exit_code == 2


def test_what_is_printed_for_a_container_fits_the_token_command(system: System) -> None:
    printed = system.agent.command("forward", "container", "box").stdout
    folder = printed.split(" -v ")[1].split(":", 1)[0]
    home = system.folder / "in-container"
    home.mkdir()
    os.rename(folder, home / "run")  # noqa: PTH104 -- what a mount shows there, the socket's inode included
    env = clean_environment(home, LLMGW_HOME=str(home))
    done = run([installed("llmgw-token")], env=env, folder=home, seconds=SECONDS)
    assert (done.exit_code, done.stderr) == (0, "")


def test_time_that_is_up_and_passes_without_sense(system: System) -> None:
    made = json.loads(system.agent.command("forward", "container", "box", "--ttl", "1s", "--json").stdout)["pass"]
    said = [b"HTTP/1.1 200 "]

    def is_over() -> bool:
        try:
            said.append(ask(made["socket"], "/token"))
        except OSError:  # the agent has tidied up already
            return True
        return not said[-1].startswith(b"HTTP/1.1 200 ")

    until(is_over)
    assert b"the time of this forwarding is up" in said[-1] or not Path(made["socket"]).exists()
    for words in (("--ttl", "25h"), ("--ttl", "0"), ("--ttl", "soon")):
        done = system.agent.command("forward", "container", "box", *words)
        assert (done.exit_code, done.stdout) == (2, "")
    for _ in range(16):
        assert system.agent.command("forward", "container", "box").exit_code == 0
    assert system.agent.command("forward", "container", "box").exit_code == 5


@pytest.fixture
def host(system: System) -> dict[str, str]:
    """The variables of somebody at "the host", to which a stand-in for ssh leads."""
    folder = system.folder / "bin"
    folder.mkdir()
    script = Path(__file__).with_name("remote_host.py")
    (folder / "ssh").write_text(f'#!/bin/sh\nexec {sys.executable} {script} "$@"\n')
    (folder / "ssh").chmod(0o755)
    home = system.folder / "h"
    (home / "run" / "llmgw").mkdir(parents=True)
    (home / "run" / "llmgw" / "agent.sock").touch()  # left over
    system.agent.env |= {"PATH": f"{folder}:{system.agent.env['PATH']}", "REMOTE_HOME": str(home)}
    return clean_environment(home, XDG_RUNTIME_DIR=str(home / "run"))


def test_a_host_reached_by_ssh(system: System, host: dict[str, str]) -> None:
    place = Path(host["XDG_RUNTIME_DIR"]) / "llmgw" / "agent.sock"
    command = [str(installed("llmgw")), "forward", "ssh", "build-host", "--ttl", "30m"]
    with subprocess.Popen(command, env=system.agent.env, stderr=subprocess.PIPE, text=True) as forwarding:
        try:
            assert forwarding.stderr is not None
            assert forwarding.stderr.readline().startswith("llmgw-token works on build-host for 30 min, or until")
            until(place.is_socket)
            done = run([installed("llmgw-token")], env=host, folder=system.folder, seconds=SECONDS)
            assert (done.exit_code, done.stderr) == (0, "")
            assert done.stdout == system.agent.token().stdout
        finally:
            forwarding.send_signal(signal.SIGINT)
        assert forwarding.wait(SECONDS) == 0
    assert json.loads(system.agent.command("forward", "list", "--json").stdout)["passes"] == []
    assert not place.exists()


def test_a_host_that_cannot_be_reached(system: System, host: dict[str, str]) -> None:
    assert host
    done = system.agent.command("forward", "ssh", "nowhere")
    assert (done.exit_code, done.stdout) == (6, "")
    assert "nowhere could not be prepared (exit code 255)" in done.stderr
    assert json.loads(system.agent.command("forward", "list", "--json").stdout)["passes"] == []
    assert system.agent.command("forward", "ssh", "--", "-oProxyCommand=x").exit_code == 2


def test_nobody_forwards_without_a_sign_in(system: System) -> None:
    system.agent.command("logout")
    assert system.agent.command("forward", "container", "box").exit_code == 4
