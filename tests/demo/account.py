"""The short account after the two prompts: who, which model, what it cost, what is left, as the gateway tells it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from llmgw_wire.headers import ME_PATH
from llmgw_wire.messages import Me
from tests.lab.loopback import opener

if TYPE_CHECKING:
    from tests.demo.screen import Screen
    from tests.lab.gateway import Gateway

MICRO = 1_000_000
TOKENS = "{input} in, {output} out, cache: {cache_read} read, {cache_write_5m} written (5 min), {cache_write_1h} (1 h)"
CLASSES = ("input", "output", "cache_read", "cache_write_5m", "cache_write_1h")


def me(gateway: Gateway, token: str) -> Me:
    """`GET /v1/me`: who the gateway takes the caller for."""
    browser = opener()
    browser.addheaders = [("Authorization", f"Bearer {token}")]
    with browser.open(gateway.url + ME_PATH, timeout=10) as answer:
        return Me.parse(answer.read())


def settled(gateway: Gateway, count: int) -> list[dict[str, Any]]:
    """The audit lines of the calls; the last is written just after its stream has ended."""
    gateway.program.wait_until(lambda: len(_calls(gateway)) >= count, "done with its audit lines", seconds=15)
    return _calls(gateway)


def show(screen: Screen, person: Me, lines: list[dict[str, Any]]) -> None:
    """Print it."""
    tokens = {name: sum(line["tokens"][name] for line in lines) for name in CLASSES}
    cost = sum(line["cost_micro_usd"] for line in lines)
    screen.heading("The account", "of both calls, as the gateway has it")
    screen.field("who", f"{person.name} <{person.email}>")
    screen.field("model", ", ".join(sorted({line["model"] for line in lines})))
    screen.field("tokens", TOKENS.format(**tokens))
    screen.field("cost", f"${cost / MICRO:.6f}")
    for budget in person.budgets:
        left = f"${budget.remaining / MICRO:.6f} of ${budget.limit / MICRO:.2f} ({budget.period}, {budget.level})"
        screen.field("budget left", f"{left}, until {budget.resets_at}")
    screen.field("audit line", json.dumps(lines[-1], separators=(", ", ": ")))


def _calls(gateway: Gateway) -> list[dict[str, Any]]:
    """Audit lines of model calls; exchanges have lines of their own."""
    return [line for line in gateway.audit_lines() if line.get("model")]
