"""What budgets count: money, tokens, or tokens weighted by their price. Every attempt has an amount in each. Pure."""

from __future__ import annotations

from typing import Final, Literal

Unit = Literal["usd", "tokens", "weighted_tokens"]
UNITS: Final[tuple[Unit, ...]] = ("usd", "tokens", "weighted_tokens")
MONEY: Final = 0
TOKENS: Final = 1
"""Where money and tokens stand in amounts."""
Amounts = tuple[int, int, int]
"""Micro-USD, tokens, and weighted tokens: a token counts as many input tokens of its model as it costs."""
NOTHING: Final[Amounts] = (0, 0, 0)


def larger(one: Amounts, other: Amounts) -> Amounts:
    """The larger of each."""
    (a, b, c), (x, y, z) = one, other
    return (a if a > x else x, b if b > y else y, c if c > z else z)  # noqa: FURB136 -- a call of max each costs more


def smaller(one: Amounts, other: Amounts) -> Amounts:
    """The smaller of each."""
    (a, b, c), (x, y, z) = one, other
    return (a if a < x else x, b if b < y else y, c if c < z else z)  # noqa: FURB136 -- a call of min each costs more


def difference(one: Amounts, other: Amounts) -> Amounts:
    """How far each of `one` exceeds that of `other`; may be negative."""
    return (one[0] - other[0], one[1] - other[1], one[2] - other[2])


def only(unit: int, amount: int) -> Amounts:
    """`amount` in one unit, given by its index, and nothing in the others."""
    return (amount if unit == 0 else 0, amount if unit == 1 else 0, amount if unit == 2 else 0)  # noqa: PLR2004 -- three
