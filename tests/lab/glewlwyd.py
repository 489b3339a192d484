"""`glewlwyd`: an OpenID provider in C, from Debian: a third implementation beside canaille and oidc-provider.

Found out about 2.7.5, and what follows for a gateway's configuration:

* It returns no ID token on refresh, but a new access token (RFC 9068); its audience is the resource that was asked for
  (RFC 8707), which has to be a URL, or else the list of scopes.
* Claims in access tokens are texts: several groups are one text with commas, and no list. ID tokens have a list.
* `token_type` is `bearer`, addresses in its metadata have `//` in them, and the methods by which clients authenticate
  do not name `none`, although public clients are served.
* `auth_time` in its ID tokens is 0 when they are asked for without the browser's cookie: for native apps always.
* It compares redirect URIs to the letter, ports included. `Glewlwyd.register` brings in the rule for native apps.
* A refresh token that is used twice ends what was given for it.
"""

from __future__ import annotations

import json
import secrets
import shutil
import sqlite3
import urllib.request
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.lab.environment import clean_environment
from tests.lab.loopback import HOST, answers, free_port, opener
from tests.lab.oidc_provider import ACCESS_TOKEN, signing_key
from tests.lab.person import Page, Person
from tests.lab.process import Program
from tests.lab.server import Server

CLIENT_ID = "llmgw-agent"
RESOURCE = "https://llmgw.example"
SCOPES = ("openid", "profile", "email", "groups", "offline_access")
PEOPLE: dict[str, dict[str, Any]] = {
    "ada": {"name": "Ada Lovelace", "groups": ["engineering", "analysts"]},
    "grace": {"name": "Grace Hopper", "groups": ["engineering"]},
}
SCHEMA = Path("/usr/share/dbconfig-common/data/glewlwyd/install/sqlite3")
MODULES = Path("/usr/lib/glewlwyd")
NEEDS = "needs Debian's glewlwyd"


def available() -> bool:
    return bool(shutil.which("glewlwyd")) and SCHEMA.is_file()


class Glewlwyd(Server):
    """The server with its own file of accounts. It is set up by its administrator's API, as its manual says."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.origin = f"http://{HOST}:{self.port}"
        self.issuer = f"{self.origin}/api/oidc"
        self.passwords = {name: secrets.token_urlsafe(12) for name in PEOPLE}
        self._redirects: list[str] = []
        self._config = folder / "glewlwyd.conf"
        self._administrator = _Session(self.origin, opener(urllib.request.HTTPCookieProcessor()))
        argv = ["glewlwyd", f"--config-file={self._config}"]
        self.program = Program("glewlwyd", argv, env=clean_environment(folder), folder=folder)

    @property
    def ca_file(self) -> Path | None:
        """None: it speaks plain http, on loopback only."""
        return None

    def person(self, user_name: str = "ada") -> Person:
        """A fresh browser of that user."""
        return _Visitor(self, user_name, self.passwords[user_name])

    def issuer_section(self, subject: str = ACCESS_TOKEN) -> dict[str, Any]:
        """The `[[issuers]]` table of a gateway that accepts sign-ins from here. `subject`: the token that it wants."""
        section = {
            "issuer": self.issuer,
            "client_id": CLIENT_ID,
            "subject_token": subject,
            "scopes": list(SCOPES),
            "algorithms": ["RS256"],
            "email_claim": "email",  # written by its administrators; it does not say whether it was verified
        }
        return section | ({"audience": RESOURCE, "resource": RESOURCE} if subject == ACCESS_TOKEN else {})

    def prepare(self) -> None:
        """With an empty store: what it knew before is gone."""
        self.folder.mkdir(parents=True, exist_ok=True)
        store = self.folder / "glewlwyd.db"
        store.unlink(missing_ok=True)
        with closing(sqlite3.connect(store)) as connection:
            connection.executescript(SCHEMA.read_text(encoding="utf-8"))
        settings = {
            "port": self.port,
            "bind_address": HOST,
            "external_url": f"{self.origin}/",
            "login_url": "login.html",
            "api_prefix": "api",
            "log_mode": "console",
            "log_level": "WARNING",
            "session_key": "GLEWLWYD2_SESSION_ID",
            "session_expiration": 3600,
            "admin_session_authentication": "cookie",
            "profile_session_authentication": "cookie",
            "admin_scope": "g_admin",
            "profile_scope": "g_profile",
            "hash_algorithm": "SHA512",
            "user_module_path": str(MODULES / "user"),
            "client_module_path": str(MODULES / "client"),
            "user_auth_scheme_module_path": str(MODULES / "scheme"),
            "plugin_module_path": str(MODULES / "plugin"),
        }
        lines = [f"{name}={json.dumps(value)}" for name, value in settings.items()]
        lines += ["cookie_secure=false", "login_api_enabled=true"]
        lines.append(f'database = {{ type = "sqlite3"; path = {json.dumps(str(store))}; }};')
        self._config.write_text("\n".join(lines) + "\n", encoding="utf-8")

    def wait_ready(self) -> None:
        self.program.wait_until(lambda: answers(f"{self.origin}/config"), "answering")
        self._set_up()
        self.program.wait_until(
            lambda: answers(f"{self.issuer}/.well-known/openid-configuration"), "serving its metadata"
        )

    def register(self, redirect_uri: str) -> None:
        """A native app's redirect may have any port (RFC 8252 section 7.3); this server wants to know each."""
        if urlsplit(redirect_uri).hostname in {HOST, "localhost"} and redirect_uri not in self._redirects:
            self._redirects.append(redirect_uri)
            self._administrator.ask("PUT", f"/client/{CLIENT_ID}", self._client())

    def _set_up(self) -> None:
        administrator = self._administrator
        administrator.ask("POST", "/auth/", {"username": "admin", "password": "password"})
        administrator.ask("POST", "/mod/plugin/", self._plugin())
        users = administrator.ask("GET", "/mod/user/database")
        users["parameters"]["data-format"]["groups"] = {"multiple": True, "read": True, "write": True}
        administrator.ask("PUT", "/mod/user/database", users)
        administrator.ask("PUT", "/mod/user/database/reset")
        for scope in SCOPES[1:]:
            administrator.ask("POST", "/scope/", {"name": scope, "password_required": False, "scheme": {}})
        for name, person in PEOPLE.items():
            account = {"username": name, "email": f"{name}@example.com", "enabled": True, "scope": [*SCOPES]}
            administrator.ask("POST", "/user/", account | person | {"password": self.passwords[name]})
        administrator.ask("POST", "/client/", self._client())

    def _client(self) -> dict[str, Any]:
        return {
            "client_id": CLIENT_ID,
            "name": "llmgw",
            "enabled": True,
            "confidential": False,
            "scope": [],
            "redirect_uri": self._redirects,
            "authorization_type": ["code", "refresh_token", "device_authorization"],
            "token_endpoint_auth_method": ["none"],
            "sector_identifier_uri": "",
        }

    def _plugin(self) -> dict[str, Any]:
        parameters = {
            "iss": self.issuer,
            "jwks-show": True,
            "jwks-private": json.dumps({"keys": [signing_key()]}),
            "default-kid": "",
            "access-token-duration": 300,
            "refresh-token-duration": 3600,
            "code-duration": 60,
            "refresh-token-rolling": True,
            "refresh-token-one-use": "always",
            "allow-non-oidc": False,
            "auth-type-code-enabled": True,
            "auth-type-code-revoke-replayed": True,
            "auth-type-token-enabled": False,
            "auth-type-id-token-enabled": True,
            "auth-type-password-enabled": False,
            "auth-type-client-enabled": False,
            "auth-type-device-enabled": True,
            "auth-type-refresh-enabled": True,
            "device-authorization-expiration": 600,
            "device-authorization-interval": 1,
            "pkce-allowed": True,
            "pkce-method-plain-allowed": False,
            "pkce-required": True,
            "subject-type": "public",
            "name-claim": "mandatory",
            "email-claim": "mandatory",
            "scope-claim": "no",
            "claims": [{"name": "groups", "user-property": "groups", "type": "string", "mandatory": True, "scope": []}],
            "additional-parameters": [
                {"user-parameter": name, "token-parameter": name, "token-changed": True}
                for name in ("groups", "email", "name")
            ],
            "resource-allowed": True,
            "resource-scope": {"openid": [RESOURCE]},
            "resource-client-property": "",
            "resource-scope-and-client-property": False,
        }
        return {"module": "oidc", "name": "oidc", "display_name": "oidc", "parameters": parameters, "order_rank": 0}


class _Session:
    """Somebody's session at the server's API."""

    def __init__(self, origin: str, browser: urllib.request.OpenerDirector) -> None:
        self._api = f"{origin}/api"
        self._browser = browser

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """What the server answers, if anything."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"content-type": "application/json"}
        request = urllib.request.Request(f"{self._api}{path}", data, headers, method=method)  # noqa: S310 -- loopback
        with self._browser.open(request, timeout=10) as answer:
            text = answer.read()
        return json.loads(text) if text else None


class _Visitor(Person):
    """Its sign-in page is a script, which this stands for: it sends name, password and consent to the same API."""

    def __init__(self, server: Glewlwyd, login: str, password: str) -> None:
        super().__init__(login, password)
        self._server = server

    def sign_in(self, url: str, *, user_code: str = "", declines: bool = False) -> Page:
        for redirect in parse_qs(urlsplit(url).query).get("redirect_uri", ()):
            self._server.register(redirect)
        page = self._open(f"{url}?code={user_code}" if user_code else url)
        asked = {name: values[0] for name, values in parse_qs(urlsplit(page.url).query).items()}
        if declines or "callback_url" not in asked or "client_id" not in asked:
            return page
        session = _Session(self._server.origin, self._browser)
        session.ask("POST", "/auth/", {"username": self.login, "password": self.password})
        session.ask("PUT", f"/auth/grant/{asked['client_id']}", {"scope": asked["scope"]})
        return self._open(f"{asked['callback_url']}&g_continue")
