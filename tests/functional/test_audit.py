"""The audit trail of a running gateway: whole over restarts and kills, and whoever touches it is found."""

from __future__ import annotations

import csv
import io
import json
import re
import signal
import sqlite3
import subprocess
from contextlib import closing
from typing import TYPE_CHECKING, Any

from tests.functional import ledger
from tests.lab.loopback import opener

if TYPE_CHECKING:
    from pathlib import Path

    from tests.functional.device import Device
    from tests.lab.gateway import Gateway


def audit(gateway: Gateway, verb: str, *words: str | Path) -> tuple[int, str, str]:
    """`llmgw-gateway audit VERB CONFIG ...`."""
    command = [*gateway.command("audit")[:-1], verb, gateway.config, *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout, done.stderr


def test_a_trail_is_whole_over_a_kill_and_a_restart_and_who_cuts_its_end_off_is_found(
    gateway: Gateway, ada: Device
) -> None:
    assert ada.ask().status == 200
    first = gateway.audited("/v1/messages", status=200)
    assert audit(gateway, "verify")[0] == 0, "while the gateway runs"
    with opener().open(f"{gateway.admin_url}/metrics", timeout=10) as answer:
        shown = answer.read().decode()
    (records,) = re.findall(r"^llmgw_audit_records (\d+)", shown, re.MULTILINE)
    assert 2 <= int(records) <= len(gateway.audit.read_bytes().splitlines())
    assert "llmgw_audit_most_waiting 10000.0" in shown
    gateway.program.send_signal(signal.SIGKILL)
    gateway.program.wait(seconds=10)
    with gateway.audit.open("ab") as file:
        file.write(b'{"seq":99,"time":"2026')
    code, out, _ = audit(gateway, "verify")
    assert code == 0
    assert "is torn (22 bytes): a crash" in out
    gateway.restart()
    assert ada.ask().status == 200
    assert gateway.terminate() == 0
    code, out, _ = audit(gateway, "verify", "--format", "json")
    found = json.loads(out)
    assert (code, found["faults"]) == (0, [])
    assert "a torn line of 22 bytes was cut off here" in found["notes"][0]
    whole = gateway.audit.read_bytes()
    assert gateway.audit.stat().st_mode & 0o777 == 0o600

    gateway.audit.write_bytes(b"".join(whole.splitlines(keepends=True)[:-1]))
    code, out, err = audit(gateway, "verify")
    assert code == 1
    assert f"and the store was told of {found['records']}: cut off" in out
    assert "the audit trail has 1 fault" in err
    gateway.audit.write_bytes(whole.replace(first["request_id"].encode(), b"req_" + b"0" * 24))
    assert "(req_000000000000000000000000) was altered" in audit(gateway, "verify")[1]
    gateway.audit.unlink()
    assert "is missing: the store knows of it" in audit(gateway, "verify")[1]


def test_a_trail_that_was_cut_off_while_the_gateway_was_down_stays_evidence(gateway: Gateway, ada: Device) -> None:
    for _ in range(3):
        assert ada.ask().status == 200
    assert gateway.terminate() == 0
    gateway.audit.write_bytes(b"".join(gateway.audit.read_bytes().splitlines(keepends=True)[:-2]))
    gateway.restart()
    assert ada.ask().status == 200
    assert "it goes on in a new file" in gateway.log.read_text()
    code, out, _ = audit(gateway, "verify")
    assert code == 1
    assert "cut off" in out


def test_a_trail_of_which_the_store_knows_nothing_any_more_does_not_become_whole_by_a_restart(
    gateway: Gateway, ada: Device
) -> None:
    for _ in range(2):
        assert ada.ask().status == 200
    assert gateway.terminate() == 0
    gateway.audit.write_bytes(b"".join(gateway.audit.read_bytes().splitlines(keepends=True)[:-1]))
    with closing(sqlite3.connect(gateway.db)) as store, store:
        store.execute("DELETE FROM audit_heads")
    left = len(gateway.audit.read_bytes().splitlines())
    gateway.restart()
    assert ada.ask().status == 200
    assert gateway.terminate() == 0
    _, out, _ = audit(gateway, "verify")
    assert f"line {left + 1}: a start found that the store knew nothing of the {left} records before" in out


def test_what_was_kept_of_an_earlier_report_is_compared_with(gateway: Gateway, ada: Device, tmp_path: Path) -> None:
    assert ada.ask().status == 200
    assert gateway.terminate() == 0
    kept = tmp_path / "kept.json"
    kept.write_text(audit(gateway, "verify", "--format", "json")[1])
    assert audit(gateway, "verify", "--against", kept)[0] == 0
    document = json.loads(kept.read_text())
    document["heads"][0]["count"] += 1
    document["last_change"] = {"number": 1, "hash": "0" * 64}
    kept.write_text(json.dumps(document))
    code, out, _ = audit(gateway, "verify", "--against", kept)
    assert code == 1
    assert "and the kept report knows of" in out
    assert "but the audit trail or the kept report knows change 1" in out
    kept.write_text("[]")
    code, _, err = audit(gateway, "verify", "--against", kept)
    assert code == 2
    assert "is no report of `audit verify --format json`" in err


def test_records_are_shown_with_names_and_exported_without(gateway: Gateway, ada: Device) -> None:
    assert ada.ask().status == 200
    line = gateway.audited("/v1/messages", status=200)
    person = line["person_id"]
    code, out, _ = audit(gateway, "show", "--model", line["model"])
    assert code == 0
    assert "ada@example.com" in out
    exported: dict[str, list[dict[str, Any]]] = {}
    code, out, _ = audit(gateway, "export", "--person", "ada@example.com")
    exported["json"] = [json.loads(each) for each in out.splitlines()]
    code, out, _ = audit(gateway, "export", "--person", "ada@example.com", "--format", "csv")
    exported["csv"] = list(csv.DictReader(io.StringIO(out)))
    for rows in exported.values():
        assert {row["person_id"] for row in rows} == {person}
        assert line["request_id"] in {row["request_id"] for row in rows}
    assert "ada@" not in out
    mine = next(row for row in exported["csv"] if row["request_id"] == line["request_id"])
    assert int(mine["output_tokens"]) == line["tokens"]["output"]
    assert audit(gateway, "export", "--person", "nobody@example.com")[1] == ""
    assert audit(gateway, "export", "--since", "2099-01-01")[1] == ""


def test_each_attempt_and_what_policy_decided_by_stand_in_the_line(gateway: Gateway, ada: Device) -> None:
    assert ada.ask().status == 200
    line = gateway.audited("/v1/messages", status=200)
    (attempt,) = line["attempts"]
    (row,) = ledger.settled(gateway.db, 1)
    assert (row.attempt_id, row.target, row.cost) == (
        attempt["attempt_id"],
        attempt["target"],
        attempt["cost_micro_usd"],
    )
    assert len(line["policy_version"]) == 12
