"""Every metric: name, labels and help in one place. Labels hold configured names only, never a client's text."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

if TYPE_CHECKING:
    from llmgw_gateway.observe.audit import Entry

FIRST_ERROR: Final = 400
_RESULT: Final = re.compile(r"[a-z_]{1,40}|upstream_[0-9]{3}|upstream_[A-Za-z]{1,40}Exception")
"""The names of results: ours, the provider's statuses, and its exceptions."""
MOST_RESULTS: Final = 100
TOKEN_CLASSES: Final = ("input", "output", "cache_read", "cache_write_5m", "cache_write_1h")
M = TypeVar("M", Counter, Histogram)


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
        self._results: set[str] = set()
        counter, gauge = partial(Counter, registry=self.registry), partial(Gauge, registry=self.registry)
        histogram = partial(Histogram, registry=self.registry)
        self.requests = counter(
            "llmgw_requests",
            "Model requests by dialect and how they ended: ok, a refusal's code, or what became of the answer",
            ["dialect", "code"],
        )
        self.seconds = histogram(
            "llmgw_request_seconds",
            "From the first byte of a request to the last of its answer",
            ["dialect"],
            buckets=(0.01, 0.05, 0.1, 0.5, 1, 5, 15, 60, 300),
        )
        self.tokens = counter(
            "llmgw_tokens",
            "Tokens by model and class",
            ["model", "token_class"],
        )
        self.cost = counter("llmgw_cost_micro_usd", "Cost in micro-USD by model", ["model"])
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
        self.attempts = counter(
            "llmgw_attempts",
            "Attempts at targets by what became of them",
            ["target", "result"],
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
        self._attempts: dict[tuple[str, ...], Counter] = {}
        # What `labels` looks up takes it as long as everything else together; here it is looked up once.
        self._requests: dict[tuple[str, ...], Counter] = {}
        self._seconds: dict[tuple[str, ...], Histogram] = {}
        self._tokens: dict[tuple[str, ...], Counter] = {}
        self._cost: dict[tuple[str, ...], Counter] = {}

    def count(self, entry: Entry) -> None:
        """Count one finished model request."""
        result = self._known(_result(entry))
        _of(self._requests, self.requests, entry.dialect, result).inc()
        _of(self._seconds, self.seconds, entry.dialect).observe(entry.seconds)
        for _, target, tried in entry.attempts:
            _of(self._attempts, self.attempts, target, self._known(tried.note)).inc()
        outcome = entry.outcome
        if outcome is not None and entry.target:
            for name in TOKEN_CLASSES:
                if number := getattr(outcome.usage, name):
                    _of(self._tokens, self.tokens, entry.model, name).inc(number)
            _of(self._cost, self.cost, entry.model).inc(outcome.cost)

    def _known(self, result: str) -> str:
        """A label: the provider's part in it is bounded in form and number."""
        if result not in self._results:
            if len(self._results) >= MOST_RESULTS or not _RESULT.fullmatch(result):
                return "other"
            self._results.add(result)
        return result

    def text(self) -> bytes:
        """The exposition format."""
        return generate_latest(self.registry)


def _of(known: dict[tuple[str, ...], M], metric: M, *labels: str) -> M:
    """The child of a metric for these labels."""
    child = known.get(labels)
    if child is None:
        child = known[labels] = metric.labels(*labels)
    return child


def _result(entry: Entry) -> str:
    """How a request ended. An answer that was passed on may still be the provider's failure."""
    if entry.code != "ok":
        return entry.code
    if entry.outcome is not None:
        return entry.outcome.note
    return f"upstream_{entry.status}" if entry.status >= FIRST_ERROR else "ok"
