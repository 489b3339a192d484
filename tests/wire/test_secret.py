"""A `Secret` has no printable form, whoever asks."""

from __future__ import annotations

import copy
import dataclasses
import json
import logging
import pickle
import pprint
import traceback
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llmgw_wire.messages import ExchangeAnswer
from llmgw_wire.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Callable

CANARY = "canary-7Jq2-never-print-this"
# Header values reach us with surrogates in place of bytes that are no UTF-8.
ANY_TEXT = st.text(st.characters(), min_size=9)


def logged(secret: Secret) -> str:
    return logging.Formatter().format(logging.LogRecord("x", 20, "x", 1, "got %s and %r", (secret, secret), None))


FORMS: dict[str, Callable[[Secret], str]] = {
    "repr": repr,
    "str": str,
    "ascii": ascii,
    "format": format,
    "format with a width": lambda secret: format(secret, ">60"),
    "f-string": lambda secret: f"{secret} {secret!r} {secret!s}",
    "percent": lambda secret: "%s %r" % (secret, secret),  # noqa: UP031 -- the form under test
    "inside a list": lambda secret: str([secret]),
    "inside a message": lambda secret: repr(ExchangeAnswer(secret, 60)),
    "pretty-printed": pprint.pformat,
    "a log line": logged,
}


@pytest.mark.parametrize("form", FORMS)
def test_a_secret_is_not_shown_by(form: str) -> None:
    assert CANARY not in FORMS[form](Secret(CANARY))


@given(ANY_TEXT)
@example("\udcff-not-utf-8")
def test_no_value_shows_in_its_printable_form(value: str) -> None:
    assert value not in f"{Secret(value)!r}{Secret(value)}"


def test_a_traceback_with_local_variables_does_not_show_it() -> None:
    def fail(token: Secret) -> None:
        raise LookupError(f"refused {token}")

    try:
        fail(Secret(CANARY))
    except LookupError as error:
        shown = "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    # The canary stands in this test's own source line only as the name CANARY.
    assert CANARY not in shown.replace(f"CANARY = {CANARY!r}", "")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_it_cannot_be_pickled(protocol: int) -> None:
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(Secret(CANARY), protocol)


def test_it_is_no_json() -> None:
    with pytest.raises(TypeError) as caught:
        json.dumps({"token": Secret(CANARY)})
    assert CANARY not in str(caught.value)


def test_it_leaves_no_way_around_reveal() -> None:
    secret = Secret(CANARY)
    with pytest.raises(TypeError):
        vars(secret)
    with pytest.raises(TypeError):
        dataclasses.asdict(ExchangeAnswer(secret, 60))
    with pytest.raises(TypeError):
        copy.deepcopy(secret)
    assert secret.reveal() == CANARY


@given(ANY_TEXT, ANY_TEXT)
@example("\udcff-not-utf-8", "\udcff-not-utf-8")
def test_secrets_are_equal_exactly_when_their_values_are(one: str, other: str) -> None:
    assert (Secret(one) == Secret(other)) is (one == other)
    assert Secret(one) == Secret(one)
    assert Secret(one) != one
    assert hash(Secret(one)) == hash(Secret(one))


def test_an_empty_secret_is_false_and_says_so() -> None:
    assert not Secret("")
    assert Secret("x")
    assert repr(Secret("")) == "Secret(empty)"


def test_fingerprints_tell_two_secrets_apart() -> None:
    assert Secret("a").fingerprint() != Secret("b").fingerprint()
    assert Secret("a").fingerprint() == Secret("a").fingerprint()
    assert len(Secret(CANARY).fingerprint()) == 8
