"""What the parts of a session pass to each other: an account, a sign-in, an attempt at one, and who carries it out."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol

import jwt

from llmgw_wire.messages import IssuerOffer
from llmgw_wire.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Account:
    """Who signed in, by the validated ID token. `subject` is stable (Entra: tid/oid); the rest is for people's eyes."""

    subject: str
    name: str
    email: str


@dataclass(frozen=True, slots=True)
class SignIn:
    """One sign-in at one identity provider, and all that keeps it fresh. Immutable: a refresh makes another."""

    session: str
    """Random, of this sign-in: names it in caches."""
    offer: IssuerOffer
    account: Account
    subject_token: Secret
    """The provider's token that the gateway wants to see."""
    subject_issued_at: float
    """Its `iat` on the provider's clock; the moment it was received where it cannot be read."""
    renewal: Secret
    """What renews it: a refresh token, or MSAL's serialised cache. Empty if the provider gave none."""
    signed_in_at: float

    def dump(self) -> dict[str, Any]:
        """A JSON object with the secrets in clear: for the vault only."""
        document = {name: getattr(self, name) for name in ("session", "subject_issued_at", "signed_in_at")}
        document |= {"offer": asdict(self.offer), "account": asdict(self.account)}
        return document | {"subject_token": self.subject_token.reveal(), "renewal": self.renewal.reveal()}

    @classmethod
    def load(cls, document: dict[str, Any]) -> SignIn:
        """The reverse of `dump`; KeyError or TypeError on what another version wrote."""
        offer = IssuerOffer(**(document["offer"] | {"scopes": tuple(document["offer"]["scopes"])}))
        return cls(
            session=document["session"],
            offer=offer,
            account=Account(**document["account"]),
            subject_token=Secret(document["subject_token"]),
            subject_issued_at=document["subject_issued_at"],
            renewal=Secret(document["renewal"]),
            signed_in_at=document["signed_in_at"],
        )

    def renewed(self, subject_token: Secret, received_at: float, renewal: Secret) -> SignIn:
        """The same sign-in with newer tokens."""
        issued_at = token_issued_at(subject_token, received_at)
        return replace(self, subject_token=subject_token, subject_issued_at=issued_at, renewal=renewal)


@dataclass(frozen=True, slots=True)
class Attempt:
    """A sign-in that a browser is carrying out. `private` is the provider's own: verifier, nonce, MSAL's flow."""

    offer: IssuerOffer
    url: str
    state: str
    redirect_uri: str
    private: dict[str, Any]


@dataclass(frozen=True, slots=True)
class DeviceAttempt:
    """A sign-in with a code that a person types in elsewhere. `private` is the provider's own: the device code."""

    offer: IssuerOffer
    url: str
    user_code: str
    expires_in: int
    """Seconds from when it was made."""
    interval: int
    """Seconds between two questions."""
    private: dict[str, Any]


class CodeState(Enum):
    """What a provider answers while the code was not used (RFC 8628 section 3.5)."""

    PENDING = "authorization_pending"
    SLOW_DOWN = "slow_down"
    EXPIRED = "expired_token"


class Provider(Protocol):
    """A way to sign in: the own OpenID Connect flow, or MSAL for Entra ID."""

    async def begin(self, offer: IssuerOffer, redirect_uri: str, *, choose_account: bool = False) -> Attempt:
        """Prepare a sign-in; nothing has happened at the provider yet. `choose_account` has it ask for the account."""

    async def finish(self, attempt: Attempt, answer: Mapping[str, str]) -> SignIn:
        """Turn the browser's answer (its state is already checked) into a sign-in. RefusedError if it is none."""

    async def begin_device(self, offer: IssuerOffer) -> DeviceAttempt:
        """Ask for a code to be typed in elsewhere. RefusedError if the provider gives none."""

    async def poll(self, attempt: DeviceAttempt) -> SignIn | CodeState:
        """Ask once whether the code was used. RefusedError if the person declined."""

    async def renew(self, sign_in: SignIn) -> SignIn:
        """Get newer tokens. SessionEndedError only if the provider says so for good, else TemporaryError."""

    async def revoke(self, sign_in: SignIn, /) -> None:
        """End it at the provider (RFC 7009). RefusedError says what "it" did instead."""


def token_issued_at(token: Secret, received_at: float) -> float:
    """When the provider made a token, by its own `iat`. Read without verification: it only decides when to renew."""
    try:
        issued_at = jwt.decode(token.reveal(), options={"verify_signature": False}).get("iat")
    except jwt.PyJWTError:
        return received_at
    return float(issued_at) if isinstance(issued_at, int | float) else received_at


def error_name(error: object) -> str:
    """An OAuth error code: short, from the alphabet of RFC 6749 section 5.2 that is safe to print."""
    text = str(error)[:40]
    return text if text.replace("_", "").isalnum() and text.isascii() else "no usable error code"
