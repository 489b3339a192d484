from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from llmgw_agent.caller import PS, Caller, _by_proc, _nearest, by_ps, caller
from llmgw_agent.system import environment_of, folder_of

if TYPE_CHECKING:
    from pathlib import Path

LONG = 30.0
"""Seconds that the busiest machine does not need."""
needs_ps = pytest.mark.skipif(not shutil.which(PS), reason="needs ps")
ROW = "  7     1 Sat Nov 21 08:18:48 2026 /Applications/A Tool.app/tool\\n  9     7 Sat Nov 21 08:18:49 2026 -zsh\\n"


def test_the_caller_is_the_nearest_ancestor_that_is_no_shell() -> None:
    code = "import asyncio, os; from llmgw_agent.caller import caller; print(asyncio.run(caller(os.getpid())).label)"
    direct = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    script = f"true; {sys.executable} -c '{code}'; true"
    shell = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout
    assert direct == shell
    assert direct.startswith(f"{os.getpid()} ")


async def test_an_unknown_process_has_no_name() -> None:
    assert (await caller(0)).label == ""
    assert (await caller(2**22 + 1)).label == ""


@needs_ps
@pytest.mark.skipif(sys.platform != "linux", reason="compares ps with /proc")
async def test_ps_tells_what_proc_tells() -> None:
    processes = await by_ps(seconds=LONG)
    for pid in (os.getpid(), os.getppid()):
        by_proc = _by_proc(pid)
        assert by_proc is not None
        assert (processes[pid].parent, processes[pid].name) == (by_proc.parent, by_proc.name)


async def test_names_with_spaces_and_login_shells(tmp_path: Path) -> None:
    processes = await by_ps(script(tmp_path, f"printf '{ROW}'"), LONG)
    assert _nearest(9, processes.get).label == "7 /Applications/A Tool.app/tool Sat Nov 21 08:18:48 2026"
    assert _nearest(7, processes.get) == Caller()


async def test_other_requests_go_on_while_ps_thinks(tmp_path: Path) -> None:
    """The one at the other end of the pipe is this very event loop: blocked, it would never answer."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    thinking = asyncio.create_task(by_ps(script(tmp_path, f"read answer < {pipe}; printf '{ROW}'"), LONG))
    while True:
        try:
            end = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)  # fails until somebody reads
            break
        except OSError:
            assert not thinking.done(), "ps was given up before the loop could answer it"
            await asyncio.sleep(0.001)
    os.write(end, b"go on\n")
    os.close(end)
    assert set(await thinking) == {7, 9}


@pytest.mark.parametrize(
    ("what", "seconds"), [("exec sleep 60", 0.1), ("exit 1", LONG), ("echo nonsense; echo 1 2 3", LONG)]
)
async def test_a_ps_that_hangs_or_fails_costs_the_name_only(tmp_path: Path, what: str, seconds: float) -> None:
    assert await by_ps(script(tmp_path, what), seconds) == {}


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_where_a_process_works_and_with_which_variables(tmp_path: Path) -> None:
    pipe = subprocess.PIPE
    environ = {"A": "1=2", "B": ""}
    with subprocess.Popen(["cat"], cwd=tmp_path, env=environ, stdin=pipe, stdout=pipe, bufsize=0) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(b"!")  # once it answers, it is that program, with its variables
        assert child.stdout.read(1) == b"!"
        assert folder_of(child.pid) == tmp_path
        assert environment_of(child.pid) == environ
        child.stdin.close()
    assert folder_of(2**22 + 1) is None
    assert environment_of(2**22 + 1) == {}


async def test_no_ps_at_all() -> None:
    assert await by_ps("/nowhere/ps") == {}


def script(folder: Path, text: str) -> str:
    path = folder / "ps"
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(0o755)
    return str(path)
