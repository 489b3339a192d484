"""Every metric: name, labels and help in one place. Labels hold configured names only, never a client's text."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import defaultdict
from functools import partial
from itertools import accumulate
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.core import Metric

    from llmgw_gateway.observe.entry import Entry

FIRST_ERROR: Final = 400
_RESULT: Final = re.compile(r"[a-z_]{1,40}|upstream_[0-9]{3}|upstream_[A-Za-z]{1,40}Exception")
"""The names of results: ours, the provider's statuses, and its exceptions."""
MOST_RESULTS: Final = 100
TOKEN_CLASSES: Final = ("input", "output", "cache_read", "cache_write_5m", "cache_write_1h")
BOUNDS: Final = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0)
"""Seconds of a request that are told apart."""


class AuditGauges:
    """What is to be known of the audit trail before it makes anybody wait."""

    def __init__(self, registry: CollectorRegistry) -> None:
        gauge = partial(Gauge, registry=registry)
        self.waiting = gauge("llmgw_audit_waiting", "Requests whose line of the audit trail is not on disk yet")
        self.most_waiting = gauge("llmgw_audit_most_waiting", "At so many of them new requests are refused")
        self.records = gauge(
            "llmgw_audit_records", "Records on disk of the file of the audit trail that is written now"
        )
        self.untold_seconds = gauge(
            "llmgw_audit_untold_seconds",
            "For how long the store has not been told of records that are on disk; 0: it knows of all",
        )


class Metrics:
    """The registry of one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        counter, gauge = partial(Counter, registry=self.registry), partial(Gauge, registry=self.registry)
        self._calls = Calls()
        self.registry.register(self._calls)
        self.exchanges = counter("llmgw_exchanges", "Token exchanges by result code", ["code"])
        self.limited = counter(
            "llmgw_limited",
            "Calls refused by a limit on rates or concurrency",
            ["level", "kind", "model"],
        )
        self.fallbacks = counter(
            "llmgw_fallbacks",
            "Calls that were sent to another target because one refused, by model",
            ["model"],
        )
        self.rests = counter(
            "llmgw_target_rests",
            "How often a target was left alone for a while because it had refused or failed",
            ["target"],
        )
        self.refused_connections = counter(
            "llmgw_connections_refused",
            "Connections that were one too many",
        )
        self.connections = gauge("llmgw_connections_open", "Connections of clients")
        self.open = gauge("llmgw_requests_open", "Requests being served")
        self.reloads = counter(
            "llmgw_configuration_reloads",
            "Changed configurations by what became of them: applied or refused",
            ["result"],
        )
        self.configuration_refused = gauge(
            "llmgw_configuration_refused",
            "1 while the file was refused and an older configuration is in force",
        )
        self.configuration_since = gauge(
            "llmgw_configuration_applied_timestamp_seconds",
            "When the configuration in force was taken into use",
        )
        self.audit = AuditGauges(self.registry)
        self.tasks = gauge("llmgw_tasks", "Tasks of the event loop; only a leak lasts")

    def count(self, entry: Entry) -> None:
        """Count one finished model request."""
        self._calls.count(entry)

    def text(self) -> bytes:
        """The exposition format."""
        return generate_latest(self.registry)


class Calls:
    """A collector: what is counted of each model request, in plain numbers that become metrics when somebody looks.

    The library's own counters take locks and check themselves at each step, a dozen times a request.
    """

    def __init__(self) -> None:
        self._results: set[str] = set()
        self._requests: defaultdict[tuple[str, str], int] = defaultdict(int)
        """By dialect and result."""
        self._durations: defaultdict[str, list[int]] = defaultdict(lambda: [0] * (len(BOUNDS) + 1))
        """By dialect: how many requests took at most so long, and longer than the one before; the last: any time."""
        self._seconds: defaultdict[str, float] = defaultdict(float)
        """By dialect."""
        self._attempts: defaultdict[tuple[str, str], int] = defaultdict(int)
        """By target and result."""
        self._usage: defaultdict[str, list[int]] = defaultdict(lambda: [0] * (len(TOKEN_CLASSES) + 1))
        """By model: tokens of each class, and the cost."""

    def count(self, entry: Entry) -> None:
        """Count one finished model request."""
        dialect, seconds = entry.dialect, entry.seconds
        self._requests[dialect, self._known(_result(entry))] += 1
        self._durations[dialect][bisect_left(BOUNDS, seconds)] += 1
        self._seconds[dialect] += seconds
        for _, target, tried in entry.attempts:
            self._attempts[target, self._known(tried.note)] += 1
        outcome = entry.outcome
        if outcome is not None and entry.target:
            sums, usage = self._usage[entry.model], outcome.usage
            sums[0] += usage.input
            sums[1] += usage.output
            sums[2] += usage.cache_read
            sums[3] += usage.cache_write_5m
            sums[4] += usage.cache_write_1h
            sums[5] += outcome.cost

    def collect(self) -> Iterator[Metric]:
        """Tell the registry."""
        requests = CounterMetricFamily(
            "llmgw_requests",
            "Model requests by dialect and how they ended: ok, a refusal's code, or what became of the answer",
            labels=["dialect", "code"],
        )
        for (dialect, result), number in self._requests.items():
            requests.add_metric([dialect, result], number)
        duration = HistogramMetricFamily(
            "llmgw_request_seconds", "From the first byte of a request to the last of its answer", labels=["dialect"]
        )
        for dialect, counts in self._durations.items():
            buckets = zip((*(str(bound) for bound in BOUNDS), "+Inf"), accumulate(counts), strict=True)
            duration.add_metric([dialect], list(buckets), self._seconds[dialect])
        attempts = CounterMetricFamily(
            "llmgw_attempts", "Attempts at targets by what became of them", labels=["target", "result"]
        )
        for (target, result), number in self._attempts.items():
            attempts.add_metric([target, result], number)
        tokens = CounterMetricFamily("llmgw_tokens", "Tokens by model and class", labels=["model", "token_class"])
        cost = CounterMetricFamily("llmgw_cost_micro_usd", "Cost in micro-USD by model", labels=["model"])
        for model, (*sums, spent) in self._usage.items():
            for name, number in zip(TOKEN_CLASSES, sums, strict=True):
                if number:
                    tokens.add_metric([model, name], number)
            cost.add_metric([model], spent)
        yield from (requests, duration, attempts, tokens, cost)

    def _known(self, result: str) -> str:
        """A label: the provider's part in it is bounded in form and number."""
        if result not in self._results:
            if len(self._results) >= MOST_RESULTS or not _RESULT.fullmatch(result):
                return "other"
            self._results.add(result)
        return result


def _result(entry: Entry) -> str:
    """How a request ended. An answer that was passed on may still be the provider's failure."""
    if entry.code != "ok":
        return entry.code
    if entry.outcome is not None:
        return entry.outcome.note
    return f"upstream_{entry.status}" if entry.status >= FIRST_ERROR else "ok"
