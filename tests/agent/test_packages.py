"""The agent's packages: those of the decision about them, none of the gateway's, and enough to run."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import llmgw_agent
import llmgw_wire

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/decisions/0010-agent-packages.md"
SOMEWHERE_ELSE = ("only below Python", "only on Windows", "only on Linux")
IMPORT_ALL = """
import importlib, json, pkgutil, sys
sys.path[:] = [path for path in sys.path if "site-packages" not in path] + [sys.argv[1]]
import llmgw_agent, llmgw_wire
names = [m.name for p in (llmgw_agent, llmgw_wire) for m in pkgutil.walk_packages(p.__path__, p.__name__ + ".")]
for name in names:
    importlib.import_module(name)
print(json.dumps([len(names), sorted({name.partition(".")[0] for name in sys.modules} - sys.stdlib_module_names)]))
"""


def needed(extra: str) -> set[str]:
    """What an extra of ours brings on this machine, by the names of the lock."""
    found: set[str] = set()

    def walk(name: str, extras: set[str]) -> None:
        for line in distribution(name).requires or []:
            wanted = Requirement(line)
            if wanted.marker is None or any(wanted.marker.evaluate({"extra": each}) for each in {"", *extras}):
                package = canonicalize_name(wanted.name)
                if package not in found:
                    found.add(package)
                    walk(wanted.name, wanted.extras)

    walk("llmgw", {extra})
    return found


@pytest.fixture(scope="module")
def documented() -> dict[str, str]:
    """Package to the rest of its row."""
    return dict(re.findall(r"^\| `([\w-]+)` \| (.*) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE))


def test_every_package_has_a_reason_and_there_are_no_others(documented: dict[str, str]) -> None:
    here = needed("agent")
    assert here - documented.keys() == set()
    for name in documented.keys() - here:
        assert any(words in documented[name] for words in SOMEWHERE_ELSE), name


def test_every_package_is_locked(documented: dict[str, str]) -> None:
    locked = re.findall(r"^([\w.-]+)==", (ROOT / "requirements.lock").read_text(encoding="utf-8"), re.MULTILINE)
    assert documented.keys() - {canonicalize_name(name) for name in locked} == set()


def test_the_agent_needs_nothing_of_the_gateway(tmp_path: Path) -> None:
    """All of it is imported where nothing else is installed."""
    for name in needed("agent"):
        for file in distribution(name).files or []:
            top = file.parts[0]
            if top not in {"..", "__pycache__"} and not (tmp_path / top).exists():
                (tmp_path / top).symlink_to(Path(str(distribution(name).locate_file(top))))
    for package in (llmgw_agent, llmgw_wire):
        (tmp_path / package.__name__).symlink_to(Path(str(package.__file__)).parent)
    argv = [sys.executable, "-I", "-S", "-c", IMPORT_ALL, str(tmp_path)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    count, loaded = json.loads(done.stdout)
    assert count > 50
    only_the_gateway_s = needed("gateway") - needed("agent")
    assert {"sqlalchemy", "botocore", "msgspec"} <= only_the_gateway_s
    assert {canonicalize_name(name) for name in loaded} & only_the_gateway_s == set()
