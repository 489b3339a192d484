"""The agent while nobody asks: a bare interpreter that holds its sockets, and wakes as soon as somebody connects.

An agent that has been silent for long becomes this file (exec: the same process, sockets and lock), and gives back what
its imports take. What it has to know again lies in a socket, in the kernel's memory: nothing of it is here. Whoever
connects waits for as long as a start takes. It runs with -I -S and imports C modules and little else.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import sys
from typing import TYPE_CHECKING

if sys.platform != "win32":
    import resource

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType
    from typing import NoReturn

PR_SET_DUMPABLE = 4
ENDING = (signal.SIGTERM, signal.SIGINT)
AWAKE = "--awake"
END = "--end"
AGENT = "from llmgw_agent import rest; rest.harden(); from llmgw_agent.daemon import main; main()"
"""Closed to other processes before anything else: what the agent imports takes a third of a second."""
NOT_LISTENING = 2
"""Of the files that are handed over, those at the front: what was left, and the lock. The others are listened at."""


def harden() -> None:
    """Keep other processes of this user, and core files, out of our memory. ssh-agent does the same."""
    if sys.platform != "win32":
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)


def hold_back(*, ends: bool) -> None:
    """Whether signals that end us wait."""
    if sys.platform != "win32":
        signal.pthread_sigmask(signal.SIG_BLOCK if ends else signal.SIG_UNBLOCK, ENDING)


def lie_down(files: Sequence[int]) -> NoReturn:
    """Become this file. `files`: as `Handover.write` gives them; they are inherited."""
    _become([sys.executable, "-I", "-S", __file__, *map(str, files)])


def wake(*words: str) -> NoReturn:
    """Become the agent again."""
    _become([sys.executable, "-I", "-c", AGENT, *words])


def _become(words: list[str]) -> NoReturn:
    # Held back until the next program has said what they mean to it: nobody ends in between, with sockets left behind.
    hold_back(ends=True)
    os.execv(sys.executable, words)  # noqa: S606 -- our own interpreter, with words of ours


def main() -> None:
    """Wait."""
    harden()
    files = sys.argv[1:]

    def end(_number: int, _frame: FrameType | None) -> None:
        wake(END, *files)

    for number in ENDING:
        signal.signal(number, end)
    hold_back(ends=False)
    select.select([int(each) for each in files[NOT_LISTENING:]], (), ())
    wake(AWAKE, *files)


if __name__ == "__main__":
    main()
