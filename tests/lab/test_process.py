"""Nothing the laboratory starts outlives it, also when it is killed; nothing of the machine's settings gets in."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.lab.environment import clean_environment
from tests.lab.node import REPOSITORY
from tests.lab.process import Program, ProgramError, run

if TYPE_CHECKING:
    from pathlib import Path

STUBBORN = "import signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); signal.pause()"
PARENT = f"""
import pathlib, signal, sys
from tests.lab.environment import clean_environment
from tests.lab.process import Program
folder = pathlib.Path(sys.argv[1])
child = Program("child", [sys.executable, "-c", {STUBBORN!r}], env=clean_environment(folder), folder=folder).start()
child.wait_until(lambda: child.log.read_text() == "up\\n", "up")
print(child.pid, flush=True)
signal.pause()
"""


def test_a_killed_laboratory_takes_its_servers_with_it(tmp_path: Path) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path)], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
    )
    with parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        gone = os.pidfd_open(child)
        parent.kill()
    with os.fdopen(gone):
        # A process descriptor becomes readable when its process ends.
        assert select.select([gone], [], [], 10)[0]


def test_a_program_that_ends_early_shows_its_log(tmp_path: Path) -> None:
    program = Program(
        "crash", [sys.executable, "-c", "raise SystemExit('no port')"], env=clean_environment(tmp_path), folder=tmp_path
    )
    with program, pytest.raises(ProgramError, match=r"(?s)exit code 1 before it was ready.*no port"):
        program.wait_until(lambda: False, "ready")


def test_a_program_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    program = Program("stubborn", [sys.executable, "-c", STUBBORN], env=clean_environment(tmp_path), folder=tmp_path)
    with program:
        program.wait_until(lambda: program.log.read_text() == "up\n", "up")
        assert program.terminate(seconds=0.2) == -signal.SIGKILL


def test_the_machine_s_settings_do_not_leak(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "SSL_CERT_FILE", "AWS_CA_BUNDLE", "AWS_ACCESS_KEY_ID", "ANTHROPIC_AUTH_TOKEN"):
        monkeypatch.setenv(name, "leaked")
    script = "import os; print([name for name, value in os.environ.items() if value == 'leaked'])"
    finished = run([sys.executable, "-c", script], env=clean_environment(tmp_path), folder=tmp_path, seconds=20)
    assert finished.stdout == "[]\n"
