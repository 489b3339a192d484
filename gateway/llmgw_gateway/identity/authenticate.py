"""From request headers to a `Caller`: one credential, verified once, remembered for a minute."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from llmgw_gateway.call import Caller
from llmgw_gateway.errors import GatewayError
from llmgw_gateway.identity import dpop, tokens
from llmgw_gateway.identity.service_keys import PREFIX, Withdrawn
from llmgw_gateway.observe.changes import Author, new_change_id
from llmgw_wire.errors import ErrorCode
from llmgw_wire.headers import DPOP
from llmgw_wire.secret import Secret

if TYPE_CHECKING:
    from multidict import CIMultiDictProxy

    from llmgw_gateway.identity.revocation import Revocations
    from llmgw_gateway.identity.ring import Ring
    from llmgw_gateway.identity.service_keys import ServiceKeys

REMEMBER_SECONDS: Final = 60
MOST_REMEMBERED: Final = 10_000
MOST_PROOFS: Final = 200_000
"""What a replica serves in four minutes at 800 a second. Beyond that the oldest are forgotten; nobody is refused."""


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
        self._verified: OrderedDict[bytes, tuple[Caller, float, str, str]] = OrderedDict()
        self._proofs: OrderedDict[str, float] = OrderedDict()
        """Those that were used and could be used again, and until when."""

    def authenticate(self, headers: CIMultiDictProxy[str], method: str = "", target: str = "") -> Caller:
        """The person behind the request; GatewayError (401) names what is wrong with the credential.

        Method and target are those of the request, for tokens that are bound to a device. Without them these are no
        good: so it is where nobody but people and service keys administers.
        """
        token = credential(headers)
        caller, device = self._verify(token)
        if device:
            self._prove(token, device, headers, method, target.partition("?")[0])
        self.check(caller.session)
        return caller

    def _prove(self, token: Secret, device: str, headers: CIMultiDictProxy[str], method: str, path: str) -> None:
        """Check that the device which the token is bound to makes this request, and makes it once (RFC 9449 section 7).

        Proofs are remembered by each replica for itself: one that is sent to another has to be stolen with its token
        from within TLS, and is good for that very request only.
        """
        now = time.time()
        proofs = headers.getall(DPOP, [])
        proof = dpop.verify(proofs, method=method, url=f"{self._issuer}{path}", now=now, token=token)
        if not hmac.compare_digest(proof.device, device):
            raise GatewayError(ErrorCode.PROOF_INVALID, "The token is bound to the key of another device.")
        while self._proofs and (next(iter(self._proofs.values())) < now or len(self._proofs) >= MOST_PROOFS):
            self._proofs.popitem(last=False)
        if proof.digest in self._proofs:
            raise GatewayError(ErrorCode.PROOF_INVALID, "The proof of the device key was used before.")
        self._proofs[proof.digest] = proof.expires_at

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
            return self._verify(token)[0]
        except GatewayError:
            return None

    def _verify(self, token: Secret) -> tuple[Caller, str]:
        """Whose it is, and the device that it is bound to."""
        if self._keys is not None and token.reveal().startswith(PREFIX):
            return self._keys.caller(token), ""
        # A token is ASCII; what is not gets no further than the gate, which knows the length and the alphabet.
        digest = hashlib.sha256(token.reveal().encode("utf-8", "surrogatepass")).digest()
        now = time.time()
        known = self._verified.get(digest)
        if (
            known is not None and now < known[1] and known[2] in self._ring.public
        ):  # a removed key ends its tokens at once
            return known[0], known[3]
        claims = tokens.verify(token, self._ring.public, issuer=self._issuer, audience=self._audience, now=now)
        caller = Caller(claims.person_id, claims.session, claims.access_key, claims.token_id, claims.expires_at)
        self._verified[digest] = (
            caller,
            min(now + REMEMBER_SECONDS, claims.expires_at + tokens.LEEWAY),
            claims.kid,
            claims.device,
        )
        self._verified.move_to_end(digest)
        if len(self._verified) > MOST_REMEMBERED:
            self._verified.popitem(last=False)
        return caller, claims.device


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
    return token.strip() if scheme.lower() in {"bearer", "dpop"} else ""
