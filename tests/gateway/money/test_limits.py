"""Which limits concern a call, and how tokens count."""

from __future__ import annotations

from llmgw_gateway.call import Account, Usage
from llmgw_gateway.money.catalogues import built_in
from llmgw_gateway.money.limits import EXPECTED, MOST, Limits, amounts, counted
from llmgw_gateway.sections.limiting import Limit

ADA = Account("per_ada", "ada@example.com", team="analysis", project="apollo", key="ses_1")


def names(limits: Limits, account: Account = ADA, model: str | None = "m") -> dict[str, int]:
    return {ref.name: ref.limit for ref in limits.concerning(account, model)}


def test_every_level_and_kind_counts_by_itself_and_the_most_particular_table_of_each() -> None:
    limits = Limits(
        [
            Limit(level="provider", model="m", tokens_per_minute=1000, requests_per_minute=7),
            Limit(level="organisation", concurrent=100),
            Limit(level="team", of="analysis", requests_per_minute=50),
            Limit(level="team", requests_per_minute=40),
            Limit(level="project", concurrent=5),
            Limit(level="user", requests_per_minute=10, concurrent=3),
            Limit(level="user", team="analysis", requests_per_minute=20),
            Limit(level="user", of="ada@example.com", tokens_per_minute=9),
            Limit(level="user", model="other", requests_per_minute=1),
            Limit(level="key", concurrent=2),
        ]
    )
    assert names(limits) == {
        "concurrency limit of this device": 2,
        "request limit": 20,
        "concurrency limit": 3,
        "token limit": 9,
        "concurrency limit of project apollo": 5,
        "request limit of team analysis": 50,
        "concurrency limit of the organisation": 100,
        "request limit of the cloud account for m": 7,
        "token limit of the cloud account for m": 1000,
    }
    assert next(iter(names(limits))) == "concurrency limit of this device", "the nearest is named first"
    assert names(limits, model=None)["request limit for other"] == 1
    assert names(limits, Account("per_eve")) == {
        "request limit": 10,
        "concurrency limit": 3,
        "concurrency limit of the organisation": 100,
        "request limit of the cloud account for m": 7,
        "token limit of the cloud account for m": 1000,
    }


def test_a_key_names_the_subject_and_never_the_number() -> None:
    (before,) = Limits([Limit(level="user", requests_per_minute=10)]).concerning(ADA)
    (after,) = Limits([Limit(level="user", requests_per_minute=99)]).concerning(ADA)
    (other,) = Limits([Limit(level="user", requests_per_minute=10)]).concerning(Account("per_eve"))
    assert before.key == after.key != other.key


def test_the_provider_s_quota_is_held_as_the_provider_does_unless_told_otherwise() -> None:
    def amount(**table: object) -> int:
        (ref,) = Limits([Limit(model="m", tokens_per_minute=1, **table)]).concerning(ADA)  # type: ignore[arg-type] # a table
        return ref.amount

    assert amount(level="provider") == MOST
    assert amount(level="provider", hold="expected") == EXPECTED
    assert amount(level="user") == EXPECTED
    assert amount(level="user", hold="max_tokens") == MOST


def test_tokens_count_as_bedrock_counts_its_quota() -> None:
    """At first the whole prompt and max_tokens; in the end output by its burn-down, and no reads from a cache."""
    usage = Usage(input=3_000, output=1_000, cache_read=4_000, cache_write_5m=600, cache_write_1h=400)
    assert counted(usage, 5) == 3_000 + 1_000 + 5 * 1_000
    assert amounts(usage, 32_000, 5) == (1, 9_000, 8_000 + 32_000, 1)


def test_the_catalogue_knows_each_generation_s_burn_down() -> None:
    models = built_in().models
    said = {name: models[name].output_burndown for name in ("claude-sonnet-4-5", "claude-opus-4-8", "claude-opus-5")}
    assert said == {"claude-sonnet-4-5": 5, "claude-opus-4-8": 15, "claude-opus-5": 10}
    assert all(model.output_burndown > 1 for model in models.values() if model.vendor == "anthropic")
    assert all(model.output_burndown == 1 for model in models.values() if model.kind == "embedding")
