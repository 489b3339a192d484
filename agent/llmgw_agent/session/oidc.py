"""The own OpenID Connect flow for a public native client: code with PKCE (RFC 7636, RFC 8252), refresh, revocation.

Written out because the libraries at hand either refuse ordinary issuers (MSAL: any without a path) or bring another
HTTP stack. Deliberately absent: implicit and password grants, client secrets, redirects at any endpoint.
"""

from __future__ import annotations

import base64
import hashlib
import logging
import secrets
import time
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from llmgw_agent.errors import AgentError, ConfigurationError, RefusedError, SessionEndedError, TemporaryError
from llmgw_agent.session import device
from llmgw_agent.session.id_token import account_of, validate
from llmgw_agent.session.reasons import declined, refusal
from llmgw_agent.session.record import Attempt, SignIn, error_name, token_issued_at
from llmgw_wire.messages import ACCESS_TOKEN_TYPE, IssuerOffer
from llmgw_wire.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llmgw_agent.outgoing import Answer, Outgoing
    from llmgw_agent.session.id_token import Discovery, Metadata
    from llmgw_agent.session.record import CodeState, DeviceAttempt

log = logging.getLogger(__name__)

OK: Final = 200


class OidcProvider:
    """Signs in at any OpenID provider. Implements `record.Provider`."""

    def __init__(self, outgoing: Outgoing, discovery: Discovery) -> None:
        self._outgoing = outgoing
        self._discovery = discovery

    async def begin(self, offer: IssuerOffer, redirect_uri: str, *, choose_account: bool = False) -> Attempt:
        """The authorization request. State and nonce have 256 bits, the verifier 512."""
        # Asked again each time: a browser sent to a provider that is away would leave its user waiting for minutes.
        metadata = await self._discovery.metadata(offer.issuer, again=True)
        state, nonce, verifier = secrets.token_urlsafe(32), secrets.token_urlsafe(32), secrets.token_urlsafe(64)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        # No prompt=consent with offline_access: corporate providers grant it by policy, and the extra page every day
        # teaches people to click.
        question = {
            "response_type": "code",
            "client_id": offer.client_id,
            "redirect_uri": redirect_uri,
            "scope": " ".join(offer.scopes),
            "state": state,
            "nonce": nonce,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        if choose_account:
            question["prompt"] = "select_account"
        if offer.response_mode == "form_post":
            question["response_mode"] = "form_post"
        if offer.resource:
            question["resource"] = offer.resource
        if offer.max_age:
            question["max_age"] = str(offer.max_age)
        joint = "&" if "?" in metadata.authorization_endpoint else "?"
        url = f"{metadata.authorization_endpoint}{joint}{urlencode(question)}"
        return Attempt(offer, url, state, redirect_uri, {"nonce": nonce, "verifier": verifier})

    async def finish(self, attempt: Attempt, answer: Mapping[str, str]) -> SignIn:
        """Check the answer, redeem the code, validate the ID token."""
        offer = attempt.offer
        metadata = await self._discovery.metadata(offer.issuer)
        _check_issuer(metadata, answer)
        if "error" in answer:
            raise declined(offer.issuer, answer)
        form = {
            "grant_type": "authorization_code",
            "code": answer.get("code", ""),
            "redirect_uri": attempt.redirect_uri,
            "code_verifier": attempt.private["verifier"],
        }
        return await self._signed_in(offer, metadata, await self._ask(metadata, offer, form), attempt.private["nonce"])

    async def begin_device(self, offer: IssuerOffer) -> DeviceAttempt:
        """The device authorization request (RFC 8628 section 3.1)."""
        metadata = await self._discovery.metadata(offer.issuer, again=True)
        if not metadata.device_authorization_endpoint:
            raise RefusedError(f"{offer.issuer} gives no codes to type in", "Run: llmgw login --method paste")
        form = _client(offer) | {"scope": " ".join(offer.scopes)}
        if offer.resource:
            form |= {"resource": offer.resource}
        answer = await self._outgoing.post(metadata.device_authorization_endpoint, form)
        document = answer.document()
        return device.read_attempt(offer, document, {"device_code": str(document.get("device_code", ""))})

    async def poll(self, attempt: DeviceAttempt) -> SignIn | CodeState:
        """The device access token request (RFC 8628 section 3.4)."""
        metadata = await self._discovery.metadata(attempt.offer.issuer)
        form = {"grant_type": device.GRANT, "device_code": attempt.private["device_code"]}
        answer = await self._ask(metadata, attempt.offer, form)
        error = answer.document().get("error")
        if answer.status != OK and error in device.STATES:
            return device.STATES[error]
        return await self._signed_in(attempt.offer, metadata, answer, None)

    async def _signed_in(self, offer: IssuerOffer, metadata: Metadata, answer: Answer, nonce: str | None) -> SignIn:
        """Validate the ID token; the sign-in. A device's request has no nonce to compare."""
        tokens = _tokens(metadata, answer)
        if "id_token" not in tokens:
            raise RefusedError(f"{offer.issuer} sent no ID token", "The client there needs the scope openid")
        access_token = Secret(tokens["access_token"])
        id_token = Secret(tokens["id_token"])
        now = time.time()
        there = _provider_now(answer)
        claims = await validate(self._discovery, offer, id_token, nonce=nonce, now=there, access_token=access_token)
        subject_token = access_token if offer.subject_token_type == ACCESS_TOKEN_TYPE else id_token
        return SignIn(
            session=secrets.token_hex(8),
            offer=offer,
            account=account_of(claims, offer.kind),
            subject_token=subject_token,
            subject_issued_at=token_issued_at(subject_token, there),
            renewal=Secret(tokens.get("refresh_token", "")),
            signed_in_at=now,
        )

    async def renew(self, sign_in: SignIn) -> SignIn:
        """Refresh (RFC 6749 section 6). Providers may rotate the refresh token or not, send an ID token or not."""
        offer = sign_in.offer
        if not sign_in.renewal:
            raise SessionEndedError(f"{offer.issuer} gave no refresh token", "Run: llmgw login")
        metadata = await self._discovery.metadata(offer.issuer)
        form = {"grant_type": "refresh_token", "refresh_token": sign_in.renewal.reveal()}
        answer = await self._ask(metadata, offer, form)
        tokens, there = _tokens(metadata, answer), _provider_now(answer)
        renewal = Secret(tokens["refresh_token"]) if "refresh_token" in tokens else sign_in.renewal
        access_token = Secret(tokens["access_token"])
        subject_token = access_token if offer.subject_token_type == ACCESS_TOKEN_TYPE else sign_in.subject_token
        if "id_token" in tokens:
            id_token = Secret(tokens["id_token"])
            try:
                claims = await validate(
                    self._discovery, offer, id_token, nonce=None, now=there, access_token=access_token
                )
                if account_of(claims, offer.kind).subject != sign_in.account.subject:
                    raise RefusedError(f"{offer.issuer} answered for somebody else", "Run: llmgw login")
            except AgentError as error:
                # The new refresh token must not be lost with it: the old one is spent.
                log.warning("the renewed ID token is not used: %s", error)
                return sign_in.renewed(sign_in.subject_token, there, renewal)
            subject_token = subject_token if offer.subject_token_type == ACCESS_TOKEN_TYPE else id_token
        return sign_in.renewed(subject_token, there, renewal)

    async def revoke(self, sign_in: SignIn) -> None:
        """Revoke the refresh token; TemporaryError or RefusedError if the provider cannot or will not."""
        metadata = await self._discovery.metadata(sign_in.offer.issuer)
        if not metadata.revocation_endpoint or not sign_in.renewal:
            raise RefusedError("it has no way to revoke a sign-in")
        form = _client(sign_in.offer) | {"token": sign_in.renewal.reveal(), "token_type_hint": "refresh_token"}
        answer = await self._outgoing.post(metadata.revocation_endpoint, form)
        if answer.status != OK:
            raise RefusedError(f"it refused to ({answer.status})")

    async def _ask(self, metadata: Metadata, offer: IssuerOffer, form: dict[str, str]) -> Answer:
        """A request to the token endpoint."""
        form |= _client(offer)
        if offer.resource:
            form |= {"resource": offer.resource}
        return await self._outgoing.post(metadata.token_endpoint, form)


def _client(offer: IssuerOffer) -> dict[str, str]:
    """Who asks (RFC 6749 section 2.3.1): a public client, with the secret that everybody knows where it has one."""
    secret = {"client_secret": offer.client_secret} if offer.client_secret else {}
    return {"client_id": offer.client_id} | secret


def _provider_now(answer: Answer) -> float:
    """Now on the clock of whoever answered; on ours if the answer did not tell."""
    return time.time() + (answer.clock_offset or 0.0)


def _tokens(metadata: Metadata, answer: Answer) -> dict[str, str]:
    document = answer.document()
    if answer.status != OK:
        raise _token_error(metadata, answer, document)
    tokens = {name: value for name, value in document.items() if isinstance(value, str)}
    if not tokens.get("access_token") or tokens.get("token_type", "").lower() != "bearer":
        raise TemporaryError(f"{metadata.issuer} answered without a token", "Try again in a moment")
    return tokens


def _check_issuer(metadata: Metadata, answer: Mapping[str, str]) -> None:
    """RFC 9207: the answer must come from the provider that was asked (mix-up)."""
    if answer.get("iss", None if metadata.sends_issuer else metadata.issuer) != metadata.issuer:
        raise RefusedError(f"the answer to the sign-in did not come from {metadata.issuer}", "Run: llmgw login")


def _token_error(metadata: Metadata, answer: Answer, document: dict[str, Any]) -> AgentError:
    error = error_name(document.get("error"))
    if error == "access_denied":
        return declined(metadata.issuer, document)
    if (refused := refusal(metadata.issuer, document)) is not None:
        return refused
    if error in {"invalid_client", "unauthorized_client", "invalid_scope", "invalid_target"}:
        return ConfigurationError(
            f"{metadata.issuer} does not know this client as set up ({error})", "Tell your operator"
        )
    return TemporaryError(f"{metadata.issuer} answered {answer.status} ({error})", "Try again in a moment")
