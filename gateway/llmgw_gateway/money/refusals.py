"""What a person reads when a budget refuses: which budget, how much is left, when it resets, what to do. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from llmgw_gateway.call import MICRO

if TYPE_CHECKING:
    from llmgw_gateway.money.amounts import Unit
    from llmgw_gateway.money.levels import Denial

_WHAT: Final = {"usd": "", "tokens": " tokens", "weighted_tokens": " weighted tokens"}


def explain(denial: Denial, asked: int, contact: str) -> str:
    """Why a call was refused that would have held `asked` of the budget's unit."""
    budget = denial.budget
    which = f"{'Your' if budget.level in ('user', 'key') else 'The'} {budget.name} for {budget.period_key}"
    amounts = [amount(each, budget.unit) for each in (denial.spent, denial.held, budget.limit)]
    state = f"{amounts[0]} spent and {amounts[1]} held of {amounts[2]}"
    advice = ""
    if denial.reason == "exposure":
        what = f"{which} cannot cover the worst case of what is running: {state}"
        advice = "Wait until some of them have ended, or ask for a smaller max_tokens."
    elif denial.reason == "pace":
        what = f"{which} is nearly used up and admits few calls a minute: {state}"
        advice = f"Try again in {denial.retry_after} s."
    elif denial.spent >= budget.limit:
        what = f"{which} is used up: {state}"
    else:
        what = f"{which} does not cover this request (about {amount(asked, budget.unit)}): {state}"
    where = f"To raise it, ask {contact}." if contact else ""
    return " ".join(part for part in (f"{what}.", f"It resets at {budget.resets_at}.", advice, where) if part)


def amount(value: int, unit: Unit) -> str:
    """An amount as a person reads it."""
    return usd(value) if unit == "usd" else f"{value:,}{_WHAT[unit]}"


def usd(micro: int) -> str:
    """Micro-USD as a person reads it: cents, and more digits where cents would show nothing."""
    value = micro / MICRO
    return f"USD {value:,.2f}" if micro % 10_000 == 0 or value >= 1 else f"USD {value:,.4f}"
