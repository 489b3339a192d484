"""`canaille`: a real identity server (passwords, forms with CSRF protection, consent, PKCE, rotation), for the demo.

Found out about 0.3.6, and what follows for a gateway's configuration:

* A refresh grant returns no ID token (OpenID Connect Core 12.2 allows that), but a new access token: a signed JWT with
  a fresh `iat` and the client's audience. So the subject token of the exchange is the *access token* here.
* It signs with RS512 unless the client asks for an algorithm; its metadata also lists `none`. The client asks for
  RS256.
* It compares redirect URIs to the letter; `canaille_server.py` brings in the rule for native apps.
* Its revocation endpoint accepts confidential clients only: a public client's logout is answered with 401.
"""

from __future__ import annotations

import json
import secrets
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.lab.environment import clean_environment
from tests.lab.loopback import HOST, answers, free_port
from tests.lab.person import Person
from tests.lab.process import Program
from tests.lab.server import Server

CLIENT_ID = "llmgw-agent"
SCOPES = ("openid", "profile", "email", "groups", "offline_access")
TOKEN_SECONDS = 300


@dataclass(frozen=True)
class Account:
    """Someone who can sign in. The password is made per run."""

    user_name: str
    given_name: str
    family_name: str
    groups: tuple[str, ...]
    password: str

    @property
    def email(self) -> str:
        return f"{self.user_name}@example.com"

    @property
    def name(self) -> str:
        return f"{self.given_name} {self.family_name}"


class Canaille(Server):
    """The server, its accounts and its client. `path` is where the agent's loopback listener takes the answer."""

    def __init__(self, folder: Path, *, callback_path: str = "/callback") -> None:
        self.issuer = f"http://{HOST}:{free_port()}"
        self.accounts = {
            "ada": Account("ada", "Ada", "Lovelace", ("engineering", "analysts"), secrets.token_urlsafe(12)),
            "grace": Account("grace", "Grace", "Hopper", ("engineering",), secrets.token_urlsafe(12)),
        }
        self._config = folder / "canaille.json"
        self._callback_path = callback_path
        script = Path(__file__).with_name("canaille_server.py")
        env = clean_environment(folder)
        # -P: this folder holds a canaille.py, which must not stand in for the package.
        self.program = Program("canaille", [sys.executable, "-P", script, self._config], env=env, folder=folder)

    @property
    def ca_file(self) -> Path | None:
        """None: it speaks plain http, on loopback only."""
        return None

    def person(self, user_name: str = "ada") -> Person:
        """A fresh browser of that user."""
        return Person(user_name, self.accounts[user_name].password)

    def issuer_section(self) -> dict[str, Any]:
        """The `[[issuers]]` table of a gateway that accepts sign-ins from here."""
        return {
            "issuer": self.issuer,
            "client_id": CLIENT_ID,
            "kind": "oidc",
            "audience": CLIENT_ID,
            "subject_token": "access_token",
            "scopes": list(SCOPES),
            "algorithms": ["RS256"],
            "email_claim": "email",  # written by its administrators; it does not say whether it was verified
        }

    def prepare(self) -> None:
        self._config.parent.mkdir(parents=True, exist_ok=True)
        self._config.touch(mode=0o600)
        self._config.write_text(json.dumps(self._document()), encoding="utf-8")

    def wait_ready(self) -> None:
        metadata = f"{self.issuer}/.well-known/openid-configuration"
        self.program.wait_until(lambda: answers(metadata), "serving its metadata")

    def _document(self) -> dict[str, Any]:
        address = self.issuer.removeprefix("http://")
        groups = sorted({group for account in self.accounts.values() for group in account.groups})
        settings = {
            "SECRET_KEY": secrets.token_urlsafe(32),
            "SERVER_NAME": address,
            "PREFERRED_URL_SCHEME": "http",
            # Plain http is right on loopback only, and that is all this server binds.
            "SESSION_COOKIE_SECURE": False,
            "OAUTH2_TOKEN_EXPIRES_IN": {"authorization_code": TOKEN_SECONDS, "refresh_token": TOKEN_SECONDS},
            "CANAILLE": {"DATABASE": "memory", "NAME": "Example", "JAVASCRIPT": False, "HTMX": False},
            # No trusted domains: the consent page is part of what the demo shows.
            "CANAILLE_OIDC": {"TRUSTED_DOMAINS": []},
        }
        client = {
            "client_id": CLIENT_ID,
            "client_name": "llmgw",
            "client_uri": "https://example.com/llmgw",
            "application_type": "native",
            "token_endpoint_auth_method": "none",
            "grant_types": ["authorization_code", "refresh_token"],
            "response_types": ["code"],
            "redirect_uris": [f"http://{HOST}{self._callback_path}", f"http://localhost{self._callback_path}"],
            "id_token_signed_response_alg": "RS256",
            "scope": list(SCOPES),
        }
        people = [
            {
                "user_name": account.user_name,
                "given_name": account.given_name,
                "family_name": account.family_name,
                "email": account.email,
                "password": account.password,
            }
            for account in self.accounts.values()
        ]
        members = {group: [a.user_name for a in self.accounts.values() if group in a.groups] for group in groups}
        return {"bind": address, "settings": settings, "people": people, "groups": members, "client": client}
