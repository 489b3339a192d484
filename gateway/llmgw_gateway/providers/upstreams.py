"""The configured upstreams by name: which of them a target is asked at, and what can be asked there."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from llmgw_gateway.errors import GatewayError
from llmgw_wire.errors import ErrorCode

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llmgw_gateway.call import Call, Outcome, Target
    from llmgw_gateway.providers.sending import Attempt


class Provider(Protocol):
    """One upstream (`bedrock.Bedrock`, `anthropic.Anthropic`)."""

    def close(self) -> None:
        """Close every connection, when nothing is asked any more."""

    def send(self, target: Target, call: Call, outcome: Outcome, head_by: float, *, again: bool = False) -> Attempt:
        """One attempt, dispatched on entering. `again`: the prompt is kept for another one."""

    async def count_tokens(self, target: Target, call: Call) -> tuple[int, bytes]:
        """How many tokens a prompt has: status and body."""


class Upstreams:
    """All of them; the one of `[bedrock]` has the name ""."""

    def __init__(self, known: Mapping[str, Provider], first_byte_seconds: float) -> None:
        self._known = known
        self._first_byte_seconds = first_byte_seconds

    def close(self) -> None:
        """Close every connection to any of them."""
        for each in self._known.values():
            each.close()

    def deadline(self) -> float:
        """Until when the head of an answer has to be there if the first attempt begins now, on the loop's clock."""
        return asyncio.get_running_loop().time() + self._first_byte_seconds

    def send(self, target: Target, call: Call, outcome: Outcome, head_by: float, *, again: bool = False) -> Attempt:
        """One attempt at the target's upstream."""
        return self._known[target.upstream].send(target, call, outcome, head_by, again=again)

    async def count_tokens(self, target: Target, call: Call) -> tuple[int, bytes]:
        """How many tokens a prompt has, by the target's upstream."""
        return await self._known[target.upstream].count_tokens(target, call)


def able(call: Call, targets: tuple[Target, ...]) -> tuple[Target, ...]:
    """Those targets that understand a call: Converse is spoken by Bedrock alone.

    GatewayError(REQUEST_MALFORMED) when none does.
    """
    if call.operation != "converse":
        return targets
    found = tuple(target for target in targets if target.provider == "bedrock")
    if not found:
        raise GatewayError(
            ErrorCode.REQUEST_MALFORMED,
            f"Converse is not available on {targets[0].model}, which is not served by Bedrock here: use invoke, or "
            "another dialect.",
        )
    return found
