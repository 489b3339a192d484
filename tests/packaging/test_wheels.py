from __future__ import annotations

import re
import shutil
from typing import TYPE_CHECKING

import pytest

from llmgw_packaging.targets import LINUX
from llmgw_packaging.wheels import LockError, fetch, pins, unpack
from tests.packaging.conftest import REPOSITORY

if TYPE_CHECKING:
    from pathlib import Path

    from llmgw_packaging.wheels import Target

AGENT = REPOSITORY / "packaging" / "agent.lock"


def locked(path: Path) -> dict[str, str]:
    """The version of each package, whatever its marker."""
    return dict(re.findall(r"^(\S+)==([^\s;]+)", path.read_text(encoding="utf-8"), re.MULTILINE))


@pytest.mark.parametrize("part", ["agent", "gateway"])
def test_what_is_packaged_is_what_is_tested(part: str) -> None:
    tested = locked(REPOSITORY / "requirements.lock")
    packaged = locked(REPOSITORY / "packaging" / f"{part}.lock")
    assert packaged
    assert {name: tested.get(name) for name in packaged} == packaged


def test_a_package_has_what_its_platform_and_python_want() -> None:
    target = LINUX["amd64"]
    old, new = ({pin.name for pin in pins(AGENT, target.environment(python))} for python in (target.pythons[0], "3.14"))
    assert {"secretstorage", "jeepney", "importlib-metadata"} <= old
    assert "pywin32-ctypes" not in old | new
    assert "importlib-metadata" not in new


@pytest.fixture
def own_store(target: Target, store: Path, tmp_path: Path) -> Path:
    """A store of this test's own, filled."""
    folder = fetch(target, target.pythons[0], AGENT, store)[0].path.parent
    shutil.copytree(folder, tmp_path / folder.name)
    return tmp_path


@pytest.mark.parametrize("change", ["a flipped bit", "a wheel is missing", "a wheel too many"])
def test_a_store_that_is_not_what_the_lock_says_is_refused(target: Target, own_store: Path, change: str) -> None:
    victim = next(own_store.glob("*/click-*.whl"))
    if change == "a flipped bit":
        content = bytearray(victim.read_bytes())
        content[len(content) // 2] ^= 1
        victim.write_bytes(content)
    elif change == "a wheel is missing":
        victim.unlink()
    else:
        shutil.copy(victim, victim.with_name("more-1.0-py3-none-any.whl"))
    with pytest.raises(LockError):
        fetch(target, target.pythons[0], AGENT, own_store)


def test_a_lock_without_hashes_is_refused(tmp_path: Path) -> None:
    lock = tmp_path / "agent.lock"
    lock.write_text("click==8.5.1\n", encoding="utf-8")
    with pytest.raises(LockError, match="no SHA-256 for click"):
        pins(lock, LINUX["amd64"].environment("3.12"))


def test_a_wheel_keeps_its_licence_and_metadata(target: Target, store: Path) -> None:
    wheel = next(each for each in fetch(target, target.pythons[0], AGENT, store) if each.pin.name == "click")
    paths = {path for path, _ in unpack(wheel, "opt/x").entries()}
    assert f"opt/x/click-{wheel.pin.version}.dist-info/METADATA" in paths
    assert any("licenses/" in path for path in paths)
    assert wheel.metadata()["name"] == ["click"]
