"""A stopwatch on the end of somebody's access: told to one replica, seen at all of them."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.functional.device import Device, read_to_end
from tests.functional.trial import until
from tests.lab.process import POLL_SECONDS
from tests.lab.scripted import Answer
from tests.lab.usage import Usage

if TYPE_CHECKING:
    from collections.abc import Callable
    from http.client import HTTPResponse

    from tests.functional.device import Reply
    from tests.functional.trial import Trial

MOST_SECONDS = 30
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
    """End every session of `user` by the Admin API."""
    signed_in = trial.device(user)
    person = signed_in.me()["person"]
    return _watch(trial, signed_in.token, lambda: _administer(trial, "POST", f"/people/{person}/revoke"))


def disable(trial: Trial, user: str) -> Revoked:
    """Disable `user` by the Admin API."""
    signed_in = trial.device(user)
    person = signed_in.me()["person"]
    return _watch(trial, signed_in.token, lambda: _administer(trial, "POST", f"/people/{person}/disable"))


def sign_out(trial: Trial, user: str) -> Revoked:
    """Have a device of `user` give its token back, as `llmgw logout` does: its session ends."""
    signed_in = trial.device(user)
    form = {"content-type": "application/x-www-form-urlencoded"}
    body = f"token={signed_in.token}".encode()
    return _watch(trial, signed_in.token, lambda: signed_in.request("POST", "/oauth/revoke", body, form, token=""))


def withdraw_key(trial: Trial) -> Revoked:
    """Revoke a service key by the Admin API."""
    made = _administer(trial, "POST", "/keys", {"name": "ci", "owner": "ada"}).json
    return _watch(trial, made["secret"], lambda: _administer(trial, "DELETE", f"/keys/{made['key']['key']}"))


def _administer(trial: Trial, method: str, path: str, body: dict[str, Any] | None = None) -> Reply:
    """What Ada asks of the Admin API of the first replica."""
    api = Device(trial.gateway.api_url)
    data = b"" if body is None else json.dumps(body).encode()
    headers = {} if body is None else {"content-type": "application/json"}
    return api.request(method, f"/admin/v1{path}", data, headers, token=trial.ada.token)


def _watch(trial: Trial, token: str, end: Callable[[], Reply]) -> Revoked:
    """Have an answer run at each replica with this token, end it at the first, and look at all of them."""
    everywhere = [Device(gateway.url) for gateway in trial.gateways]
    for device in everywhere:
        device.token = token
        until(lambda device=device: _status(device) == 200, "known there")  # type: ignore[misc] # a loop's variable
    trial.cloud.default = RUNNING
    with ExitStack() as streams, ThreadPoolExecutor(2 * len(everywhere)) as pool:
        running = [streams.enter_context(device.streaming()) for device in everywhere]
        assert [answer.status for answer in running] == [200] * len(everywhere)
        begun = time.monotonic()
        ends = [pool.submit(_end, answer) for answer in running]
        refusals = [pool.submit(_refusal, device) for device in everywhere]
        reply = end()
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
    words = read_to_end(answer, seconds=MOST_SECONDS)
    return time.monotonic(), words
