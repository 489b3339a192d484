"""What keeps a gateway from starting is said in a sentence, by `serve` and by `check`, and never as a traceback."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from tests.lab.gateway import Gateway
from tests.lab.loopback import HOST
from tests.lab.process import run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.lab.process import Finished


@pytest.fixture
def stopped(tmp_path: Path) -> Gateway:
    """A gateway that is configured well, and does not run."""
    gateway = Gateway(
        tmp_path / "gateway",
        issuers=[{"issuer": "https://login.example", "client_id": "client"}],
        endpoint="",
        region="us-east-1",
        credentials={"AWS_ACCESS_KEY_ID": "AKIAEXAMPLE", "AWS_SECRET_ACCESS_KEY": "unused"},
    )
    gateway.prepare()
    return gateway


def said(gateway: Gateway, verb: str) -> Finished:
    return run(gateway.command(verb), env=gateway.program.env, folder=gateway.folder, seconds=60)


def _unknown_profile(gateway: Gateway) -> None:
    gateway.program.env["AWS_PROFILE"] = "nobody"


def _unknown_profile_of_a_region(gateway: Gateway) -> None:
    gateway.document["regions"] = [{"name": "west", "region": "us-west-2", "profile": "nobody-there"}]


def _no_key(gateway: Gateway) -> None:
    gateway.document["anthropic"] = [{"key_file": "anthropic.key"}]


def _broken_profiles(gateway: Gateway) -> None:
    (gateway.folder / "broken").write_text("[profile")
    gateway.program.env["AWS_CONFIG_FILE"] = str(gateway.folder / "broken")


def _lock_is_a_folder(gateway: Gateway) -> None:
    gateway.db.with_name("gateway.db.lock").mkdir()


def _audit_is_a_folder(gateway: Gateway) -> None:
    gateway.audit.mkdir()


def _no_certificate(gateway: Gateway) -> None:
    (gateway.folder / "ca.pem").write_text("-----BEGIN CERTIFICATE-----\nabc\n-----END CERTIFICATE-----\n")
    gateway.document["issuers"][0]["ca_file"] = "ca.pem"


FAULTS: dict[str, tuple[Callable[[Gateway], None], int, str]] = {
    "an unknown AWS profile": (_unknown_profile, 2, "nobody"),
    "an unknown profile of a region": (_unknown_profile_of_a_region, 2, "nobody-there"),
    "a key that is not there": (_no_key, 2, "anthropic.key"),
    "AWS files that cannot be read": (_broken_profiles, 2, "AWS_PROFILE"),
    "a lock that cannot be made": (_lock_is_a_folder, 3, "gateway.db.lock"),
    "an audit trail that is a folder": (_audit_is_a_folder, 2, "audit.jsonl"),
    "a certificate that is none": (_no_certificate, 2, "holds no usable certificate"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_what_is_missing_on_this_machine_is_one_sentence(stopped: Gateway, case: str) -> None:
    assert said(stopped, "check").exit_code == 0
    breaks, code, words = FAULTS[case]
    breaks(stopped)
    stopped.prepare()
    for verb, expected in (("check", 2), ("serve", code)):
        done = said(stopped, verb)
        assert done.exit_code == expected, done.stderr
        assert words in done.stderr
        assert "Traceback" not in done.stderr


@pytest.fixture(params=["port", "admin_port"])
def taken(request: pytest.FixtureRequest, stopped: Gateway) -> Iterator[int]:
    port: int = getattr(stopped, request.param)
    with socket.create_server((HOST, port)):
        yield port


def test_an_address_in_use_is_named_with_what_to_do(stopped: Gateway, taken: int) -> None:
    for verb in ("check", "serve"):
        done = said(stopped, verb)
        assert done.exit_code == 2
        assert f"cannot listen on {HOST}:{taken}: address already in use" in done.stderr
        assert "configure another address" in done.stderr
        assert "Traceback" not in done.stderr


def test_a_gateway_that_runs_is_no_fault_of_its_own_configuration(gateway: Gateway) -> None:
    done = said(gateway, "check")
    assert (done.exit_code, done.stderr) == (0, "")
