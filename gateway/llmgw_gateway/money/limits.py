"""Which limits concern a call, their names, and how tokens are counted against them. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from llmgw_gateway.money.scope import LEVELS, applies, particularity, subject, whose

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llmgw_gateway.call import Account, Usage
    from llmgw_gateway.sections.limiting import Limit

Kind = Literal["requests", "tokens", "concurrent"]
REQUEST, EXPECTED, MOST, SLOT = range(4)
"""Indices into what a call takes: a request, the tokens to expect, the tokens that Bedrock takes at first, a slot."""
MOST_KNOWN: Final = 10_000
_ADJECTIVE: dict[Kind, str] = {"requests": "request ", "tokens": "token ", "concurrent": "concurrency "}
Takes = tuple[int, int, int, int]
"""How much a call takes of each."""


@dataclass(frozen=True, slots=True)
class LimitRef:
    """One limit that concerns a call."""

    key: str
    """Level, subject, model and kind: never the number, so that changing it keeps what is counted."""
    name: str
    """What a person calls it."""
    kind: Kind
    limit: int
    """Requests or tokens a minute, or calls at a time."""
    amount: int
    """Which of a call's amounts it takes."""
    level: str
    model: str = ""
    refuses: bool = False
    """While Valkey is away: whether calls are refused instead of limited by each replica."""

    @property
    def is_slots(self) -> bool:
        """Whether it counts what runs, not what flows."""
        return self.amount == SLOT


class Limits:
    """The configured limits of one organisation."""

    def __init__(self, limits: Sequence[Limit]) -> None:
        self._limits = sorted(limits, key=lambda limit: LEVELS.index(limit.level))
        self._known: dict[tuple[Account, str | None], tuple[LimitRef, ...]] = {}

    def concerning(self, account: Account, model: str | None = None) -> tuple[LimitRef, ...]:
        """The limits that a call of `model` by `account` has to pass; with model None all of the account's."""
        known = self._known.get((account, model))
        if known is None:
            if len(self._known) >= MOST_KNOWN:
                self._known.clear()
            known = self._known[account, model] = self._concerning(account, model)
        return known

    def _concerning(self, account: Account, model: str | None) -> tuple[LimitRef, ...]:
        chosen: dict[tuple[str, str, Kind], Limit] = {}
        for limit in self._limits:
            if not applies(limit, account) or (model is not None and limit.model not in ("", model)):
                continue
            for kind in _numbers(limit):
                key = (limit.level, limit.model, kind)
                if key not in chosen or particularity(limit) > particularity(chosen[key]):
                    chosen[key] = limit
        return tuple(_reference(limit, kind, account) for (_, _, kind), limit in chosen.items())


def _numbers(limit: Limit) -> dict[Kind, int]:
    numbers: dict[Kind, int | None] = {
        "requests": limit.requests_per_minute,
        "tokens": limit.tokens_per_minute,
        "concurrent": limit.concurrent,
    }
    return {kind: number for kind, number in numbers.items() if number is not None}


def _reference(limit: Limit, kind: Kind, account: Account) -> LimitRef:
    hold = limit.hold or ("max_tokens" if limit.level == "provider" else "expected")
    tokens = MOST if hold == "max_tokens" else EXPECTED
    return LimitRef(
        key=f"{limit.level}/{subject(limit, account)}/{limit.model}/{kind}",
        name=f"{_ADJECTIVE[kind]}limit{whose(limit, account)}",
        kind=kind,
        limit=_numbers(limit)[kind],
        amount={"requests": REQUEST, "tokens": tokens, "concurrent": SLOT}[kind],
        level=limit.level,
        model=limit.model,
        refuses=limit.when_unavailable == "refuse",
    )


def counted(usage: Usage, burndown: int) -> int:
    """The tokens of a finished call, as Bedrock counts them against its quota: reads from a cache are not.

    InputTokenCount + CacheWriteInputTokens + OutputTokenCount x burn-down rate
    (docs.aws.amazon.com/bedrock/latest/userguide/quotas-token-burndown.html, "How tokens are counted").
    """
    return usage.input + usage.cache_write_5m + usage.cache_write_1h + burndown * usage.output


def amounts(likely: Usage, max_tokens: int, burndown: int) -> Takes:
    """What a call takes when it begins: of each limit the one of its index.

    Bedrock itself takes the whole prompt, cached or not, and `max_tokens` without the burn-down (the same page).
    """
    return (1, counted(likely, burndown), likely.prompt + max_tokens, 1)
