"""The installers and launchers under Wine, with python.org's own Python. Never on Windows: docs say so."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from llmgw_agent import __version__
from llmgw_mdm import policy, shapes
from llmgw_mdm.organization import load
from llmgw_mdm.render import artefacts
from llmgw_packaging import launcher, runtime, windows, windows_settings
from tests.lab import windows_python, wine
from tests.packaging.test_msi import ORGANIZATION, trimmed, written

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from llmgw_packaging.release import Release

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not wine.available(), reason=wine.NEEDS),
    pytest.mark.skipif(not shutil.which("msibuild"), reason="needs msibuild"),
]
HOME = r"C:\Program Files\llmgw"
MARK = r"HKLM\SOFTWARE\llmgw\Organization"
CLAUDE = r"HKLM\SOFTWARE\Policies\ClaudeCode"
AGENT = r"HKLM\SOFTWARE\Policies\llmgw"
SESSION = r"HKLM\System\CurrentControlSet\Control\Session Manager\Environment"
DROP_IN = "Program Files/ClaudeCode/managed-settings.d/50-llmgw.json"
TASK = "windows/system32/tasks/llmgw"
REFUSED = (1603 & 0xFF, 1627 & 0xFF)
"""What is left of the installer's codes (fatal error, function failed) in an exit status here."""
TELLS = """\
import json, os, sys
print(json.dumps([sys.argv[1:], os.path.basename(sys.argv[0]), sys.flags.isolated, sys.stdin.read()]))
sys.exit(37)
"""
AWKWARD = ("a b", 'say "hi"', "", "back\\slash\\", 'both \\" ', "ünï", "%PATH%", "^&|", "*")


@pytest.fixture(scope="module")
def python() -> runtime.Runtime:
    path = windows_python.embeddable()
    return runtime.read(path, hashlib.sha256(path.read_bytes()).hexdigest())


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prefix that nothing was installed in."""
    folder = tmp_path_factory.mktemp("wine")
    made = wine.Wine(folder)
    made.start()
    made.end()
    return folder


@pytest.fixture
def machine(fresh: Path, tmp_path: Path) -> Iterator[wine.Wine]:
    shutil.copytree(fresh, tmp_path / "wine", symlinks=True)
    found = wine.Wine(tmp_path / "wine")
    yield found
    found.end()


@pytest.fixture(scope="module", params=["llmgw_wire/"], ids=["small"])
def agents(
    python: runtime.Runtime,
    store: Path,
    release: Release,
    tmp_path_factory: pytest.TempPathFactory,
    request: pytest.FixtureRequest,
) -> list[Path]:
    """1.2.3 and 1.2.4. Small ones, with few modules to compile; or, where a test says so, the whole."""
    folder = tmp_path_factory.mktemp("agents")
    found = []
    for version in ("1.2.3", "1.2.4"):
        named = replace(release, version=version)
        product, _ = windows.agent(python, store, named, lambda _name, content: content)
        product = trimmed(product, request.param)
        path = folder / product.file_name
        path.write_bytes(windows.agent_msi(product, python))
        found.append(path)
    return found


@pytest.fixture(scope="module")
def organizations(release: Release, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """An organisation's settings, and a minute later."""
    folder = tmp_path_factory.mktemp("org")
    # `reg` prints in a code page.
    written(folder / "org.toml", release.epoch, ORGANIZATION.encode("ascii", "ignore").decode())
    found = []
    for epoch in (release.epoch, release.epoch + 60):
        product, org = windows_settings.product(folder / "org.toml", replace(release, epoch=epoch))
        path = folder / product.file_name
        path.write_bytes(windows_settings.build(product, org))
        found.append(path)
    return found


def install(machine: wine.Wine, package: Path, *words: str) -> int:
    return machine.run("msiexec", "/i", wine.path(package), "/qn", *words).exit_code


def remove(machine: wine.Wine, package: Path, *words: str) -> int:
    return machine.run("msiexec", "/x", wine.path(package), "/qn", *words).exit_code


def software(machine: wine.Wine) -> str:
    """What programs and policies have in the machine's registry, as text."""
    machine.must("reg", "export", r"HKLM\SOFTWARE", r"C:\software.reg", "/y")
    return (machine.disk / "software.reg").read_text(encoding="utf-16")


def versions(machine: wine.Wine) -> list[str]:
    """Of what Windows lists as installed; it writes each down twice."""
    return sorted(set(re.findall(r'^"DisplayVersion"="(.*)"', software(machine), re.MULTILINE)))


def left(machine: wine.Wine) -> list[str]:
    """What bears our name, on the disk and in the registry."""
    found = [path.relative_to(machine.disk).as_posix() for path in machine.disk.rglob("*")]
    found += software(machine).splitlines() + machine.values(SESSION)["PATH"].split(";")
    return [each for each in found if "llmgw" in each.lower() or "claude" in each.lower()]


@pytest.mark.parametrize("agents", [""], indirect=True, ids=["whole"])
def test_install_upgrade_uninstall(machine: wine.Wine, agents: list[Path]) -> None:
    older, newer = agents
    assert install(machine, older) == 0
    assert versions(machine) == ["1.2.3"]
    assert (machine.disk / TASK).exists()
    compiled = machine.disk / "Program Files/llmgw/lib/llmgw_agent/__pycache__"
    assert list(compiled.glob("daemon.cpython-313.pyc"))
    # Not cryptography: Wine 8 lacks a library (bcryptprimitives.dll) that Windows has had since 7.
    libraries = "import aiohttp._http_parser, yarl._quoting_c, keyring.backends.Windows, llmgw_agent"
    assert machine.must(rf"{HOME}\runtime\python.exe", "-c", f"{libraries}; print(llmgw_agent.__file__)").endswith(
        "\\llmgw\\lib\\llmgw_agent\\__init__.py\n"
    )
    assert HOME + "\\" in machine.values(SESSION)["PATH"].split(";")
    assert machine.must(rf"{HOME}\llmgw.exe", "--version") == f"llmgw, version {__version__}\n"
    refused = machine.run(rf"{HOME}\llmgw-token.exe", "x")
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "llmgw-token takes no arguments" in refused.stderr

    # Something runs from the folder when a newer version comes: it is ended, and its files are replaced.
    words = [str(wine.WINE), rf"{HOME}\runtime\python.exe", "-c", "import sys; print(1, flush=True); sys.stdin.read()"]
    running = subprocess.Popen(
        words, env=dict(machine.env), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    with running:
        assert running.stdout is not None
        assert running.stdout.readline().strip() == b"1"
        assert install(machine, newer) == 0
        # Its input is still open: by itself it would go on.
        running.wait(wine.SECONDS)
    assert versions(machine) == ["1.2.4"]
    assert (machine.disk / TASK).exists()
    assert list(compiled.glob("daemon.cpython-313.pyc"))

    # Back only if that is said.
    assert install(machine, older) in REFUSED
    assert versions(machine) == ["1.2.4"]
    assert install(machine, older, "DOWNGRADE=1") == 0
    assert versions(machine) == ["1.2.3"]
    machine.must(rf"{HOME}\runtime\python.exe", "-c", libraries)

    assert remove(machine, older) == 0
    assert left(machine) == []


def test_settings_come_after_the_agent_and_go_before_it(
    machine: wine.Wine, agents: list[Path], organizations: list[Path]
) -> None:
    first, second = organizations
    assert install(machine, first) in REFUSED
    assert not (machine.disk / DROP_IN).exists()
    assert install(machine, agents[0]) == 0
    assert install(machine, first, "POLICY=nonsense") in REFUSED
    assert install(machine, first) == 0
    org = load(first.with_name("org.toml"))
    assert json.loads((machine.disk / DROP_IN).read_bytes()) == policy.claude_code(org, "windows")
    assert machine.values(CLAUDE) == {}
    ours = machine.values(AGENT)
    assert ours == {
        "gateway_url": "https://llm.corp.example",
        "ca_file": r"C:\Program Files\Corp\ca.pem",
        "sign_in_methods": r"browser\0paste",
        "forward_port": hex(4100),
        "project_redirects": "refuse",
    }
    assert machine.values(r"HKLM\SOFTWARE\Policies\Claude")["inferenceCredentialHelper"] == windows.HELPER

    assert remove(machine, agents[0]) in REFUSED
    assert (machine.disk / "Program Files/llmgw/llmgw-token.exe").exists()
    assert install(machine, second) == 0
    assert versions(machine) == ["1.2.3", "23.11.20054"]
    assert (machine.disk / DROP_IN).exists()
    assert remove(machine, second) == 0
    assert remove(machine, agents[0]) == 0
    assert left(machine) == []

    # Whoever delivers by other means gives the agent the same.
    rendered = {each.path: each.content for each in artefacts(org)}
    for name in ("llmgw-agent.reg", "llmgw-agent-remove.reg"):
        (machine.disk / name).write_bytes(rendered[f"windows/{name}"])
    machine.must("reg", "import", r"C:\llmgw-agent.reg")
    assert machine.values(AGENT) == ours
    machine.must("reg", "import", r"C:\llmgw-agent-remove.reg")
    assert machine.values(AGENT) == {}


def test_the_registry_s_policy_is_kept_to_by_an_upgrade(
    machine: wine.Wine, agents: list[Path], organizations: list[Path]
) -> None:
    assert install(machine, agents[0]) == 0
    org = load(organizations[0].with_name("org.toml"))
    wanted = shapes.as_one_line(policy.claude_code(org, "windows"))
    for package, words in zip(organizations, (["POLICY=registry"], []), strict=True):
        assert install(machine, package, *words) == 0
        assert machine.values(CLAUDE) == {"Settings": wanted}
        assert machine.values(MARK)["Policy"] == "registry"
        assert not (machine.disk / DROP_IN).exists()
    assert remove(machine, organizations[1]) == 0
    assert remove(machine, agents[0]) == 0
    assert left(machine) == []


@pytest.mark.parametrize("by", ["file", "drop-in", "registry"])
def test_an_agent_that_claude_code_needs_does_not_go(machine: wine.Wine, agents: list[Path], by: str) -> None:
    assert install(machine, agents[0]) == 0
    settings = json.dumps({"apiKeyHelper": '"C:\\Program Files\\llmgw\\LLMGW-token.exe"'})
    if by == "registry":
        (machine.disk / "policy.reg").write_bytes(shapes.as_registry({"Settings": settings}))
        machine.must("reg", "import", r"C:\policy.reg")
    else:
        name = {"file": "managed-settings.json", "drop-in": "managed-settings.d/20-somebody.json"}[by]
        path = machine.disk / "Program Files/ClaudeCode" / name
        path.parent.mkdir(parents=True)
        path.write_text(settings, encoding="utf-8")
    assert remove(machine, agents[0]) in REFUSED
    assert (machine.disk / "Program Files/llmgw/llmgw-token.exe").exists()


def test_force_removes_it_all_the_same(machine: wine.Wine, agents: list[Path], organizations: list[Path]) -> None:
    assert install(machine, agents[0]) == 0
    assert install(machine, organizations[0]) == 0
    assert remove(machine, agents[0], "FORCE=1") == 0
    assert not (machine.disk / "Program Files/llmgw").exists()
    assert remove(machine, organizations[0]) == 0
    assert left(machine) == []


@pytest.mark.parametrize("state", ["unsigned", "signed"])
def test_a_launcher_passes_everything_on(
    machine: wine.Wine, python: runtime.Runtime, store: Path, state: str, request: pytest.FixtureRequest
) -> None:
    folder = machine.disk / "Prögram Files & more" / "x"
    python.tree.stage(folder / "runtime")
    start, _ = launcher.stub(windows.target(python.version), store)
    made = launcher.build(start, r"runtime\python.exe", ("-I", "-X", "utf8"), TELLS)
    (folder / "tell me.exe").write_bytes(made)
    if state == "signed":
        if not shutil.which("osslsigncode"):
            pytest.skip("needs osslsigncode")
        subprocess.run([request.getfixturevalue("signer"), folder / "tell me.exe"], check=True)
        assert (folder / "tell me.exe").stat().st_size > len(made)
    done = machine.run(r"C:\Prögram Files & more\x\tell me.exe", *AWKWARD)
    assert done.exit_code == 37, done.stderr
    assert json.loads(done.stdout) == [[*AWKWARD], "tell me.exe", 1, ""]
