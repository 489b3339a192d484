"""The agent as packages for Linux install it: an environment in /opt/llmgw around the distribution's own Python.

`bin/python3` is a link and `pyvenv.cfg` beside it says so, which makes every version of Python take its packages from
`lib/pythonX.Y/site-packages` here. There is such a folder for each version that is supported, so that an upgrade of the
distribution from one to the next takes nothing away. What is the same for all of them lies once, in `lib/any`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from llmgw_agent import service
from llmgw_packaging.documents import REPOSITORY, manuals
from llmgw_packaging.tree import RUNNABLE, Tree
from llmgw_packaging.wheels import Target, Wheel, fetch, unpack

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from llmgw_packaging.compiled import Compiled
    from llmgw_packaging.release import Release

LOCK: Final = REPOSITORY / "packaging" / "agent.lock"
PACKAGES: Final = ("agent/llmgw_agent", "gateway/llmgw_wire", "mdm/llmgw_mdm")
SCRIPTS: Final = ("llmgw", "llmgw-policy", "llmgw-token")
HOME: Final = "opt/llmgw"
UNITS: Final = "usr/lib/systemd/user"
MARK: Final = "Part of the package llmgw; `systemctl --user edit` adds to it."
RUNTIME_SOCKET: Final = "%t/llmgw/agent.sock"
"""Where `llmgw-token` looks (token_stub.py), as a unit of systemd says it: below the user's XDG_RUNTIME_DIR."""
COMMAND: Final = """\
#!/opt/llmgw/bin/python3 -I
from {module} import main

if __name__ == "__main__":
    main()
"""
ENVIRONMENT: Final = """\
home = /usr/bin
include-system-site-packages = false
"""


@dataclass(frozen=True, slots=True)
class Agent:
    """What is installed, and the wheels in it."""

    tree: Tree
    wheels: tuple[Wheel, ...]
    release: Release
    compiled: tuple[Compiled, ...] = ()
    """Modules of ours in it that were compiled: of the gateway alone."""


def build(target: Target, store: Path, release: Release) -> Agent:
    """The agent for a target. `store` keeps wheels between builds."""
    tree = Tree()
    tree.put(f"{HOME}/pyvenv.cfg", ENVIRONMENT)
    tree.link(f"{HOME}/bin/python3", "/usr/bin/python3")
    commands(tree)
    for name in SCRIPTS:
        tree.link(f"usr/bin/{name}", f"/{HOME}/bin/{name}")
    manuals(tree, SCRIPTS, release.version)
    for each, text in units().items():
        tree.put(f"{UNITS}/{each}", text)
    sources(tree, f"{HOME}/lib/any", PACKAGES)
    wheels = libraries(tree, HOME, {python: fetch(target, python, LOCK, store) for python in target.pythons})
    return Agent(tree, wheels, release)


def commands(tree: Tree) -> None:
    """What people and tools call."""
    tree.put(f"{HOME}/bin/llmgw", COMMAND.format(module="llmgw_agent.entry"), RUNNABLE)
    tree.put(f"{HOME}/bin/llmgw-policy", COMMAND.format(module="llmgw_mdm.live"), RUNNABLE)
    stub = REPOSITORY / "agent" / "llmgw_agent" / "token_stub.py"
    tree.put(f"{HOME}/bin/llmgw-token", stub.read_bytes(), RUNNABLE)


def libraries(tree: Tree, home: str, found: dict[str, list[Wheel]]) -> tuple[Wheel, ...]:
    """Unpack wheels by version of Python; those that are the same for all versions once. All wheels, each once."""
    everywhere = set.intersection(*({wheel.path.name for wheel in wheels} for wheels in found.values()))
    kept: dict[str, Wheel] = {}
    for python, wheels in found.items():
        folder = f"{home}/lib/python{python}/site-packages"
        tree.put(f"{folder}/llmgw.pth", "../../any\n")
        for wheel in wheels:
            if wheel.path.name not in everywhere:
                tree.merge(unpack(wheel, folder))
            elif wheel.path.name not in kept:
                tree.merge(unpack(wheel, f"{home}/lib/any"))
            kept.setdefault(wheel.path.name, wheel)
    return tuple(kept[name] for name in sorted(kept))


def sources(tree: Tree, folder: str, packages: Sequence[str]) -> None:
    """Our own code: every file of these packages that is no leftover of running it."""
    for package in packages:
        for path in sorted((REPOSITORY / package).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                name = path.relative_to((REPOSITORY / package).parent).as_posix()
                tree.put(f"{folder}/{name}", path.read_bytes())


def units() -> dict[str, str]:
    """The units of systemd, for every user; the texts are those of `llmgw service install`."""
    command = " ".join((f"/{HOME}/bin/python3", *service.ARGUMENTS))
    values = {"name": service.NAME, "mark": MARK, "environment": "", "configuration": service.CONFIGURATION}
    return {
        "llmgw.socket": service.SOCKET_UNIT.format(socket=RUNTIME_SOCKET, **values),
        "llmgw.service": service.SERVICE_UNIT.format(command=command, **values),
    }
