"""One request as it will be remembered: what becomes its audit line."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import Struct

from llmgw_gateway.call import Usage
from llmgw_gateway.observe.line import Attempt, Line, now

if TYPE_CHECKING:
    from llmgw_gateway.call import Account, Call, Caller, Grant, Outcome, Target

_NO_USAGE: Final = Usage()


class Entry(Struct):
    """One request as it will be remembered. Fields are filled in as the pipeline learns them."""

    request_id: str
    method: str
    path: str
    dialect: str = ""
    person_id: str = ""
    team: str = ""
    project: str = ""
    session: str = ""
    token_id: str = ""
    model: str = ""
    target: str = ""
    policy: str = ""
    """Which policy allowed the call."""
    policy_version: str = ""
    """Of all policies together: the same text has the same version."""
    capped: bool = False
    """Whether a policy lowered its `max_tokens`."""
    thinking_tokens: int | None = None
    """What a policy lowered its thinking budget to."""
    asked: str = ""
    """The name that the client gave where that is not what answers."""
    guardrail: str = ""
    """The guardrail of Bedrock under which the call was made."""
    stream: bool = False
    request_bytes: int = 0
    address: str = ""
    """Where the client is, as far as the proxies in front are trusted to say."""
    client_session: str = ""
    """The `x-claude-code-session-id` of the request: groups the calls of one coding session."""
    client_agent: str = ""
    """The `x-claude-code-agent-id` of the request: which of its sub-agents asks."""
    status: int = 0
    code: str = "ok"
    outcome: Outcome | None = None
    attempts: list[tuple[str, str, Outcome]] = msgspec.field(default_factory=list)
    """Every dispatch: its id, its target, and what became of it."""
    began: float = msgspec.field(default_factory=time.monotonic)

    def caller(self, caller: Caller) -> None:
        """Note who calls."""
        self.person_id, self.session, self.token_id = caller.person_id, caller.session, caller.token_id

    def account(self, account: Account) -> None:
        """Note who pays."""
        self.team, self.project = account.team, account.project

    def call(self, call: Call) -> None:
        """Note what is asked."""
        self.model, self.stream, self.request_bytes = printable(call.model), call.stream, call.size

    def granted(self, target: Target) -> None:
        """Note where it goes."""
        self.model, self.target = target.model, target.title

    def attempted(self, attempt_id: str, target: Target, outcome: Outcome) -> None:
        """Note a dispatch that begins."""
        self.attempts.append((attempt_id, target.title, outcome))

    def permitted(self, grant: Grant) -> None:
        """Note what policy says."""
        self.policy, self.capped, self.thinking_tokens = grant.policy, grant.capped, grant.thinking_tokens
        self.guardrail = grant.guardrail
        self.asked = self.model if grant.instead else ""
        self.granted(grant.target)

    def line(self) -> Line:
        """The audit line."""
        outcome = self.outcome
        return Line(
            now(),
            self.request_id,
            person_id=self.person_id,
            team=self.team,
            project=self.project,
            session=self.session,
            token_id=self.token_id,
            dialect=self.dialect,
            method=self.method,
            path=self.path,
            model=self.model,
            target=self.target,
            policy=self.policy,
            policy_version=self.policy_version,
            asked=self.asked,
            guardrail=self.guardrail,
            stream=self.stream,
            request_bytes=self.request_bytes,
            address=self.address,
            client_session=self.client_session,
            client_agent=self.client_agent,
            status=self.status,
            code=self.code,
            outcome=outcome.note if outcome is not None else "",
            tokens=outcome.usage if outcome is not None else _NO_USAGE,
            cost_micro_usd=outcome.cost if outcome is not None else 0,
            estimated=outcome is not None and outcome.estimated,
            latency_ms=round(self.seconds * 1000, 1),
            attempts=[
                Attempt(name, target, each.note, each.status, each.cost, each.estimated)
                for name, target, each in self.attempts
            ],
        )

    @property
    def seconds(self) -> float:
        """Since the request began."""
        return time.monotonic() - self.began


def printable(text: str, most: int = 200) -> str:
    """A client's text as it may stand in a log: cut, and without control characters."""
    if text.isprintable():
        return text[:most]
    return "".join(c for c in text if c.isprintable())[:most]
