"""What all endpoints of the OpenAI dialect share: the error envelope, the page of models, how a request is judged.

A member of a request is carried over, or left out because it changes nothing in the answer (`LEFT_OUT`), or accepted
only with the value that asks for nothing (`NEUTRAL`); everything else is refused by name, so that nobody relies on what
does not happen. Values are compared with those of tuples, never looked up: what a client writes may have no hash.
Source: OpenAI's API reference, "Create chat completion" and "Create a model response".
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, NoReturn

import msgspec

from llmgw_gateway.dialects import messages
from llmgw_gateway.errors import GatewayError
from llmgw_wire.errors import OPENAI_TYPES, ErrorCode

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from llmgw_gateway.call import Usage

Table = dict[str, Any]
DEFAULT_MAX_TOKENS: Final = 32_000
"""The output cap where the client names none: OpenAI's then is the model's own, which would let one call of a large
model hold several dollars of a budget."""
DONE: Final = b"data: [DONE]\n\n"
KEEPALIVE: Final[bytes] = b": keep-alive\n\n"
"""A comment (Server-Sent Events, section 9.2.6): clients skip it."""
_STATUS: Final = {408: 504, 424: 502, 529: 503}
"""The provider's statuses that mean something else to OpenAI's clients."""

LEFT_OUT: Final = frozenset(
    {
        "client_metadata",  # what Codex says of its installation, for OpenAI's own records
        "metadata",  # labels for OpenAI's own storage
        "prediction",  # speeds up an answer, and does not change it
        "prompt_cache_key",  # routing towards OpenAI's cache
        "prompt_cache_options",
        "prompt_cache_retention",
        "safety_identifier",  # who asks: the gateway knows it better
        "seed",  # "best effort, determinism is not guaranteed"
        "service_tier",  # speed and price of OpenAI's own service
        "store",  # whether OpenAI keeps the answer; nothing is kept here
        "user",  # as safety_identifier
    }
)


def document(body: bytes) -> Table:
    """The request as a table; GatewayError(REQUEST_MALFORMED) when it is no JSON object."""
    try:
        return msgspec.json.decode(body, type=Table)
    except messages.UNREADABLE as error:
        raise GatewayError(ErrorCode.REQUEST_MALFORMED, f"The request body is not a JSON object: {error}.") from None


def malformed(what: str) -> NoReturn:
    """Refuse a request in words."""
    raise GatewayError(ErrorCode.REQUEST_MALFORMED, what)


def judge(members: Table, carried: Collection[str], neutral: Mapping[str, Sequence[object]]) -> None:
    """GatewayError(REQUEST_MALFORMED) names the first member that has no equivalent upstream."""
    for name, value in members.items():
        if name in carried or name in LEFT_OUT or value is None:
            continue
        if name not in neutral:
            malformed(
                f"{name[:100]!r} is not available through this gateway, which serves models on AWS: leave it out."
            )
        if value not in neutral[name]:
            allowed = " or ".join(json.dumps(each) for each in neutral[name])
            malformed(f"{name!r} is available through this gateway only as {allowed}: leave it out.")


def text(value: object, place: str) -> str:
    """A member that must be a text."""
    if not isinstance(value, str):
        malformed(f"{place} is missing or not a string.")
    return value


def table(value: object, place: str) -> Table:
    """A member that must be an object."""
    if not isinstance(value, dict):
        malformed(f"{place} is missing or not an object.")
    return value


def array(value: object, place: str) -> list[Any]:
    """A member that must be an array."""
    if not isinstance(value, list):
        malformed(f"{place} is missing or not an array.")
    return value


def flag(value: object, place: str) -> bool:
    """A member that is true or false; absent means false."""
    if value is None:
        return False
    if not isinstance(value, bool):
        malformed(f"{place} must be true or false.")
    return value


def number(value: object, place: str, most: float) -> float | int:
    """A member that must be a number from 0 to `most`."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        malformed(f"{place} must be a number.")
    if not 0 <= value <= most:
        malformed(f"{place} must be between 0 and {most:g} for the models of this gateway.")
    return value


def arguments(value: object, place: str) -> Table:
    """The arguments of a tool's call, which OpenAI writes as a text that holds JSON."""
    try:
        return msgspec.json.decode(text(value, place) or "{}", type=Table)
    except messages.UNREADABLE:
        malformed(f"{place} does not hold a JSON object.")


def raw(members: Mapping[str, object]) -> dict[str, msgspec.Raw]:
    """Encode each member by itself: how the pipeline carries a body."""
    return {name: msgspec.Raw(msgspec.json.encode(value)) for name, value in members.items()}


def usage_of(usage: Usage) -> Table:
    """OpenAI's usage of a chat completion: cached tokens are a part of the prompt's."""
    return {
        "prompt_tokens": usage.prompt,
        "completion_tokens": usage.output,
        "total_tokens": usage.prompt + usage.output,
        "prompt_tokens_details": {
            "cached_tokens": usage.cache_read,
            "cache_write_tokens": usage.cache_write_5m + usage.cache_write_1h,
            "audio_tokens": 0,
        },
    }


def refusal(status: int, body: bytes) -> tuple[int, bytes]:
    """A refusal of the provider in OpenAI's envelope: its own words, and the status that OpenAI's clients know."""
    status = _STATUS.get(status, status)
    return status, envelope(provider_text(body), OPENAI_TYPES.get(status, "server_error"))


def envelope(message: str, kind: str) -> bytes:
    """An error that is none of ours."""
    return json.dumps({"error": {"message": message, "type": kind, "param": None, "code": None}}).encode()


def provider_text(body: bytes) -> str:
    """What the provider says in an error: AWS in `message`, sometimes `Message`, Anthropic in `error.message`."""
    try:
        found = msgspec.json.decode(body)
    except messages.UNREADABLE:
        found = None
    if isinstance(found, dict) and isinstance(found.get("error"), dict):
        found = found["error"]
    said = (found.get("message") or found.get("Message")) if isinstance(found, dict) else None
    return str(said) if said else "The provider refused the request without a reason."


def models_page(models: Sequence[tuple[str, str]]) -> bytes:
    """The answer of `GET /openai/v1/models`: (id, vendor) of each model that the caller may use."""
    data = [{"id": name, "object": "model", "created": 0, "owned_by": vendor} for name, vendor in models]
    return json.dumps({"object": "list", "data": data}).encode()


def model_page(name: str, vendor: str) -> bytes:
    """The answer of `GET /openai/v1/models/{id}`."""
    return json.dumps({"id": name, "object": "model", "created": 0, "owned_by": vendor}).encode()
