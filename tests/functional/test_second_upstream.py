"""An upstream in the Anthropic format and another region beside Bedrock: real clients, prices, fallbacks, memory."""

from __future__ import annotations

import json
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Any, Self

import anthropic
import boto3
import httpx2
import openai
import pytest
from botocore.config import Config

from llmgw_gateway.call import Usage as Counted
from llmgw_gateway.money.catalogues import built_in
from tests.fakes.anthropic import FaultyAnthropic, event, told_events
from tests.functional import ledger
from tests.functional.device import BEDROCK, Device
from tests.functional.trial import until
from tests.lab import node, toml_text
from tests.lab.gateway import Gateway
from tests.lab.process import run
from tests.lab.scripted import Answer, ScriptedBedrock
from tests.lab.system import System
from tests.lab.usage import Usage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sqlalchemy import Row

    from tests.lab.canaille import Canaille
    from tests.lab.claude import Mode

SONNET, HAIKU, OPUS = "claude-sonnet-5-5", "claude-haiku-4-5", "claude-opus-5"
DIRECT = f"anthropic/{SONNET}"
HOME = "us.anthropic.claude-haiku-4-5-20251001-v1:0"
WEST = f"west/{HOME}"
LAST = f"anthropic/{HAIKU}-20251001"
SAY: Any = [{"role": "user", "content": "Say hello."}]
COUNTED = Usage(input=30, output=9, cache_read=1_000, cache_write_5m=200, cache_write_1h=50)
THROTTLED = Answer(status=429, error="slow down", error_type="ThrottlingException")


class West(ScriptedBedrock):
    """Another region, of another account."""

    region = "us-west-2"


class Place:
    """A gateway before two regions and an Anthropic upstream, and Ada's laptop."""

    def __init__(
        self,
        folder: Path,
        canaille: Canaille,
        sign_in: Callable[[str], str],
        *,
        direct: dict[str, Any] | None = None,
        times: dict[str, int] | None = None,
        **changes: Any,
    ) -> None:
        """`direct` is added to the section of the Anthropic upstream, `times` to Bedrock's; `changes` are sections."""
        self._direct = direct or {}
        self._times = times or {}
        self.home, self.west, self.direct = ScriptedBedrock(), West(), FaultyAnthropic()
        self._folder = folder
        self._canaille = canaille
        self._sign_in = sign_in
        self._changes = changes
        self._stack = ExitStack()
        self.begun = 0

    def __enter__(self) -> Self:
        for each in (self.home, self.west, self.direct):
            self._stack.enter_context(each)
        secret = write_secret(self._folder / "anthropic.key", self.direct.api_key)
        # The other account's role, as a company has it: a profile of AWS's own files.
        key = self.west.key
        write_secret(
            self._folder / "credentials",
            f"[western]\naws_access_key_id = {key.access_key}\naws_secret_access_key = {key.secret}\n",
        )
        environment = {"AWS_SHARED_CREDENTIALS_FILE": str(self._folder / "credentials")}
        self.gateway = Gateway(
            self._folder / "gateway",
            issuers=[self._canaille.issuer_section()],
            endpoint=self.home.endpoint,
            region=self.home.region,
            credentials=self.home.key.environment() | environment,
            changes={
                "regions": [
                    {"name": "west", "region": West.region, "endpoint": self.west.endpoint, "profile": "western"}
                ],
                "anthropic": [{"endpoint": self.direct.url, "key_file": secret} | self._direct],
                "models": [
                    {"name": SONNET, "target": DIRECT},
                    {"name": HAIKU, "target": HOME, "fallbacks": [WEST, LAST]},
                    {"name": OPUS, "target": f"us.anthropic.{OPUS}", "fallbacks": [f"west/us.anthropic.{OPUS}"]},
                ],
            }
            | self._changes,
        )
        self.gateway.document["bedrock"] |= self._times
        self._stack.enter_context(self.gateway)
        self.ada = Device(self.gateway.url)
        self.ada.exchange(self._sign_in("ada"))
        return self

    def __exit__(self, *_: object) -> None:
        for each in (self.home, self.west, self.direct):
            each.release_all()  # whatever a test that failed has left held
        self._stack.close()

    def begin(self) -> None:
        """Forget what was before."""
        self.begun = ledger.at_rest(self.gateway.db)
        for each in (self.home, self.west, self.direct):
            each.reset()
            each.default = Answer()
        self.direct.betas.clear()
        self.ada.exchange(self._sign_in("ada"))

    def rows(self, count: int) -> list[Row[Any]]:
        """The ledger entries since `begin`, as soon as there are so many and no attempt is open."""
        return ledger.settled(self.gateway.db, self.begun + count)[self.begun :]

    def asked(self) -> list[int]:
        """How many calls each of the three has had."""
        return [len(each.calls) for each in (self.home, self.west, self.direct)]


def write_secret(path: Path, text: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_text(text, encoding="ascii")
    return str(path)


@pytest.fixture(scope="module")
def open_place(
    tmp_path_factory: pytest.TempPathFactory, canaille: Canaille, sign_in: Callable[[str], str]
) -> Iterator[Place]:
    with Place(tmp_path_factory.mktemp("place"), canaille, sign_in, fallbacks={"rest_seconds": 0}) as made:
        yield made


@pytest.fixture
def place(open_place: Place) -> Place:
    """The place of this file, with nothing in it of the tests before, and a fresh token."""
    open_place.begin()
    return open_place


@pytest.fixture
def http() -> Iterator[httpx2.Client]:
    with httpx2.Client(trust_env=False) as plain:
        yield plain


@pytest.fixture
def sdk(place: Place, http: httpx2.Client) -> anthropic.Anthropic:
    return anthropic.Anthropic(
        auth_token=place.ada.token, base_url=place.ada.url, max_retries=0, http_client=http, api_key=None
    )


def cost(usage: Usage) -> int:
    """What the list price of Anthropic's API says, in micro-USD."""
    price = max(
        (each for each in built_in().models[SONNET].prices if each.geography == "direct" and not each.context_over),
        key=lambda each: each.effective,
    )
    counted = Counted(usage.input, usage.output, usage.cache_read, usage.cache_write_5m, usage.cache_write_1h)
    return price.cost(counted)


def test_the_anthropic_sdk_is_served_and_charged_by_the_list_price(place: Place, sdk: anthropic.Anthropic) -> None:
    place.direct.default = Answer("Hello.", usage=COUNTED)
    assert sdk.messages.create(model=SONNET, max_tokens=9, messages=SAY).usage.output_tokens == COUNTED.output
    with sdk.messages.stream(model=SONNET, max_tokens=9, messages=SAY) as stream:
        assert "".join(stream.text_stream) == "Hello."
    rows = place.rows(2)
    assert [ledger.usage_of(row) for row in rows] == place.direct.usages == [COUNTED, COUNTED]
    assert [(row.cost, row.target, row.estimated) for row in rows] == [(cost(COUNTED), DIRECT, 0)] * 2
    assert sdk.messages.count_tokens(model=SONNET, messages=SAY).input_tokens > 0
    assert SONNET in [model.id for model in sdk.models.list()]
    assert place.asked() == [0, 0, 2]


@pytest.mark.parametrize("stream", [False, True])
def test_bytes_go_through_as_they_are(place: Place, stream: bool) -> None:  # noqa: FBT001 -- a table
    """The same model name on both sides, nothing to lower: not a byte is another one, of question and answer."""
    model = DIRECT.partition("/")[2]
    asked = f'{{"messages":[{{"role":"user","content":"\\u00fc \\"x\\" ö"}}],"model":"{model}","max_tokens":9,' + (
        '"unknown_member":1.50e0}' if not stream else '"stream":true}'
    )
    if not stream:  # the upstream decides about members that nobody here knows
        reply = place.ada.request("POST", "/v1/messages", asked.encode())
        assert (reply.status, reply.json["error"]["message"]) == (400, "unknown_member: Extra inputs are not permitted")
        return
    reply = place.ada.request("POST", "/v1/messages", asked.encode())
    (call,) = place.direct.calls
    assert call.request.body == asked.encode()
    written = [event(each) for each in told_events(call)]
    ping = b'event: ping\ndata: {"type": "ping"}\n\n'
    assert reply.body == written[0] + ping + b"".join(written[1:])


def test_only_what_is_allowed_passes_in_headers(place: Place) -> None:
    betas = "context-management-2025-06-27, fast-mode-2026-02-01,a-new-one-2027-01-01,compact-2026-09-04"
    body = {"model": SONNET, "max_tokens": 9, "messages": SAY, "context_management": {"edits": []}, "speed": "fast"}
    sent = {"anthropic-beta": betas, "anthropic-version": "2026-10-21", "x-stainless-os": "Linux", "cookie": "a=b"}
    reply = place.ada.request("POST", "/v1/messages", json.dumps(body).encode(), sent)
    assert reply.status == 200, reply.body
    (call,) = place.direct.calls
    headers = {name.lower(): value for name, value in call.request.headers.items()}
    assert headers.pop("anthropic-beta") == "context-management-2025-06-27,a-new-one-2027-01-01"
    assert headers.pop("x-api-key") == place.direct.api_key
    assert headers.pop("anthropic-version") == "2026-10-21"
    assert headers.keys() == {
        "host",
        "user-agent",
        "accept",
        "accept-encoding",
        "content-type",
        "content-length",
    }
    assert not [name for name in reply.headers if name.startswith("anthropic-")]
    assert "speed" not in call.body
    assert reply.headers["x-llmgw-target"] == DIRECT


REFUSED: dict[str, dict[str, Any]] = {
    "web_search_20250305": {"tools": [{"type": "web_search_20250305", "name": "web_search"}]},
    "code_execution_20250825": {"tools": [{"type": "code_execution_20250825", "name": "code_execution"}]},
    "mcp_servers": {"mcp_servers": [{"type": "url", "url": "https://example.com"}]},
    "container": {"container": "container_1"},
    "inference_geo": {"inference_geo": "us"},
    "compaction": {"context_management": {"edits": [{"type": "comp\u0061ct_20260112"}]}},
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_costs_more_than_tokens_is_refused_by_name(place: Place, name: str) -> None:
    reply = place.ada.ask(model=SONNET, **REFUSED[name])
    assert (reply.status, reply.error["code"]) == (400, "request_malformed")
    assert name in reply.error["message"]
    assert place.asked() == [0, 0, 0]


def test_openais_sdk_reaches_it(place: Place, http: httpx2.Client) -> None:
    place.direct.default = Answer("Hello.", usage=COUNTED)
    client = openai.OpenAI(
        base_url=f"{place.ada.url}/openai/v1", api_key=place.ada.token, max_retries=0, http_client=http
    )
    said: Any = [{"role": "system", "content": "Be brief."}, *SAY]
    whole = client.chat.completions.create(model=SONNET, messages=said)
    assert whole.choices[0].message.content == "Hello."
    options: Any = {"include_usage": True}
    chunks = list(client.chat.completions.create(model=SONNET, messages=said, stream=True, stream_options=options))
    assert "".join(each.choices[0].delta.content or "" for each in chunks if each.choices) == "Hello."
    response = client.responses.create(model=SONNET, input="Say hello.")
    assert response.output_text == "Hello."
    rows = place.rows(3)
    assert [ledger.usage_of(row) for row in rows] == place.direct.usages == [COUNTED] * 3


@pytest.fixture
def boto(place: Place, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    # The only patch: boto3 takes a bearer token from this variable and from nowhere else.
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", place.ada.token)
    for name in ("AWS_CA_BUNDLE", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    config = Config(retries={"total_max_attempts": 1})
    made = boto3.client("bedrock-runtime", "us-east-1", endpoint_url=f"{place.ada.url}/bedrock", config=config)
    yield made
    made.close()


def test_boto3_invokes_it_in_bedrocks_own_format(place: Place, boto: Any) -> None:
    place.direct.default = Answer("Hello.", usage=COUNTED)
    body = json.dumps(BEDROCK | {"anthropic_beta": ["context-1m-2025-08-07"]})
    whole = boto.invoke_model(modelId=SONNET, body=body)
    assert json.loads(whole["body"].read())["content"][0]["text"] == "Hello."
    answer = boto.invoke_model_with_response_stream(modelId=SONNET, body=body)
    with closing(answer["body"]) as frames:
        events = [json.loads(each["chunk"]["bytes"]) for each in frames]
    assert "".join(e["delta"].get("text", "") for e in events if e["type"] == "content_block_delta") == "Hello."
    metrics = events[-1]["amazon-bedrock-invocationMetrics"]
    assert (metrics["inputTokenCount"], metrics["outputTokenCount"]) == (COUNTED.input, COUNTED.output)
    rows = place.rows(2)
    assert [ledger.usage_of(row) for row in rows] == place.direct.usages == [COUNTED] * 2
    assert place.direct.betas == ["context-1m-2025-08-07"] * 2
    assert all("anthropic_version" not in call.body for call in place.direct.calls)


def test_boto3_raises_by_what_it_says_and_converse_is_refused_by_name(place: Place, boto: Any) -> None:
    place.direct.default = Answer(status=400, error="ignored")
    body = json.dumps(BEDROCK | {"unknown_member": 1})
    with pytest.raises(boto.exceptions.ValidationException, match="unknown_member: Extra inputs"):
        boto.invoke_model(modelId=SONNET, body=body)
    with pytest.raises(boto.exceptions.ValidationException, match="Converse is not available on claude-sonnet-5-5"):
        boto.converse(modelId=SONNET, messages=[{"role": "user", "content": [{"text": "hi"}]}])


def test_a_call_goes_on_to_another_region_and_then_to_another_provider(place: Place) -> None:
    place.home.default = place.west.default = THROTTLED
    place.direct.default = Answer("Hello.", usage=COUNTED)
    for stream in (False, True):
        reply = place.ada.ask(model=HAIKU, stream=stream)
        assert (reply.status, reply.headers["x-llmgw-target"]) == (200, LAST)
    rows = place.rows(6)
    assert [row.target for row in rows] == [HOME, WEST, LAST] * 2
    assert [(row.cost > 0, row.estimated) for row in rows] == [(False, 0), (False, 0), (True, 0)] * 2
    assert ledger.usage_of(rows[2]) == COUNTED
    assert place.west.refused == [], "signed for its region, by the profile's credentials"
    line = place.gateway.audited("/v1/messages", request_id=reply.headers["request-id"])
    assert [(each["target"], each["outcome"]) for each in line["attempts"]] == [
        (HOME, "upstream_429"),
        (WEST, "upstream_429"),
        (LAST, "ok"),
    ]
    exposed = httpx2.get(f"{place.gateway.admin_url}/metrics", trust_env=False).text
    assert f'llmgw_attempts_total{{result="upstream_429",target="{WEST}"}}' in exposed


def test_converse_goes_to_those_targets_that_speak_it(place: Place, boto: Any) -> None:
    place.home.default = THROTTLED
    said = [{"role": "user", "content": [{"text": "hi"}]}]
    assert boto.converse(modelId=HAIKU, messages=said)["output"]
    assert place.asked() == [1, 1, 0]


def test_a_target_that_refuses_is_left_alone_for_a_while(
    tmp_path: Path, canaille: Canaille, sign_in: Callable[[str], str]
) -> None:
    memory, soon = {"rest_seconds": 600, "most_rest_seconds": 600}, {"first_content_seconds": 2}
    with Place(tmp_path, canaille, sign_in, times=soon, fallbacks=memory, streams={"gate_seconds": 1}) as place:
        # One that takes prompts and says nothing: its client had to be told 200 already.
        place.home.script(Answer(hold_after=0))
        assert place.ada.ask(model=OPUS, stream=True).status == 200
        assert place.ada.ask(model=OPUS).headers["x-llmgw-target"] == f"west/us.anthropic.{OPUS}"
        place.home.release_all()
        for each in (place.home, place.west):
            each.calls.clear()
        place.home.script(THROTTLED)
        for _ in range(3):
            assert place.ada.ask(model=HAIKU).headers["x-llmgw-target"] == WEST
        assert place.asked() == [1, 3, 0], "the first call told the others"
        place.west.default = place.direct.default = THROTTLED
        reply = place.ada.ask(model=HAIKU)
        assert (reply.status, reply.headers["x-llmgw-target"]) == (200, HOME), (
            "who rests is asked when nobody else answers"
        )
        exposed = httpx2.get(f"{place.gateway.admin_url}/metrics", trust_env=False).text
        assert f'llmgw_target_rests_total{{target="{HOME}"}} 1.0' in exposed


def test_a_target_that_has_rested_is_tried_again(
    tmp_path: Path, canaille: Canaille, sign_in: Callable[[str], str]
) -> None:
    with Place(tmp_path, canaille, sign_in, fallbacks={"rest_seconds": 1}) as place:
        place.home.script(THROTTLED)
        assert place.ada.ask(model=HAIKU).headers["x-llmgw-target"] == WEST
        until(lambda: place.ada.ask(model=HAIKU).headers["x-llmgw-target"] == HOME, "the first target is asked again")


def test_the_key_is_in_no_log_no_answer_and_no_trail(place: Place) -> None:
    place.direct.api_key = "sk-ant-another-one"  # the upstream refuses the gateway's, and says so
    try:
        replies = [place.ada.ask(model=SONNET), place.ada.request("POST", "/v1/messages/count_tokens", count())]
    finally:
        place.direct.api_key = FaultyAnthropic.api_key
    for reply in replies:
        assert (reply.status, reply.error["code"]) == (400, "upstream_denied")
        place.gateway.audited(
            "/v1/messages" if reply is replies[0] else "/v1/messages/count_tokens",
            request_id=reply.headers["request-id"],
        )
    files = place.gateway.log, place.gateway.audit, place.gateway.config
    for text in (*(reply.body.decode() for reply in replies), *(file.read_text() for file in files)):
        assert FaultyAnthropic.api_key not in text


@pytest.mark.parametrize("cancels", [False, True])
def test_what_happens_to_an_answer_without_its_client_is_the_upstreams_own(
    tmp_path: Path,
    canaille: Canaille,
    sign_in: Callable[[str], str],
    cancels: bool,  # noqa: FBT001 -- a table
) -> None:
    secret = {"key_file": str(tmp_path / "anthropic.key"), "cancel_stops_billing": cancels}
    with Place(tmp_path, canaille, sign_in, direct=secret, streams={"ping_seconds": 1}) as place:
        place.direct.default = Answer("Hello.", usage=COUNTED, hold_after=3)
        body = json.dumps({"model": SONNET, "max_tokens": 9, "stream": True, "messages": SAY}).encode()
        headers = {"authorization": f"Bearer {place.ada.token}", "content-type": "application/json"}
        url = f"{place.ada.url}/v1/messages"
        with (
            httpx2.Client(trust_env=False) as client,
            client.stream("POST", url, content=body, headers=headers) as answer,
        ):
            assert answer.status_code == 200
        (call,) = place.direct.calls
        if not cancels:
            call.release()
        (row,) = place.rows(1)
        if cancels:  # the upstream still waits for its release: nobody read on
            assert row.estimated
            assert row.cost > 0
            call.release()
        else:
            assert (ledger.usage_of(row), row.estimated) == (COUNTED, 0)


def count() -> bytes:
    return json.dumps({"model": SONNET, "messages": SAY}).encode()


def test_tokens_in_bedrocks_form_are_refused_by_name(place: Place, boto: Any) -> None:
    body = {"invokeModel": {"body": json.dumps(BEDROCK)}}
    with pytest.raises(boto.exceptions.ValidationException, match="use POST /v1/messages/count_tokens"):
        boto.count_tokens(modelId=SONNET, input=body)
    assert place.asked() == [0, 0, 0]


OWN = """
[[models]]
name = "claude-own"
display_name = "Own"
vendor = "anthropic"
max_output_tokens = 1000
context_tokens = 100_000

[[models.prices]]
from = 2026-01-01
geography = "direct"
input = 1_000_000
output = 2_000_000
cache_read = 100_000
cache_write_5m = 1_250_000
cache_write_1h = 2_000_000
"""


def test_a_gateway_without_bedrock_needs_nothing_of_it(
    tmp_path: Path, canaille: Canaille, sign_in: Callable[[str], str]
) -> None:
    """No section, no AWS credentials, and no id there of a model that it does not have."""
    with FaultyAnthropic() as direct:
        secret = write_secret(tmp_path / "anthropic.key", direct.api_key)
        write_secret(tmp_path / "gateway" / "prices.toml", OWN)
        gateway = Gateway(
            tmp_path / "gateway",
            issuers=[canaille.issuer_section()],
            endpoint="",
            region="us-east-1",
            credentials={},
            changes={
                "anthropic": [{"endpoint": direct.url, "key_file": secret}],
                "models": [{"name": "claude-own", "target": "anthropic/claude-own"}],
                "prices": {"file": "prices.toml"},
            },
        )
        del gateway.document["bedrock"]
        with gateway:
            ada = Device(gateway.url)
            ada.exchange(sign_in("ada"))
            direct.default = Answer("Hello.", usage=COUNTED)
            assert ada.ask(model="claude-own").status == 200
            (row,) = ledger.settled(gateway.db, 1)
            assert (row.target, row.cost > 0) == ("anthropic/claude-own", True)
            assert [each["id"] for each in ada.request("GET", "/v1/models").json["data"]] == ["claude-own"]
            assert ada.request("GET", "/bedrock/foundation-models").json == {"modelSummaries": []}
            document = gateway.document | {"models": [{"name": "claude-own"}], "bedrock": {"region": "us-east-1"}}
            gateway.config.write_text(toml_text.dump(document), encoding="utf-8")
            checked = run(gateway.command("check"), env=gateway.program.env, folder=gateway.folder, seconds=60)
            assert "'claude-own' has no bedrock_id in prices.file, and is asked at Bedrock" in checked.stderr


MODES: list[Mode] = ["bedrock", "anthropic"]


@pytest.mark.skipif(not node.available(), reason="needs Node and npm for the real `claude`")
@pytest.mark.parametrize("mode", MODES)
def test_claude_works_with_its_tools(tmp_path: Path, canaille: Canaille, mode: Mode) -> None:
    every = [name for name, model in built_in().models.items() if any(p.geography == "direct" for p in model.prices)]
    with (
        ScriptedBedrock() as home,
        FaultyAnthropic() as direct,
        System(tmp_path, provider=canaille, cloud=home) as system,
    ):
        secret = write_secret(tmp_path / "anthropic.key", direct.api_key)
        system.gateway.document["anthropic"] = [{"endpoint": direct.url, "key_file": secret}]
        system.gateway.document["models"] = [{"name": name, "target": f"anthropic/{name}"} for name in every]
        system.gateway.restart()
        system.sign_in()
        direct.script_tool_loop("Bash", {"command": "echo from-the-tool", "description": "Say it"}, "It has spoken.")
        answered = system.claude(mode).ask("Use the tool.", tools=("Bash(echo:*)",))
        assert answered.text == "It has spoken."
        rows = ledger.settled(system.gateway.db, len(direct.calls))
        assert len(rows) >= 2
        assert [ledger.usage_of(row) for row in rows] == direct.usages
        assert home.calls == []
