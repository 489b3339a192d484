"""`llmgw mdm lint`: what is rendered is without a fault in every form, and every fault of others is found."""

from __future__ import annotations

import json
import plistlib
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from llmgw_agent.checks import State
from llmgw_agent.errors import UsageError
from llmgw_mdm import pin, policy, render
from llmgw_mdm.lint import lint
from llmgw_mdm.shapes import REGISTRY_HEAD, REGISTRY_KEY

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from llmgw_mdm.organization import Organization

PROFILE = "macos/com.anthropic.claudecode.mobileconfig"
SETTINGS = (
    *("linux/50-llmgw.json", "linux/managed-settings.json", "linux/managed.toml", PROFILE),
    *("macos/com.anthropic.claudecode.plist", "macos/com.llmgw.agent.mobileconfig", "macos/com.llmgw.agent.plist"),
    *("windows/claude-code.reg", "windows/managed-settings.json"),
)


@pytest.fixture
def dist(org_with: Callable[..., Organization], tmp_path: Path) -> Path:
    org = org_with(rollout={"platforms": ["linux", "macos", "windows"]}, claude_code={"dialect": "anthropic"})
    render.write(render.artefacts(org), tmp_path / "dist")
    return tmp_path / "dist"


@pytest.fixture
def right(org_with: Callable[..., Organization]) -> dict[str, Any]:
    return policy.claude_code(org_with(), "linux")


def troubles(path: Path) -> list[tuple[str, str]]:
    return [(check.name, check.found) for check in lint(path) if check.state in {State.FAIL, State.WARN}]


def written(folder: Path, document: Any, name: str = "settings.json") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(document if isinstance(document, str) else json.dumps(document), encoding="utf-8")
    path.chmod(0o644)
    return path


@pytest.mark.parametrize("name", SETTINGS)
def test_what_is_rendered_is_without_a_fault(dist: Path, name: str) -> None:
    assert troubles(dist / name) == []
    assert len(lint(dist / name)) > 1


def test_a_signed_profile_is_read(dist: Path, tmp_path: Path) -> None:
    key, certificate, signed = tmp_path / "k.pem", tmp_path / "c.pem", tmp_path / "signed.mobileconfig"
    subject = ["-subj", "/CN=test", "-days", "2"]
    new: list[str | Path] = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-keyout",
        key,
        "-out",
        certificate,
        *subject,
    ]
    subprocess.run(new, check=True, capture_output=True)
    sign: list[str | Path] = [
        "openssl",
        "cms",
        "-sign",
        "-binary",
        "-nodetach",
        "-outform",
        "DER",
        "-md",
        "sha256",
        "-signer",
        certificate,
    ]
    subprocess.run([*sign, "-inkey", key, "-in", dist / PROFILE, "-out", signed], check=True, capture_output=True)
    assert troubles(signed) == []
    assert signed.read_bytes()[:5] != (dist / PROFILE).read_bytes()[:5]


def test_a_profile_whose_type_is_the_domain_is_read(right: dict[str, Any], tmp_path: Path) -> None:
    payload = right | {"PayloadType": "com.anthropic.claudecode", "PayloadUUID": "x", "PayloadVersion": 1}
    path = tmp_path / "theirs.mobileconfig"
    path.write_bytes(plistlib.dumps({"PayloadContent": [payload], "PayloadType": "Configuration"}))
    path.chmod(0o644)
    assert troubles(path) == []


@pytest.mark.parametrize(
    ("change", "name", "says"),
    [
        ({"apiKeyHelpr": "/x"}, "names", "'apiKeyHelpr' is no setting"),
        ({"x": 1}, "names", "'x' is no setting"),
        ({"permissions": {"deny": None}}, "null", "permissions.deny is null"),
        ({"availableModels": "sonnet"}, "types", "availableModels is of the wrong type"),
        ({"forceLoginMethod": "console"}, "login", "Claude Code does not start"),
        ({"forceLoginOrgUUID": "7"}, "login", "Claude Code does not start"),
        ({"apiKeyHelper": "~/bin/llmgw-token"}, "helper", "depends on who runs it"),
        ({"apiKeyHelper": "llmgw-token"}, "helper", "is looked up in PATH"),
        ({"apiKeyHelper": ""}, "helper", "no apiKeyHelper"),
        ({"apiKeyHelper": r"C:\Program Files\llmgw\llmgw-token.exe"}, "helper", "cmd splits it at the space"),
        ({"apiKeyHelper": r'"C:\%APP%\llmgw-token.exe"'}, "helper", "variables are not replaced"),
        ({"allowedProviders": ["bedrock"]}, "providers", "allowedProviders is ['bedrock']"),
        ({"requiredMinimumVersion": "2.0.9"}, "version", "does not check what a helper prints"),
        ({"policyHelper": {"path": "/x"}}, "policy helper", "replaces all of these settings"),
    ],
)
def test_a_fault_is_found(right: dict[str, Any], tmp_path: Path, change: dict[str, Any], name: str, says: str) -> None:
    ((found, text),) = troubles(written(tmp_path, right | change))
    assert found == name
    assert says in text


@pytest.mark.parametrize("key", ["allowedProviders", "requiredMinimumVersion", "apiKeyHelper"])
def test_what_is_missing_is_found(right: dict[str, Any], tmp_path: Path, key: str) -> None:
    del right[key]
    assert len(troubles(written(tmp_path, right))) == 1


@pytest.mark.parametrize("dialect", pin.DIALECTS)
def test_every_gap_in_the_pin_is_found(org_with: Callable[..., Organization], tmp_path: Path, dialect: str) -> None:
    whole = policy.claude_code(org_with(claude_code={"dialect": dialect}), "linux")
    pinned = pin.variables(dialect, "https://gateway", life_seconds=240)
    for name in pinned:
        env = {key: value for key, value in whole["env"].items() if key != name}
        found = troubles(written(tmp_path, whole | {"env": env}))
        assert found, name
        assert {kind for kind, _ in found} <= {"pin", "address"}, name


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [
        ("NODE_TLS_REJECT_UNAUTHORIZED", "0", "pin"),
        ("CLAUDE_CODE_API_KEY_HELPER_TTL_MS", "600000", "pin"),
        ("ANTHROPIC_AUTH_TOKEN", "sk-left-over", "pin"),
        ("CLAUDE_CODE_USE_MANTLE", "1", "pin"),
        ("ANTHROPIC_BEDROCK_BASE_URL", "http://llm.corp.example/bedrock", "address"),
        ("CLAUDE_CODE_USE_BEDROCK", 1, "types"),
    ],
)
def test_a_value_that_harms_is_found(right: dict[str, Any], tmp_path: Path, name: str, value: Any, kind: str) -> None:
    found = troubles(written(tmp_path, right | {"env": right["env"] | {name: value}}))
    assert kind in {each for each, _ in found}
    assert "sk-left-over" not in str(found), "no credential is shown"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('{"env": {}', "cannot be parsed"),
        ("[]", "is no JSON object"),
        ('{"env": {}, "env": {}}', "'env' stands in it twice"),
        ("<?xml version='1.0'?><plist><dict><key>x</key></dict></plist>", "cannot be parsed"),
        (f"{REGISTRY_HEAD}\n\n[HKEY_LOCAL_MACHINE\\X]\n", "sets no Settings"),
        (
            f'{REGISTRY_HEAD}\n\n[{REGISTRY_KEY}]\n"Settings"=7',
            "no string",
        ),
    ],
)
def test_a_file_that_the_client_would_not_read_is_found(tmp_path: Path, content: str, says: str) -> None:
    ((kind, found),) = troubles(written(tmp_path, content))
    assert kind == "file"
    assert says in found


def test_a_file_that_everybody_can_write_is_found(right: dict[str, Any], tmp_path: Path) -> None:
    path = written(tmp_path, right)
    path.chmod(0o666)
    ((kind, found),) = troubles(path)
    assert kind == "file"
    assert "others than its owner can write" in found


def test_the_agent_s_own_settings_are_judged(tmp_path: Path) -> None:
    path = written(tmp_path, 'gatway_url = "https://a"\ngateway_url = "http://a.example"\n', "managed.toml")
    found = troubles(path)
    assert {kind for kind, _ in found} == {"agent"}
    assert any("'gatway_url' is not a setting" in text for _, text in found)
    assert any("must begin with https://" in text for _, text in found)


def test_a_folder_is_judged_as_the_client_merges_it(right: dict[str, Any], tmp_path: Path) -> None:
    env, rest = right.pop("env"), right
    written(tmp_path, {"env": env}, "managed-settings.json")
    written(tmp_path, rest, "managed-settings.d/50-llmgw.json")
    assert troubles(tmp_path) == []
    later = {"env": {"HTTPS_PROXY": "http://their-proxy"}, "apiKeyHelper": "/opt/other"}
    written(tmp_path, later, "managed-settings.d/90-other.json")
    written(tmp_path, "not read", "managed-settings.d/.hidden.json")
    written(tmp_path, "not read", "managed-settings.d/readme.txt")
    found = troubles(tmp_path)
    assert [kind for kind, _ in found] == ["passed over", "passed over"]
    assert "apiKeyHelper in" in found[0][1]
    assert "50-llmgw.json" in found[0][1]
    assert "90-other.json says otherwise" in found[0][1]
    assert "env.HTTPS_PROXY in" in found[1][1]


def test_a_folder_without_any_is_a_fault_of_its_user(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has no managed settings in it"):
        lint(tmp_path)
