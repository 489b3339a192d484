"""Gateway tokens in memory, and the guess that one was refused. Pure: no clock, no I/O; `now` is an argument.

Times are wall-clock seconds: a laptop sleeps, and the monotonic clock of some systems sleeps with it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from llmgw_wire.secret import Secret

USABLE_SECONDS: Final = 30
"""An old token is handed out while a renewal fails, if it lives for at least this long."""
REPEAT_AFTER: Final = 0.4
"""Seconds. A client that was refused has made a request in between; callers side by side have not."""
REPEAT_WITHIN: Final = 10.0
"""Seconds. Claude Code runs its helper again 0.6 to 1 s after a 401."""
RENEWAL_PAUSE: Final = 30.0
"""Seconds between renewals that were only guessed to be needed: a helper in a loop must not hammer the gateway."""


@dataclass(frozen=True, slots=True)
class Key:
    """Whose token, for whom. Never a prefix or hash of a token: that is how caches mix people up."""

    session: str
    audience: str
    """The gateway that it is good for."""
    bound: bool = False
    """Whether it works with proofs of the device key only."""


@dataclass(frozen=True, slots=True)
class CachedToken:
    """One gateway token and its life, on this machine's wall clock."""

    value: Secret
    obtained_at: float
    expires_at: float
    bound: bool = False
    """Whether each request that carries it needs a proof of the device key (proof.py)."""

    def seconds_left(self, now: float) -> float:
        """Remaining life. Zero when the clock was set back behind the token's birth: nothing is known then."""
        return max(0.0, self.expires_at - now) if now >= self.obtained_at - 1 else 0.0

    def is_fresh(self, now: float) -> bool:
        """Whether at least half of its life is left: what a tool needs that keeps it for some minutes."""
        return self.seconds_left(now) * 2 >= self.expires_at - self.obtained_at

    def is_usable(self, now: float) -> bool:
        """Whether it is better than nothing."""
        return self.seconds_left(now) >= USABLE_SECONDS


@dataclass(slots=True)
class TokenCache:
    """The newest token for each key."""

    _tokens: dict[Key, CachedToken] = field(default_factory=dict)

    def put(self, key: Key, token: CachedToken) -> None:
        """Keep a token in place of the one before."""
        self._tokens[key] = token

    def newest(self, key: Key) -> CachedToken | None:
        """Whatever there is, however old."""
        return self._tokens.get(key)

    def fresh(self, key: Key, now: float) -> CachedToken | None:
        """A token to hand out without asking anybody."""
        token = self._tokens.get(key)
        return token if token is not None and token.is_fresh(now) else None

    def usable(self, key: Key, now: float) -> CachedToken | None:
        """A token to hand out when a newer one cannot be had."""
        token = self._tokens.get(key)
        return token if token is not None and token.is_usable(now) else None

    def clear(self) -> None:
        """Forget all tokens: the session is over."""
        self._tokens.clear()


@dataclass(slots=True)
class Repeats:
    """Notices that a program asks again right after it got a token: its gateway refused that one.

    The helper contract has no way to say "refused", so the second call is all there is to go by.
    """

    _handed: dict[str, tuple[CachedToken, float]] = field(default_factory=dict)
    _renewed_at: float = float("-inf")

    def suggest_renewal(self, caller: str, token: CachedToken, now: float) -> bool:
        """Whether this caller got this very token a moment ago; true at most once per pause, for all callers."""
        handed, at = self._handed.get(caller, (None, 0.0))
        if handed is not token or not REPEAT_AFTER <= now - at <= REPEAT_WITHIN:
            return False
        return self.may_renew(now)

    def may_renew(self, now: float) -> bool:
        """Whether a token that should still be good is replaced; true at most once per pause, for all callers."""
        if 0 <= now - self._renewed_at < RENEWAL_PAUSE:
            return False
        self._renewed_at = now
        return True

    def handed_out(self, caller: str, token: CachedToken, now: float) -> None:
        """Remember who got what; callers of long ago are forgotten."""
        recent = {who: was for who, was in self._handed.items() if 0 <= now - was[1] <= REPEAT_WITHIN}
        self._handed = recent | {caller: (token, now)}
