"""The commands' end of the named pipe: whose it is is known before a byte is sent, and no wait is without end."""

from __future__ import annotations

from time import monotonic

import pytest

from llmgw_agent.token_stub import REQUEST
from llmgw_agent.windows import api as win
from llmgw_agent.windows import token_command
from llmgw_agent.windows.pipe import Pipe, address, ask, connect
from tests.agent.windows.recorded import OURS, THEIRS, NamedPipe, Recorded

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\ncanary\n"
PATH = f"\\\\.\\pipe\\llmgw-{OURS}"
IDENTIFICATION_ONLY = 0x00110000


@pytest.fixture
def windows() -> Recorded:
    return Recorded()


def test_the_name_is_the_user_s_and_the_profile_s(windows: Recorded) -> None:
    assert address({}, windows.api) == PATH
    assert address({"LLMGW_PROFILE": "work"}, windows.api) == f"{PATH}@work"
    elsewhere = {address({"LLMGW_HOME": home}, windows.api) for home in ("C:\\a", "C:\\A\\", "c:/b")}
    assert len(elsewhere) == 2
    assert PATH not in elsewhere
    with pytest.raises(ValueError, match="LLMGW_PROFILE"):
        address({"LLMGW_PROFILE": "..\\other"}, windows.api)


def test_a_token_comes_once_it_is_known_whose_pipe_it_is(windows: Recorded) -> None:
    windows.pipes[PATH] = NamedPipe(answer=[ANSWER[:20], ANSWER[20:]])
    assert ask(PATH, monotonic() + 5, windows.api) == (0, b"canary\n")
    assert windows.pipes[PATH].sent == REQUEST
    names = windows.names()
    assert names.index("GetSecurityInfo") < names.index("WriteFile")
    (opened,) = windows.arguments("CreateFileW")
    assert opened[5] & IDENTIFICATION_ONLY == IDENTIFICATION_ONLY
    assert windows.open_handles() == 0


@pytest.mark.parametrize("denied", [False, True], ids=["it lets us in", "it does not"])
def test_another_user_s_pipe_is_sent_nothing(windows: Recorded, *, denied: bool) -> None:
    windows.pipes[PATH] = NamedPipe(THEIRS, answer=[ANSWER], denied=denied)
    code, line = token_command.fetch({}, windows.api)
    assert code == 7
    assert line.startswith(b"llmgw: no token asked for: ")
    assert windows.pipes[PATH].sent == b""
    assert "WriteFile" not in windows.names()
    assert windows.open_handles() == 0


def test_a_busy_pipe_is_waited_for(windows: Recorded) -> None:
    windows.pipes[PATH] = NamedPipe(answer=[ANSWER], busy=2)
    assert ask(PATH, monotonic() + 5, windows.api)[0] == 0
    assert windows.names().count("WaitNamedPipeW") == 2


def test_a_pipe_that_stays_busy_has_an_end(windows: Recorded) -> None:
    windows.pipes[PATH] = NamedPipe(busy=1_000_000)
    with pytest.raises(TimeoutError):
        connect(PATH, monotonic(), windows.api)


def test_an_agent_that_says_nothing_is_given_up_and_no_memory_is_left_to_it(windows: Recorded) -> None:
    windows.pipes[PATH] = NamedPipe(silent=True)
    with pytest.raises(TimeoutError):
        ask(PATH, monotonic() + 5, windows.api)
    assert windows.names()[-4:] == ["CancelIoEx", "GetOverlappedResult", "CloseHandle", "CloseHandle"]
    assert token_command.fetch({}, windows.api)[0] == 6


def test_where_nobody_is_nothing_is_there(windows: Recorded) -> None:
    with pytest.raises(FileNotFoundError) as raised:
        connect(PATH, monotonic() + 5, windows.api)
    assert getattr(raised.value, "winerror", 0) == win.FILE_NOT_FOUND


def test_a_reader_by_lines_gets_lines(windows: Recorded) -> None:
    windows.pipes[PATH] = NamedPipe(answer=[b"one\ntw", b"o\n"])
    pipe = connect(PATH, monotonic() + 5, windows.api)
    assert isinstance(pipe, Pipe)
    assert pipe.makefile("rb").readlines() == [b"one\n", b"two\n"]


def test_what_is_no_token_is_not_printed(windows: Recorded) -> None:
    windows.pipes[PATH] = NamedPipe(answer=[b"HTTP/1.1 200 OK\r\n\r\ntwo words\n"])
    assert token_command.fetch({}, windows.api)[0] == 7
    refused = b"HTTP/1.1 403 No\r\nX-LLMGW-Exit-Code: 4\r\n\r\nyou are not signed in. Run: llmgw login\n"
    windows.pipes[PATH] = NamedPipe(answer=[refused])
    assert token_command.fetch({}, windows.api) == (4, b"llmgw: you are not signed in. Run: llmgw login\n")


def test_a_profile_that_is_none_is_a_matter_of_configuration(windows: Recorded) -> None:
    assert token_command.fetch({"LLMGW_PROFILE": "A B"}, windows.api)[0] == 8
