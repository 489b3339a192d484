"""The configuration: one TOML file, validated whole before anything starts.

Every key is here, with what it means and when it is needed. Nothing here configures anything: it checks and freezes.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from llmgw_gateway.call import UNGUARDED, split_title
from llmgw_gateway.sections import faults, names, reading
from llmgw_gateway.sections.administering import Administration, RoleRule
from llmgw_gateway.sections.budgeting import Budget  # noqa: TC001 -- msgspec reads the annotations
from llmgw_gateway.sections.defaulting import Default  # noqa: TC001 -- msgspec reads the annotations
from llmgw_gateway.sections.exchanging import Issuer, Tokens  # noqa: TC001 -- msgspec reads the annotations
from llmgw_gateway.sections.guarding import Guardrail  # noqa: TC001 -- msgspec reads the annotations
from llmgw_gateway.sections.limiting import Limit, Valkey
from llmgw_gateway.sections.organizing import Organisation, Project, Team
from llmgw_gateway.sections.permitting import Permission  # noqa: TC001 -- msgspec reads the annotations
from llmgw_gateway.sections.reading import Section
from llmgw_gateway.sections.serving import Server  # noqa: TC001 -- msgspec reads the annotations
from llmgw_gateway.sections.storing import Audit, Prices, Retention, Store
from llmgw_gateway.sections.upstream import Anthropic, Bedrock, Fallbacks, Model, Region, Streams
from llmgw_wire.secret import Secret


class Settings(Section, frozen=True, kw_only=True):
    """Everything the gateway is told, checked and frozen."""

    server: Server
    store: Store
    audit: Audit
    tokens: Tokens
    issuers: Annotated[tuple[Issuer, ...], Meta(min_length=1)]
    bedrock: Bedrock = Bedrock()
    models: Annotated[tuple[Model, ...], Meta(min_length=1)]
    budgets: tuple[Budget, ...] = ()
    teams: tuple[Team, ...] = ()
    projects: tuple[Project, ...] = ()
    limits: tuple[Limit, ...] = ()
    policies: tuple[Permission, ...] = ()
    guardrails: tuple[Guardrail, ...] = ()
    defaults: tuple[Default, ...] = ()
    administration: Administration = Administration()
    roles: tuple[RoleRule, ...] = ()
    regions: tuple[Region, ...] = ()
    anthropic: tuple[Anthropic, ...] = ()
    fallbacks: Fallbacks = Fallbacks()
    streams: Streams = Streams()
    valkey: Valkey = Valkey()
    organisation: Organisation = Organisation()
    prices: Prices = Prices()
    retention: Retention = Retention()
    base: str = "."
    """The folder of the file: relative paths start here."""

    def faults(self, _base: Path) -> list[str]:
        """Budgets and limits that would silently never apply, or would let through more than they say."""
        teams, projects, models = ({each.name for each in named} for named in (self.teams, self.projects, self.models))
        found = []
        known = {"team": teams, "project": projects}
        tables: dict[str, tuple[Budget | Limit, ...]] = {"budgets": self.budgets, "limits": self.limits}
        for name, rules in tables.items():
            for number, rule in enumerate(rules):
                found += names.rule_faults(f"{name}[{number}]", rule, known, models)
        if not self.store.journal and any(budget.allowance for budget in self.budgets):
            found.append("store.journal: is needed because a budget has an allowance: a file on a persistent volume")
        upstreams = {"bedrock"} | {each.name for each in self.regions} | self.direct
        for number, entry in enumerate(self.policies):
            found += names.permission_faults(f"policies[{number}]", entry, teams, models, upstreams)
        found += self._guardrail_faults()
        for number, default in enumerate(self.defaults):
            found += names.default_faults(f"defaults[{number}]", default, teams, models)
        for number, role in enumerate(self.roles):
            found += names.role_faults(f"roles[{number}]", role, teams, {each.issuer for each in self.issuers})
        for number, project in enumerate(self.projects):
            found += [f"projects[{number}].teams: there is no team {t!r}" for t in project.teams if t not in teams]
        if self._administers_in_clear():
            found.append(
                "administration.listen: would take credentials in clear from other machines: give [server] a "
                "certificate_file, or the networks of the proxies in front as trusted_proxies"
            )
        found += self._upstream_faults()
        if self.limits and not self.store.path:
            found += [f"valkey.{fault}" for fault in self.valkey.sharing_faults()]
        return found

    def _administers_in_clear(self) -> bool:
        """Whether administrators' tokens could be read on their way, and no proxy is said to be in front."""
        listen, server = self.administration.listen, self.server
        if not listen or self.administration.faults(Path()) or server.certificate_file or server.trusted_proxies:
            return False
        return not faults.is_loopback(faults.listen_address(listen)[0])

    def _guardrail_faults(self) -> list[str]:
        """Guardrails that nobody has, or that are said of an upstream which has none."""
        names, places = {each.name for each in self.guardrails}, {"bedrock"} | {each.name for each in self.regions}
        wanted = [(f"policies[{number}].guardrail", entry.guardrail) for number, entry in enumerate(self.policies)]
        wanted.append(("organisation.guardrail", self.organisation.guardrail))
        return [
            f"{key}: there is no guardrail {name!r}" for key, name in wanted if name not in {"", UNGUARDED} | names
        ] + [
            f"guardrails[{number}].upstream: {each.upstream!r} is neither bedrock nor one of [[regions]]"
            for number, each in enumerate(self.guardrails)
            if each.upstream not in places
        ]

    def _upstream_faults(self) -> list[str]:
        """Two upstreams of one name, targets at one that is not there."""
        names = [*(each.name for each in self.regions), *(each.name for each in self.anthropic)]
        found = [f"anthropic: {each.name!r} is a region, too" for each in self.anthropic if names.count(each.name) > 1]
        for number, model in enumerate(self.models):
            if not self.bedrock.region and not all(split_title(each)[0] for each in (model.target, *model.fallbacks)):
                found.append(
                    f"bedrock.region: is needed, because models[{number}] ({model.name}) is asked there: name the "
                    "region, or give the model targets of [[regions]] or [[anthropic]] only"
                )
            for key, target in (("target", model.target), *(("fallbacks", each) for each in model.fallbacks)):
                upstream, _ = split_title(target)
                if upstream and upstream not in names:
                    found.append(
                        f"models[{number}].{key}: {target!r} names no upstream of [[regions]] or [[anthropic]]"
                    )
        return found

    @property
    def deciding(self) -> tuple[Permission | Default, ...]:
        """All that is decided by groups and teams."""
        return (*self.policies, *self.defaults)

    @property
    def direct(self) -> frozenset[str]:
        """The upstreams with Anthropic's own prices."""
        return frozenset(each.name for each in self.anthropic)

    @property
    def names_people(self) -> bool:
        """Whether somebody is a member of a team, or has a policy, budget or limit of their own, by e-mail."""
        rules: tuple[Budget | Limit, ...] = (*self.budgets, *self.limits)
        members = [*(team.members for team in self.teams), *(entry.members for entry in self.deciding)]
        return any(members) or any(each.level == "user" and each.of for each in rules)

    def path(self, name: str) -> Path:
        """A path of the configuration, made absolute."""
        return Path(self.base).joinpath(name).resolve()

    def store_url(self) -> Secret:
        """Where the PostgreSQL server is, and how to get in; empty when the store is a file."""
        if self.store.url_file:
            return Secret(self.path(self.store.url_file).read_text(encoding="utf-8").strip())
        return Secret(self.store.url)

    def cluster_secrets(self) -> tuple[bytes, ...]:
        """Read what authenticates the key ring: first the secret that is used, then the other that is good, too.

        OSError and ValueError when they are not as `load` has found them.
        """
        secrets = [self.path(self.tokens.cluster_secret_file).read_bytes().strip()]
        if self.tokens.other_cluster_secret_file:
            with contextlib.suppress(FileNotFoundError):
                secrets.append(self.path(self.tokens.other_cluster_secret_file).read_bytes().strip())
        if any(len(each) < faults.MIN_SECRET_BYTES for each in secrets):
            raise ValueError(f"it has less than {faults.MIN_SECRET_BYTES} bytes")
        return tuple(secrets)

    def audit_secrets(self) -> list[bytes]:
        """What the audit trail is sealed with, and what it may have been sealed with before. Errors as above."""
        own = [self.path(self.audit.key_file).read_bytes().strip()] if self.audit.key_file else self.cluster_secrets()
        return [*own, *(self.path(each).read_bytes().strip() for each in self.audit.former_key_files)]


def load(path: Path) -> Settings:
    """Read and check the file. ConfigurationError carries every fault."""
    return reading.load(Settings, path)
