"""Takes a slot of three and gives it back, again and again, with eight tasks; says the most that were ever inside."""

from __future__ import annotations

import asyncio
import sys

from redis.asyncio import Redis

from llmgw_gateway.money.rates import Full
from llmgw_gateway.money.valkey import Valkey
from llmgw_wire.secret import Secret
from tests.gateway.money import limiting

SLOTS = 3
TASKS = 8
ROUNDS = 30
LIMITS = (limiting.slots(SLOTS),)


async def main(url: str, name: str) -> None:
    valkey = Valkey(Secret(url), prefix="llmgw", timeout_ms=2_000, lease_seconds=600)
    await valkey.start()
    outside = Redis.from_url(url)
    most = 0

    async def taker(number: int) -> None:
        nonlocal most
        done = 0
        while done < ROUNDS:
            attempt = f"{name}/{number}/{done}"
            if Full.read(await valkey.admit(attempt, LIMITS, (1, 1, 1, 1))) is not None:
                continue
            most = max(most, await outside.incr("inside"))
            await outside.decr("inside")
            valkey.release(attempt, [LIMITS[0].key])
            done += 1

    await asyncio.gather(*(taker(number) for number in range(TASKS)))
    await outside.aclose()
    await valkey.close()
    print(most)


async def hold(url: str) -> None:
    """Take one slot for two seconds and never give it back."""
    valkey = Valkey(Secret(url), prefix="llmgw", timeout_ms=2_000, lease_seconds=2)
    await valkey.start()
    await valkey.admit("held", LIMITS, (1, 1, 1, 1))
    print("held", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(hold(sys.argv[1]) if sys.argv[2] == "hold" else main(sys.argv[1], sys.argv[2]))
