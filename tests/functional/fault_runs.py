"""What a fault must lead to, by where it strikes: the same for every upstream and in every dialect."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from tests.fakes.bedrock import SILENT_BODY, SILENT_HEAD, Fault, InBody, Place, Script
from tests.functional.faulty import (
    Company,
    Told,
    check_cut_off,
    check_exact,
    check_free,
    check_refusal,
    check_unknown,
    check_whole,
    numbers,
)
from tests.lab.scripted import Answer

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from sqlalchemy import Row

    from tests.functional.spoken import Dialect

WHOLE, STREAMED = "whole", "streamed"


def first_things(heads: Sequence[Fault], bodies: Sequence[InBody]) -> list[tuple[Fault, str]]:
    """What can be the first thing that goes wrong, and how the client asks then."""
    return [
        *((fault, how) for fault in heads for how in (WHOLE, STREAMED)),
        *((fault, STREAMED) for fault in bodies),
    ]


def before_the_first_content(
    company: Company, dialect: Dialect, fault: Fault, how: str
) -> tuple[Told, Sequence[Row[Any]]]:
    """Another target answers where nothing was billed, and nowhere else; the answer, and its rows of the ledger."""
    stream = how == STREAMED
    prompt = company.prompt(Script(fault, Place.START), None)
    told = company.ask(dialect, prompt, stream=stream)
    harmless = isinstance(fault, InBody) and fault.harmless
    asked = company.asked(prompt)
    assert asked == (company.targets if fault.elsewhere else company.targets[:1])
    rows = company.rows(told, len(asked))
    if fault.elsewhere or harmless:
        check_whole(dialect, told, stream=stream)
        assert told.headers["x-llmgw-target"] == asked[-1]
        check_exact(rows[-1])
    else:
        check_refusal(dialect, told, fault)
    assert [row.target for row in rows] == asked
    if not harmless:
        (check_free if fault.free else check_unknown)(rows[0])
    return told, rows


def at_every_target(company: Company, dialect: Dialect, fault: Fault, how: str) -> None:
    """Every target refuses: the client is told by the last."""
    prompt = company.prompt(Script(fault, Place.START))
    told = company.ask(dialect, prompt, stream=how == STREAMED)
    check_refusal(dialect, told, fault)
    for row in company.rows(told, 2):
        check_free(row)
    assert company.asked(prompt) == company.targets


def after_the_first_content(company: Company, dialect: Dialect, fault: InBody, place: Place) -> None:
    """Nobody else is asked, and the stream ends in words."""
    prompt = company.prompt(Script(fault, place), None)
    told = company.ask(dialect, prompt, stream=True)
    (row,) = company.rows(told, 1)
    assert company.asked(prompt) == company.targets[:1]
    if fault.harmless:
        check_whole(dialect, told, stream=True)
    else:
        check_cut_off(dialect, told)
    (check_exact if fault.harmless or place is Place.END else check_unknown)(row)


def in_one_piece(company: Company, dialect: Dialect, fault: InBody) -> None:
    """An answer that is not streamed is whole or an error."""
    prompt = company.prompt(Script(fault), None)
    told = company.ask(dialect, prompt, stream=False)
    (row,) = company.rows(told, 1)
    if fault.name == "slow":
        check_whole(dialect, told, stream=False)
        check_exact(row)
    else:
        assert (told.status, told.headers["x-should-retry"]) == (dialect.broken, "false")
        assert dialect.message(json.loads(told.body))
        check_unknown(row)


def without_usage(company: Company, dialect: Dialect, *, stream: bool) -> None:
    """Missing usage is never zero."""
    prompt = f"prompt {next(numbers)}"
    company.cloud.default = Answer(usage=None)
    try:
        told = company.ask(dialect, prompt, stream=stream)
    finally:
        company.cloud.default = Answer()
    check_whole(dialect, told, stream=stream)
    check_unknown(company.rows(told, 1)[0])


GIVEN_UP = {
    "first_byte_seconds": "upstream_timeout",
    "first_content_seconds": "upstream_timeout",
    "idle_seconds": "upstream_idle",
    "total_seconds": "upstream_too_long",
}
"""The outcome of a call that a timer ended, by its setting."""


def in_silence(running: Company, dialects: Sequence[Dialect], setting: str, place: Place) -> None:
    """A silent provider is given up: one setting is short, the others are as they come, and this one ends it."""
    seconds = 3 if setting == "total_seconds" else 1  # by then the answer has begun
    running.configure(**{setting: seconds} | ({"idle_with_pings_seconds": 1} if setting == "idle_seconds" else {}))
    fault = SILENT_HEAD if place is Place.HEAD else SILENT_BODY
    cases = [(each, running.prompt(Script(fault, place), None)) for each in dialects if place in each.places]
    with ThreadPoolExecutor(len(cases)) as pool:
        told = list(pool.map(lambda case: running.ask(case[0], case[1], stream=True), cases))
    for (dialect, prompt), each in zip(cases, told, strict=True):
        (row,) = running.rows(each, 1)
        assert len(running.asked(prompt)) <= 1, "what may have been billed is not asked again"
        if place < Place.CONTENT:
            check_refusal(dialect, each, fault)
        else:
            check_cut_off(dialect, each)
        assert row.outcome == GIVEN_UP[setting]
        (check_exact if place is Place.END else check_unknown)(row)
