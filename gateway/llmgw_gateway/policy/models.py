"""Which names mean which model, and where a call for it goes. Pure: built once from settings and catalogue."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmgw_gateway.call import Grant, Target, geography_of
from llmgw_gateway.errors import GatewayError
from llmgw_wire.errors import ErrorCode

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from llmgw_gateway.call import Kind

_PROFILES = (
    ("us-gov-", ("us-gov",)),
    ("us-", ("us", "global")),
    ("ca-", ("us", "ca", "global")),
    ("eu-", ("eu", "global")),
    ("ap-northeast-1", ("jp", "apac", "global")),
    ("ap-northeast-3", ("jp", "apac", "global")),
    ("ap-southeast-2", ("au", "apac", "global")),
    ("ap-southeast-4", ("au", "apac", "global")),
    ("ap-south-", ("in", "apac", "global")),
    ("ap-", ("apac", "global")),
    ("", ("global",)),
)
"""Which inference profiles serve a region, by the beginning of its name, nearest first."""
_ARN = re.compile(
    r"arn:aws(?:-[a-z]{2,8}){0,2}:bedrock:(?P<region>[a-z0-9-]{0,32}):(?:[0-9]{12})?:"
    r"(?:foundation-model|inference-profile)/(?P<id>[A-Za-z0-9.:-]{1,128})"
)


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A configured model with what the catalogue knows of it."""

    name: str
    display_name: str
    vendor: str
    names: tuple[str, ...]
    bedrock_id: str
    profiles: tuple[str, ...]
    max_output_tokens: int
    target: str
    """A fixed invocation id from the configuration; empty: what the client named, or the region's profile."""
    fallbacks: tuple[str, ...] = ()
    """Invocation ids that are tried in this order when the first one refuses."""
    kind: Kind = "text"

    @property
    def invocable(self) -> frozenset[str]:
        """The names that Bedrock itself knows: aliases are ours or the clients'."""
        return frozenset({self.bedrock_id, *(f"{prefix}.{self.bedrock_id}" for prefix in self.profiles)})


class Policy:
    """Authorizes calls: the model must be served, and the answer bounded."""

    def __init__(self, models: Sequence[ServedModel], region: str, contact: str) -> None:
        self._models = {model.name: model for model in models}
        self._names: Mapping[str, ServedModel] = {name: model for model in models for name in model.names}
        self._region = region
        self._contact = contact

    @property
    def region(self) -> str:
        """The region whose profiles are used."""
        return self._region

    @property
    def models(self) -> tuple[ServedModel, ...]:
        """Every model that is served."""
        return tuple(self._models.values())

    def named(self, asked: str) -> ServedModel | None:
        """The served model that has this name."""
        return self._names.get(_unwrapped(asked, self._region))

    def kind_of(self, asked: str) -> Kind:
        """What a model of that name gives; prompts are answered by one that is not served."""
        model = self.named(asked)
        return model.kind if model is not None else "text"

    def profiles(self, model: ServedModel) -> tuple[str, ...]:
        """The inference profiles of a model that serve the gateway's region, nearest first."""
        prefixes = next(prefixes for start, prefixes in _PROFILES if self._region.startswith(start))
        return tuple(f"{prefix}.{model.bedrock_id}" for prefix in prefixes if prefix in model.profiles)

    def authorize(self, asked: str, max_tokens: int, *, kind: Kind = "text", default: int = 0) -> Grant:
        """Find the target for a model name; GatewayError(MODEL_NOT_ALLOWED) names what is served instead.

        A name is looked up, never built upon: no text of a client reaches an upstream path unless the table has it.
        `default` is the output cap of a call that names none; 0: the model's own.
        """
        asked = _unwrapped(asked, self._region)
        model = self._names.get(asked)
        if model is None or model.kind != kind:
            served = ", ".join(each.name for each in self._models.values() if each.kind == kind) or "none"
            if model is not None:
                what = "gives embeddings" if model.kind == "embedding" else "gives no embeddings"
                raise GatewayError(
                    ErrorCode.MODEL_NOT_ALLOWED, f"The model {_quoted(asked)} {what}. Served for this: {served}."
                )
            hint = f" Ask {self._contact} for another." if self._contact else ""
            raise GatewayError(
                ErrorCode.MODEL_NOT_ALLOWED,
                f"The model {_quoted(asked)} is not served here. Served: {served}.{hint}",
            )
        invoke_id = model.target or (asked if asked in model.invocable else self._profile(model))
        cap = model.max_output_tokens
        others = tuple(_target(model, other) for other in model.fallbacks if other != invoke_id)
        # Not cut to the model's cap: what is judged here is what is sent, and the provider says so if it is too much.
        return Grant(_target(model, invoke_id), max_tokens or min(cap, default or cap), others)

    def _profile(self, model: ServedModel) -> str:
        """The inference profile that serves the gateway's region; the bare id where there is none."""
        return next(iter(self.profiles(model)), model.bedrock_id)


def _target(model: ServedModel, invoke_id: str) -> Target:
    return Target("bedrock", model.name, invoke_id, geography_of(invoke_id), model.bedrock_id)


def _unwrapped(asked: str, region: str) -> str:
    """The id in an ARN of a model or a profile of this region; any other name as it is.

    Which account the ARN names does not matter: what is invoked is the id, in the gateway's own.
    """
    arn = _ARN.fullmatch(asked)
    return arn["id"] if arn is not None and arn["region"] == region else asked


def _quoted(asked: str) -> str:
    """A client's text for an error message: short, and without control characters."""
    return repr("".join(c for c in asked if c.isprintable())[:120])
