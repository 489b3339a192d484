"""One line of the audit trail as it is written: a Struct, because one is made for each request."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from functools import lru_cache

import msgspec

from llmgw_gateway.call import Usage  # noqa: TC001 -- msgspec reads the annotations


class Attempt(msgspec.Struct):
    """One dispatch to a provider, as a line has it."""

    attempt_id: str
    target: str
    outcome: str
    status: int
    cost_micro_usd: int
    estimated: bool


class Line(msgspec.Struct, gc=False):
    """One line. Tokens, cost and outcome are those of the attempt that answered, or of all where several did."""

    time: str
    request_id: str
    person_id: str
    team: str
    project: str
    session: str
    token_id: str
    dialect: str
    method: str
    path: str
    model: str
    target: str
    policy: str
    policy_version: str
    asked: str
    guardrail: str
    stream: bool
    request_bytes: int
    address: str
    client_session: str
    client_agent: str
    status: int
    code: str
    outcome: str
    tokens: Usage
    cost_micro_usd: int
    estimated: bool
    latency_ms: float
    attempts: list[Attempt]


def now() -> str:
    """The time as lines have it: UTC, to the millisecond."""
    seconds = time.time()
    return f"{_second(int(seconds))}.{int(seconds % 1 * 1000):03d}+00:00"


@lru_cache(maxsize=4)
def _second(seconds: int) -> str:
    """Formatted once: thousands of lines have the same."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
