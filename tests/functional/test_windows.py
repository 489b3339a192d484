"""The agent on a real Python for Windows: its pipe, its keyring, its folders, a sign-in and tokens.

Left out unless `LLMGW_TEST_WINDOWS_PYTHON` names a command that runs such a Python with the agent's packages on its
path: `python.exe` on Windows, or a script that runs it in Wine. docs/agent.md says what Wine shows and what not.
"""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from llmgw_agent.windows import token_command
from tests.lab.agent import sign_in
from tests.lab.process import Finished, Program, run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.lab.system import System

PYTHON = os.environ.get("LLMGW_TEST_WINDOWS_PYTHON", "")
SECONDS = 60
PIPE = """
import json, os, time
from pathlib import Path
from llmgw_agent import system
from llmgw_agent.windows.api import WINDOWS
from llmgw_agent.windows.pipe import connect
pipe = connect(str(system.address(os.environ)), time.monotonic() + 5)
folder = Path(os.environ["LLMGW_HOME"])
print(json.dumps({
    "owner": WINDOWS.owner_of(pipe._handle), "own": WINDOWS.own_sid(),
    "private": system.is_private(folder), "changeable": system.is_changeable(folder / "vault.bin"),
    "here": str(system.folder_of(os.getpid())), "expected": os.getcwd(),
    "variable": system.environment_of(os.getpid()).get("LLMGW_HOME"), "home": os.environ["LLMGW_HOME"],
    "program": system.look_up_processes()(os.getpid())[1],
}))
"""

pytestmark = [pytest.mark.long, pytest.mark.skipif(not PYTHON, reason="LLMGW_TEST_WINDOWS_PYTHON is not set")]


def there(path: Path) -> str:
    """What Windows calls a path; Wine has this machine's files on a drive of its own."""
    return str(path) if os.name == "nt" else "Z:" + str(path).replace("/", "\\")


class Windows:
    """The agent there."""

    def __init__(self, folder: Path, gateway_url: str) -> None:
        self.folder = folder
        self.env = {name: value for name, value in os.environ.items() if not name.startswith("LLMGW_")}
        self.env |= {"LLMGW_GATEWAY_URL": gateway_url, "LLMGW_HOME": there(folder / "laptop")}

    def log(self) -> str:
        file = self.folder / "laptop" / "agent.log"
        return file.read_text(encoding="utf-8") if file.exists() else ""

    def words(self, *words: str) -> list[str | Path]:
        return [PYTHON, "-I", "-c", "from llmgw_agent.entry import main; main()", *words]

    def command(self, *words: str) -> Finished:
        return run(self.words(*words), env=self.env, folder=self.folder, seconds=SECONDS)

    def python(self, code: str) -> Finished:
        return run([PYTHON, "-I", "-c", code], env=self.env, folder=self.folder, seconds=SECONDS)

    def token(self) -> Finished:
        file = there(Path(token_command.__file__))
        return run([PYTHON, "-I", "-S", file], env=self.env, folder=self.folder, seconds=SECONDS)


@pytest.fixture
def windows(tmp_path: Path, system: System) -> Iterator[Windows]:
    laptop = Windows(tmp_path, system.gateway.url)
    # Not by the first command: in Wine an agent that outlives it keeps its output open, which we would wait for.
    with Program("windows", laptop.words("daemon"), env=laptop.env, folder=tmp_path) as daemon:
        daemon.wait_until(lambda: "serving" in laptop.log(), "serving", seconds=SECONDS)
        yield laptop
        assert laptop.command("daemon", "stop").exit_code == 0
        assert daemon.wait(seconds=SECONDS) == 0


def test_a_sign_in_tokens_and_a_sign_out(system: System, windows: Windows) -> None:
    before = windows.command("status")
    assert (before.exit_code, "nobody" in before.stdout) == (4, True)
    visit = system.provider.person("ada").sign_in
    sign_in(windows.words("login", "--no-browser"), windows.env, windows.folder, visit, seconds=SECONDS)

    first = windows.token()
    assert (first.exit_code, first.stderr, first.stdout.count("\n")) == (0, "", 1)
    with ThreadPoolExecutor(8) as pool:
        tokens = list(pool.map(lambda _: windows.token(), range(8)))
    assert [token.exit_code for token in tokens] == [0] * 8

    status = json.loads(windows.command("status", "--json").stdout)
    assert status["storage"] == {"persistent": True, "description": "encrypted file, key in Windows"}
    assert status["forwarder"]["socket"] is None
    found = json.loads(windows.python(PIPE).stdout)
    assert found["owner"] == found["own"]
    assert (found["private"], found["changeable"]) == (True, False)
    assert (found["here"], found["variable"], found["program"]) == (found["expected"], found["home"], "python")

    assert windows.command("forward").exit_code == 0
    refused = windows.command("forward", "container", "devbox")
    assert (refused.exit_code, "Windows has no sockets" in refused.stderr) == (5, True)
    assert windows.command("logout").exit_code == 0
    assert windows.token().exit_code == 4
