"""Guardrails of the scripted cloud: what a request names, whether AWS would take it, and what the guardrail does.

Source: Amazon Bedrock API reference, InvokeModel and GuardrailConfiguration, and the user guide, "Use a guardrail".
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.lab.sigv4 import Received

HEADERS = ("identifier", "version")


@dataclass(frozen=True)
class Guardrail:
    """One of the account: it blocks requests in which a word stands."""

    id: str
    version: str
    word: str
    message: str = "This was blocked by a rule of the company."
    says_why: bool = True
    """Whether an answer of InvokeModel says so as its stop reason; of some models it is `end_turn`."""


@dataclass(frozen=True)
class Guarding:
    """What a request names, and what became of it."""

    id: str = ""
    version: str = ""
    trace: str = ""
    fault: str = ""
    """Why AWS refuses it."""
    blocked: str | None = None
    """What is answered in the place of the model."""
    stop_reason: str = ""

    def members(self) -> dict[str, Any]:
        """What InvokeModel adds to an answer."""
        if not self.id:
            return {}
        acted = "NONE" if self.blocked is None else "INTERVENED"
        told: dict[str, Any] = {"amazon-bedrock-trace": {"guardrail": {}}} if self.trace.lower() != "disabled" else {}
        return {"amazon-bedrock-guardrailAction": acted} | told


def look(known: Sequence[Guardrail], request: Received, body: dict[str, Any], *, converse: bool) -> Guarding:
    """What a request says of guardrails, and what they do about it."""
    if converse:
        config = body.get("guardrailConfig", {})
        named = [config.get(f"guardrail{part.capitalize()}", "") for part in HEADERS]
        trace = config.get("trace", "disabled")
    else:
        named = [request.headers.get(f"x-amzn-bedrock-guardrail{part}", "") for part in HEADERS]
        trace = request.headers.get("x-amzn-bedrock-trace", "DISABLED")
    if not named[0]:
        alone = "amazon-bedrock-guardrailConfig" in body
        return Guarding(fault="The guardrail identifier is missing." if alone else "")
    if not named[1]:
        return Guarding(fault="The guardrail version is missing.")
    found = next((each for each in known if [each.id, each.version] == named), None)
    if found is None:
        return Guarding(fault="The guardrail identifier or version provided in the request does not exist.")
    if found.word not in json.dumps(body["messages"]):
        return Guarding(found.id, found.version, trace)
    reason = "guardrail_intervened" if found.says_why else ""
    return Guarding(found.id, found.version, trace, blocked=found.message, stop_reason=reason)
