"""E. Periods that never end, or end twice; F. the wrong unit. Numbers: docs/money-failures.md."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.lab.scripted import Answer, ScriptedBedrock
from tests.lab.usage import Usage

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.functional.trial import Trial


def test_litellm_34492_a_budget_with_another_period_does_not_block_what_it_has_not_counted(
    begin: Callable[..., Trial], scripted: ScriptedBedrock
) -> None:
    budget: dict[str, Any] = {"level": "user", "limit_usd": 0.01, "overshoot_usd": 10}
    trial = begin(budget)
    scripted.script(Answer(usage=Usage(10_000)))
    assert trial.ask("first").status == 200
    trial.rest()
    assert trial.ask("used up").status == 402
    trial.gateway.document["budgets"] = [budget | {"period": "day"}]
    trial.gateway.restart()
    assert trial.ask("by the day").status == 200
    trial.rest()
    trial.gateway.document["budgets"] = [budget]
    trial.gateway.restart()
    assert trial.ask("by the month again").status == 402, "changing it to and fro forgets nothing"


def test_aws_263_a_cache_read_counts_what_it_costs(begin: Callable[..., Trial], scripted: ScriptedBedrock) -> None:
    """403, 482: in weighted tokens a cache read is a tenth of an input token, an output token five."""
    trial = begin({"level": "user", "limit_weighted_tokens": 1_000_000, "overshoot_tokens": 1_000_000})
    scripted.script(Answer(usage=Usage(100, 10, cache_read=30_000, cache_write_5m=400, cache_write_1h=50)))
    trial.ask("one")
    trial.rest()
    assert trial.spent() == 100 + 10 * 5 + 30_000 // 10 + 400 * 5 // 4 + 50 * 2


def test_litellm_17664_prompt_and_answer_both_count(begin: Callable[..., Trial], scripted: ScriptedBedrock) -> None:
    """18953, too: and each token once, so that a limit bites at its number and not at 80 percent of it."""
    trial = begin({"level": "user", "limit_tokens": 1_000, "overshoot_tokens": 100_000})
    scripted.script(Answer(usage=Usage(700, 90, cache_read=100)), Answer(usage=Usage(10, 10)))
    assert trial.ask("most of it", max_tokens=20).status == 200
    trial.rest()
    assert trial.spent() == 890
    assert trial.ask("fits", max_tokens=20).status == 200
    trial.rest()
    assert trial.ask("does not", max_tokens=100).status == 402
