"""`make migration`: writes 0001 anew from `schema.py`, as long as no release has gone out with it.

After a release this file goes, and migrations are written by hand.
"""

from __future__ import annotations

import re

from alembic.autogenerate import produce_migrations, render_python_code
from alembic.migration import MigrationContext
from sqlalchemy import create_engine

from llmgw_gateway.store.migrating import MIGRATIONS
from llmgw_gateway.store.schema import metadata

FIRST = MIGRATIONS / "versions" / "0001_initial.py"


def main() -> None:
    """Replace what `upgrade` does by what an empty database lacks."""
    with create_engine("sqlite://").connect() as connection:
        script = produce_migrations(MigrationContext.configure(connection), metadata)
    if script.upgrade_ops is None:
        raise RuntimeError("nothing was generated")
    body = render_python_code(script.upgrade_ops)
    body = re.sub(r"^ *# .*$", "", body, flags=re.MULTILINE)
    head, _, _ = FIRST.read_text(encoding="utf-8").partition("    op.create_table(")
    FIRST.write_text(f"{head}    {body.strip()}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
