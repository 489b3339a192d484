"""The agent for Windows (x64): an `.msi` for all users that brings its own Python, and starts it by `.exe` launchers.

Everything is in one folder below Program Files, where only administrators write. Python finds its modules by a `._pth`
file: so no variable, no registry key and no start-up file of somebody's has a say in what runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from llmgw_agent import service
from llmgw_agent.windows.task import task_xml
from llmgw_packaging import installation, launcher, msi
from llmgw_packaging.agent import LOCK, PACKAGES, sources
from llmgw_packaging.documents import REPOSITORY
from llmgw_packaging.runtime import below
from llmgw_packaging.tree import Tree
from llmgw_packaging.wheels import Target, Wheel, fetch, unpack

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from llmgw_packaging.release import Release
    from llmgw_packaging.runtime import Runtime

HOME: Final = "llmgw"
"""Below Program Files."""
FAMILY: Final = "llmgw agent"
TASK: Final = "llmgw"
"""The scheduled task for all users; one that a user has installed has another name."""
SCHEDULED: Final = rf"%ProgramFiles%\{HOME}\runtime\pythonw.exe"
HELPER: Final = rf"C:\Program Files\{HOME}\llmgw-token.exe"
LEAVE: Final = "leave.py"
COMMANDS: Final = {
    "llmgw.exe": (("-I", "-X", "utf8"), "from llmgw_agent.entry import main\n\nmain()\n"),
    "llmgw-token.exe": (
        ("-I", "-S"),
        "import sys\n\nfrom llmgw_agent.windows.token_command import main\n\nsys.exit(main())\n",
    ),
}
"""Options of the interpreter, and what is run."""
PROGRAM_IN_FOLDER: Final = 34
GO_ON: Final = 64
ROLLBACK: Final = 256
DEFERRED: Final = 1024 + 2048
"""Within the transaction, and as SYSTEM."""
RAW_VALUE: Final = 2 + 16
"""A value of the registry, in its 64-bit view."""
GOES: Final = 'REMOVE~="ALL"'
GOES_FOR_GOOD: Final = f"{GOES} AND NOT UPGRADINGPRODUCTCODE"
COMES: Final = f"NOT ({GOES})"
COMES_ANEW: Final = f"{COMES} AND NOT REINSTALL"
"""Not when it is repaired, which anybody may ask for on Windows without the updates of September 2024
(CVE-2024-38014): a program with a console would show them a window that SYSTEM owns."""
ORGANIZATION_KEY: Final = r"SOFTWARE\llmgw\Organization"
ORGANIZATION_IS_THERE: Final = (
    "Claude Code on this machine is set to run llmgw-token.exe by the package [ORGANIZATION]. Uninstall that first; or"
    " repeat with FORCE=1."
)
FAILED: Final = (
    "A program that this installer runs ended with an error. If its name is KeepHelper: managed settings make Claude"
    r" Code run llmgw-token.exe, by a file in C:\Program Files\ClaudeCode or by HKLM\SOFTWARE\Policies\ClaudeCode. Take"
    " them away first; or repeat with FORCE=1. Action [2], location: [3], command: [4]"
)
PROGRAM_FAILED: Final = 1722


def target(python: str) -> Target:
    """Windows on x64; on Arm it emulates that."""
    return Target("windows-amd64", "win32", "AMD64", ("win_amd64",), (python,))


def agent(
    given: Runtime, store: Path, release: Release, sign: Callable[[str, bytes], bytes]
) -> tuple[installation.Product, tuple[Wheel, ...]]:
    """What the agent's installer puts there, and the wheels in it. `sign` is given each program of ours."""
    tree = Tree()
    tree.merge(below(f"{HOME}/runtime", given.tree))
    tree.put(f"{HOME}/runtime/python{given.version.replace('.', '')}._pth", search_path(given))
    start, launchers = launcher.stub(target(given.version), store)
    for name, (options, code) in COMMANDS.items():
        tree.put(f"{HOME}/{name}", sign(name, launcher.build(start, r"runtime\python.exe", options, code)))
    tree.put(f"{HOME}/{TASK}.xml", task_xml(SCHEDULED, " ".join(service.ARGUMENTS), None).encode("utf-16"))
    tree.put(f"{HOME}/{LEAVE}", (REPOSITORY / "packaging" / "windows" / LEAVE).read_bytes())
    tree.put(f"{HOME}/LICENSE.txt", (REPOSITORY / "LICENSE").read_bytes())
    sources(tree, f"{HOME}/lib", PACKAGES)
    wheels = fetch(target(given.version), given.version, LOCK, store)
    for wheel in wheels:
        tree.merge(unpack(wheel, f"{HOME}/lib"))
    product = installation.Product(
        file_name=f"llmgw-{release.version}-x64.msi",
        name="llmgw",
        release=release,
        version=release.version,
        family=FAMILY,
        tree=tree,
        names={HOME: "InstallFolder", f"{HOME}/runtime": "RuntimeFolder", f"{HOME}/lib": "LibraryFolder"},
    )
    return product, (*wheels, *launchers)


def search_path(given: Runtime) -> str:
    """Where Python looks for modules, and nowhere else: its own library, as it came, and ours."""
    names = {name for name, _ in given.tree.entries()}
    packed = f"python{given.version.replace('.', '')}.zip"
    own = [packed] if packed in names else ["Lib", "DLLs"]
    return "".join(f"{line}\r\n" for line in (*own, ".", r"..\lib"))


def agent_msi(product: installation.Product, given: Runtime) -> bytes:
    """The agent's installer. ToolError if it cannot be built here."""
    tag = f"cpython-{given.version.replace('.', '')}"
    database, laid = installation.describe(product)
    database.add("Environment", ("OnPath", "=-*PATH", "[~];[InstallFolder]", laid.components[HOME]))
    database.add("AppSearch", ("ORGANIZATION", "OrganizationValue"))
    place = ("OrganizationValue", installation.MACHINE, ORGANIZATION_KEY, "Package", RAW_VALUE)
    database.add("RegLocator", place)
    goes = f"{GOES_FOR_GOOD} AND NOT FORCE"
    database.add("LaunchCondition", (f"NOT ({goes} AND ORGANIZATION)", ORGANIZATION_IS_THERE))
    database.add("Error", (PROGRAM_FAILED, FAILED))
    installation.secure(database, "FORCE", "ORGANIZATION")
    _actions(database)
    installation.forget_compiled(database, laid, product, (f"{HOME}/lib",), tag)
    return msi.build(database, *installation.finished(product, laid))


def _actions(database: msi.Database) -> None:
    database.add("Directory", ("System64Folder", "TARGETDIR", "."))
    python, leave = '"[RuntimeFolder]pythonw.exe" -I -S', f'"[InstallFolder]{LEAVE}"'
    # A path in quotes must not end with the backslash that folders have here.
    compiling = f'{python} -m compileall -q --invalidation-mode unchecked-hash "[LibraryFolder]."'
    tasks = '"[System64Folder]schtasks.exe"'
    create = f'{tasks} /Create /F /TN {TASK} /XML "[InstallFolder]{TASK}.xml"'
    delete = f"{tasks} /Delete /F /TN {TASK}"
    for name, more, command, condition, at in (
        ("KeepHelper", 0, f"{python} {leave} refuse", f"{GOES_FOR_GOOD} AND NOT FORCE", 1520),
        ("StopAgents", GO_ON, f"{python} {leave} stop", "Installed", 1540),
        ("RestoreTask", GO_ON + ROLLBACK, create, GOES, 1550),
        ("DeleteTask", GO_ON, delete, GOES, 1560),
        ("CompileModules", GO_ON, compiling, COMES, 4100),
        ("ForgetTask", GO_ON + ROLLBACK, delete, COMES_ANEW, 4110),
        ("CreateTask", GO_ON, create, COMES_ANEW, 4120),
    ):
        folder = "System64Folder" if command.startswith(tasks) else "InstallFolder"
        database.add("CustomAction", (name, PROGRAM_IN_FOLDER + DEFERRED + more, folder, command, ""))
        database.add("InstallExecuteSequence", (name, condition, at))
