"""One streamed prompt in each dialect, sent as a tool would send it: plain HTTP with the token of `llmgw-token`."""

from __future__ import annotations

import http.client
import json
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from llmgw_wire.errors import read_refusal
from tests.lab.aws_frames import EventReader
from tests.lab.usage import Usage, UsageMeter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MODEL = "claude-sonnet-4-5"
BEDROCK_MODEL = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
MAX_TOKENS = 200
SECONDS = 120
PORTION = 4096


class ConversationError(RuntimeError):
    """The gateway did not answer with a stream that ends."""


@dataclass(frozen=True)
class Prompt:
    """What is asked, and how one dialect writes it down."""

    dialect: str
    path: str
    route: str
    """The path as documentation writes it, for the heading."""
    body: dict[str, Any]
    read: Callable[[http.client.HTTPResponse], Iterator[dict[str, Any]]]


def anthropic(text: str) -> Prompt:
    """As the Anthropic SDK and Claude Code's Anthropic mode send it."""
    body = {"model": MODEL, "max_tokens": MAX_TOKENS, "stream": True, "messages": [_user(text)]}
    return Prompt("Anthropic", "/v1/messages", "/v1/messages", body, _server_sent_events)


def bedrock(text: str) -> Prompt:
    """As boto3 and Claude Code's Bedrock mode send it."""
    path = f"/bedrock/model/{quote(BEDROCK_MODEL, safe='')}/invoke-with-response-stream"
    body = {"anthropic_version": "bedrock-2023-05-31", "max_tokens": MAX_TOKENS, "messages": [_user(text)]}
    return Prompt("Bedrock", path, "/bedrock/model/{id}/invoke-with-response-stream", body, _event_stream)


def hold(prompt: Prompt, gateway_url: str, token: str, say: Callable[[str], None]) -> Usage:
    """Send it, say the answer as it comes, return the usage that the stream reported."""
    address = urlsplit(gateway_url)
    meter, ended = UsageMeter(), False
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    with closing(http.client.HTTPConnection(str(address.hostname), address.port, timeout=SECONDS)) as connection:
        connection.request("POST", prompt.path, json.dumps(prompt.body), headers)
        response = connection.getresponse()
        if response.status != http.client.OK:
            refusal = read_refusal(response.status, response.read())
            raise ConversationError(f"{prompt.route} was answered with {refusal.status}: {refusal.message}")
        for event in prompt.read(response):
            meter.see(event)
            if event["type"] in {"error", "exception"}:
                raise ConversationError(f"{prompt.route}: the stream ended with {event}")
            if event["type"] == "content_block_delta":
                say(event["delta"].get("text", ""))
            ended = ended or event["type"] == "message_stop"
    if not ended or meter.usage is None:
        raise ConversationError(f"{prompt.route}: the stream ended without message_stop or without usage")
    return meter.usage


def _user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def _server_sent_events(response: http.client.HTTPResponse) -> Iterator[dict[str, Any]]:
    for line in response:
        if line.startswith(b"data:"):
            yield json.loads(line.removeprefix(b"data:"))


def _event_stream(response: http.client.HTTPResponse) -> Iterator[dict[str, Any]]:
    reader = EventReader()
    while data := response.read1(PORTION):
        yield from reader.feed(data)
