"""The gateway with the modules of its hot path compiled by mypyc: the same source, and about a fifth less CPU.

`python -m llmgw_packaging.compiling FOLDER` writes the packages `llmgw_gateway` and `llmgw_wire` there, each module of
`COMPILED` with an extension beside it that Python takes in its place. docs/decisions/0018-compiled-hot-path.md says
why, and what a module has to do without to be compiled.
"""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from importlib.metadata import distribution
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2] / "gateway"
PACKAGES: Final = ("llmgw_gateway", "llmgw_wire")
COMPILED: Final = (
    "bodies",
    "dialects/anthropic",
    "dialects/bedrock",
    "dialects/embeddings",
    "dialects/messages",
    "edge",
    "identity/authenticate",
    "identity/tokens",
    "intake",
    "money/amounts",
    "money/book",
    "money/decide",
    "money/estimate",
    "money/hold",
    "money/holds",
    "money/learning",
    "money/limits",
    "money/posting",
    "money/rates",
    "money/tariffs",
    "money/traffic",
    "observe/audit",
    "observe/metrics",
    "pipeline",
    "policy/accounts",
    "policy/guards",
    "policy/models",
    "policy/permissions",
    "providers/answers",
    "providers/bedrock",
    "providers/bridge",
    "providers/connections",
    "providers/sending",
    "providers/sigv4",
    "providers/upstreams",
    "questions",
    "store/bulk",
    "store/database",
    "store/sqlite",
    "streams/answer",
    "streams/body",
    "streams/converse",
    "streams/eventstream",
    "streams/heads",
    "streams/http1",
    "streams/limits",
    "streams/meter",
    "streams/presence",
    "streams/relay",
    "streams/sse",
)
"""Modules of `llmgw_gateway` that a call of a model goes through."""


def compile_into(folder: Path) -> None:
    """Write both packages below `folder`, which is emptied before, and compile. SystemExit when the compiler fails."""
    from mypyc.build import mypycify  # noqa: PLC0415 -- whoever only packages needs no compiler
    from setuptools import setup  # noqa: PLC0415 -- the same

    shutil.rmtree(folder, ignore_errors=True)
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    _licence(folder)
    os.chdir(folder)
    # A Python that somebody built themselves tells the linker its own folder. On another machine that may be anybody's,
    # who could put a C library there for the gateway to load.
    linker = str(sysconfig.get_config_var("LDSHARED")).split()
    os.environ.setdefault("LDSHARED", " ".join(word for word in linker if not word.startswith("-Wl,-rpath")))
    files = [f"llmgw_gateway/{name}.py" for name in COMPILED]
    setup(
        name="llmgw-gateway",
        packages=[],
        ext_modules=mypycify(["--ignore-missing-imports", *files], opt_level="3", debug_level="0"),
        script_args=["--quiet", "build_ext", "--inplace"],
    )
    for left in ("build", ".mypy_cache"):
        shutil.rmtree(left, ignore_errors=True)


def _licence(folder: Path) -> None:
    """What libraries in a package have: mypyc's runtime, written in C, becomes part of what it compiles."""
    mypy = distribution("mypy")
    place = folder / f"mypyc-{mypy.version}.dist-info"
    (place / "licenses").mkdir(parents=True)
    about = {"Metadata-Version": "2.4", "Name": "mypyc", "Version": mypy.version}
    about["License-Expression"] = mypy.metadata["License-Expression"]
    (place / "METADATA").write_text("".join(f"{key}: {value}\n" for key, value in about.items()), encoding="utf-8")
    (place / "licenses" / "LICENSE").write_text(mypy.read_text("licenses/LICENSE") or "", encoding="utf-8")


if __name__ == "__main__":
    compile_into(Path(sys.argv[1]).resolve())
