"""What holds for every test.

Where nothing may be skipped (LLMGW_SKIPS=fail, as in CI), a skipped test is a failure of the run.
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from _pytest.terminal import TerminalReporter


if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A script's background job ignores Ctrl-C, and so would whatever the tests start and end by it.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int | None:
    """Half as many workers again as processors: most tests wait for a program to start, or for another one's clock.

    PYTEST_XDIST_AUTO_NUM_WORKERS says another number.
    """
    if os.environ.get("PYTEST_XDIST_AUTO_NUM_WORKERS"):
        return None
    processors = os.cpu_count() or 1
    return processors + processors // 2


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    reporter: TerminalReporter | None = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None and os.environ.get("LLMGW_SKIPS") == "fail" and reporter.stats.get("skipped"):
        reporter.write_line(f"LLMGW_SKIPS=fail: {len(reporter.stats['skipped'])} tests were skipped", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
