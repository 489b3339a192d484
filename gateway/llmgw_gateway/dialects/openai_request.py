"""Chat completions, the request: `POST /openai/v1/chat/completions` to a body in the Anthropic format."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from llmgw_gateway.call import Call
from llmgw_gateway.dialects import messages, openai_content
from llmgw_gateway.dialects.openai import (
    DEFAULT_MAX_TOKENS,
    Table,
    array,
    document,
    flag,
    judge,
    malformed,
    number,
    raw,
    table,
    text,
)
from llmgw_gateway.dialects.openai_content import Conversation

CARRIED: Final = frozenset(
    {
        "max_completion_tokens",
        "max_tokens",
        "messages",
        "model",
        "parallel_tool_calls",
        "reasoning_effort",
        "response_format",
        "stop",
        "stream",
        "stream_options",
        "temperature",
        "tool_choice",
        "tools",
        "top_p",
    }
)
NEUTRAL: Final[dict[str, list[object]]] = {
    "frequency_penalty": [0],
    "logit_bias": [{}],
    "logprobs": [False],
    "modalities": [["text"]],
    "n": [1],
    "presence_penalty": [0],
    "top_logprobs": [0],
    "verbosity": ["medium"],
}
EFFORTS: Final = {"minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "xhigh"}
FEATURE_EFFORT: Final = "output_config.effort"
FEATURE_FORMAT: Final = "output_config.format"
EFFORT_BETA: Final = "effort-2025-11-24"
"""Wanted by one model; the bridge leaves it out for the others."""


@dataclass(frozen=True, slots=True)
class Chat:
    """A request that was read: the call, and how the client wants its answer."""

    call: Call
    include_usage: bool


def read(body: bytes) -> Chat:
    """Read a request; GatewayError(REQUEST_MALFORMED) names the member that is wrong or has no equivalent."""
    members = document(body)
    judge(members, CARRIED, NEUTRAL)
    conversation = _conversation(array(members.get("messages"), "'messages'"))
    shaping = Shaping()
    if members.get("response_format") is not None:
        _format(table(members["response_format"], "'response_format'"), shaping, conversation)
    if members.get("reasoning_effort") is not None:
        shaping.effort(members["reasoning_effort"], "reasoning_effort")
    found: Table = {}
    if conversation.system:
        found["system"] = conversation.system
    found["messages"] = conversation.turns
    tools = members.get("tools") or []
    if tools:
        found["tools"] = [_tool(each, f"tools[{place}]") for place, each in enumerate(array(tools, "'tools'"))]
        choice = openai_content.tool_choice(members.get("tool_choice"), parallel=members.get("parallel_tool_calls"))
        found |= {"tool_choice": choice} if choice else {}
    found |= sampling(members) | shaping.members()
    if members.get("stop"):
        stop = members["stop"]
        found["stop_sequences"] = [text(each, "'stop'") for each in (stop if isinstance(stop, list) else [stop])]
    options = table(members.get("stream_options") or {}, "'stream_options'")
    cap = members.get("max_completion_tokens") or members.get("max_tokens")
    call = call_of(found, members, body, cap, conversation, shaping)
    return Chat(call, flag(options.get("include_usage"), "'stream_options.include_usage'"))


def call_of(
    found: Table, members: Table, body: bytes, cap: object, conversation: Conversation, shaping: Shaping
) -> Call:
    """The call for a converted body `found`; `members` are the client's own."""
    if cap is not None:
        found["max_tokens"] = cap
    encoded = raw(found)
    least = messages.least_tokens_of(encoded)
    return Call(
        dialect="openai",
        model=text(members.get("model"), "'model'"),
        stream=flag(members.get("stream"), "'stream'"),
        max_tokens=messages.max_tokens_of(encoded),
        size=sum(map(len, encoded.values())),
        body=body,
        members=encoded,
        betas=(EFFORT_BETA,) if FEATURE_EFFORT in shaping.features else (),
        media=conversation.media,
        long_cache=messages.wants_long_cache(body),
        least_tokens=least,
        default_max_tokens=DEFAULT_MAX_TOKENS,
        features=shaping.features,
    )


def sampling(members: Table) -> Table:
    """Temperature and top_p; Anthropic's temperature ends at 1 where OpenAI's ends at 2."""
    return {
        name: number(members[name], repr(name), 1) for name in ("temperature", "top_p") if members.get(name) is not None
    }


class Shaping:
    """What shapes an answer and not every model takes: effort and format."""

    def __init__(self) -> None:
        self.features: dict[str, str] = {}
        self._config: Table = {}
        self._thinking: Table | None = None

    def effort(self, value: object, called: str) -> None:
        """How much the model is to think; `none` turns thinking off where a model thinks by itself."""
        if value == "none":
            self._thinking = {"type": "disabled"}
        elif value in tuple(EFFORTS):
            self._config["effort"] = EFFORTS[str(value)]
            self.features[FEATURE_EFFORT] = called
        else:
            malformed(f"{called!r} must be none, {', '.join(EFFORTS)}.")

    def schema(self, schema: object, place: str, called: str) -> None:
        """A JSON schema that the answer has to follow."""
        self._config["format"] = openai_content.schema_format(schema, place)
        self.features[FEATURE_FORMAT] = called

    def members(self) -> Table:
        """The members of the body."""
        found: Table = {"output_config": self._config} if self._config else {}
        return found | ({"thinking": self._thinking} if self._thinking else {})


def _format(wanted: Table, shaping: Shaping, conversation: Conversation) -> None:
    kind = wanted.get("type")
    if kind == "json_schema":
        described = table(wanted.get("json_schema"), "'response_format.json_schema'")
        shaping.schema(described.get("schema"), "'response_format.json_schema.schema'", "response_format")
    elif kind == "json_object":
        conversation.system += openai_content.text_block(openai_content.JSON_MODE)
    elif kind != "text":
        malformed("'response_format.type' must be text, json_object or json_schema.")


def _tool(tool: object, place: str) -> Table:
    found = table(tool, place)
    if found.get("type") != "function":
        malformed(f"{place} must be of type 'function': other tools run on OpenAI's servers, or have no equivalent.")
    return openai_content.tool(table(found.get("function"), f"{place}.function"), f"{place}.function")


def _conversation(said: list[object]) -> Conversation:
    conversation = Conversation()
    for place, each in enumerate(said):
        message = table(each, f"messages[{place}]")
        role, content = message.get("role"), message.get("content")
        where = f"messages[{place}].content"
        if role in ("system", "developer"):
            conversation.system += openai_content.texts(content, where, ("text",))
        elif role == "user":
            conversation.add("user", _user(content, where))
        elif role == "assistant":
            conversation.add("assistant", _assistant(message, f"messages[{place}]"))
        elif role == "tool":
            results = openai_content.texts(content, where, ("text",))
            identity = message.get("tool_call_id")
            conversation.add("user", [openai_content.tool_result(identity, results, f"messages[{place}].tool_call_id")])
        else:
            malformed(f"messages[{place}].role must be system, developer, user, assistant or tool.")
    if not conversation.turns:
        malformed("'messages' must hold at least one message that is not empty.")
    return conversation


def _user(content: object, place: str) -> list[Table]:
    if isinstance(content, str):
        return openai_content.text_block(content)
    blocks: list[Table] = []
    for number_, each in enumerate(array(content, place)):
        where = f"{place}[{number_}]"
        part = table(each, where)
        kind = part.get("type")
        if kind == "text":
            blocks += openai_content.text_block(text(part.get("text"), f"{where}.text"), part)
        elif kind == "image_url":
            url = table(part.get("image_url"), f"{where}.image_url").get("url")
            blocks.append(openai_content.image(url, f"{where}.image_url.url", part))
        elif kind == "file":
            blocks.append(openai_content.document(table(part.get("file"), f"{where}.file"), f"{where}.file"))
        else:
            malformed(f"{where}.type must be text, image_url or file.")
    return blocks


def _assistant(message: Table, place: str) -> list[Table]:
    for name in ("audio", "function_call"):
        if message.get(name) is not None:
            malformed(f"{place}.{name} is not available through this gateway.")
    blocks: list[Table] = []
    if message.get("content") is not None:
        blocks += openai_content.texts(message["content"], f"{place}.content", ("text", "refusal"))
    if message.get("refusal"):
        blocks += openai_content.text_block(text(message["refusal"], f"{place}.refusal"))
    for number_, each in enumerate(array(message.get("tool_calls") or [], f"{place}.tool_calls")):
        where = f"{place}.tool_calls[{number_}]"
        call = table(each, where)
        function = table(call.get("function"), f"{where}.function")
        blocks.append(openai_content.tool_use(call.get("id"), function.get("name"), function.get("arguments"), where))
    return blocks
