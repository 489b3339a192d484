"""`llmgw-token` as tools call it: one line or nothing, and the right exit code."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.lab.system import System


def test_it_prints_one_token_and_nothing_else(system: System) -> None:
    first, second = system.agent.token(), system.agent.command("token")
    assert (first.exit_code, first.stderr) == (0, "")
    assert first.stdout.count("\n") == 1
    assert second.exit_code == 0


def test_fifty_at_once_get_fifty_tokens_from_one_exchange(system: System) -> None:
    with ThreadPoolExecutor(50) as pool:
        tokens = list(pool.map(lambda _: system.agent.token(), range(50)))
    assert [token.exit_code for token in tokens] == [0] * 50
    assert len({token.stdout for token in tokens}) == 1
    assert _exchanges(system) == 1


def test_it_starts_the_daemon_when_none_runs(system: System) -> None:
    system.agent.terminate()
    token = system.agent.token()
    try:
        # Without a keyring the session was in memory only: what matters is that a daemon answers, not hangs.
        assert token.exit_code in {0, 4}
        assert system.agent.command("status").exit_code in {0, 4}
    finally:
        system.agent.command("daemon", "stop")


def test_without_a_gateway_address_it_says_what_to_configure(system: System) -> None:
    system.agent.terminate()
    (system.agent.home / "config.toml").write_text("")
    token = system.agent.token()
    system.agent.command("daemon", "stop")
    assert token.exit_code == 8
    assert token.stdout == ""
    assert token.stderr.count("\n") == 1


def _exchanges(system: System) -> int:
    return len([line for line in system.gateway.audit_lines() if line["path"] == "/oauth/token"])
