"""The vendor's own types of Claude Code's settings, and TypeScript's compiler to judge by them.

Both are single npm packages, fetched on first use into `.lab/typings` and checked against the hash that is named here;
nothing of them is installed, and none of their dependencies is fetched.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
from typing import TYPE_CHECKING, Any

from tests.lab.node import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

CACHE = REPOSITORY / ".lab" / "typings"
PACKAGES = {
    # Of the release that the pin is proven against: 0.3.N goes with 2.1.N.
    "@anthropic-ai/claude-agent-sdk@0.3.329": (
        "aKVIgPBmgNHBoNXUFG5eVJXudDd+amObxT6QH9b6R2yGKf4eisPZ3Ij5RSpkFHDvJvaZy8m1AJeEkbKSusTU/Q=="
    ),
    "typescript@5.9.3": "jl1vZzPDinLr9eUt3J/t7V6FgNEw9QjvBPdysz9KfQDD41fQrC2Y4vKQdiaUpFT4bXlb1RHhLpp8wtm6M5TgSw==",
}
"""npm's name and version -> SHA-512 of the archive, in base64."""
SECONDS = 120


def complaints(documents: Mapping[str, Any], folder: Path) -> str:
    """What the compiler says against these settings, by name; empty if it takes all of them."""
    types, compiler = (_fetched(name) for name in PACKAGES)
    shutil.copy(types / "sdk.d.ts", folder / "sdk.d.ts")
    lines = ['import type { Settings } from "./sdk";']
    lines += [f"export const {name}: Settings = {json.dumps(each)};" for name, each in documents.items()]
    (folder / "settings.ts").write_text("\n".join(lines), encoding="utf-8")
    command: list[str | Path] = [
        "node",
        compiler / "lib" / "tsc.js",
        "--noEmit",
        "--strict",
        "--skipLibCheck",
        "--target",
        "es2022",
    ]
    done = subprocess.run(
        [*command, "--module", "esnext", "--moduleResolution", "bundler", folder / "settings.ts"],
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )
    return done.stdout + done.stderr


def _fetched(package: str) -> Path:
    """The folder of one of them."""
    place = CACHE / package.replace("/", "+")
    if not place.is_dir():
        CACHE.mkdir(parents=True, exist_ok=True)
        # The registry that this machine uses, and its proxy, are the machine's business.
        packed = subprocess.run(
            ["npm", "pack", "--silent", package], cwd=CACHE, env=os.environ, check=True, capture_output=True, text=True
        )
        archive = CACHE / packed.stdout.split()[-1]
        content = archive.read_bytes()
        archive.unlink()
        if base64.b64encode(hashlib.sha512(content).digest()).decode() != PACKAGES[package]:
            raise RuntimeError(f"{package} is not the archive whose hash is named in {__name__}")
        fresh = CACHE / f".{place.name}.{os.getpid()}"
        with tarfile.open(fileobj=io.BytesIO(content)) as members:
            members.extractall(fresh, filter="data")
        (fresh / "package").rename(place)
        fresh.rmdir()
    return place
