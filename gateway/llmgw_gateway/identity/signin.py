"""Verifies a sign-in: a token of a configured identity provider, with every check written out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jwt

from llmgw_gateway.errors import GatewayError
from llmgw_gateway.identity import tokens
from llmgw_gateway.identity.jwks import Jwks, ProviderUnavailableError
from llmgw_gateway.sections.requiring import is_in_domain, unmet
from llmgw_wire.errors import ErrorCode
from llmgw_wire.messages import ACCESS_TOKEN_TYPE, ID_TOKEN_TYPE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llmgw_gateway.sections.exchanging import Issuer
    from llmgw_wire.secret import Secret

LEEWAY = 60
"""Seconds that an identity provider's clock may be off without a valid sign-in being refused as early or expired."""
MOST_TEXT = 256
MOST_GROUPS = 500
MOST_CHARACTERS = 32_000
"""Of a provider's token: Entra ID puts up to 200 group ids into one."""
CLIENT_CLAIMS = ("azp", "client_id", "appid", "cid")
"""Where providers name the client of an access token: Entra ID, Keycloak, Auth0 (azp), RFC 9068, Entra ID v1, Okta."""
_YES = (True, "true", "1")
"""How providers write that something is so; a number one is the first of these, too."""
_HEADERS = frozenset({"alg", "kid", "typ", "x5t", "x5t#S256"})
"""What providers put into headers; x5t is ignored. `jwk`, `jku`, `x5u`, `crit` are refused."""


@dataclass(frozen=True, slots=True)
class SignIn:
    """A verified sign-in. `subject` is stable at its issuer: tid/oid for Entra ID, else sub; never an e-mail."""

    issuer: Issuer
    subject: str
    name: str
    email: str
    """Safe to decide by; empty where the provider does not vouch for it."""
    groups: tuple[str, ...] | None
    """By `issuers.groups_claim`, empty when absent; None when there are too many for a token: unknown, never none."""
    issued_at: int
    expires_at: int
    authenticated_at: float | None
    """When the person last proved who they are (`auth_time`); None: the provider does not say."""

    def is_recent(self, now: float, seconds: int) -> bool:
        """Whether the person was there lately, as far as the provider says: a refresh token alone is not."""
        return self.authenticated_at is None or now - self.authenticated_at <= seconds


class SignInVerifier:
    """Knows the configured issuers and their keys."""

    def __init__(self, issuers: Mapping[str, tuple[Issuer, Jwks]], *, names_people: bool = False) -> None:
        self._issuers = issuers
        self.names_people = names_people
        """Whether e-mail addresses decide: then nobody gets in without one that can be relied on."""

    def jwks_of(self, issuer: Issuer) -> Jwks | None:
        """The keys of an issuer that is known, by the same certificates; None of any other."""
        known = self._issuers.get(issuer.issuer)
        return known[1] if known is not None and known[0].ca_file == issuer.ca_file else None

    def follow(self, issuers: Mapping[str, tuple[Issuer, Jwks]], *, names_people: bool) -> None:
        """Take other issuers into use. What somebody of one that is gone holds ends with its token."""
        self._issuers = issuers
        self.names_people = names_people

    async def verify(self, unverified_token: Secret, token_type: str, now: float) -> SignIn:
        """Check a subject token; GatewayError tells whether to sign in again, to refresh, or to wait."""
        token = unverified_token.reveal()
        try:
            unverified_header = tokens.gate(token, allowed=_HEADERS, most=MOST_CHARACTERS)
            unverified_issuer = jwt.decode(token, options={"verify_signature": False}).get("iss")
        except (GatewayError, jwt.PyJWTError):
            raise _refused("it is not a token that can be read") from None
        if not isinstance(unverified_issuer, str) or unverified_issuer not in self._issuers:
            raise _refused("its issuer is not configured at this gateway")
        issuer, jwks = self._issuers[unverified_issuer]
        expected_type = ID_TOKEN_TYPE if issuer.wants_id_token else ACCESS_TOKEN_TYPE
        if token_type != expected_type:
            raise _refused(f"this gateway wants the provider's {issuer.subject_token}")
        claims = await _signature(token, unverified_header, issuer, jwks)
        _check(claims, unverified_header, issuer)
        _check_times(claims, issuer, now)
        _check_required(claims, issuer)
        subject = _subject(claims, issuer)
        email = _email(claims, issuer)
        if not email and issuer.kind != "workload" and (self.names_people or issuer.email_domains):
            raise _unnamed(issuer)
        if issuer.email_domains and not is_in_domain(email, issuer.email_domains):
            raise _refused(f"its e-mail address is not in {', '.join(issuer.email_domains)}")
        return SignIn(
            issuer=issuer,
            subject=subject,
            # An access token often carries no profile: what is left is better than nothing for its owner's eyes.
            name=_display(claims, "name") or _display(claims, "preferred_username") or subject,
            email=email,
            groups=_groups(claims, issuer.groups_claim),
            issued_at=claims["iat"],
            expires_at=claims["exp"],
            # glewlwyd says 0 when it does not know; and nobody has signed in at the epoch.
            authenticated_at=claims.get("auth_time") or None,
        )


async def _signature(token: str, header: tokens.UnverifiedHeader, issuer: Issuer, jwks: Jwks) -> dict[str, Any]:
    if header.get("alg") not in issuer.algorithms:
        raise _refused(f"its algorithm is not one of {', '.join(issuer.algorithms)}")
    try:
        key = await jwks.get(str(header.get("kid", "")))
    except ProviderUnavailableError:
        raise GatewayError(
            ErrorCode.IDENTITY_PROVIDER_UNAVAILABLE,
            f"The identity provider {issuer.issuer} does not answer the gateway; try again in a moment.",
            retry_after=5,
        ) from None
    if key is None:
        raise _refused("it was signed with a key that the provider does not publish")
    if key.algorithm not in {None, header["alg"]}:
        raise _refused("its key is for another algorithm")
    try:
        return jwt.decode(token, key.key, algorithms=[header["alg"]], options=tokens.SIGNATURE_ONLY)
    except (jwt.PyJWTError, TypeError, ValueError):  # the latter two: a key of another type than the algorithm's
        raise _refused("its signature is wrong") from None


def _check(claims: dict[str, Any], header: tokens.UnverifiedHeader, issuer: Issuer) -> None:
    if claims.get("iss") != issuer.issuer:
        raise _refused("its issuer is not the configured one")
    audience = claims.get("aud")
    if audience not in (issuer.expected_audience, [issuer.expected_audience]):
        raise _refused("it was issued for another audience")
    _check_client(claims, issuer)
    typ = str(header.get("typ", "JWT")).lower().removeprefix("application/")
    # RFC 9068 section 5: an access token must never pass for an ID token, nor the other way round.
    if issuer.wants_id_token:
        if typ == "at+jwt":
            raise _refused("it is an access token, not an ID token")
    elif "nonce" in claims or "at_hash" in claims:
        raise _refused("it is an ID token, not an access token")


def _check_client(claims: dict[str, Any], issuer: Issuer) -> None:
    """The token was made for the agent: other apps may hold access tokens for the same API."""
    names = ("azp",) if issuer.wants_id_token else CLIENT_CLAIMS
    clients = [claims[name] for name in names if name in claims]
    if any(client != issuer.client_id for client in clients):
        raise _refused("it was issued to another client")
    if not clients and issuer.expected_audience != issuer.client_id:  # an ID token's audience is its client, for one
        raise _refused(f"it does not say which client it was issued to ({', '.join(CLIENT_CLAIMS)})")


def _check_times(claims: dict[str, Any], issuer: Issuer, now: float) -> None:
    for name in ("iat", "exp"):
        if type(claims.get(name)) is not int:
            raise _refused(f"its {name!r} is missing")
    signed_in = claims.get("auth_time", 0)  # a JSON number (OpenID Connect Core 1.0 section 2), maybe with a fraction
    if type(signed_in) not in {int, float} or not signed_in <= now + LEEWAY:
        raise _refused("its 'auth_time' is no time, or one to come")
    not_before = claims.get("nbf", claims["iat"])
    if type(not_before) is not int or not_before > now + LEEWAY or claims["iat"] > now + LEEWAY:
        raise _refused("it is not valid yet: compare the clocks of the provider, this gateway and the laptop")
    # No leeway here: it would be added to the time that a removal at the provider takes to act.
    if claims["exp"] + LEEWAY <= now or claims["iat"] + issuer.freshness_seconds <= now:
        raise GatewayError(
            ErrorCode.SIGN_IN_STALE,
            f"The sign-in is older than {issuer.freshness_seconds} s: refresh it at the provider and exchange again.",
        )


def _check_required(claims: dict[str, Any], issuer: Issuer) -> None:
    if name := unmet(claims, issuer.required):
        wanted = " or ".join(issuer.required[name])
        raise _refused(f"this gateway requires that its {name!r} says {wanted}")


def _subject(claims: dict[str, Any], issuer: Issuer) -> str:
    names = ("tid", "oid") if issuer.kind == "entra" else ("sub",)
    parts = [claims.get(name) for name in names]
    for name, part in zip(names, parts, strict=True):
        if not isinstance(part, str) or not 0 < len(part) <= MOST_TEXT or not part.isprintable():
            raise _refused(f"its {name!r} is missing or not usable")
    return "/".join(str(part) for part in parts)


def _groups(claims: dict[str, Any], name: str) -> tuple[str, ...] | None:
    """Entra ID puts a reference in the place of more than 200 groups (`_claim_names`, `hasgroups`): an overage."""
    groups = claims.get(name)
    if isinstance(groups, str):  # how some providers write a list of one
        groups = [groups]
    if not isinstance(groups, list):
        elsewhere = claims.get("_claim_names")
        overage = isinstance(elsewhere, dict) and name in elsewhere
        return None if overage or (name == "groups" and claims.get("hasgroups") in _YES) else ()
    if len(groups) > MOST_GROUPS:
        return None
    return tuple(group for group in groups if isinstance(group, str) and 0 < len(group) <= MOST_TEXT)


def _email(claims: dict[str, Any], issuer: Issuer) -> str:
    """The address by which a person may be named, or nothing: people can write what they like into their profiles.

    `email_verified`: OpenID Connect Core 1.0 section 5.1. `xms_edov`: Entra ID's optional claim, the owner of the
    domain was verified. Neither `email` without them nor `preferred_username` may decide anything (section 5.7), unless
    the operator knows that at this provider only administrators write it.
    """
    if issuer.kind == "workload":  # what it says of an address is that of somebody who started the machine
        return ""
    claim = "preferred_username" if issuer.email_claim == "preferred_username" else "email"
    address = _display(claims, claim)
    if address != claims.get(claim):  # cut or cleaned, it would be somebody else's
        return ""
    if issuer.email_claim != "verified_email" or claims.get("email_verified") in _YES:
        return address
    return address if issuer.kind == "entra" and claims.get("xms_edov") in _YES else ""


def _unnamed(issuer: Issuer) -> GatewayError:
    wanted = {
        "verified_email": "a verified e-mail address (email with email_verified)",
        "email": "an e-mail address (email)",
        "preferred_username": "a user name (preferred_username)",
    }[issuer.email_claim]
    return GatewayError(
        ErrorCode.SIGN_IN_INVALID,
        f"The sign-in was refused: this gateway knows people by e-mail, and {issuer.issuer} did not give {wanted}. "
        "Tell the platform team: the provider's scopes and claims, or the gateway's issuers.email_claim.",
    )


def _display(claims: dict[str, Any], name: str) -> str:
    """A text for people's eyes: cut, and without control characters (they would reach logs and terminals)."""
    value = claims.get(name)
    return "".join(c for c in value if c.isprintable())[:MOST_TEXT] if isinstance(value, str) else ""


def _refused(why: str) -> GatewayError:
    return GatewayError(ErrorCode.SIGN_IN_INVALID, f"The sign-in was refused: {why}. Sign in again with: llmgw login")
