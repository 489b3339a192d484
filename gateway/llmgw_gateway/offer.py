"""Joins the configured models with catalogue and upstreams: what a gateway offers, or why it cannot. Pure."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

import msgspec

from llmgw_gateway.call import split_title
from llmgw_gateway.errors import ConfigurationError
from llmgw_gateway.policy import defaults
from llmgw_gateway.policy.defaults import Defaults
from llmgw_gateway.policy.guards import Guards
from llmgw_gateway.policy.models import Policy, ServedModel
from llmgw_gateway.providers import bridging

if TYPE_CHECKING:
    from collections.abc import Iterator

    from llmgw_gateway.money.prices import Catalogue, CatalogueModel
    from llmgw_gateway.sections.upstream import Model
    from llmgw_gateway.settings import Settings

BUDGET: Final = "thinking.budget_tokens"
"""What the bridging table calls a thinking budget."""
GOVERNMENT: Final = "us-gov"
"""How the regions of GovCloud begin, and the ids of models that have its prices."""


def policy(settings: Settings, catalogue: Catalogue) -> Policy:
    """Join the configured models with the catalogue; ConfigurationError for one that has no price, or not its own."""
    faults = [
        f"models[{number}].name: {model.name!r} has no price; known: {', '.join(catalogue.models)}"
        for number, model in enumerate(settings.models)
        if model.name not in catalogue.models
    ]
    owners = {name: known.name for known in catalogue.models.values() for name in known.names()}
    for number, model in enumerate(settings.models):
        for key, target in targets(model):
            owner = owners.get(split_title(target)[1], model.name)
            if owner != model.name:
                faults.append(
                    f"models[{number}].{key}: {target!r} is {owner}, which has other prices than {model.name}"
                )
        if known := catalogue.models.get(model.name):
            faults += [f"models[{number}].{fault}" for fault in _place_faults(settings, model, known)]
    if faults:
        raise ConfigurationError("models", faults)
    served = [_served(model, catalogue.models[model.name]) for model in settings.models]
    contact, version = settings.organisation.contact, policy_version(settings)
    regions = {each.name: each.region for each in settings.regions}
    guards = Guards(settings.guardrails, settings.organisation.guardrail)
    return Policy(
        served,
        settings.bedrock.region,
        contact,
        settings.policies,
        version,
        settings.direct,
        regions,
        guards,
        _defaults(settings, catalogue),
    )


def _defaults(settings: Settings, catalogue: Catalogue) -> Defaults:
    taken = {name for model in catalogue.models.values() for name in model.names()}
    named = [(f"defaults[{number}].model", entry.model) for number, entry in enumerate(settings.defaults)]
    faults = [f"{key}: {name!r} gives embeddings" for key, name in named if _gives_embeddings(catalogue, name)]
    if defaults.NAME in taken and any(name for _, name in named):
        faults.append(f"defaults: {defaults.NAME!r} is the name of a model in prices.file")
    if faults:
        raise ConfigurationError("defaults", faults)
    file = settings.bedrock.bridge_file
    budgeted = bridging.load(settings.path(file) if file else None, catalogue.models).features[BUDGET].models
    return Defaults(settings.defaults, catalogue.no_dearer, budgeted)


def _gives_embeddings(catalogue: Catalogue, name: str) -> bool:
    return name in catalogue.models and catalogue.models[name].kind == "embedding"


def policy_version(settings: Settings) -> str:
    """A name for everything that decides who may use what: the same text has the same name, on every replica."""
    everywhere = settings.organisation.guardrail
    deciding = (
        settings.policies, settings.models, settings.teams, settings.projects, settings.guardrails, everywhere,
        settings.defaults,
    )  # fmt: skip
    return hashlib.sha256(msgspec.json.encode(deciding)).hexdigest()[:12]


def targets(model: Model) -> Iterator[tuple[str, str]]:
    """Every target that the configuration names for a model, each with its key."""
    if model.target:
        yield "target", model.target
    for each in model.fallbacks:
        yield "fallbacks", each


def direct_targets(settings: Settings, model: Model) -> list[tuple[str, str]]:
    """Those of them that have Anthropic's own prices."""
    return [(key, target) for key, target in targets(model) if split_title(target)[0] in settings.direct]


def _place_faults(settings: Settings, model: Model, known: CatalogueModel) -> Iterator[str]:
    """What a model cannot be asked at, or has no price at."""
    regions = {each.name: each.region for each in settings.regions} | {"": settings.bedrock.region}
    where = {split_title(target)[0] for _, target in targets(model)} | ({""} if not model.target else set())
    if not known.bedrock_id.startswith(GOVERNMENT) and any(regions.get(w, "").startswith(GOVERNMENT) for w in where):
        yield (
            f"name: {model.name!r} is priced for the other regions, and GovCloud costs more; its "
            f"models are entries of their own, such as {model.name}-us-gov"
        )
    if not known.bedrock_id and not where <= settings.direct:
        yield (
            f"name: {model.name!r} has no bedrock_id in prices.file, and is asked at Bedrock: add it there, or give "
            "the model targets of [[anthropic]] only"
        )
    for key, target in direct_targets(settings, model):
        if known.kind == "embedding":
            yield f"{key}: {target!r} speaks the Anthropic format, which has no embeddings"
        elif not any(price.geography == "direct" for price in known.prices):
            yield f'{key}: {model.name!r} has no price there: add rows with geography = "direct" to prices.file'


def _served(model: Model, known: CatalogueModel) -> ServedModel:
    return ServedModel(
        name=known.name,
        display_name=known.display_name,
        vendor=known.vendor,
        names=known.names() + ((model.target,) if model.target else ()),
        bedrock_id=known.bedrock_id,
        profiles=known.profiles,
        max_output_tokens=known.max_output_tokens,
        target=model.target,
        fallbacks=model.fallbacks,
        kind=known.kind,
    )
