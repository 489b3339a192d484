"""How soon a revoked user is out: three replicas on one PostgreSQL, with Valkey running and killed."""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tests.functional import revoking
from tests.functional.trial import Trial
from tests.lab.canaille import Canaille
from tests.lab.native_app import NativeApp
from tests.lab.postgres import Postgres
from tests.lab.scripted import ScriptedBedrock
from tests.lab.valkey import Valkey

if TYPE_CHECKING:
    from tests.functional.revoking import Revoked

REPLICAS = 3
ROUNDS = 5
AMPLE = {"level": "user", "limit_usd": 1000, "overshoot_usd": 100}
LIMIT = {"level": "user", "requests_per_minute": 1_000_000, "concurrent": 10_000}


def main() -> None:
    """Print a line for each state of Valkey."""
    with (
        tempfile.TemporaryDirectory(prefix="llmgw-bench-") as name,
        Canaille(Path(name) / "canaille") as canaille,
        Postgres() as server,
        Valkey(Path(name) / "valkey") as valkey,
        ScriptedBedrock() as cloud,
    ):
        app = NativeApp(canaille.issuer)

        def sign_in(user: str) -> str:
            token: str = app.sign_in(canaille.person(user))["access_token"]
            return token

        sections = revoking.administered(canaille.issuer) | {"limits": [LIMIT]}
        with Trial(
            Path(name) / "trial",
            canaille.issuer_section(),
            cloud,
            sign_in,
            budgets=[AMPLE],
            replicas=REPLICAS,
            database=server.url(server.database()),
            valkey=valkey.url,
            **sections,
        ) as trial:
            _print("Valkey running", [revoking.revoke(trial, "grace") for _ in range(ROUNDS)])
            valkey.kill()
            _print("Valkey killed", [revoking.revoke(trial, "grace") for _ in range(ROUNDS)])


def _print(state: str, rounds: list[Revoked]) -> None:
    refused, ended = [each.refused for each in rounds], [each.ended for each in rounds]
    print(
        f"revocation at {REPLICAS} replicas, {state}: the last one refuses after {statistics.median(refused):.1f} s "
        f"(at most {max(refused):.1f}), the last running answer ends after {statistics.median(ended):.1f} s "
        f"(at most {max(ended):.1f}), {ROUNDS} rounds",
        flush=True,
    )
