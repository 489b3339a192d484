"""Holds a call to the caps of the policy that allowed it: less output, less thinking, or a refusal. Pure.

Coding agents ask for their model's most by habit (128,000 tokens for an answer of 300), so an oversized `max_tokens`
or thinking budget is lowered unless the policy says `over_cap = "refuse"`. A prompt cannot be lowered; it is refused in
the words by which coding agents know that they have to compact.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from msgspec.structs import replace

from llmgw_gateway.call import LEAST_THINKING, LEAST_TOKENS
from llmgw_gateway.errors import GatewayError
from llmgw_wire.errors import ErrorCode

if TYPE_CHECKING:
    from llmgw_gateway.call import Call, Grant
    from llmgw_gateway.policy.permissions import Verdict

BYTES_PER_TOKEN = 4
"""Typical for English and code in JSON."""
_ENCODED = re.compile(
    rb'"(?:data|bytes|url|image_url|file_data)"\s*:\s*"(?:data:[a-z0-9/+.-]{3,80};base64,)?([A-Za-z0-9+/=\\_-]*)"'
)
"""What a picture or a file is in JSON: base64, whose length says nothing about tokens."""


def prompt_tokens(call: Call) -> int:
    """How long a prompt is, reckoned by its bytes: the same on every replica, and known before anything is sent."""
    size = call.size
    if call.media and call.body is not None:
        size -= sum(len(each) for each in _ENCODED.findall(call.body))
    return size // BYTES_PER_TOKEN


def held_to(call: Call, grant: Grant, verdict: Verdict, contact: str) -> Grant:
    """The grant within the caps; the call is changed accordingly. GatewayError(CAP_EXCEEDED) says which cap it is."""
    entry = verdict.entry
    if entry is None:
        return grant
    where = f"{verdict.title} for {grant.target.model}"
    ask = f" Ask {contact} for more." if contact else ""
    if entry.context_tokens is not None and (tokens := prompt_tokens(call)) > entry.context_tokens:
        raise GatewayError(
            ErrorCode.CAP_EXCEEDED,
            f"prompt is too long: {tokens} tokens > {entry.context_tokens} maximum, by {where}. Compact the "
            f"conversation, or begin a new one.{ask}",
        )
    refuses = entry.over_cap == "refuse"
    if entry.max_tokens is not None and grant.max_tokens > entry.max_tokens:
        if refuses and call.max_tokens:
            raise GatewayError(
                ErrorCode.CAP_EXCEEDED,
                f"'max_tokens' is {call.max_tokens:,}, and {where} allows at most {entry.max_tokens:,}. Ask for "
                f"less.{ask}",
            )
        call.clamp(entry.max_tokens)
        grant = replace(grant, max_tokens=entry.max_tokens, capped=True)
    return _thinking(call, grant, entry.thinking_tokens, where, ask, refuses=refuses)


def _thinking(call: Call, grant: Grant, cap: int | None, where: str, ask: str, *, refuses: bool) -> Grant:
    """A thinking budget within its cap, and with room for an answer where the output was lowered."""
    budget = call.thinking_tokens
    most = budget if cap is None else min(budget, cap)
    if grant.capped and most >= grant.max_tokens:
        most = grant.max_tokens - LEAST_TOKENS
    if most == budget:
        return grant
    if refuses or most < LEAST_THINKING or not call.limit_thinking(most):
        room = f"at most {most:,}" if most >= LEAST_THINKING else "no thinking, because it leaves no room for it"
        raise GatewayError(
            ErrorCode.CAP_EXCEEDED,
            f"'thinking.budget_tokens' is {budget:,}, and {where} allows {room}. Ask for less.{ask}",
        )
    return replace(grant, thinking_tokens=most)
