"""The sections `[[limits]]` and `[valkey]` of the configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from msgspec import Meta

from llmgw_gateway.sections import faults
from llmgw_gateway.sections.reading import Section
from llmgw_wire.secret import Secret

if TYPE_CHECKING:
    from pathlib import Path

Rate = Annotated[int, Meta(ge=1, le=10**9)]


class Limit(Section, frozen=True, kw_only=True):
    """Limits on rates and on how many calls run at once. Every limit that concerns a call must admit it.

    Who is meant, and which of several counts, is said as for budgets.
    """

    level: Literal["organisation", "team", "project", "user", "key", "provider"]
    """provider: the quota of the cloud account for one model, which all share."""
    requests_per_minute: Rate | None = None
    tokens_per_minute: Rate | None = None
    """Counted as the provider counts its quota: input and cache writes once, output by the model's burn-down."""
    concurrent: Annotated[int, Meta(ge=1, le=100_000)] | None = None
    """Calls that run at the same time."""
    of: str = ""
    """Which team, project, person (by e-mail) or key; empty: each of them has one of their own."""
    team: str = ""
    """Level user only: for the members of this team."""
    model: str = ""
    """Only calls of this model count; empty: all do."""
    hold: Literal["expected", "max_tokens", ""] = ""
    """Tokens taken when a call begins: what is expected of it, or its whole prompt and max_tokens as Bedrock does.
    Empty: max_tokens for level provider, expected otherwise."""
    when_unavailable: Literal["local", "refuse"] = "local"
    """While Valkey is away: each replica keeps its share of the limit, or calls are refused with 503."""

    @property
    def identity(self) -> str:
        """No two limits may be for the same calls."""
        return f"{self.level}/{self.of}/{self.team}/{self.model}"

    def faults(self, _base: Path) -> list[str]:
        """A table that limits nothing, a combination that means nothing."""
        found = []
        if self.requests_per_minute is None and self.tokens_per_minute is None and self.concurrent is None:
            found.append("requests_per_minute: give at least one of requests_per_minute, tokens_per_minute, concurrent")
        if self.hold and self.tokens_per_minute is None:
            found.append("hold: goes with tokens_per_minute")
        if self.level == "provider" and not self.model:
            found.append("model: is needed with level provider: the account has a quota for each model")
        if self.of and self.level in {"organisation", "provider"}:
            found.append(f"of: there is one {self.level} only")
        if self.team and (self.level != "user" or self.of):
            found.append('team: goes with level = "user" and without `of`')
        return found


class Valkey(Section, frozen=True, kw_only=True):
    """The server on which several replicas keep their rates and concurrency slots together. None: each has its own."""

    url: str = ""
    """rediss://user@host:6380/0, without a password."""
    url_file: str = ""
    """A file that holds such a URL with its password, open to its owner only."""
    ca_file: str = ""
    """An extra certificate authority for this server only."""
    unencrypted: bool = False
    """Whether the connection to another machine may be in clear, because the network between encrypts."""
    prefix: Annotated[str, Meta(pattern="^[a-z0-9_-]{1,40}$")] = "llmgw"
    """Keys begin with it in braces: another one for each organisation that shares a server."""
    timeout_ms: Annotated[int, Meta(ge=10, le=2_000)] = 100
    """The longest that a call waits for the server."""
    alone: bool = False
    """Whether limits may be kept without a server although the store could be shared: there is one gateway only."""

    def faults(self, base: Path) -> list[str]:
        """Two addresses, one that is none or that would talk in clear, a file that is not there."""
        found = faults.path_faults("ca_file", base / self.ca_file) if self.ca_file else []
        if self.url and self.url_file:
            return [*found, "url: goes without url_file"]
        if self.alone and (self.url or self.url_file):
            found.append("alone: goes without url and url_file")
        if self.url:
            return found + faults.valkey_faults("url", Secret(self.url), password=False, unencrypted=self.unencrypted)
        if self.url_file:
            text, missing = faults.secret_file("url_file", base / self.url_file, "a rediss:// URL")
            url = Secret((text or b"").decode(errors="replace"))
            return found + (
                missing or faults.valkey_faults("url_file", url, password=True, unencrypted=self.unencrypted)
            )
        return found

    def sharing_faults(self) -> list[str]:
        """Limits in the memory of each of several gateways."""
        if self.url or self.url_file or self.alone:
            return []
        why = "each gateway on it would let the whole of every limit through"
        return [f"url: is needed for limits with a PostgreSQL store: {why}. If there is one only, say alone = true"]

    def address(self, base: Path) -> Secret:
        """Where the server is, and how to get in; empty without one. Relative paths start at `base`."""
        if self.url_file:
            return Secret((base / self.url_file).read_text(encoding="utf-8").strip())
        return Secret(self.url)
