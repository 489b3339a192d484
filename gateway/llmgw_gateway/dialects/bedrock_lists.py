"""What Bedrock's control plane lists, of the models that are served here: foundation models and inference profiles.

AWS names an account in a profile's ARN. The gateway does not know its own, and leaves that part empty, as the API
allows. Source: Amazon Bedrock API reference, FoundationModelSummary and InferenceProfileSummary.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Table = dict[str, Any]


class Listed(NamedTuple):
    """A served model, as far as the lists show it."""

    bedrock_id: str
    display_name: str
    vendor: str
    embedding: bool
    profiles: tuple[str, ...]
    """The ids of the profiles that serve the region."""


def foundation_models(models: Iterable[Listed], region: str, query: Mapping[str, str]) -> bytes:
    """The answer of ListFoundationModels; the filters of its query are kept to."""
    wanted = {
        "providerName": query.get("byProvider", "").casefold(),
        "outputModalities": query.get("byOutputModality", ""),
        "inferenceTypesSupported": query.get("byInferenceType", ""),
    }
    found = []
    for model in models:
        summary = _model(model, region)
        fits = (
            wanted["providerName"] in {"", summary["providerName"].casefold()},
            wanted["outputModalities"] in {"", *summary["outputModalities"]},
            wanted["inferenceTypesSupported"] in {"", *summary["inferenceTypesSupported"]},
            not query.get("byCustomizationType"),
        )
        if all(fits):
            found.append(summary)
    return msgspec.json.encode({"modelSummaries": found})


def foundation_model(model: Listed, region: str) -> bytes:
    """The answer of GetFoundationModel."""
    return msgspec.json.encode({"modelDetails": _model(model, region)})


def inference_profiles(models: Iterable[Listed], region: str, query: Mapping[str, str]) -> bytes:
    """The answer of ListInferenceProfiles: all on one page."""
    found = [_profile(model, each, region) for model in models for each in model.profiles]
    wanted = query.get("type", "SYSTEM_DEFINED")
    return msgspec.json.encode({"inferenceProfileSummaries": found if wanted == "SYSTEM_DEFINED" else []})


def inference_profile(model: Listed, profile: str, region: str) -> bytes:
    """The answer of GetInferenceProfile."""
    return msgspec.json.encode(_profile(model, profile, region))


def _model(model: Listed, region: str) -> Table:
    return {
        "modelArn": _arn(region, f"foundation-model/{model.bedrock_id}"),
        "modelId": model.bedrock_id,
        "modelName": model.display_name,
        "providerName": model.vendor.capitalize(),
        "inputModalities": ["TEXT"] if model.embedding else ["TEXT", "IMAGE"],
        "outputModalities": ["EMBEDDING"] if model.embedding else ["TEXT"],
        "responseStreamingSupported": not model.embedding,
        "customizationsSupported": [],
        "inferenceTypesSupported": ["INFERENCE_PROFILE"] if model.profiles else ["ON_DEMAND"],
        "modelLifecycle": {"status": "ACTIVE"},
    }


def _profile(model: Listed, profile: str, region: str) -> Table:
    prefix = profile.removesuffix(f".{model.bedrock_id}").upper()
    return {
        "inferenceProfileId": profile,
        "inferenceProfileArn": _arn(region, f"inference-profile/{profile}"),
        "inferenceProfileName": f"{prefix} {model.vendor.capitalize()} {model.display_name}",
        "description": f"Routes requests to {model.display_name}.",
        "models": [{"modelArn": _arn(region, f"foundation-model/{model.bedrock_id}")}],
        "status": "ACTIVE",
        "type": "SYSTEM_DEFINED",
    }


def _arn(region: str, resource: str) -> str:
    partition = "aws-us-gov" if region.startswith("us-gov-") else "aws-cn" if region.startswith("cn-") else "aws"
    return f"arn:{partition}:bedrock:{region}::{resource}"
