"""What is counted of model requests, as Prometheus reads it."""

from __future__ import annotations

import time

import pytest
from prometheus_client.parser import text_string_to_metric_families

from llmgw_gateway.call import Outcome, Usage
from llmgw_gateway.observe.entry import Entry
from llmgw_gateway.observe.metrics import BOUNDS, MOST_RESULTS, Metrics


def entry(seconds: float = 0.0, *, note: str = "ok", code: str = "ok", usage: Usage | None = None) -> Entry:
    """A request that began so many seconds ago."""
    made = Entry("req_1", "POST", "/v1/messages", "anthropic", model="m", target="t", code=code)
    made.began = time.monotonic() - seconds
    if usage is not None:
        made.outcome = Outcome(usage=usage, note=note, cost=7)
        made.attempts.append(("att_1", "t", made.outcome))
    return made


def samples(metrics: Metrics) -> dict[tuple[str, ...], float]:
    """Every sample of what calls come to: its name, its labels' values, and its value."""
    families = text_string_to_metric_families(metrics.text().decode())
    return {
        (each.name, *(value for _, value in sorted(each.labels.items()))): each.value
        for family in families
        for each in family.samples
    }


def test_requests_attempts_tokens_and_cost_are_summed() -> None:
    metrics = Metrics()
    for _ in range(3):
        metrics.count(entry(usage=Usage(10, 20, 30, 0, 50)))
    metrics.count(entry(code="rate_exceeded"))
    found = samples(metrics)
    assert found["llmgw_requests_total", "ok", "anthropic"] == 3
    assert found["llmgw_requests_total", "rate_exceeded", "anthropic"] == 1
    assert found["llmgw_attempts_total", "ok", "t"] == 3
    tokens = {key[2]: value for key, value in found.items() if key[0] == "llmgw_tokens_total"}
    assert tokens == {"input": 30, "output": 60, "cache_read": 90, "cache_write_1h": 150}
    assert found["llmgw_cost_micro_usd_total", "m"] == 21


@pytest.mark.parametrize("seconds", [-1000.0, 2.0, 30.0, 1000.0])  # far from every bound: no pause makes a difference
def test_a_duration_counts_in_each_bucket_that_holds_it(seconds: float) -> None:
    metrics = Metrics()
    metrics.count(entry(seconds))
    found = samples(metrics)
    counts = [found["llmgw_request_seconds_bucket", "anthropic", str(bound)] for bound in BOUNDS]
    assert counts == [float(seconds <= bound) for bound in BOUNDS]
    assert found["llmgw_request_seconds_bucket", "anthropic", "+Inf"] == 1
    assert found["llmgw_request_seconds_count", "anthropic"] == 1
    assert found["llmgw_request_seconds_sum", "anthropic"] >= seconds


def test_what_a_provider_calls_its_failures_is_bounded() -> None:
    metrics = Metrics()
    letters = [
        f"upstream_{chr(97 + number // 26)}{chr(97 + number % 26)}Exception" for number in range(MOST_RESULTS + 5)
    ]
    for note in [*letters, "no name of a result"]:
        metrics.count(entry(note=note, usage=Usage()))
    results = {key[1]: value for key, value in samples(metrics).items() if key[0] == "llmgw_requests_total"}
    assert len(results) == MOST_RESULTS + 1
    assert any(value == 6 for value in results.values()), "the others are counted together"
