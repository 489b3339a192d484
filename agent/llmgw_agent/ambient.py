"""A token for a machine that has an identity of its own, and no person to sign in: CI jobs and pods. No daemon.

| Where | What is taken |
|---|---|
| GitHub Actions (`permissions: id-token: write`) | a token of the job, asked for at `ACTIONS_ID_TOKEN_REQUEST_URL` |
| GitLab CI (`id_tokens:`) and others | the variable `LLMGW_ID_TOKEN` |
| Kubernetes (a projected service account token) | the file that `LLMGW_ID_TOKEN_FILE` names |

The gateway decides whether it believes the issuer. Nothing is kept here, not even the key of the exchange.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

import jwt

from llmgw_agent import settings
from llmgw_agent.errors import ConfigurationError, RefusedError, SignInRequiredError, TemporaryError
from llmgw_agent.exchange import Gateway
from llmgw_agent.outgoing import Outgoing, trust
from llmgw_agent.session.record import Account, SignIn, token_issued_at
from llmgw_agent.vault import Vault
from llmgw_wire.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llmgw_wire.messages import Bootstrap, IssuerOffer

TOKEN: Final = "LLMGW_ID_TOKEN"  # noqa: S105 -- a variable's name
TOKEN_FILE: Final = "LLMGW_ID_TOKEN_FILE"  # noqa: S105 -- the same
GITHUB_URL: Final = "ACTIONS_ID_TOKEN_REQUEST_URL"
GITHUB_TOKEN: Final = "ACTIONS_ID_TOKEN_REQUEST_TOKEN"  # noqa: S105 -- the same
GITHUB_ISSUER: Final = "https://token.actions.githubusercontent.com"
MOST_BYTES: Final = 16 * 1024
OK: Final = 200


@dataclass(frozen=True, slots=True)
class AmbientToken:
    """A gateway token, and when it ends (seconds since the epoch, this machine's clock)."""

    value: Secret
    expires_at: float


async def fetch(environ: Mapping[str, str]) -> AmbientToken:
    """Trade this machine's identity for a gateway token.

    Raises:
        ConfigurationError: The gateway does not know this identity's issuer, or the identity cannot be read.
        RefusedError: The gateway does not accept it.
        SignInRequiredError: The identity is too old, or not good.
        TemporaryError: Gateway or issuer are away.
    """
    given = settings.load(environ)
    outgoing = Outgoing(trust(given.ca_file))
    try:
        vault = Vault(given.places.vault, profile="ambient")  # never opened: its content is this process's memory
        gateway = Gateway(given.gateway_url, outgoing, vault)
        bootstrap = await gateway.bootstrap()
        token, offer = await _identity(environ, bootstrap, outgoing)
        now = time.time()
        sign_in = SignIn(
            session=secrets.token_hex(8),
            offer=offer,
            account=Account("", "", ""),
            subject_token=token,
            subject_issued_at=token_issued_at(token, now),
            renewal=Secret(""),
            signed_in_at=now,
        )
        answer, born_at = await gateway.exchange(sign_in)
    except SignInRequiredError as error:
        # Nobody can sign in here.
        raise SignInRequiredError(error.message, "It is this machine's own identity: look at its age") from None
    finally:
        await outgoing.close()
    return AmbientToken(answer.access_token, born_at + answer.expires_in)


def fetch_now(environ: Mapping[str, str]) -> AmbientToken:
    """The same, from code that does not run in an event loop."""
    return asyncio.run(fetch(environ))


async def _identity(environ: Mapping[str, str], bootstrap: Bootstrap, outgoing: Outgoing) -> tuple[Secret, IssuerOffer]:
    if environ.get(TOKEN):
        token = Secret(environ[TOKEN].strip())
        return token, _offer(bootstrap, _issuer_of(token), TOKEN)
    if environ.get(TOKEN_FILE):
        token = _read(Path(environ[TOKEN_FILE]))
        return token, _offer(bootstrap, _issuer_of(token), TOKEN_FILE)
    offer = _offer(bootstrap, _github_issuer(environ), "GitHub Actions")
    return await github_token(environ, offer.client_id, outgoing), offer


async def github_token(environ: Mapping[str, str], audience: str, outgoing: Outgoing) -> Secret:
    """The job's token for this audience (docs.github.com, "OpenID Connect": requesting the JWT)."""
    url = environ[GITHUB_URL]
    joint = "&" if "?" in url else "?"
    headers = {"Authorization": f"Bearer {environ.get(GITHUB_TOKEN, '')}"}
    answer = await outgoing.get(f"{url}{joint}audience={quote(audience, safe='')}", headers)
    token = answer.document().get("value")
    if answer.status != OK or not isinstance(token, str) or not token:
        raise TemporaryError(
            f"GitHub gave no token for this job ({answer.status})", "Check: permissions: id-token: write"
        )
    return Secret(token)


def _github_issuer(environ: Mapping[str, str]) -> str:
    """github.com has one issuer; each GitHub Enterprise Server its own."""
    server = environ.get("GITHUB_SERVER_URL", "https://github.com").rstrip("/")
    return GITHUB_ISSUER if server == "https://github.com" else f"{server}/_services/token"


def _read(path: Path) -> Secret:
    try:
        with path.open(encoding="ascii") as file:
            return Secret(file.read(MOST_BYTES).strip())
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path} cannot be read ({type(error).__name__})", f"Correct {TOKEN_FILE}") from None


def _issuer_of(token: Secret) -> str:
    """Who made it, unverified: it only chooses among the issuers that the gateway names."""
    try:
        return str(jwt.decode(token.reveal(), options={"verify_signature": False}).get("iss", ""))
    except jwt.PyJWTError:
        raise ConfigurationError("this machine's identity is no JWT", f"Correct {TOKEN} or {TOKEN_FILE}") from None


def _offer(bootstrap: Bootstrap, issuer: str, source: str) -> IssuerOffer:
    for offer in bootstrap.issuers:
        if offer.issuer == issuer:
            return offer
    raise RefusedError(f"the gateway accepts no identity of {issuer[:200]!r} ({source})", "Ask its operator to add it")
