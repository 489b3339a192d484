"""The npm packages of the laboratory (tests/node), installed on first use into `.lab/node`."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
SOURCE = REPOSITORY / "tests" / "node"
CACHE = REPOSITORY / ".lab" / "node"
# --force: `claude` declares a newer Node than its self-contained binary needs, and npm would leave its platform package
# out without a word. --ignore-scripts: nothing that is downloaded runs at installation.
INSTALL = ("npm", "ci", "--force", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")


def available() -> bool:
    """Whether this machine has Node at all."""
    return shutil.which("node") is not None and shutil.which("npm") is not None


def modules() -> Path:
    """The `node_modules` folder with exactly what package-lock.json names; installs it when that changed."""
    CACHE.mkdir(parents=True, exist_ok=True)
    wanted = hashlib.sha256((SOURCE / "package-lock.json").read_bytes()).hexdigest()
    stamp = CACHE / "installed"
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for source in [*SOURCE.glob("*.json"), *SOURCE.glob("*.mjs")]:
            target = CACHE / source.name
            if not target.is_file() or target.read_bytes() != source.read_bytes():
                shutil.copyfile(source, target)  # only then: another run may be starting it
        if not stamp.is_file() or stamp.read_text(encoding="utf-8") != wanted:
            _install()
            stamp.write_text(wanted, encoding="utf-8")
    return CACHE / "node_modules"


def _install() -> None:
    print("lab: installing the npm packages of tests/node (once, about 360 MB)", file=sys.stderr, flush=True)
    # The one process that keeps the machine's environment: registry, proxy and CA are the machine's business here.
    result = subprocess.run(INSTALL, cwd=CACHE, env=os.environ, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise RuntimeError(f"npm ci failed in {CACHE}\n{result.stdout}{result.stderr}")
    print("lab: npm packages installed", file=sys.stderr, flush=True)
