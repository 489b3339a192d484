"""`python -m tests.fuzz TARGET... [--seconds N]`: with atheris where it is installed, else by plain mutation.

What breaks a promise is written into the target's corpus, and stays there as a test once it is mended.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import subprocess
import sys
from pathlib import Path

from tests.fuzz import mutation
from tests.fuzz.targets import TARGETS


def main() -> int:
    """Fuzz the targets one after the other; 1 when something was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("targets", nargs="*", choices=[*TARGETS, []], default=[])
    parser.add_argument("--seconds", type=int, default=600)
    arguments = parser.parse_args()
    found = [fuzz(name, arguments.seconds) for name in arguments.targets or TARGETS]
    return int(any(found))


def fuzz(name: str, seconds: int) -> bool:
    """Fuzz one target; whether something was found."""
    if importlib.util.find_spec("atheris") is not None:
        return guided(name, seconds)
    seeds = [path.read_bytes() for path in mutation.corpus(name)]
    tried, finding = mutation.run_for(TARGETS[name], seeds, seconds=seconds)
    print(f"{name}: {tried} inputs by mutation, {'nothing' if finding is None else 'something'} found")
    if finding is not None:
        path = mutation.CORPUS / name / f"crash-{hashlib.sha1(finding, usedforsecurity=False).hexdigest()}"
        path.write_bytes(finding)
        print(f"{name}: written to {path}")
    return finding is not None


def guided(name: str, seconds: int) -> bool:
    """The same in a process of its own, which atheris ends; what it learns on the way is not kept."""
    folder = mutation.CORPUS / name
    learned = Path(".fuzz") / name
    learned.mkdir(parents=True, exist_ok=True)
    limits = [f"-max_total_time={seconds}", f"-max_len={mutation.MOST_BYTES}", "-print_final_stats=1", "-timeout=20"]
    where = [f"-artifact_prefix={folder}/", str(learned), str(folder)]
    command = [sys.executable, "-m", "tests.fuzz.guided", name, *limits, *where]
    status = subprocess.run(command, check=False).returncode
    print(f"{name}: {'nothing' if status == 0 else 'something'} found by atheris")
    return status != 0


if __name__ == "__main__":
    sys.exit(main())
