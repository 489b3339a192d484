"""Which names mean which model, who may use it, and where a call for it goes. Pure: from settings and catalogue."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from llmgw_gateway.call import Grant, Target, geography_of, split_title
from llmgw_gateway.errors import GatewayError
from llmgw_gateway.policy import caps, residency
from llmgw_gateway.policy.defaults import NAME, Defaults
from llmgw_gateway.policy.guards import Guards
from llmgw_gateway.policy.permissions import Permissions
from llmgw_wire.errors import ErrorCode
from llmgw_wire.messages import CapView

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from llmgw_gateway.call import Account, Call, Kind, Provider
    from llmgw_gateway.policy.permissions import Verdict
    from llmgw_gateway.sections.permitting import Permission

MOST_KNOWN: Final = 10_000
"""Answers that are remembered."""
_PROFILES: Final = (
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
_ARN: Final = re.compile(
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
    """A fixed target from the configuration; empty: what the client named, or the region's profile."""
    fallbacks: tuple[str, ...] = ()
    """Targets that are tried in this order when the first one refuses."""
    kind: Kind = "text"

    @property
    def invocable(self) -> frozenset[str]:
        """The names that Bedrock itself knows: aliases are ours or the clients'."""
        if not self.bedrock_id:
            return frozenset()
        return frozenset({self.bedrock_id, *(f"{prefix}.{self.bedrock_id}" for prefix in self.profiles)})


class Policy:
    """Authorizes calls: the model must be served, the caller must be allowed to use it, and the answer is bounded."""

    def __init__(
        self,
        models: Sequence[ServedModel],
        region: str,
        contact: str,
        entries: Sequence[Permission] = (),
        version: str = "",
        direct: Collection[str] = (),
        regions: Mapping[str, str] | None = None,
        guards: Guards | None = None,
        defaults: Defaults | None = None,
    ) -> None:
        """`version` names what decides, in the audit trail; `direct` are the upstreams of the Anthropic format.

        `regions` are those of the further upstreams at Bedrock, by their names; `guards` the guardrails,
        `defaults` what counts for whom, if there are.
        """
        self.defaults = defaults or Defaults()
        self.guards = guards or Guards()
        self._regions = {"": region} | dict(regions or {})
        self.version = version
        self._direct = direct
        self._models = {model.name: model for model in models}
        self._names: Mapping[str, ServedModel] = {name: model for model in models for name in model.names}
        self._region = region
        self._contact = contact
        self.permissions = Permissions(entries, tuple(self._models))
        self._granted: dict[tuple[Account, str, int, Kind, int], Grant] = {}
        """What was allowed before: the same question has the same answer as long as there is this policy."""
        self._seen: dict[tuple[str, ...], Policy] = {}
        """What is shown to those who may use these models; as many as there are different lists."""

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
        return self._names.get(asked) or self._names.get(_unwrapped(asked, self._region))

    def kind_of(self, asked: str) -> Kind:
        """What a model of that name gives; prompts are answered by one that is not served."""
        model = self.named(asked)
        return model.kind if model is not None else "text"

    def profiles(self, model: ServedModel) -> tuple[str, ...]:
        """The inference profiles of a model that serve the gateway's region, nearest first."""
        prefixes = next(prefixes for start, prefixes in _PROFILES if self._region.startswith(start))
        return tuple(f"{prefix}.{model.bedrock_id}" for prefix in prefixes if prefix in model.profiles)

    def seen_by(self, account: Account) -> Policy:
        """The same with those models alone that an account may use: what it is shown."""
        names = self.permissions.allowed(account)
        if len(names) == len(self._models):
            return self
        seen = self._seen.get(names)
        if seen is None:
            models = [self._models[name] for name in names]
            seen = self._seen[names] = Policy(models, self._region, self._contact, direct=self._direct)
        return seen

    def caps(self, account: Account) -> tuple[CapView, ...]:
        """What bounds each call of an account, for the models that have such bounds."""
        found = []
        for name in self.permissions.allowed(account):
            entry = self.permissions.decide(account, name).entry
            if entry is not None and (entry.max_tokens or entry.thinking_tokens or entry.context_tokens):
                found.append(CapView(name, entry.max_tokens, entry.thinking_tokens, entry.context_tokens))
        return tuple(found)

    def authorize(
        self, account: Account, asked: str, max_tokens: int, *, kind: Kind = "text", default: int = 0
    ) -> Grant:
        """Find the target for a model name; GatewayError(MODEL_NOT_ALLOWED) names what the account may use instead.

        A name is looked up, never built upon: no text of a client reaches an upstream path unless the table has it.
        `default` is the output cap of a call that names none; 0: the model's own.
        """
        question = account, asked, max_tokens, kind, default
        grant = self._granted.get(question)
        if grant is None:
            grant = self._authorize(*question)
            if not grant.instead:  # what stands in hangs on prices, and they have dates
                if len(self._granted) >= MOST_KNOWN:
                    self._granted.clear()
                self._granted[question] = grant
        return grant

    def _authorize(self, account: Account, asked: str, max_tokens: int, kind: Kind, default: int) -> Grant:
        said, asked = asked, self.meant(account, _unwrapped(asked, self._region))
        model = self._names.get(asked)
        if said == NAME and not asked:
            raise self._refusal(account, kind, "There is no default model for you here: name one.")
        if model is None:
            raise self._refusal(account, kind, f"The model {_quoted(asked)} is not served here.")
        if model.kind != kind:
            what = "gives embeddings" if model.kind == "embedding" else "gives no embeddings"
            raise self._refusal(account, kind, f"The model {_quoted(asked)} {what}.")
        verdict = self.permissions.decide(account, model.name)
        if verdict.allowed:
            first, others = self._targets(account, model, asked, verdict)
        else:
            model, verdict, first, others = self._substitute(account, model, asked, verdict)
        cap = model.max_output_tokens
        # Not cut to the model's cap: what is judged here is what is sent, and the provider says so if it is too much.
        most = max_tokens or min(cap, default or cap)
        return Grant(first, most, others, policy=verdict.title, instead=self.named(said) is not model)

    def _targets(
        self, account: Account, model: ServedModel, asked: str, verdict: Verdict
    ) -> tuple[Target, tuple[Target, ...]]:
        """Where a model that is allowed is asked, and where else; GatewayError(MODEL_NOT_ALLOWED) when nowhere."""
        invoke_id = self._invoked(model, asked)
        first = self._target(model, invoke_id)
        others = tuple(self._target(model, other) for other in model.fallbacks if other != invoke_id)
        if verdict.entry is not None and (verdict.entry.geographies or verdict.entry.upstreams):
            named = model.target or asked in model.invocable
            own = (
                (first,)
                if named
                else tuple(self._target(model, each) for each in (*self.profiles(model), first.foundation_id))
            )
            first, others = self._within(account, model, verdict, own, others)
        if name := self.guards.wanted(verdict.entry):
            first, others = self._guarded(account, model, verdict, name, (first, *others))
        return first, others

    def _invoked(self, model: ServedModel, asked: str) -> str:
        """What is named towards Bedrock: a fixed target, or what the client named, or the region's profile."""
        return model.target or (asked if asked in model.invocable else self._profile(model))

    def meant(self, account: Account, asked: str) -> str:
        """The name itself, or that of the caller's default model; "" where that is asked for and there is none."""
        if asked != NAME or NAME in self._names:
            return asked
        entry = self.defaults.of(account)
        return entry.model if entry is not None else ""

    def answering(self, account: Account, asked: str) -> str:
        """The model that answers an account which names one that is served, or asks for its default; "": none."""
        model = self.named(self.meant(account, asked))
        if model is None:
            return ""
        try:
            return self.authorize(account, asked, 0, kind=model.kind).target.model
        except GatewayError:
            return ""

    def _substitute(
        self, account: Account, model: ServedModel, asked: str, verdict: Verdict
    ) -> tuple[ServedModel, Verdict, Target, tuple[Target, ...]]:
        """What answers in the place of a model that is not allowed: the default, where it may and is not dearer.

        With where it is asked, and where else. GatewayError(MODEL_NOT_ALLOWED) otherwise.
        """
        why = _not_allowed(model.name, verdict)
        entry = self.defaults.of(account)
        if entry is None or not entry.substitute or model.kind != "text" or verdict.why == "groups_unknown":
            raise self._refusal(account, model.kind, why)
        other = self._models[entry.model]
        judged = self.permissions.decide(account, other.name)
        if not judged.allowed:
            raise self._refusal(account, model.kind, why)
        first, others = self._targets(account, other, other.name, judged)
        wanted = self._target(model, self._invoked(model, asked))
        found = [each for each in (first, *others) if self.defaults.is_no_dearer(each, wanted)]
        if not found:
            raise self._refusal(account, model.kind, f"{why} Your default, {other.name}, would be dearer.")
        return other, judged, found[0], tuple(found[1:])

    def filled(self, account: Account, call: Call, grant: Grant) -> Grant:
        """The grant of a call with the defaults for what it leaves out; the call is changed accordingly."""
        model = self._models[grant.target.model]
        capping = self.permissions.decide(account, model.name).entry
        return self.defaults.fill(account, call, grant, model.max_output_tokens, capping)

    def _within(
        self,
        account: Account,
        model: ServedModel,
        verdict: Verdict,
        own: tuple[Target, ...],
        others: tuple[Target, ...],
    ) -> tuple[Target, tuple[Target, ...]]:
        """The target and the fallbacks that the policy allows: the first of the model's `own`, then of the others.

        GatewayError(MODEL_NOT_ALLOWED) when there is none.
        """
        entry = verdict.entry
        if entry is None:
            return own[0], others
        mine = [each for each in own if residency.admits(entry, each, self._regions)][:1]
        further = [each for each in others if each not in mine and residency.admits(entry, each, self._regions)]
        if not mine and not further:
            what = f"The model {model.name} as {_quoted(own[0].title)} is not allowed by {verdict.title}: only what is "
            raise self._refusal(account, model.kind, f"{what}{residency.bounds(entry)}.")
        first, *rest = (*mine, *further)
        return first, tuple(rest)

    def _guarded(
        self, account: Account, model: ServedModel, verdict: Verdict, name: str, targets: tuple[Target, ...]
    ) -> tuple[Target, tuple[Target, ...]]:
        """The targets that can apply a guardrail; GatewayError(MODEL_NOT_ALLOWED) when none can."""
        found = self.guards.applied(name, targets) if model.kind == "text" else ()
        if not found:
            by = f" by {verdict.title}" if verdict.title else ""
            where = ", ".join(_quoted(each.title) for each in targets)
            why = f"which cannot be applied at {where}" if model.kind == "text" else "which does not look at embeddings"
            what = f"The model {model.name} is allowed{by} only under the guardrail {name!r}, {why}."
            raise self._refusal(account, model.kind, what)
        return found[0], found[1:]

    def guardrail(self, account: Account, model: str) -> str:
        """The guardrail that calls of an account for a served model need; "" for none."""
        verdict = self.permissions.decide(account, model)
        return self.guards.wanted(verdict.entry) if verdict.allowed else ""

    def can_apply(self, name: str, model: ServedModel) -> bool:
        """Whether anything that serves a model can apply a guardrail."""
        first = self._target(model, model.target or self._profile(model))
        others = tuple(self._target(model, other) for other in model.fallbacks)
        return model.kind == "text" and bool(self.guards.applied(name, (first, *others)))

    def within_caps(self, account: Account, call: Call, grant: Grant) -> Grant:
        """The grant of a call within the caps of its policy; the call is changed accordingly.

        GatewayError(CAP_EXCEEDED) names the cap.
        """
        if not grant.policy:  # no entry decided, and only entries have caps
            return grant
        return caps.held_to(call, grant, self.permissions.decide(account, grant.target.model), self._contact)

    def _refusal(self, account: Account, kind: Kind, what: str) -> GatewayError:
        allowed = [name for name in self.permissions.allowed(account) if self._models[name].kind == kind]
        instead = f"You may use: {', '.join(allowed)}." if allowed else "You may use no model for this."
        hint = f" Ask {self._contact} for another." if self._contact else ""
        return GatewayError(ErrorCode.MODEL_NOT_ALLOWED, f"{what} {instead}{hint}")

    def _target(self, model: ServedModel, title: str) -> Target:
        upstream, invoke_id = split_title(title)
        provider: Provider = "anthropic" if upstream in self._direct else "bedrock"
        geography = geography_of(title, self._direct)
        return Target(provider, model.name, invoke_id, geography, model.bedrock_id, upstream)

    def _profile(self, model: ServedModel) -> str:
        """The inference profile that serves the gateway's region; the bare id where there is none."""
        return next(iter(self.profiles(model)), model.bedrock_id)


def _unwrapped(asked: str, region: str) -> str:
    """The id in an ARN of a model or a profile of this region; any other name as it is.

    Which account the ARN names does not matter: what is invoked is the id, in the gateway's own.
    """
    arn = _ARN.fullmatch(asked)
    return arn["id"] if arn is not None and arn["region"] == region else asked


def _not_allowed(model: str, verdict: Verdict) -> str:
    """Why, in the words of the person who asked."""
    if verdict.why == "key":
        return f"This service key is not for the model {model}."
    if verdict.why == "groups_unknown":
        return (
            f"Who may use the model {model} is decided by groups ({verdict.title}), and your identity provider did not "
            "say which you are in: there are too many for its token."
        )
    by = f" by {verdict.title}" if verdict.title else ""
    return f"You are not allowed to use the model {model}{by}."


def _quoted(asked: str) -> str:
    """A client's text for an error message: short, and without control characters."""
    return repr("".join(c for c in asked if c.isprintable())[:120])
