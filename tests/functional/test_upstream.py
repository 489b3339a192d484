"""What the provider says, and what of it the client is told and the account is charged."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.functional import ledger
from tests.lab.scripted import Answer, ScriptedBedrock

if TYPE_CHECKING:
    from tests.functional.device import Device
    from tests.lab.gateway import Gateway

COUNT = json.dumps({"model": "claude-sonnet-4-5", "messages": [{"role": "user", "content": "hi"}]}).encode()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("status", [204, 302, 307])
def test_an_answer_that_is_neither_good_nor_an_error_is_none_and_free(
    gateway: Gateway,
    ada: Device,
    scripted: ScriptedBedrock,
    status: int,
    stream: bool,  # noqa: FBT001 -- a table
) -> None:
    scripted.script(Answer(status=status, error="elsewhere"))
    reply = ada.ask(stream=stream)
    assert (reply.status, reply.error["code"]) == (502, "upstream_invalid")
    assert str(status) in reply.error["message"]
    (entry,) = ledger.settled(gateway.db, 1)
    assert entry.cost == 0


@pytest.mark.parametrize("status", [202, 203, 206])
def test_an_answer_that_a_proxy_has_changed_may_have_been_billed(
    gateway: Gateway, ada: Device, scripted: ScriptedBedrock, status: int
) -> None:
    scripted.script(Answer(status=status, error="elsewhere"))
    reply = ada.ask()
    assert (reply.status, reply.error["code"]) == (502, "upstream_invalid")
    assert "may still charge" in reply.error["message"]
    (entry,) = ledger.settled(gateway.db, 1)
    assert entry.cost > 0
    assert entry.estimated
    assert len(scripted.calls) == 1


def test_a_cost_is_told_only_when_it_is_known(ada: Device, scripted: ScriptedBedrock) -> None:
    scripted.script(Answer(), Answer(usage=None))
    assert float(ada.ask().headers["x-llmgw-cost-usd"]) > 0
    unknown = ada.ask()
    assert unknown.status == 200
    assert "x-llmgw-cost-usd" not in unknown.headers


@pytest.mark.parametrize("status", [401, 403])
def test_the_gateways_own_role_is_never_taken_for_the_callers_sign_in(
    ada: Device, scripted: ScriptedBedrock, status: int
) -> None:
    scripted.counting = (status, b'{"message": "not authorized"}')
    scripted.script(Answer(status=status, error="not authorized"))
    for reply in (ada.ask(), ada.request("POST", "/v1/messages/count_tokens", COUNT)):
        assert (reply.status, reply.error["code"]) == (400, "upstream_denied")
        assert reply.headers["x-should-retry"] == "false"


def test_tokens_are_counted_by_the_provider_free_of_charge(
    gateway: Gateway, ada: Device, scripted: ScriptedBedrock
) -> None:
    scripted.counting = (200, b'{"inputTokens": 42}')
    assert ada.request("POST", "/v1/messages/count_tokens", COUNT).json == {"input_tokens": 42}
    scripted.counting = (400, b'{"message": "too long"}')
    refused = ada.request("POST", "/v1/messages/count_tokens", COUNT)
    assert (refused.status, refused.json) == (400, {"message": "too long"})
    assert ledger.rows(gateway.db) == []


PICTURE: dict[str, Any] = {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}}


@pytest.mark.configured(budgets=[{"level": "user", "limit_usd": 0.2, "overshoot_usd": 0.1}])
def test_a_picture_is_bounded_by_the_context_and_not_by_its_bytes(ada: Device, scripted: ScriptedBedrock) -> None:
    """Thirty bytes of address may be thousands of tokens: the worst case must count, however the type is spelled."""
    plain = json.dumps(
        {"model": "claude-sonnet-4-5", "max_tokens": 10, "messages": [{"role": "user", "content": [PICTURE]}]}
    )
    for body in (plain, plain.replace('"image"', '"im\\u0061ge"'), plain.replace('"type"', '"\\u0074ype"')):
        reply = ada.request("POST", "/v1/messages", body.encode())
        assert reply.status == 402, body
        assert "worst case" in reply.error["message"]
    assert scripted.calls == []
    assert ada.request("POST", "/v1/messages", plain.replace('"image"', '"text"').encode()).status == 200
