"""What is served here, as clients of each dialect ask for it. A list tells of no model that its reader may not use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl, unquote

from aiohttp import web

from llmgw_gateway.dialects import anthropic, bedrock_lists, openai
from llmgw_gateway.dialects.bedrock_lists import Listed
from llmgw_gateway.errors import GatewayError
from llmgw_gateway.observe.entry import printable
from llmgw_wire.errors import ErrorCode

if TYPE_CHECKING:
    from collections.abc import Callable

    from llmgw_gateway.observe.entry import Entry
    from llmgw_gateway.pipeline import Pipeline
    from llmgw_gateway.policy.models import Policy, ServedModel

OPENAI: Final = "/openai/v1/models"
BEDROCK_MODELS: Final = "/bedrock/foundation-models"
BEDROCK_PROFILES: Final = "/bedrock/inference-profiles"
ANTHROPIC: Final = "/v1/models"
TWICE: Final = "/v1"
"""What some clients put before a path, to a base URL that ends in it: `/v1/v1/models`."""


def is_listed(path: str) -> bool:
    """Whether a path, not decoded, is that of a list or of one thing in it."""
    return _base(path) is not None


async def answer(pipeline: Pipeline, request: web.BaseRequest, entry: Entry) -> web.StreamResponse:
    """The list, or the one thing of it that the path names."""
    path, _, query = request.raw_path.partition("?")
    base = _base(path) or ANTHROPIC
    if base.startswith("/bedrock/") and "authorization" not in request.headers and "x-api-key" not in request.headers:
        # Claude Code asks without a credential and waits 8 s for an answer; none of its choices needs the list.
        raise GatewayError(ErrorCode.NOT_FOUND, "Models and profiles are listed only to who is signed in.")
    async with pipeline.audit.entry(entry):
        caller = pipeline.authenticator.authenticate(request.headers, request.method, request.raw_path)
        entry.caller(caller)
        pipeline.rates.question(caller.person_id)
        seen = pipeline.policy.seen_by(await pipeline.directory.account(caller, ""))
        asked = unquote(path.partition(base)[2].removeprefix("/"))
        body = _LISTS[base](seen, asked, dict(parse_qsl(query)))
        if body is None:
            raise GatewayError(ErrorCode.NOT_FOUND, f"{printable(asked, 120)!r} is not served here.")
        entry.status = 200
    return web.Response(status=200, body=body, content_type="application/json")


def _base(path: str) -> str | None:
    """The list that a path is in."""
    for base in _LISTS:
        if path == base or path.startswith(f"{base}/"):
            return base
    return ANTHROPIC if path.startswith(TWICE + ANTHROPIC) and _base(path.removeprefix(TWICE)) else None


def _anthropic(policy: Policy, asked: str, _query: dict[str, str]) -> bytes | None:
    models = [(each.name, each.display_name) for each in policy.models if each.kind == "text"]
    if not asked:
        return anthropic.models_page(models)
    model = policy.named(asked)
    return anthropic.model_page(model.name, model.display_name) if model is not None and model.kind == "text" else None


def _openai(policy: Policy, asked: str, _query: dict[str, str]) -> bytes | None:
    if not asked:
        return openai.models_page([(each.name, each.vendor) for each in policy.models])
    model = policy.named(asked)
    return openai.model_page(model.name, model.vendor) if model is not None else None


def _foundation_models(policy: Policy, asked: str, query: dict[str, str]) -> bytes | None:
    if not asked:
        known = [_listed(policy, each) for each in policy.models if each.bedrock_id]
        return bedrock_lists.foundation_models(known, policy.region, query)
    model = policy.named(asked)
    return bedrock_lists.foundation_model(_listed(policy, model), policy.region) if model and model.bedrock_id else None


def _profiles(policy: Policy, asked: str, query: dict[str, str]) -> bytes | None:
    if not asked:
        return bedrock_lists.inference_profiles([_listed(policy, each) for each in policy.models], policy.region, query)
    model = policy.named(asked)
    profile = next((each for each in policy.profiles(model) if asked.endswith(each)), "") if model is not None else ""
    return (
        bedrock_lists.inference_profile(_listed(policy, model), profile, policy.region) if model and profile else None
    )


def _listed(policy: Policy, model: ServedModel) -> Listed:
    embedding = model.kind == "embedding"
    return Listed(model.bedrock_id, model.display_name, model.vendor, embedding, policy.profiles(model))


_LISTS: Final[dict[str, Callable[[Policy, str, dict[str, str]], bytes | None]]] = {
    ANTHROPIC: _anthropic,
    OPENAI: _openai,
    BEDROCK_MODELS: _foundation_models,
    BEDROCK_PROFILES: _profiles,
}
