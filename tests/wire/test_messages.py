"""What one side dumps, the other parses: newer and older ones too."""

from __future__ import annotations

import json
from typing import Any, Protocol

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llmgw_wire.messages import (
    Bootstrap,
    BudgetView,
    CapView,
    ExchangeAnswer,
    IssuerOffer,
    LimitView,
    Me,
    UsageLine,
    UsagePeriod,
    UsageReport,
)
from llmgw_wire.secret import Secret

DEEP = b"[" * 100_000


class Message(Protocol):
    def dump(self) -> bytes: ...

    @classmethod
    def parse(cls, body: bytes) -> Message: ...


texts = st.text(max_size=40)
lists = st.lists(texts, max_size=4).map(tuple)
numbers = st.integers(min_value=-(2**62), max_value=2**62)
offers = st.builds(
    IssuerOffer,
    issuer=texts,
    client_id=texts,
    kind=texts,
    scopes=lists,
    subject_token_type=texts,
    redirect_host=texts,
    response_mode=texts,
    resource=texts,
    max_age=numbers,
)
bootstraps = st.builds(
    Bootstrap,
    gateway=texts,
    token_endpoint=texts,
    audience=texts,
    issuers=st.lists(offers, min_size=1, max_size=3).map(tuple),
    minimum_agent_version=texts,
    dialects=lists,
)
answers = st.builds(
    ExchangeAnswer,
    access_token=texts.map(Secret),
    expires_in=st.integers(min_value=1, max_value=2**40),
    issued_token_type=texts,
    token_type=texts,
)
budgets = st.builds(
    BudgetView,
    name=texts,
    level=texts,
    period=texts,
    period_key=texts,
    limit=numbers,
    spent=numbers,
    held=numbers,
    overshoot_limit=numbers,
    resets_at=texts,
    model=st.none() | texts,
)
limits = st.builds(LimitView, name=texts, level=texts, kind=texts, limit=numbers, used=numbers, model=st.none() | texts)
bounds = st.none() | numbers
caps = st.builds(CapView, model=texts, max_tokens=bounds, thinking_tokens=bounds, context_tokens=bounds)
people = st.builds(
    Me,
    person=texts,
    name=texts,
    email=texts,
    issuer=texts,
    session=texts,
    token_expires_at=numbers,
    models=lists,
    budgets=st.lists(budgets, max_size=3).map(tuple),
    limits=st.lists(limits, max_size=3).map(tuple),
    caps=st.lists(caps, max_size=3).map(tuple),
)
usage_lines = st.builds(
    UsageLine,
    name=texts,
    requests=numbers,
    input_tokens=numbers,
    output_tokens=numbers,
    cache_read_tokens=numbers,
    cache_write_tokens=numbers,
    cost=numbers,
    estimated=numbers,
)
usage_tables = st.lists(usage_lines, max_size=2).map(tuple)
periods = st.builds(UsagePeriod, name=texts, since=texts, total=usage_lines, models=usage_tables, projects=usage_tables)
reports = st.builds(UsageReport, time_zone=texts, periods=st.lists(periods, max_size=2).map(tuple))
messages: st.SearchStrategy[Message] = st.one_of(bootstraps, answers, people, reports)
values = st.recursive(
    st.none() | st.booleans() | numbers | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)


@given(messages)
def test_what_is_dumped_is_parsed_to_the_same(message: Message) -> None:
    assert type(message).parse(message.dump()) == message


@given(messages, st.dictionaries(texts.map("x-".__add__), values, max_size=3))
def test_members_of_a_newer_version_are_passed_over(message: Message, news: dict[str, Any]) -> None:
    document = json.loads(message.dump()) | news
    for name in ("issuers", "budgets", "limits", "caps", "periods"):
        document.update({name: [each | news for each in document[name]]} if name in document else {})
    assert type(message).parse(json.dumps(document).encode()) == message


BOOTSTRAP = Bootstrap("https://gw", "https://gw/oauth/token", "llmgw", (IssuerOffer("https://idp", "client"),))
ANSWER = ExchangeAnswer(Secret("canary-token"), 600)
ME = Me(
    *("per_1", "A", "a@b", "https://idp", "ses_1", 5, ("m",)),
    budgets=(BudgetView("b", "user", "month", "k", 1, 1, 1, 1, "r"),),
    limits=(LimitView("l", "user", "requests", 1, 1),),
    caps=(CapView("m", 1),),
)
LINE = UsageLine("m", 1, 1, 1, 1, 1, 1, 0)
REPORT = UsageReport("UTC", (UsagePeriod("today", "2026-11-21", LINE, (LINE,), (LINE,)),))
OPTIONAL = {"minimum_agent_version", "name", "email", "issuer", "session", "limits", "caps"} | {
    "binds_tokens",
    "require_pop",
}
FAULTY = [(message, name) for message in (BOOTSTRAP, ANSWER, ME, REPORT) for name in json.loads(message.dump())]
INNER: list[tuple[Message, str, str]] = [
    (BOOTSTRAP, "issuers", name) for name in ("issuer", "client_id", "scopes", "kind", "resource", "max_age")
] + [(ME, "budgets", name) for name in ("name", "level", "period", "period_key", "limit", "spent", "held", "resets_at")]
INNER += [(REPORT, "periods", name) for name in ("name", "since", "models", "projects")]
INNER += [(ME, "caps", "model")]
INNER += [(ME, "limits", name) for name in ("name", "level", "kind", "limit", "used")]


def refuses(message: Message, document: dict[str, Any], name: str) -> None:
    with pytest.raises(ValueError, match=f"'{name}'") as caught:
        type(message).parse(json.dumps(document).encode())
    assert "canary-token" not in str(caught.value)


@pytest.mark.parametrize(("message", "name"), FAULTY, ids=[f"{type(m).__name__}.{n}" for m, n in FAULTY])
def test_a_faulty_member_is_named(message: Message, name: str) -> None:
    document = json.loads(message.dump())
    refuses(message, document | {name: {"a": 1}}, name)
    refuses(message, document | {name: None}, name)
    if name not in OPTIONAL:
        refuses(message, {key: value for key, value in document.items() if key != name}, name)


@pytest.mark.parametrize(("message", "of", "name"), INNER, ids=[f"{of}.{name}" for _, of, name in INNER])
def test_a_faulty_member_of_a_list_is_named(message: Message, of: str, name: str) -> None:
    document = json.loads(message.dump())
    refuses(message, document | {of: [document[of][0] | {name: {"a": 1}}]}, name)
    refuses(message, document | {of: ["text"]}, of)


@pytest.mark.parametrize("life", [0, -1, True, 1.5, "600", None])
def test_a_life_that_is_no_positive_number_of_seconds_is_refused(life: object) -> None:
    refuses(ANSWER, json.loads(ANSWER.dump()) | {"expires_in": life}, "expires_in")


def test_a_gateway_without_a_way_to_sign_in_is_refused() -> None:
    refuses(BOOTSTRAP, json.loads(BOOTSTRAP.dump()) | {"issuers": []}, "issuers")


@pytest.mark.parametrize("kind", [Bootstrap, ExchangeAnswer, Me])
@given(body=st.binary(max_size=60) | values.map(lambda value: json.dumps(value).encode()))
@example(body=b"")
@example(body=b"\xff\xfe")
@example(body=b"[]")
@example(body=b"1" * 5000)
@example(body=DEEP)
def test_an_answer_of_any_shape_is_at_worst_a_value_error(kind: type[Message], body: bytes) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        kind.parse(body)
    assert len(str(caught.value)) < 120


@given(budgets)
def test_what_remains_is_never_negative_and_also_sent(budget: BudgetView) -> None:
    assert budget.remaining == max(0, budget.limit - budget.spent - budget.held)
    me = Me("p", "", "", "", "", 0, (), (budget,))
    assert json.loads(me.dump())["budgets"][0]["remaining"] == budget.remaining
