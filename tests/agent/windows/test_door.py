"""The agent's end of the named pipe: every instance for its owner alone, and nobody else served."""

from __future__ import annotations

import asyncio
from ctypes import sizeof
from typing import Any

import pytest

from llmgw_agent.errors import DaemonError
from llmgw_agent.windows import api as win
from llmgw_agent.windows.door import Instances, Server, descriptor_of, peer
from tests.agent.windows.recorded import OURS, OWN_PID, THEIRS, NamedPipe, Recorded

PATH = f"\\\\.\\pipe\\llmgw-{OURS}"
FIRST = 0x00080000
REJECT_REMOTE = 0x8
OTHER_PID = 77


def test_structures_have_windows_sizes() -> None:
    kinds = (win.SecurityAttributes, win.Overlapped, win.ProcessEntry, win.ProcessBasics)
    assert [sizeof(kind) for kind in kinds] == [24, 32, 568, 48]
    assert (win.ProcessEntry.parent.offset, win.ProcessEntry.file.offset) == (32, 44)
    assert (win.Overlapped.event.offset, win.ProcessBasics.block.offset) == (24, 8)


def test_every_instance_is_its_owner_s_alone() -> None:
    windows = Recorded()
    instances = Instances(PATH, windows.api)
    instances.next()
    instances.next()
    made = windows.arguments("CreateNamedPipeW")
    assert [bool(arguments[1] & FIRST) for arguments in made] == [True, False, False]
    assert all(arguments[2] == REJECT_REMOTE for arguments in made)
    descriptors = {windows.descriptors[arguments[-1]._obj.descriptor] for arguments in made}
    assert descriptors == {f"O:{OURS}D:P(D;;FA;;;NU)(A;;FA;;;{OURS})"}
    assert descriptor_of(OURS) in descriptors


def test_a_name_that_is_taken_is_not_shared() -> None:
    windows = Recorded()
    windows.pipes[PATH] = NamedPipe(THEIRS)
    with pytest.raises(DaemonError, match="another program already listens"):
        Instances(PATH, windows.api)


def test_who_is_at_the_other_end() -> None:
    windows = Recorded()
    windows.processes[OTHER_PID] = THEIRS
    instances = Instances(PATH, windows.api)
    windows.clients = {1: OWN_PID, 2: OTHER_PID, 3: 99}
    assert instances.client(1) == (OWN_PID, True)
    assert instances.client(2) == (OTHER_PID, False)
    assert instances.client(3) == (99, False)  # it is gone
    assert instances.client(4) == (0, False)
    windows.denied.add(OTHER_PID)
    assert instances.client(2) == (OTHER_PID, False)


class Handle:
    """asyncio.windows_utils.PipeHandle."""

    def __init__(self, handle: int) -> None:
        self.handle = handle
        self.is_closed = False

    def close(self) -> None:
        self.is_closed = True


class Loop:
    """The two methods of asyncio.ProactorEventLoop that are used, over a queue of who connects."""

    def __init__(self) -> None:
        self.coming: asyncio.Queue[int | OSError] = asyncio.Queue()
        self.idle = asyncio.Event()
        self.accepted: list[Handle] = []
        self.made: list[tuple[Handle, dict[str, Any]]] = []
        self.instances_at_service: list[int] = []
        self.windows: Recorded | None = None
        self._proactor = self

    async def accept_pipe(self, pipe: Handle) -> Handle:
        if self.coming.empty():
            self.idle.set()  # whoever came before has been dealt with
        who = await self.coming.get()
        self.accepted.append(pipe)
        if isinstance(who, OSError):
            raise who
        assert self.windows is not None
        self.windows.clients[pipe.handle] = who
        return pipe

    def _make_duplex_pipe_transport(self, pipe: Handle, _protocol: asyncio.Protocol, *, extra: dict[str, Any]) -> None:
        assert self.windows is not None
        self.instances_at_service.append(self.windows.names().count("CreateNamedPipeW"))
        self.made.append((pipe, extra))


def never() -> None:
    raise AssertionError("the pipe is served for ever")


async def test_an_agent_that_can_accept_nobody_ends() -> None:
    windows, loop, ended = Recorded(), Loop(), asyncio.Event()
    loop.windows = windows
    instances = Instances(PATH, windows.api)
    server = Server(instances, asyncio.Protocol, loop, Handle, ended.set)
    windows.broken = True
    loop.coming.put_nowait(OWN_PID)
    await ended.wait()
    await server.wait_closed()


async def test_the_next_instance_waits_before_this_one_is_served() -> None:
    windows, loop = Recorded(), Loop()
    loop.windows = windows
    server = Server(Instances(PATH, windows.api), asyncio.Protocol, loop, Handle, never)
    for _ in range(2):
        loop.coming.put_nowait(OWN_PID)
    await loop.idle.wait()
    assert len(loop.accepted) == 2
    assert loop.instances_at_service == [2, 3]
    assert [extra["llmgw_peer"] for _, extra in loop.made] == [(OWN_PID, True)] * 2
    assert len({pipe.handle for pipe, _ in loop.made}) == 2
    server.close()
    await server.wait_closed()
    assert server._waiting.is_closed


async def test_another_user_who_got_in_is_shown_the_door() -> None:
    windows, loop = Recorded(), Loop()
    loop.windows = windows
    windows.processes[OTHER_PID] = THEIRS
    server = Server(Instances(PATH, windows.api), asyncio.Protocol, loop, Handle, never)
    for who in (OTHER_PID, OWN_PID):
        loop.coming.put_nowait(who)
    await loop.idle.wait()
    assert len(loop.accepted) == 2
    assert loop.accepted[0].is_closed
    assert [pipe for pipe, _ in loop.made] == [loop.accepted[1]]
    server.close()
    await server.wait_closed()


async def test_who_goes_before_being_let_in_holds_up_nobody() -> None:
    windows, loop = Recorded(), Loop()
    loop.windows = windows
    server = Server(Instances(PATH, windows.api), asyncio.Protocol, loop, Handle, never)
    for who in (BrokenPipeError(), OWN_PID):
        loop.coming.put_nowait(who)
    await loop.idle.wait()
    assert len(loop.accepted) == 2
    assert loop.accepted[0].is_closed
    assert len(loop.made) == 1
    server.close()
    await server.wait_closed()


def test_a_connection_that_did_not_come_by_the_door_is_unknown() -> None:
    assert peer(None) is None
    assert peer(asyncio.Transport()) is None
    assert peer(asyncio.Transport({"llmgw_peer": (5, True)})) == (5, True)
