"""`oidc-provider` (npm): a certified OpenID provider, for everything that canaille does not offer.

Public native client, PKCE, device flow, rotation, revocation, JWT access tokens (RFC 9068) for the gateway's own API,
fresh ID tokens on refresh. Mounted at `/<tenant>/v2.0` over TLS it looks enough like Entra ID for MSAL's code path.
"""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

from tests.lab import certificates, node
from tests.lab.environment import clean_environment
from tests.lab.loopback import HOST, answers, free_port
from tests.lab.person import Person
from tests.lab.process import Program
from tests.lab.server import Server

if TYPE_CHECKING:
    from pathlib import Path

CLIENT_ID = "llmgw-agent"
ID_TOKEN, ACCESS_TOKEN = "id_token", "access_token"
RESOURCE = "api://llmgw"
RESOURCE_SCOPE = "llm.invoke"
TENANT = "7b0f9f3e-1c52-4c1c-9d3c-0f5a4f1f6a11"

ACCOUNTS: dict[str, dict[str, Any]] = {
    "ada": {
        "name": "Ada Lovelace",
        "email": "ada@example.com",
        "email_verified": True,
        "preferred_username": "ada@example.com",
        "oid": "00000000-0000-4000-8000-0000000000ad",
        "tid": TENANT,
        "groups": ["engineering", "analysts"],
    },
    "grace": {
        "name": "Grace Hopper",
        "email": "grace@example.com",
        "email_verified": True,
        "preferred_username": "grace@example.com",
        "oid": "00000000-0000-4000-8000-0000000000a2",
        "tid": TENANT,
        "groups": ["engineering"],
    },
}


def signing_key(kid: str | None = None) -> dict[str, Any]:
    """A fresh private RSA key as a JSON Web Key."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    jwk: dict[str, Any] = RSAAlgorithm.to_jwk(key, as_dict=True)
    return jwk | {"kid": kid or secrets.token_hex(8), "use": "sig", "alg": "RS256"}


@dataclass
class OidcProvider(Server):
    """One provider. Restart it with other `keys` to rotate them: the address stays."""

    folder: Path
    mount: str = ""
    """Where it is mounted, such as `/<tenant>/v2.0`; empty: at the root."""
    tls: bool = False
    kind: Literal["oidc", "entra"] = "oidc"
    keys: list[dict[str, Any]] = field(default_factory=lambda: [signing_key()])
    accounts: dict[str, dict[str, Any]] = field(default_factory=lambda: dict(ACCOUNTS))
    token_seconds: int = 3600
    resource: str = RESOURCE
    client_secret: str = ""
    """Of the public client, which has to send it; empty: it has none."""

    def __post_init__(self) -> None:
        self.port = free_port()
        # MSAL takes only the name for its redirect, and a certificate wants one: `localhost` with TLS.
        self.origin = f"https://localhost:{self.port}" if self.tls else f"http://{HOST}:{self.port}"
        self.issuer = self.origin + self.mount
        self.certificate = certificates.issue(self.folder / "tls") if self.tls else None
        program: list[str | Path] = ["node", node.CACHE / "oidc_provider.mjs"]
        self.program = Program("oidc-provider", program, env=clean_environment(self.folder), folder=self.folder)

    @classmethod
    def like_entra(cls, folder: Path, **more: Any) -> OidcProvider:
        """Mounted and certified so that MSAL with `authority=<origin>/<tenant>` runs its Entra code path."""
        return cls(folder, mount=f"/{TENANT}/v2.0", tls=True, kind="entra", **more)

    @property
    def ca_file(self) -> Path | None:
        return self.certificate.ca if self.certificate else None

    def person(self, user_name: str = "ada", *, unreachable: str = "") -> Person:
        """A fresh browser of that user. The provider's development forms take any password."""
        return Person(user_name, secrets.token_urlsafe(8), ca_file=self.ca_file, unreachable=unreachable)

    def issuer_section(self, *, subject: str = "") -> dict[str, Any]:
        """The `[[issuers]]` table of a gateway that accepts sign-ins from here.

        `subject` is the token that it wants to see: by default the ID token, of Entra ID the access token for our API.
        """
        subject = subject or (ACCESS_TOKEN if self.kind == "entra" else ID_TOKEN)
        section = {
            "issuer": self.issuer,
            "client_id": CLIENT_ID,
            "kind": self.kind,
            "audience": CLIENT_ID if subject == ID_TOKEN else self.resource,
            "subject_token": subject,
            "scopes": ["openid", "profile", "email", "groups", "offline_access"],
            "algorithms": ["RS256"],
        }
        if self.kind == "entra":
            section |= {"scopes": [RESOURCE_SCOPE], "redirect_host": "localhost", "response_mode": "form_post"}
        return section | ({"ca_file": str(self.ca_file)} if self.ca_file else {})

    def prepare(self) -> None:
        """With the present `keys` and `accounts`; what it had in memory is gone."""
        node.modules()
        tls = self.certificate
        lab = {
            "issuer": self.issuer,
            "mount": self.mount,
            "port": self.port,
            "jwks": {"keys": self.keys},
            "cookieKey": secrets.token_hex(16),
            "clientId": CLIENT_ID,
            "clientSecret": self.client_secret,
            "algorithm": "RS256",
            "accounts": self.accounts,
            "tokenSeconds": self.token_seconds,
            "resource": self.resource,
            "resourceScope": RESOURCE_SCOPE,
            "tls": {"cert": str(tls.certificate), "key": str(tls.key)} if tls else None,
        }
        self.program.env |= {"LAB_OIDC": json.dumps(lab), "NODE_NO_WARNINGS": "1"}

    def wait_ready(self) -> None:
        metadata = f"{self.issuer}/.well-known/openid-configuration"
        self.program.wait_until(lambda: answers(metadata, ca_file=self.ca_file), "serving its metadata")
