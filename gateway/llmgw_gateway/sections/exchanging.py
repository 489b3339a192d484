"""The sections `[tokens]` and `[[issuers]]` of the configuration: whose sign-ins are taken, and what for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
from msgspec import Meta

from llmgw_gateway.sections import faults
from llmgw_gateway.sections.reading import Section, Text
from llmgw_gateway.sections.requiring import required_faults
from llmgw_wire.versions import FORM

if TYPE_CHECKING:
    from pathlib import Path

MOST_LIFE_SECONDS = 3600
"""The longest life of a gateway token: who is revoked has to stay so for as long."""


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
    require_pop: bool = False
    """Only tokens that work with proofs of the device key. What runs a helper for its token gets none then."""

    def faults(self, base: Path) -> list[str]:
        """A secret that is missing, short, or open to others."""
        found = faults.secret_faults("cluster_secret_file", base / self.cluster_secret_file)
        other = base / self.other_cluster_secret_file
        if self.other_cluster_secret_file and other.exists():
            found += faults.secret_faults("other_cluster_secret_file", other)
        return found
