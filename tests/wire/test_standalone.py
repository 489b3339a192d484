"""The wire contract needs nothing but the interpreter: the token command loads it without site-packages."""

from __future__ import annotations

import json
import pkgutil
import subprocess
import sys
from pathlib import Path

import llmgw_wire

PROGRAM = """
import importlib, json, sys
sys.path.insert(0, sys.argv[1])
before = set(sys.modules)
for name in sys.argv[2:]:
    importlib.import_module(name)
loaded = {name.partition(".")[0] for name in set(sys.modules) - before}
print(json.dumps(sorted(loaded - sys.stdlib_module_names)))
"""


def test_the_contract_imports_only_the_standard_library() -> None:
    folder = Path(llmgw_wire.__file__).parent
    names = [f"llmgw_wire.{module.name}" for module in pkgutil.iter_modules([str(folder)])]
    assert "llmgw_wire.messages" in names
    command = [sys.executable, "-I", "-S", "-c", PROGRAM, str(folder.parent), *names]
    loaded = subprocess.run(command, capture_output=True, check=True).stdout
    assert json.loads(loaded) == ["llmgw_wire"]
