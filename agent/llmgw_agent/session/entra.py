"""Entra ID through MSAL, the only file that imports it.

MSAL knows Entra's ways with conditional access and continuous access evaluation; the rest is not left to it:

* its callback server binds 0.0.0.0 in containers and takes any path: `callback.py` listens instead;
* it validates no ID token since 1.38: `id_token.py` does;
* REQUESTS_CA_BUNDLE overrides its `verify`, and its HTTP follows redirects: it gets a session of ours;
* it blocks: every call runs in a thread;
* its cache is a plain JSON text: it goes into the vault.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import msal
import requests
from requests.adapters import HTTPAdapter

from llmgw_agent.errors import AgentError, ConfigurationError, RefusedError, TemporaryError
from llmgw_agent.outgoing import offset
from llmgw_agent.session import device
from llmgw_agent.session.id_token import account_of, validate
from llmgw_agent.session.reasons import declined, refusal
from llmgw_agent.session.record import Attempt, SignIn, error_name, token_issued_at
from llmgw_wire.messages import ACCESS_TOKEN_TYPE
from llmgw_wire.secret import Secret

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Mapping

    from llmgw_agent.session.id_token import Discovery
    from llmgw_agent.session.record import CodeState, DeviceAttempt
    from llmgw_wire.messages import IssuerOffer

PUBLIC_CLOUD: Final = "login.microsoftonline.com"
IMPLICIT_SCOPES: Final = frozenset({"openid", "profile", "offline_access"})
"""MSAL adds these itself and refuses to be told."""
SECONDS: Final = 6.0


class _Adapter(HTTPAdapter):
    """Trusts what the rest of the agent trusts."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 -- urllib3's own arguments
        super().init_poolmanager(*args, **kwargs, ssl_context=self._context)


class _Session(requests.Session):
    """No environment, no redirects, and a time limit: MSAL sets none on a session that it did not make.

    `answered_at` is told the provider's time with each answer: how far it is ahead of this machine, in seconds.
    """

    def __init__(self, context: ssl.SSLContext, answered_at: Callable[[float], None]) -> None:
        super().__init__()
        self._answered_at = answered_at
        self.trust_env = False
        self.mount("https://", _Adapter(context))

    def request(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 -- requests' own arguments
        sent = time.time()
        answer = super().request(*args, **kwargs | {"allow_redirects": False, "timeout": SECONDS})
        ahead = offset(answer.headers.get("Date", ""), (sent + time.time()) / 2)
        if ahead is not None:
            self._answered_at(ahead)
        return answer


class EntraProvider:
    """Signs in at Entra ID. Implements `record.Provider`."""

    def __init__(self, discovery: Discovery, context: ssl.SSLContext) -> None:
        self._discovery = discovery
        self._context = context
        self._ahead = 0.0
        """Seconds that the provider's clock was ahead of ours when it answered last."""

    async def begin(self, offer: IssuerOffer, redirect_uri: str, *, choose_account: bool = False) -> Attempt:
        """The authorization request, with MSAL's state, nonce and PKCE verifier."""

        def initiate() -> dict[str, Any]:
            application = self._application(offer, msal.SerializableTokenCache())
            flow: dict[str, Any] = application.initiate_auth_code_flow(
                scopes(offer),
                redirect_uri=redirect_uri,
                state=secrets.token_urlsafe(32),
                response_mode=offer.response_mode,
                prompt=msal.Prompt.SELECT_ACCOUNT if choose_account else None,
            )
            return flow

        flow = await _in_thread(offer, initiate)
        return Attempt(offer, flow["auth_uri"], flow["state"], redirect_uri, flow)

    async def finish(self, attempt: Attempt, answer: Mapping[str, str]) -> SignIn:
        """Redeem the code (MSAL checks state and nonce again), validate the ID token."""
        offer = attempt.offer
        cache = msal.SerializableTokenCache()

        def redeem() -> dict[str, Any]:
            application = self._application(offer, cache)
            result: dict[str, Any] = application.acquire_token_by_auth_code_flow(attempt.private, dict(answer))
            return result

        return await self._signed_in(offer, await _in_thread(offer, redeem), cache)

    async def begin_device(self, offer: IssuerOffer) -> DeviceAttempt:
        """A code to type in elsewhere."""

        def initiate() -> dict[str, Any]:
            application = self._application(offer, msal.SerializableTokenCache())
            flow: dict[str, Any] = application.initiate_device_flow(scopes(offer))
            return flow

        flow = await _in_thread(offer, initiate)
        return device.read_attempt(offer, flow, flow)

    async def poll(self, attempt: DeviceAttempt) -> SignIn | CodeState:
        """Ask once; the waiting is ours, because a thread that sleeps cannot be cancelled."""
        offer = attempt.offer
        cache = msal.SerializableTokenCache()

        def redeem() -> dict[str, Any]:
            application = self._application(offer, cache)
            result: dict[str, Any] = application.acquire_token_by_device_flow(
                dict(attempt.private) | {"latest_attempt_at": 0}, exit_condition=lambda _: True
            )
            return result

        result = await _in_thread(offer, redeem)
        if result.get("error") in device.STATES:
            return device.STATES[result["error"]]
        return await self._signed_in(offer, result, cache)

    async def _signed_in(
        self, offer: IssuerOffer, result: dict[str, Any], cache: msal.SerializableTokenCache
    ) -> SignIn:
        """Validate the ID token (MSAL has compared its nonce where there is one); the sign-in."""
        result = _checked(offer, result)
        id_token = Secret(result.get("id_token", ""))
        now = time.time()
        there = now + self._ahead
        claims = await validate(self._discovery, offer, id_token, nonce=None, now=there)
        account = account_of(claims, offer.kind)
        if not (claims.get("tid") and claims.get("oid")):
            raise RefusedError(f"{offer.issuer} named no tenant and object id", "Tell your identity team")
        wanted = "access_token" if offer.subject_token_type == ACCESS_TOKEN_TYPE else "id_token"
        subject_token = Secret(result[wanted])
        return SignIn(
            session=secrets.token_hex(8),
            offer=offer,
            account=account,
            subject_token=subject_token,
            subject_issued_at=token_issued_at(subject_token, there),
            renewal=Secret(cache.serialize()),
            signed_in_at=now,
        )

    async def renew(self, sign_in: SignIn) -> SignIn:
        """Force a refresh at Entra ID: its tokens live for an hour and more, and ours must be minutes old."""
        offer = sign_in.offer
        cache = msal.SerializableTokenCache()
        cache.deserialize(sign_in.renewal.reveal())

        def refresh() -> dict[str, Any]:
            application = self._application(offer, cache)
            accounts = application.get_accounts()
            if not accounts:
                return {"error": "invalid_grant"}
            result: dict[str, Any] = (
                application.acquire_token_silent_with_error(scopes(offer), accounts[0], force_refresh=True) or {}
            )
            return result

        result = _checked(offer, await _in_thread(offer, refresh))
        renewal = Secret(cache.serialize())
        subject_token = sign_in.subject_token
        if offer.subject_token_type == ACCESS_TOKEN_TYPE:
            subject_token = Secret(result["access_token"])
        elif result.get("id_token"):
            subject_token = Secret(result["id_token"])
        return sign_in.renewed(subject_token, time.time() + self._ahead, renewal)

    async def revoke(self, _sign_in: SignIn) -> None:
        """Entra ID has no revocation endpoint: the refresh token dies with the copy in the vault."""
        raise RefusedError("it has no way to revoke one sign-in")

    def _note_clock(self, ahead: float) -> None:
        self._ahead = ahead

    def _application(self, offer: IssuerOffer, cache: msal.SerializableTokenCache) -> msal.PublicClientApplication:
        """Constructing it fetches the authority's metadata: call it in a thread."""
        authority = authority_of(offer.issuer)
        return msal.PublicClientApplication(
            offer.client_id,
            authority=authority,
            token_cache=cache,
            http_client=_Session(self._context, self._note_clock),
            # Asking Microsoft whether a host is Microsoft's makes sense for Microsoft's hosts only.
            instance_discovery=None if urlsplit(authority).hostname == PUBLIC_CLOUD else False,
        )


def authority_of(issuer: str) -> str:
    """`https://HOST/TENANT` of an issuer `https://HOST/TENANT/v2.0`. Never `common`: any tenant would do there."""
    parts = urlsplit(issuer)
    tenant, _, version = parts.path.strip("/").partition("/")
    if version != "v2.0" or tenant in {"", "common", "organizations", "consumers"}:
        raise ConfigurationError(f"{issuer} is not the issuer of one Entra tenant", "Tell the gateway's operator")
    return f"{parts.scheme}://{parts.netloc}/{tenant}"


def scopes(offer: IssuerOffer) -> list[str]:
    """The scopes that MSAL may be told."""
    return [scope for scope in offer.scopes if scope not in IMPLICIT_SCOPES]


async def _in_thread(offer: IssuerOffer, call: Any) -> dict[str, Any]:  # noqa: ANN401 -- a closure over MSAL
    try:
        result: dict[str, Any] = await asyncio.to_thread(call)
    except AgentError:
        raise
    except requests.RequestException as error:
        raise TemporaryError(
            f"{offer.issuer} cannot be reached ({type(error).__name__})", "Check the network (VPN?) and try again"
        ) from None
    except (ValueError, RuntimeError) as error:
        # MSAL's texts may quote an answer of the provider: only the class is told.
        raise TemporaryError(f"{offer.issuer} gave no proper answer ({type(error).__name__})", "Try again") from None
    return result


def _checked(offer: IssuerOffer, result: dict[str, Any]) -> dict[str, Any]:
    error = result.get("error")
    if (refused := refusal(offer.issuer, result)) is not None:
        raise refused
    if error == "access_denied":
        raise declined(offer.issuer, result)
    if error or "access_token" not in result:
        raise TemporaryError(f"{offer.issuer} gave no token ({error_name(error)})", "Try again in a moment")
    return result
