"""What a gateway with an embedded store has in memory: nothing that only PostgreSQL, Valkey or an upgrade needs."""

from __future__ import annotations

import subprocess
import sys

HEAVY = {"alembic", "psycopg", "redis", "sqlalchemy.dialects.postgresql"}


def test_what_only_other_stores_need_is_not_loaded() -> None:
    code = f"import sys, llmgw_gateway.main, llmgw_gateway.app; print(sorted({HEAVY} & set(sys.modules)))"
    seen = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert seen.stdout.strip() == "[]"
