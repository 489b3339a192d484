"""When a person is told something, and that it is the system's own command that tells it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from llmgw_agent.errors import AgentError, DaemonError, RefusedError, SessionEndedError, TemporaryError
from llmgw_agent.notice import Notices

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

ENDED = SessionEndedError("the provider ended the sign-in (invalid_grant)", "Run: llmgw login")


class Screen:
    """A command that writes down what it is told to show."""

    def __init__(self, folder: Path, script: str = "", seconds: float = 30) -> None:
        self.told = folder / "told"
        command = folder / "notify"
        command.write_text(f'#!/bin/sh\n{script}\nprintf "%s|" "$@" >> {self.told}\necho >> {self.told}\n')
        command.chmod(0o755)
        self.notices = Notices((str(command), "--"), seconds)

    async def tell(self, *errors: AgentError | None) -> list[str]:
        for error in errors:
            if error is None:
                self.notices.recovered()
            else:
                self.notices.failed(error)
            await self.notices.close()
        return self.told.read_text().splitlines() if self.told.exists() else []


@pytest.fixture
async def screen(tmp_path: Path) -> AsyncIterator[Screen]:
    made = Screen(tmp_path)
    yield made
    await made.notices.close()


async def test_an_incident_is_told_once(screen: Screen) -> None:
    line = "--|llmgw|the provider ended the sign-in (invalid_grant). Run: llmgw login|"
    assert await screen.tell(ENDED, ENDED, ENDED) == [line]
    assert await screen.tell(None, ENDED) == [line, line], "after it was mended it is another one"


async def test_another_kind_of_incident_is_told_too(screen: Screen) -> None:
    assert len(await screen.tell(ENDED, RefusedError("disabled"), RefusedError("disabled"))) == 2


async def test_what_goes_away_by_itself_is_not_told(screen: Screen) -> None:
    assert await screen.tell(TemporaryError("away"), DaemonError("odd")) == []


async def test_a_text_is_one_argument_whatever_stands_in_it(screen: Screen) -> None:
    assert await screen.tell(RefusedError('--hint "$(id)" `id`; rm\n-x')) == ['--|llmgw|--hint "$(id)" `id`; rm -x.|']


@pytest.mark.parametrize("command", [(), ("/nowhere/notify-send",)])
async def test_a_system_without_notifications(command: tuple[str, ...]) -> None:
    notices = Notices(command)
    notices.failed(ENDED)
    await notices.close()


async def test_a_command_that_hangs_is_ended(tmp_path: Path) -> None:
    screen = Screen(tmp_path, "exec sleep 60", seconds=0.1)
    assert await screen.tell(ENDED) == []
