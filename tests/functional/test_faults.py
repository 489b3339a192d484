"""Every fault of the cloud, in every dialect, at every place: its client can read the answer, the ledger is right."""

from __future__ import annotations

import http.client
import json
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import anthropic
import boto3
import httpx2
import pytest
from botocore.exceptions import ClientError, EventStreamError

from tests.fakes.bedrock import (
    BODIES,
    HEADS,
    Fault,
    FaultyBedrock,
    InBody,
    Place,
    Script,
)
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
from tests.functional.spoken import BEDROCK, DIALECTS, Dialect
from tests.functional.trial import until
from tests.lab.gateway import Gateway
from tests.lab.loopback import HOST

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.lab.canaille import Canaille

FIRST, SECOND = (f"{where}.anthropic.claude-sonnet-4-5-20250929-v1:0" for where in ("us", "global"))


@pytest.fixture(scope="module")
def cloud() -> Iterator[FaultyBedrock]:
    with FaultyBedrock() as server:
        yield server


@pytest.fixture(scope="module")
def running(
    tmp_path_factory: pytest.TempPathFactory,
    canaille: Canaille,
    cloud: FaultyBedrock,
    sign_in: Callable[[str], str],
) -> Iterator[Company]:
    with Gateway(
        tmp_path_factory.mktemp("company"),
        issuers=[canaille.issuer_section()],
        endpoint=cloud.endpoint,
        region=cloud.region,
        credentials=cloud.key.environment(),
        changes={
            "models": [{"name": "claude-sonnet-4-5", "target": FIRST, "fallbacks": [SECOND]}],
            "budgets": [BUDGET],
            "fallbacks": {"rest_seconds": 0},
        },
    ) as gateway:
        device = Device(gateway.url)
        device.exchange(sign_in("ada"))
        yield Company(gateway, cloud, device, [FIRST, SECOND])
        check_books(gateway)


@pytest.fixture
def company(running: Company) -> Company:
    running.configure()
    return running


FIRST_THINGS = first_things(HEADS, BODIES)


spoken = pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)


@pytest.mark.parametrize(
    ("dialect", "fault", "how"),
    [(dialect, *each) for dialect in DIALECTS for each in FIRST_THINGS if each[0].name not in dialect.unlike],
    ids=named,
)
def test_before_the_first_content_another_target_answers_where_nothing_was_billed(
    company: Company, dialect: Dialect, fault: Fault, how: str
) -> None:
    _, rows = before_the_first_content(company, dialect, fault, how)
    if fault.name in {"html_200", "sse_200"}:
        assert rows[0].outcome == "upstream_wrong_type"


@pytest.mark.parametrize(
    ("dialect", "fault", "how"),
    [
        (dialect, *each)
        for dialect in DIALECTS
        for each in FIRST_THINGS
        if each[0].elsewhere and each[0].name not in dialect.unlike
    ],
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
        for dialect in DIALECTS
        for fault in BODIES
        for place in (Place.CONTENT, Place.USAGE, Place.END)
        if place in dialect.places and fault.name not in dialect.unlike
    ],
    ids=named,
)
def test_after_the_first_content_nobody_else_is_asked_and_the_stream_ends_in_words(
    company: Company, dialect: Dialect, fault: InBody, place: Place
) -> None:
    after_the_first_content(company, dialect, fault, place)


@spoken
@pytest.mark.parametrize("fault", BODIES, ids=lambda fault: fault.name)
def test_an_answer_in_one_piece_is_whole_or_an_error(company: Company, dialect: Dialect, fault: InBody) -> None:
    in_one_piece(company, dialect, fault)


@spoken
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_missing_usage_is_never_zero(company: Company, dialect: Dialect, stream: bool) -> None:  # noqa: FBT001 -- a table
    without_usage(company, dialect, stream=stream)


def test_nobody_else_is_asked_for_a_client_that_has_left(company: Company) -> None:
    slowly = replace(HEADS[0], then="wait")
    assert slowly.elsewhere
    prompt = company.prompt(Script(slowly), None)
    dialect = DIALECTS[0]
    connection = http.client.HTTPConnection(HOST, urlsplit(company.gateway.url).port, timeout=60)
    headers = {"authorization": f"Bearer {company.device.token}", "content-type": "application/json"}
    connection.request("POST", dialect.path(True), json.dumps(dialect.body(prompt, True)), headers)  # noqa: FBT003 -- streams
    until(lambda: bool(company.cloud.calls_of(prompt)), "asked")
    connection.close()
    company.cloud.release(prompt)
    # Others that end with this status have asked the second target.
    company.gateway.audited(dialect.path(True), outcome="upstream_429", status=429, target=FIRST)  # noqa: FBT003 -- streams
    assert len(company.cloud.calls_of(prompt)) == 1


SILENCES = {
    "connected, no head": ("first_byte_seconds", Place.HEAD),
    "a head, no event": ("first_content_seconds", Place.START),
    "in the text": ("idle_seconds", Place.CONTENT),
    "before the usage": ("idle_seconds", Place.USAGE),
    "before the last event": ("idle_seconds", Place.END),
    "too long in all": ("total_seconds", Place.CONTENT),
}


@pytest.mark.parametrize(("setting", "place"), SILENCES.values(), ids=SILENCES)
def test_each_timer_gives_a_silent_provider_up(running: Company, setting: str, place: Place) -> None:
    in_silence(running, DIALECTS, setting, place)


BROKEN = [fault for fault in BODIES if not fault.harmless and fault.name != "error_event"]


@pytest.fixture
def sdk(company: Company) -> Iterator[anthropic.Anthropic]:
    """The Anthropic SDK as it comes: it repeats twice by itself."""
    with (
        httpx2.Client(trust_env=False) as plain,
        anthropic.Anthropic(auth_token=company.device.token, base_url=company.gateway.url, http_client=plain) as made,
    ):
        yield made


@pytest.fixture
def boto(company: Company, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """boto3 as it comes: it repeats four times by itself."""
    # The only patch: boto3 takes a bearer token from this variable and from nowhere else.
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", company.device.token)
    for name in ("AWS_CA_BUNDLE", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    url = f"{company.gateway.url}/bedrock"
    made = boto3.client("bedrock-runtime", region_name="us-east-1", endpoint_url=url)
    yield made
    made.close()


@pytest.mark.parametrize("fault", BROKEN, ids=lambda fault: fault.name)
def test_the_anthropic_sdk_raises_in_the_middle_of_a_stream_and_does_not_ask_again(
    company: Company, sdk: anthropic.Anthropic, fault: InBody
) -> None:
    prompt = company.prompt(Script(fault, Place.CONTENT), None)
    messages: Any = [{"role": "user", "content": prompt}]
    with sdk.messages.stream(model=FIRST, max_tokens=9, messages=messages) as stream:
        company.cloud.release(prompt)
        with pytest.raises(anthropic.APIStatusError) as caught:
            stream.until_done()
    assert caught.value.body
    assert len(company.cloud.calls_of(prompt)) == 1


@pytest.mark.parametrize("fault", BROKEN, ids=lambda fault: fault.name)
def test_boto3_raises_in_the_middle_of_a_stream_and_does_not_ask_again(
    company: Company, boto: Any, fault: InBody
) -> None:
    prompt = company.prompt(Script(fault, Place.CONTENT), None)
    body = json.dumps(BEDROCK.body(prompt, True))  # noqa: FBT003 -- it streams
    answer = boto.invoke_model_with_response_stream(modelId=FIRST, body=body)
    company.cloud.release(prompt)
    with closing(answer["body"]) as events, pytest.raises(EventStreamError) as caught:
        list(events)
    if fault.name != "somethingNewException":  # botocore reads only those of its service model
        assert caught.value.response["Error"]["Message"]
    assert len(company.cloud.calls_of(prompt)) == 1


def test_a_throttled_provider_is_a_throttling_to_both(company: Company, sdk: anthropic.Anthropic, boto: Any) -> None:
    """They know when to come back, and do so: this is theirs to repeat."""
    (throttled,) = (fault for fault in BODIES if fault.name == "throttlingException")
    twice = Script(throttled, Place.START)
    prompts = [company.prompt(twice, twice, None) for _ in range(2)]  # both targets refuse, then all is well
    made = sdk.messages.create(
        model=FIRST, max_tokens=9, stream=True, messages=[{"role": "user", "content": prompts[0]}]
    )
    assert [event.type for event in made][-1] == "message_stop"
    answer = boto.invoke_model_with_response_stream(
        modelId=FIRST,
        body=json.dumps(BEDROCK.body(prompts[1], True)),  # noqa: FBT003 -- it streams
    )
    with closing(answer["body"]) as events:
        assert b"message_stop" in list(events)[-1]["chunk"]["bytes"]
    assert [len(company.cloud.calls_of(prompt)) for prompt in prompts] == [3, 3]


def test_boto3_raises_the_class_of_an_exception_that_comes_first(company: Company, boto: Any) -> None:
    (invalid,) = (fault for fault in BODIES if fault.name == "validationException")
    prompt = company.prompt(Script(invalid, Place.START))
    with pytest.raises(boto.exceptions.ValidationException, match="in the stream"):
        boto.invoke_model_with_response_stream(modelId=FIRST, body=json.dumps(BEDROCK.body(prompt, True)))  # noqa: FBT003
    assert len(company.cloud.calls_of(prompt)) == 1


BILLED = [fault for fault in HEADS if not fault.free and fault.name not in {"sse_200", "html_200"}]


@pytest.mark.parametrize("fault", BILLED, ids=lambda fault: fault.name)
@pytest.mark.parametrize("mode", ["legacy", "standard"])
def test_boto3_does_not_pay_twice_for_what_may_have_been_billed(
    company: Company, boto: Any, monkeypatch: pytest.MonkeyPatch, fault: Fault, mode: str
) -> None:
    """As it comes, in both of its modes: it repeats by the status, and knows no header that would stop it."""
    monkeypatch.setenv("AWS_RETRY_MODE", mode)
    prompt = company.prompt(Script(fault), None)
    with closing(boto3.client("bedrock-runtime", "us-east-1", endpoint_url=boto.meta.endpoint_url)) as client:
        with pytest.raises(ClientError) as caught:
            client.invoke_model(modelId=FIRST, body=json.dumps(BEDROCK.body(prompt, False)))  # noqa: FBT003 -- in one piece
        assert client.meta.config.retries["mode"] == mode
    assert caught.value.response["Error"]["Message"]
    assert len(company.cloud.calls_of(prompt)) == 1
