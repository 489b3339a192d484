"""A stopwatch on the end of somebody's access: by the Admin API at one replica, seen at all of them."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.functional.device import Device
from tests.functional.trial import until
from tests.lab.process import POLL_SECONDS
from tests.lab.scripted import Answer
from tests.lab.usage import Usage

if TYPE_CHECKING:
    from http.client import HTTPResponse

    from tests.functional.trial import Trial

MOST_SECONDS = 60
RUNNING = Answer(usage=Usage(100, 400), hold_after=1)


@dataclass(frozen=True)
class Revoked:
    """Seconds from the administrator's request, which is part of them, to what the last replica does."""

    refused: float
    """Until a new request was refused."""
    ended: float
    """Until a running answer had ended."""
    last_words: tuple[bytes, ...]
    """What was read of the answers that ran, one at each replica."""

    def __str__(self) -> str:
        refused, ended = f"{self.refused:.1f} s", f"{self.ended:.1f} s"
        return f"the last replica refused after {refused}, the last running answer ended after {ended}"


def administered(issuer: str) -> dict[str, Any]:
    """The section that makes Ada an administrator."""
    return {"roles": [{"role": "admin", "issuer": issuer, "subjects": ["ada"]}]}


def revoke(trial: Trial, user: str) -> Revoked:
    """Sign `user` in, have an answer run at each replica, end every session of theirs at the first."""
    signed_in = trial.device(user)
    person = signed_in.me()["person"]
    everywhere = [Device(gateway.url) for gateway in trial.gateways]
    for device in everywhere:
        device.token = signed_in.token
        until(lambda device=device: _status(device) == 200, "known there")  # type: ignore[misc] # a loop's variable
    trial.cloud.default = RUNNING
    with ExitStack() as streams, ThreadPoolExecutor(2 * len(everywhere)) as pool:
        running = [streams.enter_context(device.streaming()) for device in everywhere]
        assert [answer.status for answer in running] == [200] * len(everywhere)
        begun = time.monotonic()
        ends = [pool.submit(_end, answer) for answer in running]
        refusals = [pool.submit(_refusal, device) for device in everywhere]
        api = Device(trial.gateway.api_url)
        reply = api.request("POST", f"/admin/v1/people/{person}/revoke", token=trial.ada.token)
        assert reply.status == 200, reply.body
        ended = [each.result() for each in ends]
        refused = [each.result() for each in refusals]
    trial.cloud.default = Answer()
    trial.cloud.release_all()
    return Revoked(max(refused) - begun, max(at for at, _ in ended) - begun, tuple(words for _, words in ended))


def _status(device: Device) -> int:
    return device.request("GET", "/v1/me").status


def _refusal(device: Device) -> float:
    deadline = time.monotonic() + MOST_SECONDS
    while _status(device) != 401:
        assert time.monotonic() < deadline, "never refused"
        time.sleep(POLL_SECONDS)
    return time.monotonic()


def _end(answer: HTTPResponse) -> tuple[float, bytes]:
    words = answer.read()
    return time.monotonic(), words
