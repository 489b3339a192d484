"""The configuration: one TOML file, validated whole before anything starts.

Every key is here, with what it means and when it is needed. Nothing here configures anything: it checks and freezes.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
from msgspec import Meta

from llmgw_gateway.call import UNGUARDED, split_title
from llmgw_gateway.sections import faults, names, reading
from llmgw_gateway.sections.administering import Administration, RoleRule
from llmgw_gateway.sections.budgeting import Budget  # noqa: TC001 -- msgspec reads the annotations
from llmgw_gateway.sections.defaulting import Default  # noqa: TC001 -- msgspec reads the annotations
from llmgw_gateway.sections.guarding import Guardrail  # noqa: TC001 -- msgspec reads the annotations
from llmgw_gateway.sections.limiting import Limit, Valkey
from llmgw_gateway.sections.permitting import Permission  # noqa: TC001 -- msgspec reads the annotations
from llmgw_gateway.sections.reading import Section, Text
from llmgw_gateway.sections.requiring import required_faults
from llmgw_gateway.sections.serving import Server  # noqa: TC001 -- msgspec reads the annotations
from llmgw_gateway.sections.upstream import Anthropic, Bedrock, Fallbacks, Model, Region, Streams
from llmgw_wire.secret import Secret
from llmgw_wire.versions import FORM

MIN_SECRET_BYTES = 32
LEAST_LEDGER_DAYS = 40
MOST_LIFE_SECONDS = 3600
"""The longest life of a gateway token: who is revoked has to stay so for as long."""


def secret_faults(key: str, path: Path) -> list[str]:
    """A secret that is missing, short, or open to others."""
    secret, found = faults.secret_file(key, path, f"{MIN_SECRET_BYTES} random bytes")
    if secret is not None and len(secret) < MIN_SECRET_BYTES:
        found.append(f"{key}: holds {len(secret)} bytes, needs at least {MIN_SECRET_BYTES}")
    return found


class Organisation(Section, frozen=True, kw_only=True):
    """Who pays, and what a refused person is told."""

    name: Text = "the organisation"
    time_zone: Text = "UTC"
    """IANA name; budget periods begin at midnight here."""
    contact: str = ""
    """Where to ask for more budget or access; shown in refusals."""
    guardrail: str = ""
    """Under which of `[[guardrails]]` every call is made for which no policy says otherwise; empty: under none."""

    def faults(self, _base: Path) -> list[str]:
        """A time zone that nobody knows."""
        try:
            ZoneInfo(self.time_zone)
        except (ZoneInfoNotFoundError, ValueError):
            return [f"time_zone: unknown time zone {self.time_zone!r}"]
        return []


class Store(Section, frozen=True, kw_only=True):
    """Where everything durable is: one SQLite file, or a PostgreSQL server that several replicas share."""

    path: str = ""
    """The SQLite file, used by one process."""
    url: str = ""
    """postgresql://user@host/database?sslmode=verify-full, without a password (libpq finds it in PGPASSFILE)."""
    url_file: str = ""
    """A file that holds such a URL with its password, open to its owner only."""
    unencrypted: bool = False
    """Whether the connection to another machine may be in clear, because the network between encrypts."""
    journal: str = ""
    """The file for calls that are admitted on allowances while the store is away: one for each replica, on a volume
    that outlives the process. Needed when a budget has an allowance."""
    prepared_statements: bool = True
    """False behind a proxy that gives each transaction another connection and does not follow prepared statements."""

    def faults(self, base: Path) -> list[str]:
        """None or two stores, a folder that is not there, a URL that is none or that would talk in clear."""
        named = [name for name in ("path", "url", "url_file") if getattr(self, name)]
        if len(named) != 1:
            return [f"path: exactly one of path, url and url_file is needed, not {' and '.join(named) or 'none'}"]
        if self.journal and (found := faults.folder_faults(base, self.journal, "journal")):
            return found
        if self.path:
            return faults.folder_faults(base, self.path)
        if self.url:
            return faults.postgres_faults("url", Secret(self.url), password=False, unencrypted=self.unencrypted)
        text, found = faults.secret_file("url_file", base / self.url_file, "a postgresql:// URL")
        url = Secret((text or b"").decode(errors="replace"))
        return found or faults.postgres_faults("url_file", url, password=True, unencrypted=self.unencrypted)


class Audit(Section, frozen=True, kw_only=True):
    """The audit trail: JSON lines, metadata only, chained."""

    path: Text
    """The file that is written; full ones and those of past days are put beside it, with their day in their names."""
    key_file: str = ""
    """At least 32 bytes that the chain is sealed with; empty: `tokens.cluster_secret_file`."""
    former_key_files: tuple[Text, ...] = ()
    """Secrets that it was sealed with before: `audit verify` needs them for older files."""
    file_megabytes: Annotated[int, Meta(ge=1, le=65_536)] = 256
    """A file that has reached this size is followed by another."""
    most_waiting: Annotated[int, Meta(ge=1, le=1_000_000)] = 10_000
    """Requests that may be under way, or answered, without their lines on disk; at so many, new ones are refused."""

    def faults(self, base: Path) -> list[str]:
        """A folder that is not there; a secret that is missing, short, or open to others."""
        found = faults.folder_faults(base, self.path)
        named = [("key_file", self.key_file)] if self.key_file else []
        named += [(f"former_key_files[{number}]", name) for number, name in enumerate(self.former_key_files)]
        for key, name in named:
            found += secret_faults(key, base / name)
        return found


class Retention(Section, frozen=True, kw_only=True):
    """How long what is over is kept, in days; 0: for good."""

    ledger_days: Annotated[int, Meta(ge=0, le=36_500)] = 0
    """Single attempts; then their sums for each day, person, team, project and model."""
    audit_days: Annotated[int, Meta(ge=0, le=36_500)] = 0
    """Files of the audit trail, from their day on."""
    changes_days: Annotated[int, Meta(ge=0, le=36_500)] = 0
    """Administrators' changes."""
    people_days: Annotated[int, Meta(ge=0, le=36_500)] = 0
    """Names of people, from their last sign-in on: then they are erased, unless a directory has them."""

    def faults(self, _base: Path) -> list[str]:
        """A ledger that would be cut while budgets and reports of the month still need it."""
        if 0 < self.ledger_days < LEAST_LEDGER_DAYS:
            return [f"ledger_days: at least {LEAST_LEDGER_DAYS} (a month and what is still settled), or 0"]
        return []


class Tokens(Section, frozen=True, kw_only=True):
    """Gateway tokens."""

    cluster_secret_file: Text
    """At least 32 bytes; authenticates the replicas' public keys in the store. Read again every two seconds."""
    other_cluster_secret_file: str = ""
    """A second secret that is good, too, while the first is being replaced. The file need not be there."""
    audience: Text = "llmgw"
    life_seconds: Annotated[int, Meta(ge=2, le=MOST_LIFE_SECONDS)] = 600
    enrol_seconds: Annotated[int, Meta(ge=60, le=86_400)] = 900
    """The oldest `auth_time` with which a new device is enrolled, where the provider gives one."""
    minimum_agent_version: Annotated[str, Meta(pattern=f"^{FORM.pattern}$")] = "0"
    """Older agents, and whatever does not say its version, get no token. 0: everybody does."""

    def faults(self, base: Path) -> list[str]:
        """A secret that is missing, short, or open to others."""
        found = secret_faults("cluster_secret_file", base / self.cluster_secret_file)
        other = base / self.other_cluster_secret_file
        if self.other_cluster_secret_file and other.exists():
            found += secret_faults("other_cluster_secret_file", other)
        return found


class Issuer(Section, frozen=True, kw_only=True):
    """One identity provider whose sign-ins are accepted."""

    issuer: Text
    """Compared with `iss` exactly, to the last slash."""
    client_id: Text
    kind: Literal["oidc", "entra", "workload"] = "oidc"
    """`workload`: CI jobs and other machines, which have no e-mail address and do not sign in."""
    audience: str = ""
    """The expected `aud` of the subject token; empty: the client id (ID tokens only)."""
    subject_token: Literal["id_token", "access_token"] = "id_token"  # noqa: S105 -- a kind of token
    scopes: tuple[Text, ...] = ("openid", "profile", "email", "offline_access")
    algorithms: tuple[Literal["RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "EdDSA"], ...] = (
        "RS256",
        "ES256",
    )
    redirect_host: Literal["127.0.0.1", "localhost"] = "127.0.0.1"
    response_mode: Literal["query", "form_post"] = "query"
    freshness_seconds: Annotated[int, Meta(ge=30, le=86_400)] = 300
    """The oldest `iat` at which a sign-in may be exchanged: bounds how long a removal at the provider takes."""
    resource: str = ""
    """The API that access tokens are asked for (RFC 8707), where a provider wants to be told; empty: not sent."""
    published_client_secret: str = ""
    """Told to everybody who asks the gateway how to sign in: Google's desktop clients have one that is no secret."""
    ca_file: str = ""
    """An extra certificate authority for this provider only."""
    email_claim: Literal["verified_email", "email", "preferred_username"] = "verified_email"
    """What names a person to teams, budgets and limits: `email` where the provider says that it was verified; or a
    claim that people cannot change themselves at this provider, although it does not say so."""
    email_domains: tuple[Text, ...] = ()
    """Only people with an address (by `email_claim`) in one of these."""
    groups_claim: Text = "groups"
    required: dict[str, tuple[Text, ...]] = msgspec.field(default_factory=dict)
    """Claims, and what they may say; every claim that is named must say one of its values."""

    @property
    def wants_id_token(self) -> bool:
        """Which of the provider's tokens is exchanged: the ID token, or the access token."""
        return self.subject_token == "id_token"  # noqa: S105 -- a kind of token

    @property
    def expected_audience(self) -> str:
        """The only acceptable `aud`."""
        return self.audience or self.client_id

    @property
    def identity(self) -> str:
        """No two issuers may be the same."""
        return self.issuer

    def faults(self, base: Path) -> list[str]:
        """An address that is not safe, an audience that is left open, a certificate file that is none."""
        found = faults.url_faults("issuer", self.issuer)
        if not self.audience and not self.wants_id_token:
            found.append('audience: subject_token = "access_token" needs it: what `aud` says in tokens for your API')
        found += required_faults(self.issuer, self.kind, self.required)
        if self.kind == "workload" and (self.email_domains or not self.wants_id_token):
            found.append('kind: "workload" goes with neither email_domains nor subject_token = "access_token"')
        if self.ca_file:
            found += faults.certificate_faults("ca_file", base / self.ca_file)
        return found


class Prices(Section, frozen=True, kw_only=True):
    """Prices of your own, beside and above the catalogue that ships."""

    file: str = ""
    """Rows in the catalogue's format (docs/money.md); empty: the catalogue as it ships."""

    def faults(self, base: Path) -> list[str]:
        """A file that is not there."""
        if self.file and not (base / self.file).is_file():
            return [f"file: no such file: {base / self.file}"]
        return []


class Team(Section, frozen=True, kw_only=True):
    """People who share a budget: whoever is in one of the provider's groups, or is named."""

    name: Text
    groups: tuple[Text, ...] = ()
    """Values of the sign-in's `groups` claim, compared exactly. Unknown groups (an overage) make nobody a member."""
    members: tuple[Text, ...] = ()
    """E-mail addresses as the provider gives them, for people without a group."""

    @property
    def identity(self) -> str:
        """No two teams may have the same name."""
        return self.name


class Project(Section, frozen=True, kw_only=True):
    """What a call can be charged to besides its person: named by the request header `x-llmgw-project`."""

    name: Text
    teams: tuple[Text, ...] = ()
    """Teams whose members may charge it; empty: everyone."""

    @property
    def identity(self) -> str:
        """No two projects may have the same name."""
        return self.name


class Settings(Section, frozen=True, kw_only=True):
    """Everything the gateway is told, checked and frozen."""

    server: Server
    store: Store
    audit: Audit
    tokens: Tokens
    issuers: Annotated[tuple[Issuer, ...], Meta(min_length=1)]
    bedrock: Bedrock
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
        if any(len(each) < MIN_SECRET_BYTES for each in secrets):
            raise ValueError(f"it has less than {MIN_SECRET_BYTES} bytes")
        return tuple(secrets)

    def audit_secrets(self) -> list[bytes]:
        """What the audit trail is sealed with, and what it may have been sealed with before. Errors as above."""
        own = [self.path(self.audit.key_file).read_bytes().strip()] if self.audit.key_file else self.cluster_secrets()
        return [*own, *(self.path(each).read_bytes().strip() for each in self.audit.former_key_files)]


def load(path: Path) -> Settings:
    """Read and check the file. ConfigurationError carries every fault."""
    return reading.load(Settings, path)
