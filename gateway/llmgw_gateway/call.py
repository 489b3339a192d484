"""The values that travel through the pipeline. Each stage takes one and returns one; nobody rewrites the request.

Structs, not dataclasses: several are made for each request, and a Struct is made in C (a frozen dataclass of five
members takes ten times as long). Those that can only hold plain values are left out of the garbage collection.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Literal

import msgspec
from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

MICRO = 1_000_000
"""Micro-USD in one USD: money is always a whole number of them."""

LEAST_TOKENS = 1024
"""Output with which most answers of a coding agent are whole."""

LEAST_THINKING = 1024
"""The smallest `thinking.budget_tokens` that models take (docs.claude.com, extended thinking)."""

LONG_CONTEXT = 1_000_000
"""Tokens of the largest window that a provider offers on request."""

GEOGRAPHIES = ("global", "us", "us-gov", "eu", "apac", "jp", "au", "in", "ca", "sa", "af", "me", "il", "mx")
"""Of Bedrock's inference profiles, and of regions."""
Geography = Literal["global", "regional", "direct"]
"""By what a call is priced: a global or another inference profile of Bedrock, or Anthropic's own API."""
Dialect = Literal["anthropic", "bedrock", "openai"]
Provider = Literal["bedrock", "anthropic"]
Kind = Literal["text", "embedding"]
Operation = Literal["invoke", "converse", "count"]
Completeness = Literal["none", "partial", "complete"]


class Caller(Struct, frozen=True, gc=False):
    """A person whose gateway token was verified, or a service key. This exists only after success."""

    person_id: str
    session: str
    access_key: str
    """What is counted by device: the same after the person has signed out and in again."""
    token_id: str
    token_expires_at: int
    service: bool = False
    """Whether it is a service key: then team and models are its own."""
    team: str = ""
    models: frozenset[str] | None = None
    """None: whatever policies allow."""


class Account(Struct, frozen=True, gc=False):
    """Who pays for a call: every budget that concerns one of these has to admit it."""

    person_id: str
    email: str = ""
    team: str = ""
    """Empty: in no team."""
    project: str = ""
    """Empty: charged to no project."""
    key: str = ""
    """The place among the person's devices that the caller signed in with: it outlives a session."""
    groups: frozenset[str] | None = frozenset()
    """Those groups of the identity provider that a policy names; None: the provider did not say which."""
    models: frozenset[str] | None = None
    """What a service key is for; None: whatever policies allow."""


class Memberships(Struct, frozen=True, gc=False):
    """What the store's directory says of somebody."""

    teams: tuple[str, ...] = ()
    """Theirs, by name."""
    groups: frozenset[str] = frozenset()
    """All that these are called in tokens and policies: names and the directory's ids."""
    known_teams: frozenset[str] = frozenset()
    """Every team of the store, whoever is in it."""
    known_groups: frozenset[str] = frozenset()
    """What these are called."""


NO_MEMBERSHIPS = Memberships()


class Usage(Struct, frozen=True, gc=False):
    """Tokens of one attempt by class, as the provider bills them. The classes do not overlap."""

    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_write_5m: int = 0
    cache_write_1h: int = 0

    @property
    def prompt(self) -> int:
        """All tokens that went in: what decides the long-context price."""
        return self.input + self.cache_read + self.cache_write_5m + self.cache_write_1h


def _with_max_tokens(members: Mapping[str, msgspec.Raw], most: int) -> dict[str, msgspec.Raw]:
    return {**members, "max_tokens": msgspec.Raw(str(most).encode())}


def _object(raw: msgspec.Raw | None) -> dict[str, msgspec.Raw]:
    return {} if raw is None else msgspec.json.decode(raw, type=dict[str, msgspec.Raw])


class Call(Struct):
    """One request for a model, as a dialect read it. The body is in the format that the upstream takes.

    `members` are the top-level members of the body, undecoded; `body` are the bytes as received. Both are dropped by
    `release` once the upstream has them, so that nothing of a prompt is kept while the answer streams.
    """

    dialect: Dialect
    model: str
    stream: bool
    max_tokens: int
    size: int
    """Bytes of the body."""
    body: bytes | None
    members: Mapping[str, msgspec.Raw] | None
    betas: tuple[str, ...] = ()
    session: str = ""
    """The client's coding session, when it names one: successive prompts of one are much alike."""
    media: bool = False
    """Whether it holds a picture or a document: their tokens are not bounded by their bytes."""
    long_cache: bool = False
    """Whether the request asks for one-hour cache entries, which cost more to write."""

    long_context: bool = False
    """Whether the request asks for a window larger than the model's usual one."""
    least_tokens: int = LEAST_TOKENS
    """With a smaller max_tokens the call would be refused upstream, or be of no use: it is never clamped below."""
    kind: Kind | None = "text"
    """What is asked for: a model of another kind is refused. None: whatever the named model gives."""
    operation: Operation = "invoke"
    """What is asked of Bedrock."""
    version: str = ""
    """The version of the Anthropic format that the client speaks; empty: it did not say."""
    compaction: bool = False
    """Whether the provider is asked to compact the prompt: what that costs has no bound."""
    default_max_tokens: int = 0
    """The output cap of a call that names none, where the upstream wants one; 0: the body goes without."""
    prompts: int = 1
    """How many prompts it holds: each of them may fill the model's context."""
    features: Mapping[str, str] = msgspec.field(default_factory=dict)
    """Features that only some models have, each with what the client calls it: refused by name for the others."""
    with_cap: Callable[[Mapping[str, msgspec.Raw], int], dict[str, msgspec.Raw]] = _with_max_tokens
    """Writes an output cap into the members, where the format has it."""

    def clamp(self, max_tokens: int) -> None:
        """Ask the provider for no more output than this."""
        self.max_tokens = max_tokens
        self.members = self.with_cap(self.members or {}, max_tokens)

    @property
    def thinking_tokens(self) -> int:
        """The thinking budget that is asked for; 0: none, or as much as the model likes."""
        return self.least_tokens - LEAST_TOKENS

    def limit_thinking(self, budget: int) -> bool:
        """Ask the provider for no larger thinking budget; False where the body does not have it in its usual place."""
        members = dict(self.members or {})
        further = "additionalModelRequestFields"
        nested = self.operation == "converse"
        outer = _object(members.get(further)) if nested else members
        if "thinking" not in outer:
            return False
        thinking = _object(outer["thinking"]) | {"budget_tokens": msgspec.Raw(str(budget).encode())}
        outer["thinking"] = msgspec.Raw(msgspec.json.encode(thinking))
        if nested:
            members[further] = msgspec.Raw(msgspec.json.encode(outer))
        self.members = members
        self.least_tokens = LEAST_TOKENS + budget
        return True

    def release(self) -> None:
        """Let go of the prompt."""
        self.body = None
        self.members = None


UNGUARDED = "none"
"""In the place of a guardrail's name: the call needs none, whatever the organisation's is."""


class Guard(Struct, frozen=True, gc=False):
    """A guardrail of Bedrock, as the upstream of a target knows it."""

    name: str
    """How policies call it."""
    id: str
    version: str
    trace: str = "disabled"
    rate: int = 0
    """Micro-USD for a million tokens that it looks at; 0: it has no price here."""


class Target(Struct, frozen=True, gc=False):
    """Where a call goes: a model, profile or ARN at a provider."""

    provider: Provider
    model: str
    """The catalogue's name: prices and caps hang on it."""
    invoke_id: str
    """What is named towards the provider."""
    geography: Geography
    foundation_id: str = ""
    """The model without a profile: what is named where Bedrock takes no profiles."""
    upstream: str = ""
    """Which of the configured upstreams; empty: the one of `[bedrock]`."""
    guard: Guard | None = None
    """Under which guardrail it is asked; None: under none."""

    @property
    def title(self) -> str:
        """What it is called in headers, ledger, audit trail and configuration."""
        return f"{self.upstream}/{self.invoke_id}" if self.upstream else self.invoke_id


class Grant(Struct, frozen=True, gc=False):
    """What policy allows a caller for one call."""

    target: Target
    max_tokens: int
    """The most output this call can produce: its own cap, never above the model's."""
    fallbacks: tuple[Target, ...] = ()
    """Where else the call may go, in this order, when a target refuses it before it has begun to answer."""
    capped: bool = False
    """Whether the output cap is a policy's or a default, and not the one that was asked for."""
    thinking_tokens: int | None = None
    """The thinking budget that is sent instead of the one asked for; None: the one asked for."""
    policy: str = ""
    """Which policy allowed it; empty where there are none."""
    instead: bool = False
    """Whether the model is not the one that was named: the caller's default, asked for or in the place of another."""

    @property
    def guardrail(self) -> str:
        """The guardrail that is required; empty: none is."""
        return self.target.guard.name if self.target.guard is not None else ""


class Outcome(Struct):
    """What became of an attempt: filled in while it runs, read when it is settled and audited.

    `completeness` says how much of the usage is known; settlement depends on it: absent usage is never zero,
    and an explicit zero is never absent.
    """

    dispatched: bool = False
    dispatch_by: float = math.inf
    """On the monotonic clock: later than this nothing may be sent, because the hold may be gone."""
    status: int = 0
    usage: Usage = Usage()
    pieces: int = 0
    """Pieces of output that have streamed by; each is a token or more."""
    completeness: Completeness = "none"
    refused_upstream: bool = False
    """The provider answered with an error before generating: nothing was billed."""
    client_left: Callable[[], None] | None = None
    """Called when the client is gone, though the answer may still be read to its end; perhaps more than once."""
    note: str = "ok"
    """ok, client_gone, upstream_error, timeout, shutdown, ..."""
    cost: int = 0
    """Micro-USD."""
    estimated: bool = False


_NAMED = re.compile(r"(?P<upstream>[a-z][a-z0-9-]{0,31})/(?P<id>.+)")


def split_title(title: str) -> tuple[str, str]:
    """The upstream and the id in a target's title; an ARN has a slash, too, and no upstream."""
    named = _NAMED.fullmatch(title)
    return (named["upstream"], named["id"]) if named is not None else ("", title)


def geography_of(title: str, direct: Collection[str] = ()) -> Geography:
    """By what a target is priced. `direct` are the upstreams that speak the Anthropic format themselves.

    Global profiles have the list price; all else, and any ARN, the regional one (never cheaper).
    """
    upstream, invoke_id = split_title(title)
    if upstream in direct:
        return "direct"
    return "global" if invoke_id.startswith("global.") else "regional"
