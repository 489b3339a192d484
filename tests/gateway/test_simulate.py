"""`policy simulate`: who would have been refused, by which line, and what that would have saved."""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner
from sqlalchemy import insert

from llmgw_gateway.call import Usage
from llmgw_gateway.main import main
from llmgw_gateway.store.schema import service_keys
from tests.gateway import configuration
from tests.gateway.money import history
from tests.gateway.money.history import Attempt

if TYPE_CHECKING:
    from pathlib import Path

DAY = 86_400_000
NOON = 1_795_000_000_000
"""In November 2026."""
OPUS, SONNET = "claude-opus-4-5", "claude-sonnet-4-5"
POLICIES = [
    {"name": "no opus for bob", "action": "refuse", "models": [OPUS], "members": ["bob@example.com"]},
    {
        "name": "short",
        "models": [SONNET],
        "members": ["bob@example.com"],
        "max_tokens": 1_000,
        "context_tokens": 50_000,
    },
    {"name": "payments", "teams": ["payments"]},
]


@pytest.fixture
def config(store: Path) -> Path:
    """Four callers and their past, and policies that were not there then."""
    for name in ("ada", "bob", "eve"):
        history.introduce(store, f"per_{name}", name.title(), f"{name}@example.com")
    key = {"digest": "d", "name": "ci", "owner": "ada", "team": "payments", "models": json.dumps([SONNET])}
    with history.writing(store) as connection:
        times = {"expires_at": 2 * NOON, "made_by": "x", "made_at": 1}
        connection.execute(insert(service_keys).values(key | times | {"secret_id": "sec_1", "key_id": "key_ci"}))
    calls = [
        Attempt(NOON, "per_ada", model=OPUS, cost=100),
        Attempt(NOON, "per_bob", model=OPUS, cost=1_000),
        Attempt(NOON, "per_bob", model=OPUS, cost=2_000, late=3_000),
        Attempt(NOON, "per_bob", model=SONNET, usage=Usage(10, 900), cost=10),
        Attempt(NOON, "per_bob", model=SONNET, usage=Usage(10, 3_000), cost=45_030),
        Attempt(NOON, "per_bob", model=SONNET, usage=Usage(1_000, 10, cache_read=49_500), cost=77),
        Attempt(NOON, "per_eve", model=SONNET, cost=500),
        Attempt(NOON, "key_ci", model=OPUS, cost=40),
        Attempt(NOON, "key_ci", model=SONNET, cost=41),
        Attempt(NOON, "per_ada", model="claude-haiku-4-5", cost=7),
        Attempt(NOON, "per_ada", model=SONNET, project="atlas", cost=3),
        Attempt(NOON - 40 * DAY, "per_eve", model=SONNET, cost=10**9),
    ]
    history.write(store, calls)
    document = configuration.good() | {
        "store": {"path": store.name},
        "models": [{"name": OPUS}, {"name": SONNET}],
        "policies": POLICIES,
        "teams": [{"name": "payments", "members": ["ada@example.com"]}],
    }
    return configuration.write(configuration.folder(store.parent), document)


def run(config: Path, *words: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(main, ["policy", "simulate", str(config), *words])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.stdout, done.stderr


def line(config: Path, name: str) -> int:
    """Where an entry of the policies begins in the file."""
    lines = config.read_text().splitlines()
    at = next(number for number, each in enumerate(lines, 1) if name in each)
    return max(number for number, each in enumerate(lines[:at], 1) if each.startswith("[[policies]]"))


def test_each_effect_is_named_with_the_line_that_decides(config: Path) -> None:
    code, out, err = run(config, "--since", "2026-11-01", "--format", "json")
    assert (code, err) == (0, "")
    document: dict[str, Any] = json.loads(out)
    found = {
        (row["who"], row["model"], row["what"]): (row["by"], row["attempts"], row["saved"]) for row in document["rows"]
    }
    bob, short = f"policies[0] (no opus for bob), line {line(config, 'no opus')}", "policies[1] (short), line "
    short += str(line(config, '"short"'))
    assert found == {
        ("bob@example.com", OPUS, "refused"): (bob, 2, 4_000),
        ("bob@example.com", SONNET, "cut"): (f"{short}, max_tokens", 1, 2_000 * 15),
        ("bob@example.com", SONNET, "refused"): (f"{short}, context_tokens", 1, 77),
        ("eve@example.com", SONNET, "refused"): ("no policy allows it", 1, 500),
        ("ci", OPUS, "refused"): ("not a model of this key", 1, 40),
        ("ada@example.com", "claude-haiku-4-5", "refused"): ("not served", 1, 7),
        ("ada@example.com", SONNET, "refused"): ("project atlas not theirs", 1, 3),
    }
    assert document["attempts"] == 11
    assert document["cost"] == 100 + 1_000 + 3_000 + 10 + 45_030 + 77 + 500 + 40 + 41 + 7 + 3
    assert document["refused"] == {"attempts": 7, "saved": 4_000 + 77 + 500 + 40 + 7 + 3}


def test_what_no_target_can_be_asked_under_is_refused(config: Path) -> None:
    text = config.read_text().replace('name = "payments"\nteams', 'name = "payments"\nguardrail = "company"\nteams')
    section = '[[guardrails]]\nname = "company"\nupstream = "west"\nid = "gr1"\nversion = "1"\n'
    config.write_text(f'{text}\n{section}\n[[regions]]\nname = "west"\nregion = "us-west-2"\n')
    _, out, err = run(config, "--since", "2026-11-01", "--format", "json")
    assert err == ""
    found = {(row["who"], row["model"]): row["by"] for row in json.loads(out)["rows"]}
    where = f"policies[2] (payments), line {line(config, 'guardrail = ')}, guardrail"
    assert found["ada@example.com", OPUS] == found["ci", SONNET] == where


def test_a_table_and_a_spreadsheet_say_the_same(config: Path) -> None:
    _, out, _ = run(config, "--since", "2026-11-01")
    assert "refused: 7 of 11 attempts, USD 0.0046 of 0.0498" in out
    assert "cut: 1 of 11 attempts" in out
    _, text, _ = run(config, "--since", "2026-11-01", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert len(rows) == 7
    assert rows[1]["who"] == "bob@example.com"
    assert all(row["by"] in out for row in rows)


def test_days_back_and_days_that_are_none(config: Path) -> None:
    code, out, _ = run(config, "--since", "9999d", "--format", "json")
    assert (code, json.loads(out)["attempts"]) == (0, 12)
    code, _, err = run(config, "--since", "soon")
    assert (code, "--since takes days back" in err) == (2, True)
