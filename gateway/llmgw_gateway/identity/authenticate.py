"""From request headers to a `Caller`: one credential, verified once, remembered for a minute."""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from typing import TYPE_CHECKING

from llmgw_gateway.call import Caller
from llmgw_gateway.errors import GatewayError
from llmgw_gateway.identity import tokens
from llmgw_gateway.identity.service_keys import PREFIX, Withdrawn
from llmgw_gateway.observe.changes import Author, new_change_id
from llmgw_wire.errors import ErrorCode
from llmgw_wire.secret import Secret

if TYPE_CHECKING:
    from multidict import CIMultiDictProxy

    from llmgw_gateway.identity.revocation import Revocations
    from llmgw_gateway.identity.ring import Ring
    from llmgw_gateway.identity.service_keys import ServiceKeys

REMEMBER_SECONDS = 60
MOST_REMEMBERED = 10_000


class Authenticator:
    """Verifies gateway tokens. Signatures are checked once a minute for each token, expiry on every request."""

    def __init__(
        self, ring: Ring, revocations: Revocations, issuer: str, audience: str, keys: ServiceKeys | None = None
    ) -> None:
        """Without `keys` no service key is good."""
        self._ring = ring
        self._keys = keys
        self._revocations = revocations
        self._issuer = issuer
        self._audience = audience
        # Keyed by the whole SHA-256: a cache keyed by a part of the token made CVE-2026-35030 elsewhere.
        self._verified: OrderedDict[bytes, tuple[Caller, float, str]] = OrderedDict()

    def authenticate(self, headers: CIMultiDictProxy[str]) -> Caller:
        """The person behind the request; GatewayError (401) names what is wrong with the credential."""
        caller = self._verify(credential(headers))
        self.check(caller.session)
        return caller

    def check(self, session: str) -> None:
        """GatewayError(TOKEN_INVALID) when the session was ended, maybe after its token was verified."""
        if self.has_ended(session):
            raise GatewayError(ErrorCode.TOKEN_INVALID, "This session was ended. Sign in again with: llmgw login")

    def has_ended(self, session: str) -> bool:
        """Whether a session, or the secret of a service key, was ended."""
        return session in self._revocations or (self._keys is not None and self._keys.has_ended(session))

    async def end(self, caller: Caller) -> None:
        """End what the caller came with: the session of the device, or the secret of the service key."""
        if caller.service and self._keys is not None:
            holder = Author(caller.person_id, "service", new_change_id())
            await self._keys.revoke(Withdrawn(caller.session, holder, 0))
        else:
            await self._revocations.end(caller.session)

    def caller_of(self, token: Secret) -> Caller | None:
        """Whose token it is; None when it is no good token (no error by RFC 7009)."""
        try:
            return self._verify(token)
        except GatewayError:
            return None

    def _verify(self, token: Secret) -> Caller:
        if self._keys is not None and token.reveal().startswith(PREFIX):
            return self._keys.caller(token)
        # A token is ASCII; what is not gets no further than the gate, which knows the length and the alphabet.
        digest = hashlib.sha256(token.reveal().encode("utf-8", "surrogatepass")).digest()
        now = time.time()
        known = self._verified.get(digest)
        if (
            known is not None and now < known[1] and known[2] in self._ring.public
        ):  # a removed key ends its tokens at once
            return known[0]
        claims = tokens.verify(token, self._ring.public, issuer=self._issuer, audience=self._audience, now=now)
        caller = Caller(claims.person_id, claims.session, claims.access_key, claims.token_id, claims.expires_at)
        self._verified[digest] = (
            caller,
            min(now + REMEMBER_SECONDS, claims.expires_at + tokens.LEEWAY),
            claims.kid,
        )
        self._verified.move_to_end(digest)
        if len(self._verified) > MOST_REMEMBERED:
            self._verified.popitem(last=False)
        return caller


def credential(headers: CIMultiDictProxy[str]) -> Secret:
    """The one credential of a request: `Authorization: Bearer` or `x-api-key`, or both with the same value.

    Claude Code sends its helper's output in both. Two different values mean that a variable in the user's shell
    shadows the helper: refused, with the name of the variable.
    """
    values = headers.getall("Authorization", [])
    keys = headers.getall("x-api-key", [])
    if len(values) > 1 or len(keys) > 1:
        raise GatewayError(
            ErrorCode.CREDENTIAL_AMBIGUOUS, "The request carries the same credential header more than once."
        )
    bearer = _bearer(values[0]) if values else ""
    key = keys[0].strip() if keys else ""
    if bearer and key and bearer != key:
        raise GatewayError(
            ErrorCode.CREDENTIAL_AMBIGUOUS,
            "Two different credentials came with one request. A variable in your shell shadows the token helper: unset "
            "ANTHROPIC_AUTH_TOKEN, ANTHROPIC_API_KEY and AWS_BEARER_TOKEN_BEDROCK, then start again.",
        )
    if not (bearer or key):
        raise GatewayError(
            ErrorCode.CREDENTIAL_MISSING, "No gateway token came with the request. Sign in with: llmgw login"
        )
    return Secret(bearer or key)


def _bearer(value: str) -> str:
    scheme, _, token = value.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""
