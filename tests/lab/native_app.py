"""The smallest native app: code, PKCE, loopback redirect. It gets the provider's tokens for tests of the gateway alone.

No agent of ours is involved, and nothing is verified: whoever uses it looks at the tokens, or exchanges them.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import urllib.error
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from tests.lab.callback import Callback
from tests.lab.loopback import opener

if TYPE_CHECKING:
    from pathlib import Path

    from tests.lab.person import Person

SCOPES = "openid profile email groups offline_access"


class SignInError(RuntimeError):
    """The provider did not come back with a code, or refused at its token endpoint."""


class NativeApp:
    """A client of one issuer."""

    def __init__(self, issuer: str, *, client_id: str = "llmgw-agent", ca_file: Path | None = None) -> None:
        self.client_id = client_id
        self._browser = opener(ca_file=ca_file)
        with self._browser.open(f"{issuer}/.well-known/openid-configuration", timeout=10) as answer:
            self.metadata: dict[str, Any] = json.load(answer)

    def sign_in(self, person: Person, *, scopes: str = SCOPES, **parameters: str) -> dict[str, Any]:
        """The token endpoint's answer after `person` has signed in and agreed."""
        verifier = secrets.token_urlsafe(48)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        with Callback() as callback:
            redirect = f"{callback.url}/callback"
            question = {
                "client_id": self.client_id,
                "response_type": "code",
                "redirect_uri": redirect,
                "scope": scopes,
                "state": secrets.token_urlsafe(16),
                "nonce": secrets.token_urlsafe(16),
                "code_challenge": challenge,
                "code_challenge_method": "S256",
            }
            page = person.sign_in(f"{self.metadata['authorization_endpoint']}?{urlencode(question | parameters)}")
            if "code" not in callback.fields:
                raise SignInError(f"no code; the last page was {page.status} {page.url}\n{page.text[:2000]}")
        code = callback.fields["code"]
        return self.token(grant_type="authorization_code", code=code, redirect_uri=redirect, code_verifier=verifier)

    def refresh(self, refresh_token: str) -> dict[str, Any]:
        """The token endpoint's answer to a refresh."""
        return self.token(grant_type="refresh_token", refresh_token=refresh_token)

    def device_code(self) -> dict[str, Any]:
        """Begin a device flow: the codes and where to type the user's."""
        return self._post(self.metadata["device_authorization_endpoint"], {"scope": SCOPES})

    def token(self, **form: str) -> dict[str, Any]:
        """Any grant at the token endpoint."""
        return self._post(self.metadata["token_endpoint"], form)

    def _post(self, url: str, form: dict[str, str]) -> dict[str, Any]:
        try:
            with self._browser.open(
                url, urlencode(form | {"client_id": self.client_id}).encode(), timeout=10
            ) as answer:
                document: dict[str, Any] = json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                raise SignInError(f"{url}: {error.code} {error.read().decode(errors='replace')}") from None
        return document
