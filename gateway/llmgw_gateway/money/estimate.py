"""How much to keep for a call before its cost is known. Pure; no tokenizer (they stall the loop for seconds).

A hold is the *expected* cost (`learning.py`): a worst-case hold blocks a coding agent, which asks for 32,000 tokens and
takes 300, at a fraction of its budget. The ceiling is the *most* the call can cost, without any cache discount; the
published overshoot bound limits the sum of what ceilings exceed holds (invariant I5).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from llmgw_gateway.call import MICRO
from llmgw_gateway.money.amounts import smaller

if TYPE_CHECKING:
    from llmgw_gateway.call import Usage
    from llmgw_gateway.money.amounts import Amounts
    from llmgw_gateway.money.prices import Price, Tariff

BYTES_PER_TOKEN: Final = 4
"""Typical for English and code in JSON; until a model has shown its own."""
EXPECTED_OUTPUT: Final = 1_500
"""Tokens: most turns of a coding agent are shorter; until a person's answers have shown their own."""
PROVIDER_OVERHEAD: Final = 4_096
"""Prompt tokens that the provider adds by itself (tool and safety preambles), rounded up generously."""

PART: Final = MICRO - 1
"""Less than a whole unit: what rounds up."""


class Terms:
    """Hold and ceiling of a call, for any max_tokens up to the one it asked for: near a limit less may be admitted.

    The four amounts are millionths of each unit: of the prompt, and of one token of output.
    """

    __slots__ = (
        "least_tokens",
        "likely_output",
        "likely_prompt",
        "likely_rate",
        "max_tokens",
        "most_prompt",
        "most_rate",
    )

    def __init__(
        self,
        max_tokens: int,
        least_tokens: int,
        likely_output: int,
        likely_prompt: Amounts,
        likely_rate: Amounts,
        most_prompt: Amounts,
        most_rate: Amounts,
    ) -> None:
        self.max_tokens = max_tokens
        self.least_tokens = least_tokens
        """With less output than this the call is of no use; never clamped below."""
        self.likely_output = likely_output
        """Tokens."""
        self.likely_prompt = likely_prompt
        self.likely_rate = likely_rate
        self.most_prompt = most_prompt
        self.most_rate = most_rate

    def hold(self, unit: int, max_tokens: int) -> int:
        """What is expected, in whole units rounded up."""
        output = min(max_tokens, self.likely_output)
        likely = _whole(self.likely_prompt[unit] + output * self.likely_rate[unit])
        return min(likely, self.ceiling(unit, max_tokens))

    def ceiling(self, unit: int, max_tokens: int) -> int:
        """The most, in whole units rounded up."""
        return _whole(self.most_prompt[unit] + max_tokens * self.most_rate[unit])

    def most_output(self, unit: int, for_hold: int, for_ceiling: int) -> int:
        """The largest max_tokens whose hold and ceiling fit; -1 when not even the prompt does."""
        most = _tokens(for_ceiling * MICRO - self.most_prompt[unit], self.most_rate[unit], self.max_tokens)
        if most >= 0 and self.hold(unit, most) > for_hold:
            most = min(most, _tokens(for_hold * MICRO - self.likely_prompt[unit], self.likely_rate[unit], most))
        return most

    def amounts(self, max_tokens: int) -> tuple[Amounts, Amounts]:
        """Hold and ceiling in every unit."""
        output = min(max_tokens, self.likely_output)
        likely = _along(self.likely_prompt, output, self.likely_rate)
        most = _along(self.most_prompt, max_tokens, self.most_rate)
        return smaller(likely, most), most


def estimate(
    *, size: int, max_tokens: int, least_tokens: int, context_tokens: int, likely: Usage, tariff: Tariff
) -> Terms:
    """Estimate a call of `size` body bytes that may produce `max_tokens` and will probably use `likely`.

    The ceiling is by the dearest price there is for any size of prompt: a token stands for at least one byte, and no
    prompt exceeds the model's context.
    """
    most = min(size + PROVIDER_OVERHEAD, context_tokens)
    prompt = likely.prompt
    _, price, rate = tariff.step(prompt)
    prompt_cost = price.numerator(likely) - likely.output * price.output
    top = tariff.dearest
    return Terms(
        max_tokens=max_tokens,
        least_tokens=least_tokens,
        likely_output=likely.output,
        likely_prompt=(prompt_cost, prompt * MICRO, price.weight(prompt_cost)),
        likely_rate=rate,
        most_prompt=(most * top.prompt, most * MICRO, most * top.prompt_weight),
        most_rate=top.output,
    )


def charged(price: Price, usage: Usage) -> Amounts:
    """What `usage` comes to in every unit."""
    numerator = price.numerator(usage)
    return (_whole(numerator), usage.prompt + usage.output, _whole(price.weight(numerator)))


def _along(prompt: Amounts, output: int, rate: Amounts) -> Amounts:
    """`_whole` in each unit; written out, because every admission asks for six."""
    (money, tokens, weighted), (a, b, c) = prompt, rate
    return (
        (money + output * a + PART) // MICRO,
        (tokens + output * b + PART) // MICRO,
        (weighted + output * c + PART) // MICRO,
    )


def _whole(millionths: int) -> int:
    return (millionths + PART) // MICRO


def _tokens(room: int, rate: int, most: int) -> int:
    """How many tokens of `rate` fit into `room`."""
    if room < 0:
        return -1
    return min(most, room // rate) if rate else most
