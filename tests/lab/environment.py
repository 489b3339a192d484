"""The environment of every process of the laboratory: built from nothing, never inherited.

A developer's machine carries variables that silently change what a server or a client does: proxies, certificate
bundles (they override an explicit CA in requests and boto3), cloud credentials, settings of `claude`. A test that
passes because of one of them proves nothing.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

KEPT = ("PATH", "PYTHONPATH", "TMPDIR", "TZ")


def clean_environment(home: Path, **more: str) -> dict[str, str]:
    """PATH and the like, an own HOME, UTF-8, and what the caller names: nothing else."""
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    # The programs under test are those of the interpreter that runs the laboratory.
    kept["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), kept.get("PATH", os.defpath)])
    return kept | {"HOME": str(home), "LANG": "C.UTF-8", "PYTHONUNBUFFERED": "1"} | more
