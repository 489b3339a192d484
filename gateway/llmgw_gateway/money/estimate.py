"""How much money to keep for a call before its cost is known. Pure; no tokenizer (they stall the loop for seconds).

A hold is the *expected* cost (`learning.py`): a worst-case hold blocks a coding agent, which asks for 32,000 tokens and
takes 300, at a fraction of its budget. The ceiling is the *most* the call can cost, without any cache discount; the
published overshoot bound limits the sum of what ceilings exceed holds (invariant I5).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmgw_gateway.call import MICRO

if TYPE_CHECKING:
    from llmgw_gateway.call import Usage
    from llmgw_gateway.money.prices import Price

BYTES_PER_TOKEN = 4
"""Typical for English and code in JSON; until a model has shown its own."""
EXPECTED_OUTPUT = 1_500
"""Tokens: most turns of a coding agent are shorter; until a person's answers have shown their own."""
PROVIDER_OVERHEAD = 4_096
"""Prompt tokens that the provider adds by itself (tool and safety preambles), rounded up generously."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """Micro-USD: what is held for an attempt, and the most it can cost."""

    hold: int
    ceiling: int


def estimate(
    size: int, max_tokens: int, context_tokens: int, likely: Usage, expected: Price, dearest: Price
) -> Estimate:
    """Estimate a call of `size` body bytes that may produce `max_tokens` and will probably use `likely`.

    `expected` is the price for a prompt of the likely size, `dearest` the one for the largest possible prompt: a token
    stands for at least one byte, and no prompt exceeds the model's context.
    """
    most_prompt = min(size + PROVIDER_OVERHEAD, context_tokens)
    rate = max(dearest.dearest_prompt, expected.dearest_prompt)
    output_rate = max(dearest.output, expected.output)
    ceiling = -(-(most_prompt * rate + max_tokens * output_rate) // MICRO)
    hold = min(expected.cost(likely), ceiling)
    return Estimate(hold=hold, ceiling=ceiling)
