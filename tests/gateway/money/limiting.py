"""Limits as tests ask for them."""

from __future__ import annotations

from llmgw_gateway.money.limits import EXPECTED, REQUEST, SLOT, LimitRef

AMOUNT = {"requests": REQUEST, "tokens": EXPECTED, "concurrent": SLOT}


def requests(limit: int, name: str = "user") -> LimitRef:
    return LimitRef(f"{name}//requests", "request limit", "requests", limit, REQUEST, name)


def tokens(limit: int, name: str = "user") -> LimitRef:
    return LimitRef(f"{name}//tokens", "token limit", "tokens", limit, EXPECTED, name)


def slots(limit: int, name: str = "user") -> LimitRef:
    return LimitRef(f"{name}//concurrent", "concurrency limit", "concurrent", limit, SLOT, name)
