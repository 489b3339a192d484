"""ID tokens: what a provider says about itself, its keys, and every check of OpenID Connect Core 3.1.3.7 written out.

MSAL has validated nothing since 1.38, so both ways to sign in come here.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import jwt

from llmgw_agent.errors import ConfigurationError, RefusedError, TemporaryError
from llmgw_agent.session.record import Account
from llmgw_agent.settings import url_fault

if TYPE_CHECKING:
    from llmgw_agent.outgoing import Outgoing
    from llmgw_wire.messages import IssuerOffer
    from llmgw_wire.secret import Secret

ALGORITHMS: Final = frozenset(
    {"ES256", "ES384", "ES512", "EdDSA", "PS256", "PS384", "PS512", "RS256", "RS384", "RS512"}
)
"""Signatures with a public key. Never `none`, never HS*: a public client shares no secret with anybody."""
LEEWAY: Final = 120
"""Seconds that two clocks of a provider may differ: the one that signs, and the one that answers."""
METADATA_SECONDS: Final = 3600
KEYS_PAUSE: Final = 30
"""Seconds between fetches of the key set, however many unknown key ids turn up."""
MOST_TEXT: Final = 256


@dataclass(frozen=True, slots=True)
class Metadata:
    """What was read from the issuer's discovery document (OpenID Connect Discovery 4)."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    revocation_endpoint: str
    device_authorization_endpoint: str
    algorithms: tuple[str, ...]
    sends_issuer: bool
    """RFC 9207: its answers name it."""


class Discovery:
    """Metadata and keys of issuers, fetched when needed and kept for a while."""

    def __init__(self, outgoing: Outgoing) -> None:
        self._outgoing = outgoing
        self._metadata: dict[str, tuple[float, Metadata]] = {}
        self._keys: dict[str, tuple[float, list[jwt.PyJWK]]] = {}

    async def metadata(self, issuer: str, *, again: bool = False) -> Metadata:
        """The issuer's metadata, read every hour or `again` now: that also tells whether the provider is there.

        ConfigurationError if it is not exactly the issuer that the gateway named.
        """
        read_at, known = self._metadata.get(issuer, (0.0, None))
        if known is not None and not again and 0 <= time.time() - read_at < METADATA_SECONDS:
            return known
        answer = await self._outgoing.get(issuer.rstrip("/") + "/.well-known/openid-configuration")
        if answer.status != 200:  # noqa: PLR2004 -- OK
            raise TemporaryError(f"the identity provider {issuer} answered {answer.status}", "Try again in a moment")
        found = _metadata(issuer, answer.document())
        self._metadata[issuer] = (time.time(), found)
        return found

    async def key(self, metadata: Metadata, header: dict[str, Any]) -> jwt.PyJWK:
        """The key that a token's header names; RefusedError if the issuer publishes no such key."""
        read_at, keys = self._keys.get(metadata.jwks_uri, (0.0, []))
        for is_known in (True, False):
            if not is_known and not 0 <= time.time() - read_at < KEYS_PAUSE:
                keys = await self._fetch_keys(metadata.jwks_uri)
            fitting = [key for key in keys if _fits(key, header)]
            if len(fitting) == 1:
                return fitting[0]
        raise RefusedError(
            f"the sign-in of {metadata.issuer} is signed with a key that it does not publish", "Run: llmgw login"
        )

    async def _fetch_keys(self, url: str) -> list[jwt.PyJWK]:
        answer = await self._outgoing.get(url)
        try:
            keys = jwt.PyJWKSet.from_dict(answer.document()).keys
        except (jwt.PyJWTError, AttributeError, TypeError, ValueError):
            raise TemporaryError(f"{url} gave no key set ({answer.status})", "Try again in a moment") from None
        self._keys[url] = (time.time(), keys)
        return keys


def _metadata(issuer: str, document: dict[str, Any]) -> Metadata:
    def address(name: str) -> str:
        url = document.get(name) or ""
        if not isinstance(url, str) or (url and url_fault(url.partition("?")[0])):
            raise ConfigurationError(f"{issuer} names an unusable {name}", "Tell your identity team")
        return url

    # The whole string, no normalisation: another issuer's answer is how sign-ins get mixed up (RFC 8414 section 3.3).
    if document.get("issuer") != issuer:
        raise ConfigurationError(
            f"{issuer} calls itself {str(document.get('issuer'))[:MOST_TEXT]!r}", "Tell the gateway's operator"
        )
    found = Metadata(
        issuer=issuer,
        authorization_endpoint=address("authorization_endpoint"),
        token_endpoint=address("token_endpoint"),
        jwks_uri=address("jwks_uri"),
        revocation_endpoint=address("revocation_endpoint"),
        device_authorization_endpoint=address("device_authorization_endpoint"),
        algorithms=_algorithms(document.get("id_token_signing_alg_values_supported")),
        sends_issuer=document.get("authorization_response_iss_parameter_supported") is True,
    )
    if not (found.authorization_endpoint and found.token_endpoint and found.jwks_uri and found.algorithms):
        raise ConfigurationError(f"{issuer} offers no sign-in that can be verified", "Tell your identity team")
    return found


def _algorithms(offered: object) -> tuple[str, ...]:
    names = offered if isinstance(offered, list) else ["RS256"]
    return tuple(sorted(ALGORITHMS.intersection(name for name in names if isinstance(name, str))))


def _fits(key: jwt.PyJWK, header: dict[str, Any]) -> bool:
    if key.public_key_use not in {None, "sig"} or ("kid" in header and key.key_id != header["kid"]):
        return False
    algorithm = str(header.get("alg"))
    return key.algorithm_name == algorithm or (key.key_type == "RSA" and algorithm[:2] in {"RS", "PS"})


async def validate(
    discovery: Discovery,
    offer: IssuerOffer,
    token: Secret,
    *,
    nonce: str | None,
    now: float,
    access_token: Secret | None = None,
) -> dict[str, Any]:
    """The claims of a valid ID token of this offer's issuer for this client; RefusedError says which check failed.

    Args:
        discovery: Where the issuer's metadata and keys come from.
        offer: The issuer and client that the token must be of.
        token: The ID token.
        nonce: What must stand in it; None after a refresh, where providers leave it out (Core 12.2).
        now: Now on the provider's clock, in seconds since the epoch: that of a laptop is often wrong.
        access_token: What came with it; checked against `at_hash` where there is one.
    """
    metadata = await discovery.metadata(offer.issuer)
    try:
        header = jwt.get_unverified_header(token.reveal())
    except jwt.PyJWTError:
        raise _refused(offer, "it cannot be read") from None
    if header.get("alg") not in metadata.algorithms:
        raise _refused(offer, "its algorithm is not one that the provider announces and we accept")
    if str(header.get("typ", "JWT")).lower().removeprefix("application/") == "at+jwt":
        raise _refused(offer, "it is an access token")  # RFC 9068 section 5
    key = await discovery.key(metadata, header)
    try:
        claims: dict[str, Any] = jwt.decode(
            token.reveal(),
            key.key,
            algorithms=[header["alg"]],
            audience=offer.client_id,
            issuer=metadata.issuer,
            options={
                "require": ["exp", "iat", "iss", "aud", "sub"],
                "verify_exp": False,  # by the provider's clock: see below
                "verify_iat": False,
                "verify_nbf": False,
            },
        )
    except jwt.PyJWTError as error:
        raise _refused(offer, f"its signature, issuer or audience is wrong ({type(error).__name__})") from None
    _check_times(offer, claims, now)
    if claims.get("azp", offer.client_id) != offer.client_id or ("azp" not in claims and _has_others(claims["aud"])):
        raise _refused(offer, "it was issued to another client")
    if nonce is not None and not hmac.compare_digest(str(claims.get("nonce", "")).encode(), nonce.encode()):
        raise _refused(offer, "its nonce is not the one of this sign-in")
    if access_token is not None and "at_hash" in claims and claims["at_hash"] != _at_hash(header["alg"], access_token):
        raise _refused(offer, "it belongs to another access token")
    return claims


def _check_times(offer: IssuerOffer, claims: dict[str, Any], now: float) -> None:
    """Not ended, and not from the future (Core 3.1.3.7; RFC 7519 section 4.1.5), give or take `LEEWAY`."""
    times = {name: claims[name] for name in ("exp", "iat", "nbf") if name in claims}
    if any(isinstance(time, bool) or not isinstance(time, int | float) for time in times.values()):
        raise _refused(offer, "its times are no numbers")
    if times["exp"] <= now - LEEWAY:
        raise _refused(offer, "it has ended")
    if max(times["iat"], times.get("nbf", 0)) > now + LEEWAY:
        raise _refused(offer, "it is from the future")


def account_of(claims: dict[str, Any], kind: str) -> Account:
    """Who that is. Never keyed by e-mail or user name: those are given to somebody else one day."""
    subject = str(claims["sub"])
    if kind == "entra":
        subject = f"{claims.get('tid', '')}/{claims.get('oid', '')}"
    return Account(
        subject, _display(claims, "name"), _display(claims, "email") or _display(claims, "preferred_username")
    )


def _display(claims: dict[str, Any], name: str) -> str:
    """A text for people's eyes: cut, and without control characters (it reaches a terminal)."""
    value = claims.get(name)
    return "".join(letter for letter in value if letter.isprintable())[:MOST_TEXT] if isinstance(value, str) else ""


def _has_others(audience: str | list[str]) -> bool:
    return isinstance(audience, list) and len(audience) > 1


def _at_hash(algorithm: str, token: Secret) -> str:
    """The left half of a hash as wide as the signature's (Core 3.1.3.6; EdDSA with Ed25519 goes with SHA-512)."""
    width = algorithm[-3:] if algorithm[-3:].isdecimal() else "512"
    digest = hashlib.new(f"sha{width}", token.reveal().encode()).digest()
    return base64.urlsafe_b64encode(digest[: len(digest) // 2]).rstrip(b"=").decode()


def _refused(offer: IssuerOffer, why: str) -> RefusedError:
    return RefusedError(f"the ID token of {offer.issuer} was refused: {why}", "Run: llmgw login")
