"""Responses, the request: `POST /openai/v1/responses` to a body in the Anthropic format.

Nothing is kept between requests: each carries its whole conversation, as clients with `store = false` send it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from llmgw_gateway.dialects import openai_content
from llmgw_gateway.dialects.openai import Table, array, document, judge, malformed, table, text
from llmgw_gateway.dialects.openai_content import Conversation
from llmgw_gateway.dialects.openai_request import Shaping, call_of, sampling

if TYPE_CHECKING:
    from llmgw_gateway.call import Call

CARRIED: Final = frozenset(
    {
        "include",
        "input",
        "instructions",
        "max_output_tokens",
        "model",
        "parallel_tool_calls",
        "reasoning",
        "stream",
        "stream_options",
        "temperature",
        "text",
        "tool_choice",
        "tools",
        "top_p",
    }
)
NEUTRAL: Final[dict[str, list[object]]] = {
    "background": [False],
    "context_management": [[]],
    "top_logprobs": [0],
    "truncation": ["disabled"],
}
INCLUDED: Final = ("reasoning.encrypted_content",)
"""What may be asked for beside an answer: thinking is not shown, so there is none to be handed out."""
TEXTS: Final = ("input_text", "output_text", "text", "refusal")


@dataclass(frozen=True, slots=True)
class Request:
    """A request that was read: the call, and what its answer repeats of it."""

    call: Call
    echo: Table


def read(body: bytes) -> Request:
    """Read a request; GatewayError(REQUEST_MALFORMED) names the member that is wrong or has no equivalent."""
    members = document(body)
    judge(members, CARRIED, NEUTRAL)
    for each in array(members.get("include") or [], "'include'"):
        if each not in INCLUDED:
            malformed("'include' is available through this gateway only as reasoning.encrypted_content: leave it out.")
    conversation = _conversation(members.get("input"))
    if members.get("instructions"):
        said = text(members["instructions"], "'instructions'")
        conversation.system[:0] = openai_content.text_block(said)
    shaping = _shaping(members, conversation)
    found: Table = {"system": conversation.system} if conversation.system else {}
    found["messages"] = conversation.turns
    if members.get("tools"):
        tools = enumerate(array(members["tools"], "'tools'"))
        found["tools"] = [_tool(each, f"tools[{place}]") for place, each in tools]
        choice = openai_content.tool_choice(members.get("tool_choice"), parallel=members.get("parallel_tool_calls"))
        found |= {"tool_choice": choice} if choice else {}
    found |= sampling(members) | shaping.members()
    call = call_of(found, members, body, members.get("max_output_tokens"), conversation, shaping)
    return Request(call, _echo(members))


def _echo(members: Table) -> Table:
    """What an answer repeats of its request. Not the prompt and the tools: they would be kept while it streams."""
    return {
        "model": members["model"],
        "instructions": None,
        "max_output_tokens": members.get("max_output_tokens"),
        "metadata": members.get("metadata") or {},
        "parallel_tool_calls": members.get("parallel_tool_calls") is not False,
        "previous_response_id": None,
        "reasoning": {"effort": (members.get("reasoning") or {}).get("effort"), "summary": None},
        "store": False,
        "temperature": members.get("temperature"),
        "text": {"format": {"type": "text"}} | {k: v for k, v in (members.get("text") or {}).items() if v is not None},
        "tool_choice": members.get("tool_choice") or "auto",
        "tools": [],
        "top_p": members.get("top_p"),
        "truncation": "disabled",
    }


def _shaping(members: Table, conversation: Conversation) -> Shaping:
    shaping = Shaping()
    effort = table(members.get("reasoning") or {}, "'reasoning'").get("effort")
    if effort is not None:
        shaping.effort(effort, "reasoning.effort")
    wanted = table(members.get("text") or {}, "'text'")
    if wanted.get("verbosity") not in (None, "medium"):
        malformed("'text.verbosity' is available through this gateway only as medium: leave it out.")
    form = table(wanted.get("format") or {"type": "text"}, "'text.format'")
    if form.get("type") == "json_schema":
        shaping.schema(form.get("schema"), "'text.format.schema'", "text.format")
    elif form.get("type") == "json_object":
        conversation.system += openai_content.text_block(openai_content.JSON_MODE)
    elif form.get("type") != "text":
        malformed("'text.format.type' must be text, json_object or json_schema.")
    return shaping


def _tool(tool: object, place: str) -> Table:
    found = table(tool, place)
    if found.get("type") != "function":
        malformed(f"{place} must be of type 'function': other tools run on OpenAI's servers, or have no equivalent.")
    return openai_content.tool(found, place)


def _conversation(said: object) -> Conversation:
    conversation = Conversation()
    if isinstance(said, str):
        conversation.add("user", openai_content.text_block(said))
    else:
        for place, each in enumerate(array(said, "'input'")):
            _add(conversation, table(each, f"input[{place}]"), f"input[{place}]")
    if not conversation.turns:
        malformed("'input' must hold at least one message that is not empty.")
    return conversation


def _add(conversation: Conversation, item: Table, place: str) -> None:
    kind = item.get("type") or "message"
    if kind == "message":
        _message(conversation, item, place)
    elif kind == "function_call":
        use = openai_content.tool_use(item.get("call_id"), item.get("name"), item.get("arguments"), place)
        conversation.add("assistant", [use])
    elif kind == "function_call_output":
        output = item.get("output")
        content = openai_content.text_block(output) if isinstance(output, str) else _parts(output, f"{place}.output")
        result = openai_content.tool_result(item.get("call_id"), content, f"{place}.call_id")
        conversation.add("user", [result])
    elif kind != "reasoning":  # another model's thoughts: only the model that had them could read on
        malformed(f"{place}.type must be message, function_call, function_call_output or reasoning.")


def _message(conversation: Conversation, item: Table, place: str) -> None:
    role, content = item.get("role"), item.get("content")
    blocks = openai_content.text_block(content) if isinstance(content, str) else _parts(content, f"{place}.content")
    if role in ("system", "developer"):
        conversation.system += blocks
    elif role in ("user", "assistant"):
        conversation.add(str(role), blocks)
    else:
        malformed(f"{place}.role must be system, developer, user or assistant.")


def _parts(content: object, place: str) -> list[Table]:
    blocks: list[Table] = []
    for number, each in enumerate(array(content, place)):
        where = f"{place}[{number}]"
        part = table(each, where)
        kind = part.get("type")
        if kind in TEXTS:
            name = "refusal" if kind == "refusal" else "text"
            blocks += openai_content.text_block(text(part.get(name), f"{where}.{name}"), part)
        elif kind == "input_image":
            blocks.append(openai_content.image(part.get("image_url"), f"{where}.image_url", part))
        elif kind == "input_file":
            blocks.append(openai_content.document(part, where))
        else:
            malformed(f"{where}.type must be input_text, input_image, input_file, output_text or refusal.")
    return blocks
