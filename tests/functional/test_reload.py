"""The configuration changes under a gateway that serves: nothing is dropped, and a bad file changes nothing."""

from __future__ import annotations

import copy
import signal
from typing import TYPE_CHECKING, Any

from tests.functional.trial import until
from tests.lab import toml_text
from tests.lab.loopback import opener
from tests.lab.scripted import Answer

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.functional.device import Device
    from tests.lab.gateway import Gateway
    from tests.lab.scripted import ScriptedBedrock

OPUS, SONNET = "claude-opus-5-5", "claude-sonnet-4-5"


def told(gateway: Gateway, path: str = "/readyz") -> str:
    with opener().open(f"{gateway.admin_url}{path}", timeout=10) as answer:
        text: str = answer.read().decode()
    return text


def reload(gateway: Gateway, text: str, result: str, *, signalled: bool = True) -> None:
    """Write the file and wait until the gateway has judged it."""
    line = f'llmgw_configuration_reloads_total{{result="{result}"}}'
    before = _value(gateway, line)
    gateway.config.write_text(text, encoding="utf-8")
    if signalled:
        gateway.program.send_signal(signal.SIGHUP)
    gateway.program.wait_until(lambda: _value(gateway, line) > before, f"done with a configuration that is {result}")


def _value(gateway: Gateway, line: str) -> float:
    return sum(float(each.split()[-1]) for each in told(gateway, "/metrics").splitlines() if each.startswith(line))


def changed(gateway: Gateway, **sections: Any) -> str:
    return toml_text.dump(copy.deepcopy(gateway.document) | sections)


def test_policies_models_budgets_and_limits_change_without_dropping_a_request(
    gateway: Gateway, ada: Device, scripted: ScriptedBedrock
) -> None:
    scripted.script(Answer(hold_after=1))
    pid = gateway.pid
    with ada.streaming() as running:
        assert running.status == 200
        reload(
            gateway,
            changed(
                gateway,
                models=[{"name": OPUS}, {"name": SONNET}],
                policies=[{"models": [SONNET]}],
                budgets=[{"level": "user", "limit_usd": 7}],
                limits=[{"level": "user", "requests_per_minute": 1}],
                organisation=gateway.document["organisation"] | {"contact": "#elsewhere"},
            ),
            "applied",
        )
        reply = ada.ask(model=OPUS)
        assert (reply.status, reply.error["code"]) == (400, "model_not_allowed")
        assert "#elsewhere" in reply.error["message"]
        assert ada.ask(model="claude-haiku-4-5").status == 400
        me = ada.me()
        assert (me["models"], me["budgets"][0]["limit"], me["limits"][0]["limit"]) == ([SONNET], 7_000_000, 1)
        assert [ada.ask().status for _ in range(2)] == [200, 429]
        scripted.release_all()
        assert b"message_stop" in running.read()
    assert gateway.pid == pid


def test_a_change_of_the_file_is_found_without_a_signal(gateway: Gateway, ada: Device) -> None:
    assert ada.ask().status == 200
    reload(gateway, changed(gateway, policies=[{"models": [OPUS]}]), "applied", signalled=False)
    assert ada.ask().status == 400
    reload(gateway, changed(gateway), "applied", signalled=False)
    assert ada.ask().status == 200


def test_a_bad_file_changes_nothing_and_is_told_where_operators_look(gateway: Gateway, ada: Device) -> None:
    assert told(gateway).startswith("ready\nconfiguration: in force since ")
    reload(gateway, changed(gateway, policies=[{"models": [OPUS]}, {"models": ["gpt"]}]), "refused")
    assert ada.ask().status == 200, "also what is good in it does not count"
    detail = told(gateway)
    assert detail.startswith("ready\n")
    assert "the last one stays:" in detail
    assert "policies[1].models: 'gpt' is not served here" in detail
    assert "'gpt' is not served here" in gateway.log.read_text()
    assert "llmgw_configuration_refused 1.0" in told(gateway, "/metrics")
    assert ada.request("GET", "/readyz").body == b"ready\n", "callers are told nothing of it"
    reload(gateway, changed(gateway, policies=[{"models": [OPUS]}]), "applied")
    assert ada.ask().status == 400
    assert "refused" not in told(gateway)


def test_tokens_issuers_and_keys_of_the_trail_change_too_and_what_cannot_is_named(
    gateway: Gateway, ada: Device, sign_in: Callable[[str], str]
) -> None:
    signed_in = sign_in("ada")
    tokens, audit = gateway.document["tokens"], gateway.document["audit"]
    (issuer,) = gateway.document["issuers"]
    reload(gateway, changed(gateway, tokens=tokens | {"life_seconds": 61, "audience": "others"}), "applied")
    assert "waits for a restart: tokens.audience" in told(gateway)
    assert ada.try_exchange(signed_in).json["expires_in"] == 61
    reload(gateway, changed(gateway, tokens=tokens | {"minimum_agent_version": "99"}), "applied")
    assert ada.try_exchange(signed_in).json["code"] == "agent_outdated"
    reload(gateway, changed(gateway, issuers=[issuer | {"required": {"acr": ["gold"]}}]), "applied")
    assert ada.try_exchange(signed_in).json["code"] == "sign_in_invalid"
    assert ada.ask().status == 200, "its token lives to its end"
    reload(gateway, changed(gateway, issuers=[issuer | {"issuer": "https://idp.example"}]), "applied")
    assert "https://idp.example" in ada.request("GET", "/.well-known/llmgw", token="").body.decode()
    reload(gateway, changed(gateway), "applied")
    assert ada.try_exchange(signed_in).status == 200
    other = gateway.config.with_name("audit.key")
    other.touch(mode=0o600)
    other.write_bytes(b"k" * 32)
    reload(gateway, changed(gateway, audit=audit | {"key_file": other.name}), "applied")
    until(lambda: "sealed with another key" in gateway.log.read_text(), "the trail has another key")


def test_a_person_can_be_named_by_e_mail_from_now_on(gateway: Gateway, ada: Device) -> None:
    reload(gateway, changed(gateway, policies=[{"members": ["ada@example.com"], "models": [OPUS]}]), "applied")
    assert ada.ask(model=OPUS).status == 200
    assert ada.ask().status == 400
