"""The agent for macOS: a flat package that brings its own Python, since Macs have none.

The layout is that of Linux, in /opt/llmgw, with the interpreter in `runtime`.
"""

from __future__ import annotations

import plistlib
from typing import TYPE_CHECKING, Final

from llmgw_agent import managed, service
from llmgw_packaging import flatpkg
from llmgw_packaging.agent import HOME, LOCK, PACKAGES, SCRIPTS, commands, libraries, sources
from llmgw_packaging.documents import REPOSITORY
from llmgw_packaging.runtime import below
from llmgw_packaging.tree import RUNNABLE, Tree
from llmgw_packaging.wheels import Target, Wheel, fetch

if TYPE_CHECKING:
    from pathlib import Path

    from llmgw_packaging.release import Release
    from llmgw_packaging.runtime import Runtime

IDENTIFIER: Final = "com.llmgw.agent"
OLDEST: Final = "13.0"
RUNTIME: Final = f"{HOME}/runtime"
FOLDER: Final = REPOSITORY / "packaging" / "macos"
INSTALLER_SCRIPTS: Final = ("preinstall", "postinstall")
PLIST: Final = f"/Library/Managed Preferences/{managed.DOMAIN}.plist"
WAIT_SECONDS: Final = 60


def target(python: str) -> Target:
    """Macs with Apple silicon. There is none for Intel: cryptography is not published for it any more."""
    return Target("macos-arm64", "darwin", "arm64", (f"macosx_{OLDEST.replace('.', '_')}_arm64",), (python,))


def build(given: Runtime, store: Path, release: Release) -> tuple[flatpkg.Package, tuple[Wheel, ...]]:
    """The installer, and the wheels in it."""
    tree = Tree()
    tree.merge(below(RUNTIME, given.tree))
    tree.put(f"{HOME}/pyvenv.cfg", f"home = /{RUNTIME}/bin\ninclude-system-site-packages = false\n")
    tree.link(f"{HOME}/bin/python3", f"/{RUNTIME}/bin/python3")
    commands(tree)
    tree.put(f"{HOME}/uninstall.sh", (FOLDER / "uninstall.sh").read_bytes(), RUNNABLE)
    tree.put(f"{HOME}/LICENSE", (REPOSITORY / "LICENSE").read_bytes())
    for name in SCRIPTS:
        tree.link(f"usr/local/bin/{name}", f"/{HOME}/bin/{name}")
    sources(tree, f"{HOME}/lib/any", PACKAGES)
    wheels = libraries(tree, HOME, {given.version: fetch(target(given.version), given.version, LOCK, store)})
    tree.put(f"Library/LaunchAgents/{service.LABEL}.plist", agent_plist())
    package = flatpkg.Package(
        file_name=f"llmgw-{release.version}-arm64.pkg",
        identifier=IDENTIFIER,
        title="llmgw",
        release=release,
        architecture="arm64",
        oldest=OLDEST,
        tree=tree,
        scripts={name: (FOLDER / name).read_text(encoding="utf-8") for name in INSTALLER_SCRIPTS},
    )
    return package, wheels


def agent_plist() -> bytes:
    """The launchd agent of every user: it runs where a company has said which gateway, else commands start it.

    Where nobody has, it could only end at once, and launchd would start it again and again.
    """
    document = plistlib.loads(service.agent_plist({}, python=f"/{HOME}/bin/python3"))
    document |= {"RunAtLoad": False, "KeepAlive": {"PathState": {PLIST: True}}, "ThrottleInterval": WAIT_SECONDS}
    del document["EnvironmentVariables"]
    return plistlib.dumps(document)
