"""`make bench`: what the README and the decisions claim, measured on this machine as ratios of paired runs."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench import admission, hotpath
from tests.lab.canaille import Canaille
from tests.lab.scripted import ScriptedBedrock
from tests.lab.system import System

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PAIRS = 60
WARM_UP = 5


MOST_RATIO = 1.5
"""Of `llmgw-token`, warm, to an interpreter that does nothing."""


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="llmgw-bench-") as name:
        folder = Path(name)
        with (
            Canaille(folder / "canaille") as canaille,
            ScriptedBedrock() as cloud,
            System(folder / "system", provider=canaille, cloud=cloud) as system,
        ):
            system.sign_in()
            kept = token_command(system)
    admission.main()
    kept &= hotpath.main()
    return 0 if kept else 1


def token_command(system: System) -> bool:
    """`llmgw-token`, warm, beside an interpreter that does nothing: whether it keeps to what is promised."""
    token = [Path(sys.executable).parent / "llmgw-token"]
    nothing = [sys.executable, "-I", "-S", "-c", "pass"]
    pairs = [(seconds(token, system.agent.env), seconds(nothing, system.agent.env)) for _ in range(WARM_UP + PAIRS)]
    pairs = pairs[WARM_UP:]
    ratio = statistics.median(one / other for one, other in pairs)
    ours, bare = (statistics.median(times) * 1000 for times in zip(*pairs, strict=True))
    print(f"llmgw-token: {ratio:.2f}x `python -I -S -c pass`: median of {PAIRS} pairs ({ours:.1f}, {bare:.1f} ms)")
    if ratio > MOST_RATIO:
        print(f"llmgw-token: that is more than {MOST_RATIO}x, which is what is promised.", file=sys.stderr)
    return ratio <= MOST_RATIO


def seconds(command: Sequence[str | Path], environment: Mapping[str, str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, env=dict(environment), check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


if __name__ == "__main__":
    sys.exit(main())
