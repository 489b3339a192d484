"""The table of refusals, against the design's own table and in both directions."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llmgw_wire.errors import (
    ADMINISTRATION,
    TABLE,
    ErrorCode,
    Refusal,
    anthropic_body,
    oauth_body,
    openai_body,
    openai_status,
    read_refusal,
    status_in,
)

codes = st.sampled_from(ErrorCode)
sentences = st.text(min_size=1)

# Design, section 3: what Claude Code does with each status was measured, and these follow from it.
DESIGN = {
    ErrorCode.TOKEN_INVALID: (401, "authentication_error", "client"),
    ErrorCode.TOKEN_EXPIRED: (401, "authentication_error", "client"),
    ErrorCode.CREDENTIAL_MISSING: (401, "authentication_error", "never"),
    ErrorCode.CREDENTIAL_AMBIGUOUS: (401, "authentication_error", "never"),
    ErrorCode.PERSON_DISABLED: (400, "policy_blocked", "never"),
    ErrorCode.MODEL_NOT_ALLOWED: (400, "policy_blocked", "never"),
    ErrorCode.BUDGET_EXCEEDED: (402, "billing_error", "never"),
    ErrorCode.DRAINING: (503, "overloaded_error", "client"),
    ErrorCode.STORE_UNAVAILABLE: (503, "api_error", "client"),
    ErrorCode.UPSTREAM_TIMEOUT: (529, "overloaded_error", "never"),
}
# RFC 6749 sections 4.1.2.1 and 5.2, RFC 8693 section 2.2.2, RFC 9449 section 5.
OAUTH_ERRORS = {
    "invalid_request",
    "invalid_grant",
    "unsupported_grant_type",
    "invalid_target",
    "invalid_dpop_proof",
    "access_denied",
    "server_error",
    "temporarily_unavailable",
}


def test_every_code_has_a_row_and_every_row_a_code() -> None:
    assert set(TABLE) == set(ErrorCode)
    assert all(code.wire is TABLE[code] for code in ErrorCode)


@pytest.mark.parametrize("code", DESIGN, ids=lambda code: code.value)
def test_the_table_says_what_the_design_says(code: ErrorCode) -> None:
    wire = code.wire
    assert (wire.status, wire.anthropic_type, wire.retry) == DESIGN[code]


FOR_MODELS = [code for code in ErrorCode if code not in ADMINISTRATION]


@pytest.mark.parametrize("code", FOR_MODELS, ids=lambda code: code.value)
def test_no_refusal_makes_the_client_repeat_for_minutes_or_hide_the_text(code: ErrorCode) -> None:
    assert code.wire.status in {400, 401, 402, 404, 405, 429, 431, 500, 502, 503, 529}
    assert (code.wire.status == 404) is (code is ErrorCode.NOT_FOUND)


@pytest.mark.parametrize("code", ErrorCode, ids=lambda code: code.value)
def test_a_refusal_by_policy_is_never_repeated(code: ErrorCode) -> None:
    if code.wire.status < 429 and code not in {ErrorCode.TOKEN_INVALID, ErrorCode.TOKEN_EXPIRED}:
        assert code.wire.retry == "never"


@pytest.mark.parametrize("code", ErrorCode, ids=lambda code: code.value)
def test_every_code_has_an_oauth_error_that_clients_know(code: ErrorCode) -> None:
    assert code.wire.oauth_error in OAUTH_ERRORS


@given(codes, sentences, st.text())
def test_a_body_is_read_back_as_the_refusal_it_was_made_from(code: ErrorCode, message: str, request_id: str) -> None:
    for write in (anthropic_body, oauth_body):
        body = write(code, message, request_id)
        refusal = read_refusal(code.wire.status, body)
        assert (refusal.status, refusal.code, refusal.message) == (code.wire.status, code, message)
        assert json.loads(body)["request_id"] == request_id


def test_the_anthropic_envelope_has_the_members_that_clients_read() -> None:
    document = json.loads(anthropic_body(ErrorCode.BUDGET_EXCEEDED, "used up", "req_1"))
    assert document == {
        "type": "error",
        "request_id": "req_1",
        "error": {"type": "billing_error", "message": "used up", "code": "budget_exceeded"},
    }


def test_openai_s_envelope_has_the_members_that_clients_read() -> None:
    document = json.loads(openai_body(ErrorCode.BUDGET_EXCEEDED, "used up", "req_1"))
    assert document == {
        "error": {
            "message": "used up",
            "type": "insufficient_quota",
            "param": None,
            "code": "budget_exceeded",
            "request_id": "req_1",
        }
    }


@pytest.mark.parametrize("code", ErrorCode)
def test_openai_s_statuses_differ_where_its_clients_do(code: ErrorCode) -> None:
    changed = {
        ErrorCode.PERSON_DISABLED: 403,
        ErrorCode.MODEL_NOT_ALLOWED: 403,
        ErrorCode.CAP_EXCEEDED: 403,
        ErrorCode.UPSTREAM_DENIED: 403,
        ErrorCode.UPSTREAM_TIMEOUT: 504,
    }
    assert status_in("openai", code) == changed.get(code, code.wire.status)
    assert status_in("anthropic", code) == code.wire.status
    for_aws = {ErrorCode.UPSTREAM_INVALID: 424, ErrorCode.INTERNAL: 424}
    assert status_in("bedrock", code) == for_aws.get(code, code.wire.status)
    body = openai_body(code, "why", "req_1")
    assert read_refusal(openai_status(code), body) == Refusal(openai_status(code), code, "why")


@given(
    st.binary(max_size=80)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from([c.value for c in ErrorCode]),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["error", "code", "message", "error_description"]), inner, max_size=3)
        ),
        max_leaves=6,
    ).map(lambda value: json.dumps(value).encode())
)
@example(b'{"error": {"code": [], "message": {}}}')
@example(b'{"error": "upstream connect error"}')
@example(b"<html>502 Bad Gateway</html>")
@example(b"[" * 100_000)
def test_a_body_of_any_shape_gives_a_refusal(body: bytes) -> None:
    refusal = read_refusal(502, body)
    assert refusal.status == 502
    assert refusal.code is None or refusal.code in ErrorCode
    assert isinstance(refusal.message, str)
    assert refusal.message


def test_an_error_that_is_not_ours_keeps_its_text_and_has_no_code() -> None:
    body = b'{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}'
    refusal = read_refusal(529, body)
    assert (refusal.code, refusal.message) == (None, "Overloaded")
    assert read_refusal(504, b"<html>").message == "HTTP status 504"
