"""The agent as its user has it: a home of its own, a daemon, and the commands beside it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmgw_agent.token_stub import socket_path
from tests.lab import toml_text
from tests.lab.environment import clean_environment
from tests.lab.process import POLL_SECONDS, Finished, Program, ProgramError, run
from tests.lab.server import Server

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

URL = re.compile(r"https?://\S+")
COMMAND_SECONDS = 30


def installed(name: str) -> Path:
    """A command of this project, where the interpreter's environment has it."""
    path = Path(sys.executable).parent / name
    if not path.is_file():
        raise ProgramError(f"{path} is missing: install the project into this environment (make does)")
    return path


class Agent(Server):
    """One laptop: `home` is its LLMGW_HOME. Entering it starts the daemon; nobody is signed in yet.

    `settings` is its file; change it before the agent is entered.
    """

    def __init__(self, folder: Path, *, gateway_url: str, ca_file: Path | None = None) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.settings: dict[str, Any] = {"gateway_url": gateway_url} | ({"ca_file": str(ca_file)} if ca_file else {})
        self.env = clean_environment(folder, LLMGW_HOME=str(self.home))
        self.socket = Path(socket_path(self.env, os.getuid()))
        self.program = self._daemon()

    def set_environment(self, **more: str) -> None:
        """What the daemon and the commands find besides, from the next start on."""
        self.env |= more
        self.program = self._daemon()

    @property
    def token_command(self) -> str:
        """What Claude Code's `apiKeyHelper` is set to: works in any shell, whatever its environment."""
        return shlex.join(["env", f"LLMGW_HOME={self.home}", str(installed("llmgw-token"))])

    def command(self, *words: str, seconds: float = COMMAND_SECONDS) -> Finished:
        """`llmgw WORDS...`"""
        return run([installed("llmgw"), *words], env=self.env, folder=self.folder, seconds=seconds)

    def rest(self) -> int:
        """`llmgw daemon rest`, and until it waits; the process id."""
        answer = self.command("daemon", "rest", "--json")
        pid = int(json.loads(answer.stdout)["rest"]["pid"])
        deadline = time.monotonic() + COMMAND_SECONDS
        while not _is_at_rest(pid):
            if time.monotonic() > deadline:
                raise ProgramError(f"the agent does not rest\n{(self.home / 'agent.log').read_text()[-3000:]}")
            time.sleep(POLL_SECONDS)
        return pid

    def token(self) -> Finished:
        """`llmgw-token`: what a tool gets."""
        return run([installed("llmgw-token")], env=self.env, folder=self.folder, seconds=COMMAND_SECONDS)

    def sign_in(self, visit: Callable[[str], object], *, seconds: float = COMMAND_SECONDS) -> str:
        """`llmgw login --no-browser`; `visit` opens the address that it prints. Returns what it printed."""
        argv: list[str | Path] = [installed("llmgw"), "login", "--no-browser"]
        try:
            return sign_in(argv, self.env, self.folder, visit, seconds=seconds)
        except ProgramError as error:
            raise ProgramError(f"{error}\n{self.program.tail()}") from None

    def prepare(self) -> None:
        self.home.mkdir(parents=True, exist_ok=True, mode=0o700)
        # In the file rather than the environment: `llmgw-token` has to find it when all it knows is LLMGW_HOME.
        (self.home / "config.toml").write_text(toml_text.table(self.settings), encoding="utf-8")

    def wait_ready(self) -> None:
        self.program.wait_until(self._listens, "listening")

    def _daemon(self) -> Program:
        return Program("agent", [installed("llmgw"), "daemon"], env=self.env, folder=self.folder)

    def _listens(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe, contextlib.suppress(OSError):
            probe.connect(str(self.socket))
            return True
        return False


def _is_at_rest(pid: int) -> bool:
    """Whether it has become what waits, and waits."""
    state = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
    return state == "S" and b"/rest.py" in Path(f"/proc/{pid}/cmdline").read_bytes()


def sign_in(
    argv: Sequence[str | Path],
    env: Mapping[str, str],
    folder: Path,
    visit: Callable[[str], object],
    *,
    seconds: float = COMMAND_SECONDS,
) -> str:
    """A command that prints an address to sign in at and waits for it; `visit` opens it. Returns what it printed."""
    login = subprocess.Popen(
        argv,
        env=env,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    deadline = threading.Timer(seconds, login.kill)
    deadline.start()
    with login:
        try:
            printed = _until_url(login)
            visit(URL.findall(printed)[-1].rstrip(".,"))
            rest, _ = login.communicate()
        except BaseException:
            login.kill()
            raise
        finally:
            deadline.cancel()
    if login.returncode != 0:
        raise ProgramError(f"llmgw login ended with {login.returncode}\n{printed}{rest}")
    return printed + rest


def _until_url(login: subprocess.Popen[str]) -> str:
    """What was printed up to the line with the address."""
    printed = ""
    for line in login.stdout or ():
        printed += line
        if URL.search(line):
            return printed
    raise ProgramError(f"llmgw login ended with {login.wait()} and printed no address\n{printed}")
