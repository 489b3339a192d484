"""What counts where a request says nothing: a model, an output cap, a thinking budget. Pure.

Nothing that a request says is changed by a default, and nothing is added that would make the provider refuse it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol, TypeVar

import msgspec
from msgspec import Raw, Struct
from msgspec.structs import replace

from llmgw_gateway.call import LEAST_THINKING, LEAST_TOKENS
from llmgw_gateway.policy.permissions import concerns

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from llmgw_gateway.call import Account, Call, Geography, Grant, Target
    from llmgw_gateway.sections.defaulting import Default
    from llmgw_gateway.sections.permitting import Permission

NAME: Final = "default"
"""By which a client asks for the model that is its caller's default."""
FURTHER: Final = "additionalModelRequestFields"
SAMPLING: Final = ("temperature", "top_p", "top_k", "topP")
"""What thinking does not go with (Anthropic's API reference, extended thinking)."""
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_Members = dict[str, Raw]
T = TypeVar("T")


class Cheaper(Protocol):
    """Compares the prices of two models."""

    def __call__(self, one: tuple[str, Geography], other: tuple[str, Geography], /) -> bool:
        """Whether one costs no more than the other, whatever is asked of it; each a model and its geography."""


def never(_one: tuple[str, Geography], _other: tuple[str, Geography]) -> bool:
    """Without prices nobody can say that."""
    return False


class Defaults:
    """The configured entries. `budgeted` are the models that take a thinking budget."""

    def __init__(
        self, entries: Sequence[Default] = (), cheaper: Cheaper = never, budgeted: Collection[str] = ()
    ) -> None:
        self._entries = tuple(entries)
        self._cheaper = cheaper
        self._compared: dict[tuple[str, str, str, str], bool] = {}
        self._budgeted = frozenset(budgeted)

    def of(self, account: Account) -> Default | None:
        """The entry that counts for an account. None also where groups decide that the provider did not tell."""
        for entry in self._entries:
            concern = concerns(entry, account)
            if concern != "no":
                return entry if concern == "yes" else None
        return None

    def is_no_dearer(self, one: Target, other: Target) -> bool:
        """Whether calls of one target cost no more than those of another. Guardrails are left out of it."""
        asked = (one.model, one.geography, other.model, other.geography)
        if asked not in self._compared:
            pair = (one.model, one.geography), (other.model, other.geography)
            self._compared[asked] = self._cheaper(*pair)
        return self._compared[asked]

    def place(self, entry: Default) -> int:
        """Where an entry stands, from 0."""
        return self._entries.index(entry)

    def fill(self, account: Account, call: Call, grant: Grant, most: int, capping: Permission | None = None) -> Grant:
        """The grant of a call with what it leaves out; the call is changed accordingly. `most`: the model's output.

        Within the caps of the policy that allowed it, `capping`: it is not refused for what it did not ask for.
        """
        entry = self.of(account) if self._entries else None
        if entry is None:
            return grant
        if capping is not None and capping.max_tokens is not None:
            most = min(most, capping.max_tokens)
        if entry.max_tokens is not None and not call.max_tokens:
            call.clamp(min(max(entry.max_tokens, call.least_tokens), most))
            grant = replace(grant, max_tokens=call.max_tokens, capped=True)
        if entry.thinking_tokens is not None and grant.target.model in self._budgeted:
            budget = min(entry.thinking_tokens, min(grant.max_tokens, most) - LEAST_TOKENS)
            if capping is not None and capping.thinking_tokens is not None:
                budget = min(budget, capping.thinking_tokens)
            if budget >= LEAST_THINKING and _says_nothing(call):
                _think(call, budget)
                grant = replace(grant, thinking_tokens=budget)
        return grant


class _Choice(Struct):
    type: str = "auto"
    any: Raw | None = None
    tool: Raw | None = None


class _Tools(Struct, rename="camel"):
    tool_choice: _Choice | None = None


class _Block(Struct):
    type: str = ""
    tool_result: Raw | None = msgspec.field(default=None, name="toolResult")


class _Message(Struct):
    role: str = ""
    content: str | tuple[_Block, ...] = ""


def _says_nothing(call: Call) -> bool:
    """Whether a request leaves open how much is thought, and can be answered with thinking.

    Not in the middle of a turn: what a tool has said belongs to thoughts that were not had. Not where the client begins
    the answer itself, or forces a tool. What cannot be read is left to the provider.
    """
    members = call.members or {}
    try:
        spoken = _decoded(members, "inferenceConfig", _Members) | _decoded(members, FURTHER, _Members) | dict(members)
        if "thinking" in spoken or "reasoning_config" in spoken or any(name in spoken for name in SAMPLING):
            return False
        if b'"effort"' in bytes(members.get("output_config", b"")):
            return False
        choices = [_decoded(members, "tool_choice", _Choice), _decoded(members, "toolConfig", _Tools).tool_choice]
        if any(c is not None and (c.type not in {"auto", "none"} or c.any or c.tool) for c in choices):
            return False
        turns = msgspec.json.decode(members.get("messages", Raw(b"[]")), type=list[Raw])
        last = msgspec.json.decode(turns[-1], type=_Message) if turns else _Message()
    except _UNREADABLE:
        return False
    blocks = last.content if isinstance(last.content, tuple) else ()
    return last.role == "user" and not any(b.type == "tool_result" or b.tool_result is not None for b in blocks)


def _decoded(members: Mapping[str, Raw], name: str, kind: type[T]) -> T:
    """A member, or an empty one."""
    raw = members.get(name, Raw(b"null"))
    return kind() if raw == Raw(b"null") else msgspec.json.decode(raw, type=kind)


def _think(call: Call, budget: int) -> None:
    """Ask for thinking, where the format of the body has it."""
    wanted = Raw(msgspec.json.encode({"type": "enabled", "budget_tokens": budget}))
    members = dict(call.members or {})
    if call.operation == "converse":
        members[FURTHER] = Raw(msgspec.json.encode(_decoded(members, FURTHER, _Members) | {"thinking": wanted}))
    else:
        members["thinking"] = wanted
    call.members, call.least_tokens = members, LEAST_TOKENS + budget
