"""Every fault of an upstream in the Anthropic format, in every dialect that reaches it: as in `test_faults.py`."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from tests.fakes.anthropic import BODIES, HEADS, FaultyAnthropic
from tests.fakes.bedrock import SILENT_BODY, SILENT_HEAD, Fault, InBody, Place, Script
from tests.functional.device import Device
from tests.functional.faulty import (
    BUDGET,
    Company,
    check_books,
    check_cut_off,
    check_exact,
    check_free,
    check_refusal,
    check_unknown,
    check_whole,
    named,
    numbers,
)
from tests.functional.spoken import CONVERSE, DIALECTS, Dialect
from tests.lab.gateway import Gateway
from tests.lab.scripted import Answer, ScriptedBedrock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.lab.canaille import Canaille

IDS = ["claude-sonnet-4-5-20250929", "claude-sonnet-4-5"]
FIRST, SECOND = (f"anthropic/{each}" for each in IDS)
SPOKEN = [dialect for dialect in DIALECTS if dialect is not CONVERSE]
"""Converse is Bedrock's alone."""


@pytest.fixture(scope="module")
def upstream() -> Iterator[FaultyAnthropic]:
    with FaultyAnthropic() as server:
        yield server


@pytest.fixture(scope="module")
def running(
    tmp_path_factory: pytest.TempPathFactory,
    canaille: Canaille,
    upstream: FaultyAnthropic,
    sign_in: Callable[[str], str],
) -> Iterator[Company]:
    folder = tmp_path_factory.mktemp("company")
    key = folder / "anthropic.key"
    key.touch(mode=0o600)
    key.write_text(f"{upstream.api_key}\n", encoding="ascii")
    with Gateway(
        folder,
        issuers=[canaille.issuer_section()],
        endpoint="http://127.0.0.1:9",  # Bedrock is there, and never asked
        region=ScriptedBedrock.region,
        credentials=ScriptedBedrock.key.environment(),
        changes={
            "anthropic": [{"endpoint": upstream.url, "key_file": str(key)}],
            "models": [{"name": "claude-sonnet-4-5", "target": FIRST, "fallbacks": [SECOND]}],
            "budgets": [BUDGET],
            "fallbacks": {"rest_seconds": 0},
        },
    ) as gateway:
        device = Device(gateway.url)
        device.exchange(sign_in("ada"))
        yield Company(gateway, upstream, device)
        check_books(gateway)
        for place in (gateway.log, gateway.audit):
            assert upstream.api_key not in place.read_text(), "the key is in nothing that is written"


@pytest.fixture
def company(running: Company) -> Company:
    running.configure()
    return running


FIRST_THINGS: list[tuple[Fault, str]] = [
    *((fault, how) for fault in HEADS for how in ("whole", "streamed")),
    *((fault, "streamed") for fault in BODIES),
]


@pytest.mark.parametrize(
    ("dialect", "fault", "how"), [(dialect, *each) for dialect in SPOKEN for each in FIRST_THINGS], ids=named
)
def test_before_the_first_content_another_target_answers_where_nothing_was_billed(
    company: Company, dialect: Dialect, fault: Fault, how: str
) -> None:
    stream = how == "streamed"
    prompt = company.prompt(Script(fault, Place.START), None)
    told = company.ask(dialect, prompt, stream=stream)
    harmless = isinstance(fault, InBody) and fault.harmless
    asked = [f"anthropic/{call.model}" for call in company.cloud.calls_of(prompt)]
    assert asked == ([FIRST, SECOND] if fault.elsewhere else [FIRST])
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
    assert not [name for name in told.headers if name.startswith("anthropic-")], "whose limits and organisation"


@pytest.mark.parametrize(
    ("dialect", "fault", "how"),
    [(dialect, *each) for dialect in SPOKEN for each in FIRST_THINGS if each[0].elsewhere],
    ids=named,
)
def test_when_every_target_refuses_the_client_is_told_by_the_last(
    company: Company, dialect: Dialect, fault: Fault, how: str
) -> None:
    prompt = company.prompt(Script(fault, Place.START))
    told = company.ask(dialect, prompt, stream=how == "streamed")
    check_refusal(dialect, told, fault)
    for row in company.rows(told, 2):
        check_free(row)
    assert len(company.cloud.calls_of(prompt)) == 2


@pytest.mark.parametrize(
    ("dialect", "fault", "place"),
    [
        (dialect, fault, place)
        for dialect in SPOKEN
        for fault in BODIES
        for place in (Place.CONTENT, Place.USAGE, Place.END)
    ],
    ids=named,
)
def test_after_the_first_content_nobody_else_is_asked_and_the_stream_ends_in_words(
    company: Company, dialect: Dialect, fault: InBody, place: Place
) -> None:
    prompt = company.prompt(Script(fault, place), None)
    told = company.ask(dialect, prompt, stream=True)
    (row,) = company.rows(told, 1)
    assert len(company.cloud.calls_of(prompt)) == 1
    if fault.harmless:
        check_whole(dialect, told, stream=True)
    else:
        check_cut_off(dialect, told)
    if fault.harmless or place is Place.END:
        check_exact(row)
    else:
        check_unknown(row)


CUT = [fault for fault in BODIES if fault.name in {"junk", "cut", "reset", "slow"}]


@pytest.mark.parametrize("dialect", SPOKEN, ids=named)
@pytest.mark.parametrize("fault", CUT, ids=named)
def test_an_answer_in_one_piece_is_whole_or_an_error(company: Company, dialect: Dialect, fault: InBody) -> None:
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


@pytest.mark.parametrize("dialect", SPOKEN, ids=named)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_missing_usage_is_never_zero(company: Company, dialect: Dialect, stream: bool) -> None:  # noqa: FBT001 -- a table
    prompt = f"prompt {next(numbers)}"
    company.cloud.default = Answer(usage=None)
    try:
        told = company.ask(dialect, prompt, stream=stream)
    finally:
        company.cloud.default = Answer()
    check_whole(dialect, told, stream=stream)
    check_unknown(company.rows(told, 1)[0])


SILENCES = {
    "connected, no head": ("first_byte_seconds", Place.HEAD),
    "a head, no event": ("first_content_seconds", Place.START),
    "in the text": ("idle_seconds", Place.CONTENT),
}


@pytest.mark.parametrize(("setting", "place"), SILENCES.values(), ids=SILENCES)
def test_each_timer_gives_a_silent_provider_up(running: Company, setting: str, place: Place) -> None:
    """One setting is short, all others are as they come: it is this one that ends the call."""
    running.configure(**{setting: 1} | ({"idle_with_pings_seconds": 1} if setting == "idle_seconds" else {}))
    fault = SILENT_HEAD if place is Place.HEAD else SILENT_BODY
    cases = [(each, running.prompt(Script(fault, place), None)) for each in SPOKEN]
    with ThreadPoolExecutor(len(cases)) as pool:
        told = list(pool.map(lambda case: running.ask(case[0], case[1], stream=True), cases))
    for (dialect, prompt), each in zip(cases, told, strict=True):
        (row,) = running.rows(each, 1)
        assert len(running.cloud.calls_of(prompt)) <= 1, "what may have been billed is not asked again"
        (check_refusal(dialect, each, fault) if place < Place.CONTENT else check_cut_off(dialect, each))
        assert row.outcome == ("upstream_idle" if setting == "idle_seconds" else "upstream_timeout")
        check_unknown(row)
