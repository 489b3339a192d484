"""Policies through the real gateway: who is refused and told what, what is shown, and what a lost group closes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import anthropic
import httpx2
import pytest

from tests.functional.device import Device
from tests.functional.shop import Shop
from tests.lab import node
from tests.lab.gateway import Gateway
from tests.lab.native_app import NativeApp
from tests.lab.oidc_provider import ACCOUNTS, OidcProvider
from tests.lab.process import run
from tests.lab.scripted import ScriptedBedrock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.lab.canaille import Canaille
    from tests.lab.process import Finished

OPUS, SONNET, HAIKU = "claude-opus-5-5", "claude-sonnet-4-5", "claude-haiku-4-5"
POLICIES: list[dict[str, Any]] = [
    {"name": "opus for analysts", "groups": ["analysts"], "models": [OPUS], "max_tokens": 32_000},
    {"name": "default", "models": [SONNET], "thinking_tokens": 2000, "context_tokens": 5000},
]


@pytest.fixture(scope="module")
def open_shop(
    tmp_path_factory: pytest.TempPathFactory, canaille: Canaille, sign_in: Callable[[str], str]
) -> Iterator[Shop]:
    """A gateway with policies, for all tests that only look at what they do."""
    with ScriptedBedrock() as cloud:
        gateway = Gateway(
            tmp_path_factory.mktemp("governed") / "gateway",
            issuers=[canaille.issuer_section()],
            endpoint=cloud.endpoint,
            region=cloud.region,
            credentials=cloud.key.environment(),
            changes={"policies": POLICIES},
        )
        with gateway:
            device = Device(gateway.url)
            device.exchange(sign_in("ada"))
            yield Shop(gateway, cloud, device)


@pytest.fixture
def governed(shop: Shop) -> Device:
    """Ada, who is an analyst, at a gateway with policies."""
    return shop.ada


def command(gateway: Gateway, *words: str) -> Finished:
    verbs = [*gateway.command("policy")[:-1], words[0], gateway.config, *words[1:]]
    return run(verbs, env=gateway.program.env, folder=gateway.folder, seconds=60)


def test_what_is_not_allowed_is_refused_once_and_says_what_is(governed: Device, shop: Shop) -> None:
    for reply in (governed.ask(model=HAIKU), governed.ask(model=HAIKU, stream=True), governed.ask_bedrock(model=HAIKU)):
        assert (reply.status, reply.error["type"], reply.error["code"]) == (400, "policy_blocked", "model_not_allowed")
        assert reply.headers["x-should-retry"] == "false"
        assert "You may use: " in reply.error["message"]
        assert "#llm-help" in reply.error["message"]
    count = {"model": HAIKU, "messages": [{"role": "user", "content": "x"}]}
    reply = governed.request("POST", "/v1/messages/count_tokens", json.dumps(count).encode())
    assert (reply.status, reply.error["code"]) == (400, "model_not_allowed")
    assert shop.cloud.calls == []


def test_the_sdk_shows_the_refusal_and_asks_once(governed: Device) -> None:
    seen: list[int] = []
    with (
        httpx2.Client(trust_env=False, event_hooks={"response": [lambda r: seen.append(r.status_code)]}) as plain,
        anthropic.Anthropic(base_url=governed.url, auth_token=governed.token, http_client=plain) as client,
        pytest.raises(anthropic.BadRequestError, match=f"You may use: .*{OPUS}"),
    ):
        client.messages.create(model=HAIKU, max_tokens=10, messages=[{"role": "user", "content": "x"}])
    assert seen == [400]


def test_only_what_may_be_used_is_shown(governed: Device) -> None:
    page = governed.request("GET", "/v1/models").json
    assert {each["id"] for each in page["data"]} == {OPUS, SONNET}
    me = governed.me()
    assert set(me["models"]) == {OPUS, SONNET}
    assert {cap["model"]: (cap["max_tokens"], cap["thinking_tokens"], cap["context_tokens"]) for cap in me["caps"]} == {
        OPUS: (32_000, None, None),
        SONNET: (None, 2000, 5000),
    }


def test_every_dialect_refuses_and_shows_the_same(governed: Device) -> None:
    chat = {"model": HAIKU, "messages": [{"role": "user", "content": "x"}]}
    reply = governed.request("POST", "/openai/v1/chat/completions", json.dumps(chat).encode())
    assert (reply.status, reply.error["code"]) == (403, "model_not_allowed")
    assert "You may use: " in reply.error["message"]
    text = {"model": "titan-embed-text-v2", "input": "x"}
    reply = governed.request("POST", "/openai/v1/embeddings", json.dumps(text).encode())
    assert (reply.status, reply.error["code"]) == (403, "model_not_allowed")
    converse = {"messages": [{"role": "user", "content": [{"text": "x"}]}]}
    reply = governed.request("POST", f"/bedrock/model/{HAIKU}/converse", json.dumps(converse).encode())
    assert (reply.status, reply.error["code"]) == (400, "model_not_allowed")
    assert {each["id"] for each in governed.request("GET", "/openai/v1/models").json["data"]} == {OPUS, SONNET}
    assert governed.request("GET", f"/openai/v1/models/{HAIKU}").status == 404
    models = governed.request("GET", "/bedrock/foundation-models").json["modelSummaries"]
    assert len(models) == 2


@pytest.mark.parametrize("stream", [False, True])
def test_more_than_the_cap_is_lowered_and_the_answer_says_so(governed: Device, shop: Shop, *, stream: bool) -> None:
    lowered = governed.ask(model=OPUS, max_tokens=128_000, stream=stream)
    assert (lowered.status, lowered.headers["x-llmgw-max-tokens"]) == (200, "32000")
    thinking = {"type": "enabled", "budget_tokens": 9000}
    reply = governed.ask(max_tokens=20_000, thinking=thinking, stream=stream)
    assert (reply.status, reply.headers["x-llmgw-thinking-tokens"]) == (200, "2000")
    assert "x-llmgw-max-tokens" not in reply.headers
    first, second = (call.body for call in shop.cloud.calls)
    assert first["max_tokens"] == 32_000
    assert (second["max_tokens"], second["thinking"]["budget_tokens"]) == (20_000, 2000)
    for answer, policy in ((lowered, "policies[0] (opus for analysts)"), (reply, "policies[1] (default)")):
        request_id = answer.headers["x-llmgw-request-id"]
        assert shop.gateway.audited("/v1/messages", request_id=request_id, policy=policy, status=200)


def test_a_prompt_that_is_too_long_is_refused_in_the_words_that_clients_know(governed: Device) -> None:
    reply = governed.ask(system="x" * 30_000)
    assert (reply.status, reply.error["code"], reply.headers["x-should-retry"]) == (400, "cap_exceeded", "false")
    assert reply.error["message"].startswith("prompt is too long: 75")
    assert "tokens > 5000 maximum" in reply.error["message"]


def test_the_command_says_which_line_decides(governed: Device, shop: Shop) -> None:
    gateway = shop.gateway
    assert governed.ask(model=OPUS).status == 200
    done = command(gateway, "explain", "ada@example.com", OPUS)
    assert (done.exit_code, done.stderr) == (0, "")
    lines = gateway.config.read_text().splitlines()
    line = lines.index("[[policies]]") + 1
    assert f"{OPUS} is allowed by policies[0] (opus for analysts), line {line}" in done.stdout
    assert "at most 32,000 tokens of output" in done.stdout
    done = command(gateway, "explain", governed.me()["person"], HAIKU)
    assert done.exit_code == 1
    assert f"{HAIKU} is refused because no policy allows it" in done.stdout
    assert "passed over: policies[1] (default)" in done.stdout
    done = command(gateway, "explain", "nobody", OPUS)
    assert (done.exit_code, done.stdout) == (2, "")
    assert "Nobody here is known as 'nobody'" in done.stderr


@pytest.fixture
def provider(tmp_path: Path) -> Iterator[OidcProvider]:
    with OidcProvider(tmp_path / "provider") as running:
        yield running


@pytest.mark.skipif(not node.available(), reason="needs Node and npm for oidc-provider")
def test_a_person_who_leaves_a_group_loses_its_model_with_the_next_token(
    tmp_path: Path, provider: OidcProvider, scripted: ScriptedBedrock
) -> None:
    with Gateway(
        tmp_path / "gateway",
        issuers=[provider.issuer_section(subject="access_token")],
        endpoint=scripted.endpoint,
        region=scripted.region,
        credentials=scripted.key.environment(),
        changes={"policies": POLICIES},
    ) as gateway:

        def sign_in() -> str:
            token: str = NativeApp(provider.issuer).sign_in(provider.person("ada"))["access_token"]
            return token

        ada = Device(gateway.url)
        before = ada.exchange(sign_in())
        pid = gateway.pid
        assert ada.ask(model=OPUS).status == 200
        explained = command(gateway, "explain", "ada@example.com", OPUS)
        line = gateway.config.read_text().splitlines().index("[[policies]]") + 1
        assert f"is allowed by policies[0] (opus for analysts), line {line}" in explained.stdout
        provider.terminate()
        provider.accounts["ada"] = ACCOUNTS["ada"] | {"groups": ["engineering"]}
        provider.start()
        provider.wait_ready()
        assert ada.ask(model=OPUS).status == 200, "the provider has not been asked since"
        ada.exchange(sign_in())
        for token in (ada.token, before):
            reply = ada.ask(model=OPUS, token=token)
            assert (reply.status, reply.error["code"]) == (400, "model_not_allowed")
            assert ada.ask(token=token).status == 200
        explained = command(gateway, "explain", "ada@example.com", OPUS)
        assert explained.exit_code == 1
        assert f"passed over: policies[0] (opus for analysts), line {line}" in explained.stdout
        assert {each["id"] for each in ada.request("GET", "/v1/models").json["data"]} == {SONNET}
        assert gateway.pid == pid
