"""Hands a changed configuration to every part of a running gateway that follows one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmgw_gateway.bootstrap import bootstrap
from llmgw_gateway.identity.jwks import Jwks
from llmgw_gateway.offer import policy
from llmgw_gateway.policy.accounts import Accounts
from llmgw_gateway.streams.limits import Limits

if TYPE_CHECKING:
    from collections.abc import Callable

    import aiohttp

    from llmgw_gateway.admin.edge import AdminEdge
    from llmgw_gateway.edge import Edge
    from llmgw_gateway.identity.exchange import Exchange
    from llmgw_gateway.identity.signin import SignInVerifier
    from llmgw_gateway.money.prices import Catalogue
    from llmgw_gateway.observe.audit import Audit
    from llmgw_gateway.pipeline import Pipeline
    from llmgw_gateway.retention import Retention
    from llmgw_gateway.sections.exchanging import Issuer
    from llmgw_gateway.settings import Settings


@dataclass(frozen=True)
class Following:
    """The parts of one process. Which keys of the configuration they follow is in `reloading.RESTART`."""

    pipeline: Pipeline
    verifier: SignInVerifier
    exchange: Exchange
    edge: Edge
    admin: AdminEdge
    retention: Retention
    audit: Audit
    http: aiohttp.ClientSession
    keep: Callable[[Settings], None]
    """For whatever looks at the configuration when it needs it."""

    def __call__(self, settings: Settings, catalogue: Catalogue) -> None:
        """Take another configuration into use between two requests; ConfigurationError leaves all as it was."""
        authorizing = policy(settings, catalogue)
        issuers = issuers_of(settings, self.http, self.verifier)
        # From here on nothing fails.
        pipeline = self.pipeline
        pipeline.policy = authorizing
        pipeline.directory.follow(Accounts(settings.teams, settings.projects, settings.deciding))
        pipeline.money.follow(settings, catalogue)
        pipeline.rates.follow(settings, catalogue)
        pipeline.relay.follow(Limits.of(settings.bedrock, settings.streams))
        pipeline.health.follow(settings.fallbacks.rest_seconds, settings.fallbacks.most_rest_seconds)
        self.verifier.follow(issuers, names_people=settings.names_people)
        self.exchange.follow(settings.tokens)
        self.edge.follow(bootstrap(settings), settings.server.body_seconds)
        self.admin.settings = settings
        self.retention.follow(settings)
        own = settings.audit
        self.audit.follow(most_waiting=own.most_waiting, most_bytes=own.file_megabytes << 20)
        self.keep(settings)


def issuers_of(
    settings: Settings, http: aiohttp.ClientSession, known: SignInVerifier | None = None
) -> dict[str, tuple[Issuer, Jwks]]:
    """Every issuer with its keys; those that `known` has fetched are kept."""
    found: dict[str, tuple[Issuer, Jwks]] = {}
    for each in settings.issuers:
        ca_file = settings.path(each.ca_file) if each.ca_file else None
        keys = known.jwks_of(each) if known is not None else None
        found[each.issuer] = each, keys or Jwks(each.issuer, http, ca_file)
    return found
