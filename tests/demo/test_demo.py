"""The demo as a newcomer runs it, without a display: it ends by itself, or on a signal, and leaves nothing running."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.lab.environment import clean_environment
from tests.lab.fixtures import ministack
from tests.lab.node import REPOSITORY
from tests.lab.process import Program, run

if TYPE_CHECKING:
    from pathlib import Path

    from tests.lab.ministack import Ministack

__all__ = ["ministack"]

SECONDS = 60
DEMO = (sys.executable, "-m", "tests.demo")


def environment(folder: Path, **more: str) -> dict[str, str]:
    search = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH", "")]))
    return clean_environment(folder, DEMO_FOLDER=str(folder / "demo"), PYTHONPATH=search, **more)


def handed_out(folder: Path) -> dict[str, str]:
    """The assignments of `.demo/env`, read as a shell would."""
    words = shlex.split((folder / "demo" / "env").read_text(encoding="utf-8"))
    return dict(word.split("=", 1) for word in words)


def test_once_shows_everything_and_ends(tmp_path: Path) -> None:
    finished = run(DEMO, env=environment(tmp_path, ONCE="1"), folder=tmp_path, seconds=SECONDS)
    assert finished.exit_code == 0, finished
    for expected in (
        "Ada Lovelace <ada@example.com>",
        "Anthropic dialect",
        "Bedrock dialect",
        "of $20.00",
        '"request_id"',
    ):
        assert expected in finished.stdout
    assert max(len(line) for line in finished.stdout.splitlines()) <= 80
    assert (tmp_path / "demo").stat().st_mode & 0o777 == 0o700
    assert not any(alive(int(pid)) for pid in handed_out(tmp_path)["LLMGW_PIDS"].split())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_it_stays_until_a_signal_and_its_token_command_works_in_any_shell(
    tmp_path: Path, number: signal.Signals
) -> None:
    with Program("demo", DEMO, env=environment(tmp_path), folder=tmp_path) as demo:
        demo.wait_until(lambda: "Ctrl-C ends" in demo.log.read_text(encoding="utf-8"), "up", seconds=SECONDS)
        values = handed_out(tmp_path)
        printed = run(["/bin/sh", "-c", values["LLMGW_TOKEN_COMMAND"]], env={}, folder=tmp_path, seconds=20)
        assert (printed.exit_code, printed.stdout.count("."), printed.stderr) == (0, 2, "")
        pids = [int(pid) for pid in values["LLMGW_PIDS"].split()]
        assert all(alive(pid) for pid in pids)
        demo.send_signal(number)
        assert demo.wait(seconds=SECONDS) == 0, demo.tail()
        assert not any(alive(pid) for pid in pids)


def test_a_budget_too_small_for_the_prompt_ends_with_the_gateways_own_words(tmp_path: Path) -> None:
    wishes = environment(tmp_path, ONCE="1", DEMO_BUDGET_USD="0.000001")
    finished = run(DEMO, env=wishes, folder=tmp_path, seconds=SECONDS)
    assert finished.exit_code != 0
    assert "monthly budget" in " ".join(finished.stdout.split())


def test_a_wish_that_cannot_be_met_is_refused_at_once(tmp_path: Path) -> None:
    finished = run(DEMO, env=environment(tmp_path, DEMO_UPSTREAM="aws"), folder=tmp_path, seconds=SECONDS)
    assert finished.exit_code == 1
    assert "spends real money" in finished.stdout


def test_an_endpoint_that_knows_its_keys_is_named_with_what_it_needs(tmp_path: Path, ministack: Ministack) -> None:
    wishes = environment(tmp_path, ONCE="1", DEMO_UPSTREAM=ministack.endpoint)
    refused = run(DEMO, env=wishes, folder=tmp_path, seconds=SECONDS)
    assert refused.exit_code == 1
    assert "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" in " ".join(refused.stdout.split())
    served = run(DEMO, env=wishes | ministack.key.environment(), folder=tmp_path, seconds=SECONDS)
    assert served.exit_code == 0, served
    assert "AWS_SECRET_ACCESS_KEY" not in served.stdout


@pytest.mark.parametrize("lines", [0, 4])
def test_a_reader_that_has_seen_enough_ends_it_quietly(tmp_path: Path, lines: int) -> None:
    """As `make demo | head` does. Without ONCE it would stay, so it can only end because of the reader."""
    with subprocess.Popen(
        DEMO, env=environment(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as demo:
        assert demo.stdout is not None
        for _ in range(lines):
            assert demo.stdout.readline()
        demo.stdout.close()
        assert demo.stderr is not None
        assert demo.stderr.read() == ""
        assert demo.wait(SECONDS) == 0


def test_a_folder_with_something_else_in_it_is_left_alone(tmp_path: Path) -> None:
    precious = tmp_path / "demo" / "thesis.txt"
    precious.parent.mkdir()
    precious.write_text("years of work", encoding="utf-8")
    finished = run(DEMO, env=environment(tmp_path, ONCE="1"), folder=tmp_path, seconds=SECONDS)
    assert finished.exit_code == 1
    assert precious.exists()


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
