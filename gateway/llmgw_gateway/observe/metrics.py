"""Every metric: name, labels and help in one place. Labels hold configured names only, never a client's text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

if TYPE_CHECKING:
    from llmgw_gateway.observe.audit import Entry


class Metrics:
    """The registry of one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "llmgw_requests",
            "Requests by dialect and result code",
            ["dialect", "code"],
            registry=self.registry,
        )
        self.seconds = Histogram(
            "llmgw_request_seconds",
            "From the first byte of a request to the last of its answer",
            ["dialect"],
            buckets=(0.01, 0.05, 0.1, 0.5, 1, 5, 15, 60, 300),
            registry=self.registry,
        )
        self.tokens = Counter(
            "llmgw_tokens", "Tokens by model and class", ["model", "token_class"], registry=self.registry
        )
        self.cost = Counter("llmgw_cost_micro_usd", "Cost in micro-USD by model", ["model"], registry=self.registry)
        self.exchanges = Counter("llmgw_exchanges", "Token exchanges by result code", ["code"], registry=self.registry)
        self.limited = Counter(
            "llmgw_limited",
            "Calls refused by a limit on rates or concurrency",
            ["level", "kind", "model"],
            registry=self.registry,
        )
        self.open = Gauge("llmgw_requests_open", "Requests being served", registry=self.registry)

    def count(self, entry: Entry) -> None:
        """Count one finished model request."""
        document = entry.document()
        self.requests.labels(entry.dialect, entry.code).inc()
        self.seconds.labels(entry.dialect).observe(document["latency_ms"] / 1000)
        if entry.outcome is not None and entry.target:
            for name, number in document["tokens"].items():
                self.tokens.labels(entry.model, name).inc(number)
            self.cost.labels(entry.model).inc(entry.outcome.cost)

    def text(self) -> bytes:
        """The exposition format."""
        return generate_latest(self.registry)
