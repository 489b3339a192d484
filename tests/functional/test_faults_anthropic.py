"""Every fault of an upstream in the Anthropic format, in every dialect that reaches it: as in `test_faults.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.fakes.anthropic import BODIES, HEADS, FaultyAnthropic
from tests.fakes.bedrock import Fault, InBody, Place
from tests.functional.device import Device
from tests.functional.fault_runs import (
    after_the_first_content,
    at_every_target,
    before_the_first_content,
    first_things,
    in_one_piece,
    in_silence,
    without_usage,
)
from tests.functional.faulty import (
    BUDGET,
    Company,
    check_books,
    named,
)
from tests.functional.spoken import CONVERSE, DIALECTS, Dialect
from tests.lab.gateway import Gateway
from tests.lab.scripted import ScriptedBedrock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.lab.canaille import Canaille

FIRST, SECOND = "anthropic/claude-sonnet-4-5-20250929", "anthropic/claude-sonnet-4-5"
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
        yield Company(gateway, upstream, device, [FIRST, SECOND], "anthropic/")
        check_books(gateway)
        for place in (gateway.log, gateway.audit):
            assert upstream.api_key not in place.read_text(), "the key is in nothing that is written"


@pytest.fixture
def company(running: Company) -> Company:
    running.configure()
    return running


FIRST_THINGS = first_things(HEADS, BODIES)


@pytest.mark.parametrize(
    ("dialect", "fault", "how"), [(dialect, *each) for dialect in SPOKEN for each in FIRST_THINGS], ids=named
)
def test_before_the_first_content_another_target_answers_where_nothing_was_billed(
    company: Company, dialect: Dialect, fault: Fault, how: str
) -> None:
    told, _ = before_the_first_content(company, dialect, fault, how)
    assert not [name for name in told.headers if name.startswith("anthropic-")], "whose limits and organisation"


@pytest.mark.parametrize(
    ("dialect", "fault", "how"),
    [(dialect, *each) for dialect in SPOKEN for each in FIRST_THINGS if each[0].elsewhere],
    ids=named,
)
def test_when_every_target_refuses_the_client_is_told_by_the_last(
    company: Company, dialect: Dialect, fault: Fault, how: str
) -> None:
    at_every_target(company, dialect, fault, how)


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
    after_the_first_content(company, dialect, fault, place)


CUT = [fault for fault in BODIES if fault.name in {"junk", "cut", "reset", "slow"}]


@pytest.mark.parametrize("dialect", SPOKEN, ids=named)
@pytest.mark.parametrize("fault", CUT, ids=named)
def test_an_answer_in_one_piece_is_whole_or_an_error(company: Company, dialect: Dialect, fault: InBody) -> None:
    in_one_piece(company, dialect, fault)


@pytest.mark.parametrize("dialect", SPOKEN, ids=named)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_missing_usage_is_never_zero(company: Company, dialect: Dialect, stream: bool) -> None:  # noqa: FBT001 -- a table
    without_usage(company, dialect, stream=stream)


SILENCES = {
    "connected, no head": ("first_byte_seconds", Place.HEAD),
    "a head, no event": ("first_content_seconds", Place.START),
    "in the text": ("idle_seconds", Place.CONTENT),
}


@pytest.mark.parametrize(("setting", "place"), SILENCES.values(), ids=SILENCES)
def test_each_timer_gives_a_silent_provider_up(running: Company, setting: str, place: Place) -> None:
    in_silence(running, SPOKEN, setting, place)
