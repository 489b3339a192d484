from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from tests.demo.wishes import WishError, Wishes, read

KEYS = {"AWS_ACCESS_KEY_ID": "AKIAX", "AWS_SECRET_ACCESS_KEY": "s", "HOME": "/home/x"}


def order(**environ: str) -> Wishes:
    return read(environ, folder=Path(".demo"), macos=False)


def test_without_wishes_everything_stays_on_this_machine() -> None:
    wishes = order(**KEYS)
    assert (wishes.upstream, wishes.credentials, wishes.endpoint) == ("emulator", {}, "")
    assert (wishes.budget_usd, wishes.once, wishes.has_display) == (Decimal(20), False, False)


@pytest.mark.parametrize(
    ("environ", "reason"),
    [
        ({"DEMO_UPSTREAM": "aws", **KEYS}, "real money"),
        ({"DEMO_UPSTREAM": "aws", "DEMO_BUDGET_USD": "1"}, "needs AWS credentials"),
        ({"DEMO_UPSTREAM": "azure"}, "say aws, or the URL"),
        ({"DEMO_BUDGET_USD": "lots"}, "an amount above zero"),
        ({"DEMO_BUDGET_USD": "-1"}, "an amount above zero"),
        ({"DEMO_BUDGET_USD": "inf"}, "an amount above zero"),
    ],
)
def test_what_cannot_be_done_is_refused_with_the_remedy(environ: dict[str, str], reason: str) -> None:
    with pytest.raises(WishError, match=reason):
        order(**environ)


def test_real_aws_gets_the_callers_identity_and_region() -> None:
    wishes = order(DEMO_UPSTREAM="aws", DEMO_BUDGET_USD="0.5", AWS_REGION="eu-central-1", GITHUB_TOKEN="no", **KEYS)
    assert (wishes.upstream, wishes.region, wishes.budget_usd) == ("aws", "eu-central-1", Decimal("0.5"))
    assert wishes.credentials["AWS_ACCESS_KEY_ID"] == "AKIAX"
    assert wishes.credentials["AWS_SHARED_CREDENTIALS_FILE"] == "/home/x/.aws/credentials"
    assert "GITHUB_TOKEN" not in wishes.credentials


def test_another_endpoint_needs_no_credentials() -> None:
    wishes = order(DEMO_UPSTREAM="http://127.0.0.1:4566/", ONCE="1", DISPLAY=":0")
    assert (wishes.upstream, wishes.endpoint, wishes.credentials) == ("endpoint", "http://127.0.0.1:4566", {})
    assert (wishes.once, wishes.has_display) == (True, True)
