"""`make demo` as a newcomer runs it."""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tests.lab.environment import clean_environment
from tests.lab.process import Program, run

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[2]
DEMO = [sys.executable, "-m", "tests.demo"]


def environment(folder: Path, **more: str) -> dict[str, str]:
    return clean_environment(folder, DEMO_FOLDER=str(folder / "demo"), **more)


def assignments(folder: Path) -> dict[str, str]:
    """What `.demo/env` sets in a shell."""
    names = ["LLMGW_GATEWAY_URL", "LLMGW_HOME", "LLMGW_TOKEN_COMMAND", "LLMGW_UPSTREAM_URL", "LLMGW_PIDS"]
    script = f". {shlex.quote(str(folder / 'demo' / 'env'))}; " + "; ".join(
        f'printf "%s\\0" "${name}"' for name in names
    )
    shell = subprocess.run(["/bin/sh", "-c", script], capture_output=True, text=True, check=True)
    return dict(zip(names, shell.stdout.split("\0"), strict=False))


def alive(pid: str) -> bool:
    """Whether a process runs (one that has ended and only waits to be reaped does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_once_shows_both_answers_and_the_account_and_exits_0(tmp_path: Path) -> None:
    demo = run(DEMO, env=environment(tmp_path, ONCE="1"), folder=ROOT, seconds=90)
    assert demo.exit_code == 0, demo.stdout + demo.stderr
    for part in ("Anthropic dialect", "Bedrock dialect", "Ada Lovelace", "tokens", "cost", "budget left", "audit line"):
        assert part in demo.stdout
    assert all(len(line) <= 80 for line in demo.stdout.splitlines())
    assert (tmp_path / "demo").stat().st_mode & 0o777 == 0o700
    assert not any(alive(pid) for pid in assignments(tmp_path)["LLMGW_PIDS"].split())


def test_it_stays_up_serves_others_and_ends_cleanly_on_ctrl_c(tmp_path: Path) -> None:
    with Program("demo", ["env", "-C", ROOT, *DEMO], env=environment(tmp_path), folder=tmp_path) as demo:
        demo.wait_until(lambda: "Ctrl-C" in demo.log.read_text(), "up", seconds=60)
        found = assignments(tmp_path)
        token = subprocess.run(
            ["/bin/sh", "-c", found["LLMGW_TOKEN_COMMAND"]], capture_output=True, text=True, check=False
        )
        assert (token.returncode, token.stderr) == (0, "")
        pids = found["LLMGW_PIDS"].split()
        assert all(alive(pid) for pid in pids)
        demo.send_signal(signal.SIGINT)
        assert demo.wait(seconds=30) == 0
    assert not any(alive(pid) for pid in pids)
    assert "Traceback" not in demo.log.read_text()


def test_real_money_is_not_spent_by_accident(tmp_path: Path) -> None:
    keys = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y"}
    refusals: dict[str, Callable[[], dict[str, str]]] = {
        "DEMO_BUDGET_USD": lambda: environment(tmp_path, ONCE="1", DEMO_UPSTREAM="aws", **keys),
        "credentials": lambda: environment(tmp_path, ONCE="1", DEMO_UPSTREAM="aws", DEMO_BUDGET_USD="1"),
    }
    for names, wishes in refusals.items():
        demo = run(DEMO, env=wishes(), folder=ROOT, seconds=30)
        assert demo.exit_code != 0
        assert names in demo.stdout + demo.stderr
        assert "Traceback" not in demo.stdout + demo.stderr


def test_a_budget_too_small_for_the_prompt_ends_with_the_gateways_own_words(tmp_path: Path) -> None:
    demo = run(DEMO, env=environment(tmp_path, ONCE="1", DEMO_BUDGET_USD="0.000001"), folder=ROOT, seconds=60)
    assert demo.exit_code != 0
    assert "monthly budget" in " ".join((demo.stdout + demo.stderr).split())
