"""One target under atheris (libFuzzer): `python -m tests.fuzz.guided TARGET [libFuzzer's own arguments]`."""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["llmgw_gateway"]):
    from tests.fuzz.targets import TARGETS

if __name__ == "__main__":
    atheris.Setup([sys.argv[0], *sys.argv[2:]], TARGETS[sys.argv[1]])
    atheris.Fuzz()
