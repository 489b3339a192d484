"""What is rendered: the same bytes each time, and what other programs than ours read in them."""

from __future__ import annotations

import configparser
import io
import json
import plistlib
import re
import shutil
import subprocess
import tomllib
import uuid
import xml.etree.ElementTree as ET
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from llmgw_agent import settings
from llmgw_agent.errors import ConfigurationError
from llmgw_mdm import keys, policy, render, shapes

if TYPE_CHECKING:
    from collections.abc import Callable

    from llmgw_mdm.organization import Organization

GOLDEN = Path(__file__).parents[1] / "golden" / "mdm"
SCRIPTS = (
    *("linux/install.sh", "linux/remove.sh", "linux/audit.sh", "macos/install.sh", "macos/remove.sh", "macos/audit.sh"),
    *("jamf/extension-attribute.sh", "intune/macos-custom-attribute.sh", "workspace-one/macos-sensor.sh"),
    *("iru/scripts/llmgw-audit/audit.sh", "linux/codex/install.sh", "linux/codex/remove.sh"),
)
PROFILES = (
    "com.anthropic.claudecode",
    "com.llmgw.agent",
    "com.anthropic.claudefordesktop",
    "com.openai.codex",
    "background-item",
)
EVERYTHING: dict[str, Any] = {
    "organization": {"name": 'Beispiel "Süd" & Söhne'},
    "gateway": {"ca_file": {"linux": "/etc/corp ca.pem", "windows": r"C:\Corp\ca.pem"}},
    "rollout": {
        "platforms": ["linux", "macos", "windows"],
        "tools": ["codex", "vscode", "github-actions", "gitlab-ci"],
    },
    "agent": {"forward_port": 0},
    "codex": {"model": "gpt-oss-120b"},
    "ci": {"repository": "https://pkg.corp.example"},
    "claude_code": {
        "announcements": ['Fragen? "#llm-hilfe" — C:\\ %PATH% $HOME `id`'],
        "proxy": "http://proxy.corp.example:3128",
        "no_proxy": ["corp.example"],
        "presets": ["no-bypass", "no-auto-mode", "sandbox"],
        "settings": {"cleanupPeriodDays": 30, "env": {"BASH_MAX_TIMEOUT_MS": "600000"}},
    },
    "claude_desktop": {"models": ["claude-sonnet-4-6"]},
    "telemetry": {"endpoint": "https://otel.corp.example"},
}


@pytest.fixture
def full(org_with: Callable[..., Organization]) -> Organization:
    return org_with(**EVERYTHING)


def by_path(org: Organization) -> dict[str, bytes]:
    return {each.path: each.content for each in render.artefacts(org)}


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_every_byte_is_as_it_was(full: Organization, tmp_path: Path) -> None:
    """What changes on purpose: delete tests/golden/mdm, run this, and read the difference."""
    render.write(render.artefacts(full), tmp_path / "dist")
    if not GOLDEN.exists():
        shutil.copytree(tmp_path / "dist", GOLDEN)
        pytest.fail(f"{GOLDEN} was not there: it is now; read it, and run this again")
    assert tree(tmp_path / "dist") == tree(GOLDEN)


def test_sums_are_those_of_the_files(full: Organization, tmp_path: Path) -> None:
    render.write(render.artefacts(full), tmp_path / "dist")
    done = subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=tmp_path / "dist", check=False)
    assert done.returncode == 0


def test_rendering_again_replaces_and_leaves_nothing_over(full: Organization, tmp_path: Path) -> None:
    folder = tmp_path / "dist"
    render.write(render.artefacts(full), folder)
    (folder / "stale.json").write_text("{}")
    render.write(render.artefacts(full), folder)
    assert not (folder / "stale.json").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["dist"]


def test_a_folder_with_something_else_in_it_is_not_touched(full: Organization, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigurationError, match="holds something else"):
        render.write(render.artefacts(full), tmp_path)
    assert tree(tmp_path) == {"thesis.txt": b"years of work"}


@pytest.mark.parametrize("platform", ["linux", "macos", "windows"])
def test_every_shape_says_the_same(full: Organization, platform: str) -> None:
    found, wanted = by_path(full), policy.claude_code(full, platform)
    assert json.loads(found[f"{platform}/managed-settings.json"]) == wanted
    assert json.loads(found[f"{platform}/50-llmgw.json"]) == wanted
    if platform == "macos":
        assert plistlib.loads(found["macos/com.anthropic.claudecode.plist"]) == wanted
        profile = plistlib.loads(found["macos/com.anthropic.claudecode.mobileconfig"])
        forced = profile["PayloadContent"][0]["PayloadContent"]["com.anthropic.claudecode"]["Forced"]
        assert forced == [{"mcx_preference_settings": wanted}]
    if platform == "windows":
        assert json.loads(registry(found["windows/claude-code.reg"])["Settings"]) == wanted


def registry(content: bytes, product: str = "ClaudeCode") -> dict[str, str]:
    """The values of a `.reg` file, by a parser of the standard library: it is an INI file with escapes of its own."""
    text = content.decode("utf-16")
    head, _, rest = text.partition("\r\n")
    assert head == "Windows Registry Editor Version 5.00"
    parser = configparser.RawConfigParser(delimiters=("=",), comment_prefixes=(";",))
    parser.optionxform = str  # type: ignore[method-assign, assignment] # names keep their capitals
    parser.read_string(rest.replace("\r\n", "\n"))
    assert parser.sections() == [rf"HKEY_LOCAL_MACHINE\SOFTWARE\Policies\{product}"]
    # In quotes, a registry file escapes quotes and backslashes, as JSON does.
    return {json.loads(name): json.loads(value) for name, value in parser.items(parser.sections()[0]) if value != "-"}


def test_the_agent_s_values_have_the_types_that_it_reads(full: Organization) -> None:
    found = by_path(full)
    lines = found["windows/llmgw-agent.reg"].decode("utf-16").split("\r\n")
    assert lines[2] == r"[HKEY_LOCAL_MACHINE\SOFTWARE\Policies\llmgw]"
    values = dict(line.split("=", 1) for line in lines[3:] if line)
    wanted = policy.agent(full, "windows")
    assert [json.loads(name) for name in values] == list(wanted)
    for name, value in wanted.items():
        said = values[json.dumps(name)]
        if isinstance(value, list):
            assert bytes.fromhex(said.removeprefix("hex(7):").replace(",", "")).decode("utf-16-le") == "".join(
                f"{each}\0" for each in [*value, ""]
            )
        elif isinstance(value, int):
            assert int(said.removeprefix("dword:"), 16) == value
        else:
            assert json.loads(said) == value
    removal = found["windows/llmgw-agent-remove.reg"].decode("utf-16").split("\r\n")
    assert [line for line in removal[3:] if line] == [f'"{name}"=-' for name in wanted]


READERS: dict[str, Callable[[bytes], Any]] = {
    ".adml": ET.fromstring,
    ".admx": ET.fromstring,
    ".cmd": lambda content: content.decode("ascii"),
    ".intunewin": lambda content: zipfile.ZipFile(io.BytesIO(content)).testzip(),
    ".json": json.loads,
    ".md": bytes.decode,
    ".mobileconfig": plistlib.loads,
    ".plist": plistlib.loads,
    ".ps1": lambda content: content.decode("ascii"),  # parsed in test_consoles.py
    ".reg": lambda content: content.decode("utf-16"),
    ".sh": bytes.decode,  # shells and shellcheck: below
    ".toml": lambda content: tomllib.loads(content.decode()),
    ".xml": ET.fromstring,
    ".yml": yaml.safe_load,
}


def test_every_file_is_one_that_can_be_read(full: Organization) -> None:
    endings = set()
    for path, content in by_path(full).items():
        ending = Path(path).suffix
        READERS[ending](content)
        endings.add(ending)
    assert endings == READERS.keys(), "each of them is tried"


def test_the_registry_s_value_is_one_line_of_ascii(full: Organization) -> None:
    value = registry(by_path(full)["windows/claude-code.reg"])["Settings"]
    assert value.isascii()
    assert "\n" not in value
    removal = by_path(full)["windows/claude-code-remove.reg"].decode("utf-16")
    assert '"Settings"=-' in removal
    assert "[-" not in removal, "other people's values under the key stay"


def test_the_helper_is_quoted_for_the_shell_that_runs_it(org_with: Callable[..., Organization]) -> None:
    helper = {"linux": "/opt/our tools/llmgw-token", "macos": "/opt/llmgw/bin/llmgw-token"}
    org = org_with(rollout={"platforms": ["linux", "macos", "windows"], "helper": helper})
    assert policy.claude_code(org, "linux")["apiKeyHelper"] == "'/opt/our tools/llmgw-token'"
    assert policy.claude_code(org, "macos")["apiKeyHelper"] == "/opt/llmgw/bin/llmgw-token"
    assert policy.claude_code(org, "windows")["apiKeyHelper"] == r'"C:\Program Files\llmgw\llmgw-token.exe"'


@pytest.mark.parametrize("domain", PROFILES)
def test_a_profile_is_one_that_an_mdm_takes(full: Organization, domain: str) -> None:
    content = by_path(full)[f"macos/{domain}.mobileconfig"]
    assert ET.fromstring(content).tag == "plist"  # noqa: S314 -- our own file
    profile = plistlib.loads(content)
    payload = profile["PayloadContent"][0]
    for part in (profile, payload):
        assert uuid.UUID(part["PayloadUUID"]).version == 5
        assert part["PayloadIdentifier"].startswith("example.corp.")
        assert part["PayloadVersion"] == 1
    assert profile["PayloadUUID"] != payload["PayloadUUID"]
    assert (profile["PayloadScope"], profile["PayloadType"]) == ("System", "Configuration")


def test_every_profile_is_looked_at(full: Organization) -> None:
    assert {path for path in by_path(full) if path.startswith("macos/") and path.endswith(".mobileconfig")} == {
        f"macos/{name}.mobileconfig" for name in PROFILES
    }


def test_the_desktop_app_is_told_in_its_own_words(full: Organization) -> None:
    """Its reference of keys: everything is text, lists are JSON in it, the helper is a path and no command."""
    found = by_path(full)
    for platform, settings_ in (
        ("macos", plistlib.loads(found["macos/com.anthropic.claudefordesktop.plist"])),
        ("windows", registry(found["windows/claude-desktop.reg"], "Claude")),
    ):
        assert settings_.pop("inferenceCredentialHelper") == full.helpers[platform]
        assert json.loads(settings_.pop("inferenceModels")) == ["claude-sonnet-4-6"]
        assert settings_ == {
            "inferenceProvider": "gateway",
            "inferenceGatewayBaseUrl": "https://llm.corp.example",
            "inferenceGatewayAuthScheme": "bearer",
            "inferenceCredentialKind": "helper-script",
            "inferenceCredentialHelperTtlSec": "240",
        }
    removal = found["windows/claude-desktop-remove.reg"].decode("utf-16")
    assert set(re.findall(r'^"(\w+)"=-\r?$', removal, re.MULTILINE)) == policy.claude_desktop(full, "windows").keys()


def test_the_desktop_app_is_left_alone_unless_it_is_named(org_with: Callable[..., Organization]) -> None:
    found = by_path(org_with(rollout={"platforms": ["macos", "windows"]}))
    assert not [path for path in found if "desktop" in path]


def test_identifiers_outlive_every_change_but_that_of_the_organisation(
    full: Organization, org_with: Callable[..., Organization]
) -> None:
    name = "macos/com.anthropic.claudecode.mobileconfig"
    changed = org_with(claude_code={"models": ["opus"]})
    other = org_with(organization={"identifier": "example.other"})
    ids = [plistlib.loads(by_path(org)[name])["PayloadUUID"] for org in (full, changed, other)]
    assert ids[0] == ids[1] != ids[2]
    assert shapes.stable_uuid("example.corp", "x") == shapes.stable_uuid("Example.Corp", "x")


def test_the_agent_reads_what_is_rendered_for_it(
    org_with: Callable[..., Organization], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LLMGW_GATEWAY_URL", raising=False)
    org = org_with(gateway={"ca_file": {}}, agent={"forward_port": 8099, "project_redirects": "log"})
    found = by_path(org)
    for name in ("linux/managed.toml", "macos/com.llmgw.agent.plist"):
        path = tmp_path / Path(name).name
        path.write_bytes(found[name])
        path.chmod(0o644)
        read = settings.load({"LLMGW_HOME": str(tmp_path)}, company=[path], company_owner=path.stat().st_uid)
        assert (read.gateway_url, read.forward_port) == ("https://llm.corp.example", 8099)
        assert (read.project_redirects, read.sign_in_methods) == ("log", ("browser", "paste"))
        assert set(read.sources.values()) == {str(path)}
    assert tomllib.loads(found["linux/managed.toml"].decode()) == plistlib.loads(found["macos/com.llmgw.agent.plist"])


def test_nothing_that_stops_the_client_is_rendered(full: Organization) -> None:
    for platform in full.platforms:
        found = policy.claude_code(full, platform)
        assert not set(keys.NEVER) & found.keys()
        assert found.keys() <= keys.KNOWN
        assert all(isinstance(value, str) for value in found["env"].values())


def test_what_is_pinned_with_a_proxy_spares_this_machine(full: Organization) -> None:
    env = policy.claude_code(full, "linux")["env"]
    assert env["https_proxy"] == env["ALL_PROXY"] == "http://proxy.corp.example:3128"
    assert env["NO_PROXY"] == env["no_proxy"] == "127.0.0.1,localhost,corp.example"


def test_every_script_is_looked_at(full: Organization) -> None:
    assert {path for path in by_path(full) if path.endswith(".sh")} == set(SCRIPTS)


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="needs shellcheck")
def test_scripts_have_nothing_that_a_linter_knows(full: Organization, tmp_path: Path) -> None:
    render.write(render.artefacts(full), tmp_path / "dist")
    done = subprocess.run(
        ["shellcheck", "--shell=sh", *SCRIPTS], cwd=tmp_path / "dist", capture_output=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, b"")


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_is_one_that_a_shell_takes(full: Organization, script: str) -> None:
    done = subprocess.run(["sh", "-n"], input=by_path(full)[script], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize(
    ("agent", "says", "code"),
    [("exit 0", "in force", 0), ("exit 1", "not in force", 1), ("", "agent missing", 1)],
)
def test_a_console_is_told_how_a_laptop_stands(
    org_with: Callable[..., Organization], tmp_path: Path, agent: str, says: str, code: int
) -> None:
    if agent:
        for name in ("llmgw", "llmgw-token"):
            path = tmp_path / name
            path.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n{agent}\n')
            path.chmod(0o755)
    found = by_path(org_with(rollout={"helper": {"macos": str(tmp_path / "llmgw-token")}}))
    for name, printed, status in (
        ("macos/audit.sh", says, code),
        ("iru/scripts/llmgw-audit/audit.sh", says, code),
        ("jamf/extension-attribute.sh", f"<result>{says}</result>", 0),
        ("intune/macos-custom-attribute.sh", says, 0),
        ("workspace-one/macos-sensor.sh", says, 0),
    ):
        done = subprocess.run(["sh"], input=found[name], capture_output=True, check=False)
        assert (done.returncode, done.stdout.decode(), done.stderr) == (status, f"{printed}\n", b"")
    if agent:
        assert set((tmp_path / "asked").read_text().splitlines()) == {"mdm show --gateway https://llm.corp.example"}
