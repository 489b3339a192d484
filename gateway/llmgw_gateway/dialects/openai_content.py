"""Parts of OpenAI's messages as Anthropic's content blocks. Both endpoints that take prompts share them."""

from __future__ import annotations

import re
from typing import Any, Final

from llmgw_gateway.dialects.openai import Table, arguments, array, malformed, table, text

_DATA_URL: Final = re.compile(r"data:([a-z]+/[a-zA-Z0-9.+-]+);base64,", re.IGNORECASE)
_PDF: Final = "application/pdf"
MEDIA: Final = frozenset({"image", "document"})


def text_block(value: str, part: Table | None = None) -> list[Table]:
    """A text; none when it is empty, because Anthropic's format has no empty ones.

    `cache_control` is kept where a client writes it: Anthropic's mark for the prompt cache, which several of OpenAI's
    clients pass through.
    """
    if not value:
        return []
    block: Table = {"type": "text", "text": value}
    if part is not None and "cache_control" in part:
        block["cache_control"] = part["cache_control"]
    return [block]


def texts(value: object, place: str, kinds: tuple[str, ...]) -> list[Table]:
    """A content that may be text only: a string, or parts of one of `kinds`."""
    if isinstance(value, str):
        return text_block(value)
    blocks: list[Table] = []
    for number, each in enumerate(array(value, place)):
        part = table(each, f"{place}[{number}]")
        if part.get("type") not in kinds:
            malformed(f"{place}[{number}] must be a text: a part of type {kinds[0]!r}.")
        field = "refusal" if part["type"] == "refusal" else "text"
        blocks += text_block(text(part.get(field), f"{place}[{number}].{field}"), part)
    return blocks


def image(url: object, place: str, part: Table) -> Table:
    """A picture. `detail`, a hint at its resolution, has no equivalent and changes nothing in what is sent."""
    media_type, data = _data_url(text(url, place), place, "a picture")
    block: Table = {"type": "image", "source": {"type": "base64", "media_type": media_type, "data": data}}
    if "cache_control" in part:
        block["cache_control"] = part["cache_control"]
    return block


def document(file: Table, place: str) -> Table:
    """A file: PDF, by its content."""
    if file.get("file_data") is None:
        malformed(f"{place} names no file_data: files are not kept here, so each request has to carry its own.")
    media_type, data = _data_url(text(file["file_data"], f"{place}.file_data"), f"{place}.file_data", "a PDF")
    if media_type != _PDF:
        malformed(f"{place}.file_data is {media_type}; only {_PDF} is taken.")
    block: Table = {"type": "document", "source": {"type": "base64", "media_type": media_type, "data": data}}
    return block | ({"title": text(file["filename"], f"{place}.filename")} if file.get("filename") else {})


def tool_use(identity: object, name: object, said: object, place: str) -> Table:
    """A call of a tool that the model made."""
    return {
        "type": "tool_use",
        "id": text(identity, f"{place}.id"),
        "name": text(name, f"{place}.name"),
        "input": arguments(said, f"{place}.arguments"),
    }


def tool_result(identity: object, content: list[Table], place: str) -> Table:
    """What a tool answered."""
    return {"type": "tool_result", "tool_use_id": text(identity, place), "content": content}


def tool(function: Table, place: str) -> Table:
    """The definition of a function that the model may call."""
    schema = table(function.get("parameters") or {}, f"{place}.parameters")
    found: Table = {
        "name": text(function.get("name"), f"{place}.name"),
        "input_schema": {"type": "object", "properties": {}} | schema,
    }
    if function.get("description"):
        found["description"] = text(function["description"], f"{place}.description")
    if function.get("strict"):
        found["strict"] = True
    return found


def tool_choice(choice: object, *, parallel: object) -> Table | None:
    """Whether and which tool has to be called; None: the model decides, and may call several at once."""
    if isinstance(choice, dict):
        named = table(choice.get("function"), "tool_choice.function") if "function" in choice else choice
        if choice.get("type") != "function":
            malformed("'tool_choice' can be auto, none, required or one function.")
        found: Table | None = {"type": "tool", "name": text(named.get("name"), "the name in 'tool_choice'")}
    elif choice in (None, "auto"):
        found = None
    elif choice in ("none", "required"):
        found = {"type": {"none": "none", "required": "any"}[str(choice)]}
    else:
        malformed("'tool_choice' can be auto, none, required or one function.")
    if parallel is False and (found is None or found["type"] != "none"):
        found = (found or {"type": "auto"}) | {"disable_parallel_tool_use": True}
    return found


def schema_format(schema: object, place: str) -> Table:
    """A JSON schema that the answer has to follow, as Anthropic's `output_config.format`."""
    return {"type": "json_schema", "schema": table(schema, place)}


JSON_MODE: Final = "Answer with one valid JSON object and nothing else: no code fence and no words around it."
"""JSON mode without a schema has no equivalent in Anthropic's format: it becomes an instruction."""


class Conversation:
    """Collects turns in Anthropic's format: successive ones of one role are joined, tool results stand first."""

    def __init__(self) -> None:
        self.system: list[Table] = []
        self.turns: list[Table] = []

    def add(self, role: str, blocks: list[Table]) -> None:
        """Add what a role says."""
        if not blocks:
            return
        if not self.turns or self.turns[-1]["role"] != role:
            self.turns.append({"role": role, "content": []})
        content: list[Any] = self.turns[-1]["content"]
        content += blocks
        if role == "user":
            # Anthropic wants the results of tools ahead of everything else that the turn says.
            content.sort(key=lambda block: block["type"] != "tool_result")

    @property
    def media(self) -> bool:
        """Whether there is a picture or a document in it."""
        return any(block["type"] in MEDIA for turn in self.turns for block in turn["content"])


def _data_url(url: str, place: str, what: str) -> tuple[str, str]:
    found = _DATA_URL.match(url)
    if found is None:
        malformed(f"{place} must hold {what} itself, as data:<type>;base64,...: nothing is fetched from addresses.")
    return found[1].lower(), url[found.end() :]
