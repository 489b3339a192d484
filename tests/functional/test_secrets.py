"""No credential and no prompt stands in clear in anything that is written or printed."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.functional.device import Device
from tests.lab.agent import installed
from tests.lab.scripted import Answer, ScriptedBedrock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.lab.gateway import Gateway
    from tests.lab.system import System

PROMPT_CANARY = "canary-prompt-9f2c"
ANSWER_CANARY = "canary-answer-1d7e"


def written(folder: Path) -> Iterator[tuple[Path, bytes]]:
    """Every file below a folder, the store and the vault among them."""
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            yield path, path.read_bytes()


def assert_nowhere(folder: Path, *secrets: str) -> None:
    for path, content in written(folder):
        for secret in secrets:
            assert secret.encode() not in content, f"{path} holds a secret in clear"


def test_tokens_and_prompts_are_in_no_file_of_agent_or_gateway(system: System, scripted: ScriptedBedrock) -> None:
    scripted.default = Answer(ANSWER_CANARY)
    token = system.agent.token().stdout.strip()
    device = Device(system.gateway.url)
    device.token = token
    prompt = [{"role": "user", "content": PROMPT_CANARY}]
    for stream in (False, True):
        assert device.ask(stream=stream, messages=prompt).status == 200
    device.ask(token=token[:-4] + "AAAA", messages=prompt)
    device.ask(max_tokens=PROMPT_CANARY)
    scripted.script(Answer(exception_after=2), Answer(break_after=2), Answer(status=500, error="boom"))
    for _ in range(3):
        device.ask(stream=True, messages=prompt)
    system.agent.command("status")
    system.agent.command("whoami", "--json")
    assert system.gateway.terminate() == 0
    aws_secret = scripted.key.environment()["AWS_SECRET_ACCESS_KEY"]
    assert_nowhere(system.folder, token, token.split(".")[1], PROMPT_CANARY, ANSWER_CANARY, aws_secret)


def test_sign_ins_are_in_no_file_of_the_gateway(gateway: Gateway, sign_in: Callable[[str], str]) -> None:
    device, subject_token = Device(gateway.url), sign_in("ada")
    device.exchange(subject_token)
    device.try_exchange(subject_token + "x")
    device.try_exchange(subject_token, proof="abc")
    gateway.terminate()
    assert_nowhere(gateway.folder, subject_token, subject_token.split(".")[2], device.token)


def test_no_token_stands_in_a_process_list(system: System) -> None:
    token = system.agent.token().stdout.strip()
    for pid in (system.gateway.pid, system.agent.pid):
        process = Path("/proc") / str(pid)
        for name in ("cmdline", "environ"):
            if os.access(process / name, os.R_OK):
                assert token.encode() not in (process / name).read_bytes()


@pytest.mark.parametrize("way", ["llmgw-token", "llmgw token", "cold path"])
def test_a_command_that_has_a_token_does_not_show_it(system: System, way: str) -> None:
    """Each is held where it has the token in hand: the pipe that it writes to is full."""
    commands: dict[str, list[str | Path]] = {
        "llmgw-token": [installed("llmgw-token")],
        "llmgw token": [installed("llmgw"), "token"],
        "cold path": [sys.executable, "-I", "-m", "llmgw_agent.token_cold"],
    }
    log = system.agent.home / "agent.log"
    given = log.read_text(encoding="utf-8").count(" INFO token ")
    read, write = os.pipe()
    fill(write)
    with subprocess.Popen(commands[way], env=system.agent.env, stdout=write) as process:
        os.close(write)
        system.agent.program.wait_until(
            lambda: log.read_text(encoding="utf-8").count(" INFO token ") > given, "asked for a token"
        )
        shown = b"".join((Path("/proc") / str(process.pid) / name).read_bytes() for name in ("cmdline", "environ"))
        with os.fdopen(read, "rb") as pipe:
            token = pipe.read().strip(b"\0\n")
    assert process.returncode == 0
    assert token.count(b".") == 2
    assert str(system.agent.home).encode() in shown, "nothing was seen"
    assert token not in shown


def fill(pipe: int) -> None:
    """Whoever writes to it from now on has to wait."""
    os.set_blocking(pipe, False)
    with contextlib.suppress(BlockingIOError):
        while os.write(pipe, bytes(4096)):
            pass
    os.set_blocking(pipe, True)


def test_what_the_store_needs_to_keep_is_readable_by_its_owner_only(system: System) -> None:
    system.agent.token()
    for path in (system.gateway.db, system.gateway.audit, system.agent.socket):
        assert path.stat().st_mode & 0o077 == 0, path
    assert system.agent.socket.parent.stat().st_mode & 0o077 == 0


def test_an_audit_line_has_no_content_and_no_name(system: System, scripted: ScriptedBedrock) -> None:
    device = Device(system.gateway.url)
    device.token = system.agent.token().stdout.strip()
    device.ask(messages=[{"role": "user", "content": PROMPT_CANARY}])
    assert scripted.calls
    line = system.gateway.audited("/v1/messages")
    assert line["person_id"].startswith("per_")
    assert "ada" not in re.findall(r"\w+", json.dumps(line).lower())  # ids and seals have such letters in them, too
    assert line["cost_micro_usd"] > 0
