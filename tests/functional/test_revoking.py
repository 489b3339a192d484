"""Whoever is revoked is out at every replica, whatever has become of Valkey; how soon is printed (see `make bench`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.functional import revoking
from tests.functional.device import Device
from tests.functional.trial import until

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

    from tests.functional.revoking import Revoked
    from tests.functional.trial import Trial
    from tests.lab.canaille import Canaille
    from tests.lab.valkey import Valkey

AMPLE = {"level": "user", "limit_usd": 1000, "overshoot_usd": 100}


def test_whoever_is_revoked_is_out_at_three_replicas_with_valkey_and_without(
    begin: Callable[..., Trial],
    company: dict[str, Any],
    canaille: Canaille,
    valkey: Valkey,
    sign_in: Callable[[str], str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    trial = begin(AMPLE, **company, **revoking.administered(canaille.issuer))

    def say(what: str, revoked: Revoked) -> None:
        assert all(b'"type": "error"' in words and b"llmgw login" in words for words in revoked.last_words)
        assert trial.ada.ask().status == 200
        with capsys.disabled():
            print(f"\nthree replicas, {what}: {revoked}")

    say("a user revoked, Valkey running", revoking.revoke(trial, "grace"))
    say("a device signed out", revoking.sign_out(trial, "grace"))
    say("a service key revoked", revoking.withdraw_key(trial))
    valkey.kill()
    say("a user revoked, Valkey killed", revoking.revoke(trial, "grace"))
    again = trial.device("grace")
    until(lambda: again.ask().status == 200, "signed in again")
    say("a user disabled", revoking.disable(trial, "grace"))
    assert Device(trial.gateway.url).try_exchange(sign_in("grace")).json["code"] == "person_disabled"
    trial.rest()
    assert trial.spent() == trial.billed()
