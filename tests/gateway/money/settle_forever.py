"""Admits and settles until it is killed; says each attempt's name once its settlement is durable, never before."""

from __future__ import annotations

import asyncio
import itertools
import sys
from pathlib import Path

from llmgw_gateway.store.database import Database
from llmgw_gateway.store.sqlite import Sqlite
from tests.gateway.money import accounts


async def main(path: Path, life: str) -> None:
    database = Database(Sqlite(path))
    database.start()
    post = accounts.Desk(database)
    budgets = [accounts.budget("organisation", 10**12), accounts.budget("user", 10**12)]

    async def client(name: str) -> None:
        for number in itertools.count():
            attempt = f"att_{life}_{name}_{number}"
            await post(accounts.admission(attempt, budgets, 5, 10))
            await post(accounts.settlement(attempt, 7))
            print(attempt, flush=True)

    await asyncio.gather(*(client(f"c{number}") for number in range(8)))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
