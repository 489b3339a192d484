"""From Anthropic's dialect to InvokeModel: headers and fields travel in pairs, by the table that ships."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmgw_gateway.dialects import anthropic, bedrock, openai_request
from llmgw_gateway.errors import ConfigurationError, GatewayError
from llmgw_gateway.money.catalogues import built_in
from llmgw_gateway.providers import bridge, bridging
from llmgw_wire.errors import ErrorCode

TABLE = bridging.table()
MODEL = "claude-opus-5-5"
TAKEN = [beta for beta in TABLE.betas.values() if beta.bedrock and (not beta.models or MODEL in beta.models)]
NOT_TAKEN = [beta for beta in TABLE.betas.values() if beta not in TAKEN]
DROPPED = [each.name for each in TABLE.fields.values() if not each.bedrock and each.on_refuse == "drop"]
REFUSED = [each.name for each in TABLE.fields.values() if not each.bedrock and each.on_refuse == "refuse"]
BODY: dict[str, Any] = {"model": "m", "stream": True, "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]}


def sent(*betas: str, **members: Any) -> dict[str, Any]:
    body = bridge.invoke_body(anthropic.read(json.dumps(BODY | members).encode(), ",".join(betas)), MODEL)
    document = json.loads(body)
    assert isinstance(document, dict)
    return document


def test_the_envelope_is_exchanged_and_the_rest_is_not_touched() -> None:
    assert sent() == {
        "anthropic_version": "bedrock-2023-05-31",
        "max_tokens": 5,
        "messages": [{"role": "user", "content": "hi"}],
    }


def in_version(version: str, **members: Any) -> dict[str, Any]:
    call = anthropic.read(json.dumps(BODY | members).encode(), "")
    call.version = version
    document = json.loads(bridge.invoke_body(call, MODEL))
    assert isinstance(document, dict)
    return document


@pytest.mark.parametrize("version", TABLE.versions)
def test_bedrock_is_asked_under_its_own_version(version: str) -> None:
    assert in_version(version)["anthropic_version"] == "bedrock-2023-05-31"


@pytest.mark.parametrize("name", ["temperature", "top_p", "top_k"])
def test_what_a_version_has_removed_is_refused_as_anthropic_refuses_it(name: str) -> None:
    assert in_version("2023-06-01", **{name: 1})[name] == 1
    assert sent(**{name: 1})[name] == 1
    in_version("2026-10-21", **{name: None})
    with pytest.raises(GatewayError, match=f"'{name}' was removed in anthropic-version 2026-10-21") as error:
        in_version("2026-10-21", **{name: 1})
    assert error.value.code is ErrorCode.REQUEST_MALFORMED


def test_a_version_that_nobody_has_looked_at_is_refused_by_name() -> None:
    with pytest.raises(GatewayError, match=r"anthropic-version: '2027-01-01'.*send 2023-06-01 or 2026-10-21") as error:
        in_version("2027-01-01")
    assert error.value.code is ErrorCode.REQUEST_MALFORMED


def test_a_version_can_be_added() -> None:
    known = bridging.extended(TABLE, '[[versions]]\nname = "2027-01-01"\nremoved = ["speed"]', "rows.toml", None)
    call = anthropic.read(json.dumps(BODY | {"speed": "fast"}).encode(), "")
    call.version = "2027-01-01"
    with pytest.raises(GatewayError, match="'speed' was removed"):
        bridge.invoke_body(call, MODEL, known)


def test_bedrock_s_own_dialect_is_not_bridged() -> None:
    body = b'{"anthropic_version":"x","model":"m","stream":true,"anthropic_beta":["whatever"],"made_up":1}'
    assert bridge.invoke_body(bedrock.read(body, "m", stream=False), "m") == body


def test_what_nobody_has_listed_is_passed_on() -> None:
    # A new member of the API must not need a new gateway: Bedrock itself says what it does not know.
    assert sent(a_member_of_tomorrow={"x": 1})["a_member_of_tomorrow"] == {"x": 1}


@pytest.mark.parametrize("beta", TAKEN, ids=lambda beta: beta.name)
def test_a_beta_that_bedrock_takes_goes_with_its_fields_by_bedrock_s_name_for_it(beta: bridging.Beta) -> None:
    members = {name: {"x": 1} for name in beta.fields if name not in BODY}
    document = sent(beta.name, **members)
    assert document["anthropic_beta"] == [beta.sent_as or beta.name]
    assert {name: document[name] for name in members} == members


def test_a_beta_for_other_models_is_left_out() -> None:
    limited = next(beta for beta in TABLE.betas.values() if beta.bedrock and beta.models and MODEL not in beta.models)
    assert "anthropic_beta" not in sent(limited.name)


def test_every_model_that_the_table_names_is_in_the_catalogue() -> None:
    assert {model for beta in TABLE.betas.values() for model in beta.models} <= set(built_in().models)


def openai_body(model: str, **members: Any) -> dict[str, Any]:
    request = {"model": "m", "messages": [{"role": "user", "content": "hi"}]} | members
    document = json.loads(bridge.invoke_body(openai_request.read(json.dumps(request).encode()).call, model))
    assert isinstance(document, dict)
    return document


def test_a_feature_of_some_models_is_refused_in_the_client_s_words_for_the_others() -> None:
    for feature, called, value in (
        ("output_config.effort", "reasoning_effort", "low"),
        ("output_config.format", "response_format", {"type": "json_schema", "json_schema": {"schema": {}}}),
    ):
        having = TABLE.features[feature].models
        assert set(having) < set(built_in().models)
        for model in built_in().models:
            if model in having:
                assert openai_body(model, **{called: value})["output_config"]
            else:
                with pytest.raises(GatewayError, match=f"'{called}' is not available on {model}"):
                    openai_body(model, **{called: value})


def test_effort_s_beta_goes_to_the_model_that_wants_it() -> None:
    assert openai_body("claude-opus-4-5", reasoning_effort="low")["anthropic_beta"] == ["effort-2025-11-24"]
    assert "anthropic_beta" not in openai_body(MODEL, reasoning_effort="low")


def own(text: str) -> bridging.Table:
    return bridging.extended(TABLE, text, "bridge.toml", built_in().models)


def test_rows_of_an_operator_replace_and_join_those_that_ship() -> None:
    table = own(
        '[[betas]]\nname = "new-2027"\nbedrock = true\nfields = ["new"]\n'
        '[[fields]]\nname = "speed"\nbedrock = false\non_refuse = "refuse"\n'
        '[[features]]\nname = "output_config.effort"\nmodels = ["claude-sonnet-4-5"]\n'
    )
    call = anthropic.read(json.dumps(BODY | {"new": 1}).encode(), "new-2027")
    assert json.loads(bridge.invoke_body(call, MODEL, table))["anthropic_beta"] == ["new-2027"]
    assert sent("new-2027", new=1).get("anthropic_beta") is None
    with pytest.raises(GatewayError, match="'speed'"):
        bridge.invoke_body(anthropic.read(json.dumps(BODY | {"speed": "fast"}).encode(), ""), MODEL, table)
    assert table.features["output_config.effort"].models == ("claude-sonnet-4-5",)
    assert table.features["output_config.format"] == TABLE.features["output_config.format"]
    assert len(table.betas) == len(TABLE.betas) + 1


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("[[betas]", "no bridging table"),
        ('[[betas]]\nname = "x"', "no bridging table"),
        ('[[betas]]\nname = "x"\nbedrock = true\nmodel = "m"', "no bridging table"),
        ('[[fields]]\nname = "x"\nbedrock = false\non_refuse = "shout"', "no bridging table"),
        ('[[betas]]\nname = "x"\nbedrock = true\n' * 2, "betas: 'x' stands there twice"),
        ('[[features]]\nname = "x"\nmodels = ["gpt-5"]', "features.x.models: 'gpt-5' is not in the price catalogue"),
        ('[[betas]]\nname = "compact-2026-01-12"\nbedrock = true', "betas.compact-2026-01-12.bedrock: must stay false"),
    ],
)
def test_rows_that_cannot_be_used_are_named(text: str, fault: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        own(text)
    assert fault in caught.value.faults[0]


def test_every_row_that_ships_has_a_source() -> None:
    rows: list[bridging.Beta | bridging.Field | bridging.Feature] = [*TABLE.betas.values(), *TABLE.fields.values()]
    rows += TABLE.features.values()
    assert [row.name for row in rows if not row.source] == []


def test_two_names_of_one_beta_are_sent_once() -> None:
    renamed = next(beta for beta in TAKEN if beta.sent_as)
    assert sent(renamed.name, renamed.sent_as, renamed.name)["anthropic_beta"] == [renamed.sent_as]


@pytest.mark.parametrize("beta", NOT_TAKEN, ids=lambda beta: beta.name)
def test_a_beta_that_bedrock_does_not_take_stays_here_with_its_fields(beta: bridging.Beta) -> None:
    members = {name: {"x": 1} for name in beta.fields if name not in {*BODY, *REFUSED}}
    document = sent(beta.name, **members)
    assert "anthropic_beta" not in document
    shared = {name for taken in TAKEN for name in taken.fields}
    assert {name for name in members if name in document} <= shared


def test_an_unknown_beta_stays_here() -> None:
    assert "anthropic_beta" not in sent("a-beta-of-tomorrow-2030-01-01")


@pytest.mark.parametrize("name", DROPPED)
def test_a_field_that_bedrock_does_not_take_is_left_out(name: str) -> None:
    assert name not in sent(**{name: {"x": 1}})


@pytest.mark.parametrize("name", REFUSED)
def test_a_field_that_cannot_be_left_out_is_refused_by_name(name: str) -> None:
    with pytest.raises(GatewayError, match=f"'{name}'") as caught:
        sent(**{name: {"x": 1}})
    assert caught.value.code is ErrorCode.REQUEST_MALFORMED


@given(st.lists(st.sampled_from(sorted(TABLE.betas)) | st.text("abc-", min_size=1, max_size=5), max_size=8))
def test_the_betas_that_go_are_those_that_bedrock_takes_once_each_in_the_client_s_order(names: list[str]) -> None:
    known = [TABLE.betas[name] for name in names if name in TABLE.betas]
    expected = list(dict.fromkeys(beta.sent_as or beta.name for beta in known if beta in TAKEN))
    assert sent(*names).get("anthropic_beta", []) == expected


@given(st.lists(st.sampled_from(sorted(TABLE.betas)), unique=True, max_size=6))
def test_a_field_stays_exactly_when_some_beta_of_the_request_brings_it(names: list[str]) -> None:
    betas = [TABLE.betas[name] for name in names]
    paired = {field for beta in TABLE.betas.values() for field in beta.fields} - {*REFUSED, *DROPPED}
    document = sent(*names, **{field: {"x": 1} for field in paired})
    for field in paired:
        brought = any(beta in TAKEN and field in beta.fields for beta in betas)
        lost = any(beta not in TAKEN and field in beta.fields for beta in betas)
        assert (field in document) is (brought or not lost)


def test_every_row_of_the_table_says_where_it_comes_from() -> None:
    sources = [beta.source for beta in TABLE.betas.values()] + [each.source for each in TABLE.fields.values()]
    assert sources
    assert all(sources)
    assert {each.on_refuse for each in TABLE.fields.values()} <= {"drop", "refuse"}


@pytest.mark.parametrize("member", ["anthropic_version", "anthropic_beta"])
def test_a_body_does_not_write_on_the_envelope(member: str) -> None:
    # In this dialect both travel in headers: a body that brings its own gets past the table.
    document = sent(**{member: ["a-beta-that-nobody-judged"]})
    assert document["anthropic_version"] == "bedrock-2023-05-31"
    assert "a-beta-that-nobody-judged" not in json.dumps(document)
