"""Whoever is revoked is out at every replica, whatever has become of Valkey; how soon is printed (see `make bench`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.functional import revoking
from tests.functional.trial import until

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

    from tests.functional.trial import Trial
    from tests.lab.canaille import Canaille
    from tests.lab.valkey import Valkey

AMPLE = {"level": "user", "limit_usd": 1000, "overshoot_usd": 100}


def test_a_revoked_user_is_out_at_three_replicas_with_valkey_and_without(
    begin: Callable[..., Trial],
    company: dict[str, Any],
    canaille: Canaille,
    valkey: Valkey,
    capsys: pytest.CaptureFixture[str],
) -> None:
    trial = begin(AMPLE, **company, **revoking.administered(canaille.issuer))
    for state in ("Valkey running", "Valkey killed"):
        if state == "Valkey killed":
            valkey.kill()
        revoked = revoking.revoke(trial, "grace")
        assert all(b'"type": "error"' in words and b"llmgw login" in words for words in revoked.last_words)
        with capsys.disabled():
            print(f"\nthree replicas, a user revoked, {state}: {revoked}")
        assert trial.ada.ask().status == 200
    again = trial.device("grace")
    until(lambda: again.ask().status == 200, "signed in again")
    trial.rest()
    assert trial.spent() == trial.billed()
