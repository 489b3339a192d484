"""What single products get: the same settings as everybody, in forms whose rules are checked here."""

from __future__ import annotations

import base64
import hashlib
import hmac
import io
import json
import os
import plistlib
import re
import shutil
import subprocess
import uuid
import xml.etree.ElementTree as ET
import zipfile
from typing import TYPE_CHECKING, Any

import pytest
import tree_sitter
import tree_sitter_powershell
import yaml
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from llmgw_agent.errors import ConfigurationError
from llmgw_mdm import group_policy, policy, powershell, render
from tests.mdm.test_render import EVERYTHING, PROFILES

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from llmgw_mdm.organization import Organization

NAMESPACE = {"p": "http://schemas.microsoft.com/GroupPolicy/2006/07/PolicyDefinitions"}
CLAUDE = "com.anthropic.claudecode"
CONSOLES = ("jamf", "iru", "intune", "gpo", "workspace-one", "ansible")
ROLE = "ansible/roles/llmgw_settings"


@pytest.fixture
def org(org_with: Callable[..., Organization]) -> Organization:
    return org_with(**EVERYTHING)


@pytest.fixture
def found(org: Organization) -> dict[str, bytes]:
    return {each.path: each.content for each in render.artefacts(org)}


def parsed(content: bytes) -> ET.Element:
    return ET.fromstring(content)  # noqa: S314 -- our own file


@pytest.mark.parametrize(
    ("platform", "wanted"),
    [
        ("linux", {"ansible"}),
        ("macos", {"jamf", "iru", "intune", "workspace-one", "ansible"}),
        ("windows", {"intune", "gpo", "workspace-one"}),
    ],
)
def test_a_console_gets_what_it_can_use(org_with: Callable[..., Organization], platform: str, wanted: set[str]) -> None:
    paths = [each.path for each in render.artefacts(org_with(rollout={"platforms": [platform]}))]
    assert {path.partition("/")[0] for path in paths} & {*CONSOLES} == wanted


def defaults(schema: dict[str, Any]) -> dict[str, Any]:
    """What a form holds before anybody has touched it."""
    return {
        key: defaults(field) if field["type"] == "object" else field["default"]
        for key, field in schema["properties"].items()
    }


@pytest.mark.parametrize("domain", [CLAUDE, "com.llmgw.agent"])
def test_jamf_s_form_is_filled_in_with_the_policy(org: Organization, found: dict[str, bytes], domain: str) -> None:
    schema = json.loads(found[f"jamf/{domain}.schema.json"])
    wanted = policy.claude_code(org, "macos") if domain == CLAUDE else policy.agent(org, "macos")
    assert defaults(schema) == wanted
    fields = list(schema["properties"].values())
    for field in list(fields):
        fields += field.get("properties", {}).values()
    assert all(field["title"] and field["description"] and field["property_order"] > 0 for field in fields)
    assert {field["type"] for field in fields} <= {"string", "boolean", "integer", "number", "array", "object"}
    assert all(field["items"]["type"] == "string" for field in fields if field["type"] == "array")


def test_jamf_s_form_says_why_a_blank_field_is_there(found: dict[str, bytes]) -> None:
    env = json.loads(found[f"jamf/{CLAUDE}.schema.json"])["properties"]["env"]["properties"]
    assert "proxy" in env["HTTPS_PROXY"]["description"]


def test_iru_s_items_are_what_its_tool_takes(found: dict[str, bytes]) -> None:
    infos = {path: json.loads(content) for path, content in found.items() if path.endswith("/info.json")}
    assert len({info["id"] for info in infos.values()}) == len(infos) == 6
    for path, info in infos.items():
        extra = {"runs_on_mac"} if "/profiles/" in path else {"execution_frequency", "restart"}
        assert info.keys() == {"id", "name", "active"} | extra
        assert str(uuid.UUID(info["id"])) == info["id"]
    for name, file in (("llmgw-claude-code", CLAUDE), ("llmgw-agent", "com.llmgw.agent")):
        profile = found[f"iru/profiles/{name}/profile.mobileconfig"]
        assert profile == found[f"macos/{file}.mobileconfig"]


def test_the_template_s_references_lead_somewhere(found: dict[str, bytes]) -> None:
    template, texts = parsed(found["gpo/llmgw-claude-code.admx"]), parsed(found["gpo/en-US/llmgw-claude-code.adml"])
    written = found["gpo/llmgw-claude-code.admx"].decode()
    strings = {each.get("id") for each in texts.iterfind(".//p:string", NAMESPACE)}
    forms = {each.get("id") for each in texts.iterfind(".//p:presentation", NAMESPACE)}
    assert set(re.findall(r"\$\(string\.(\w+)\)", written)) == strings
    assert set(re.findall(r"\$\(presentation\.(\w+)\)", written)) == forms
    elements = {each.get("id") for each in template.iterfind(".//p:elements/*", NAMESPACE)}
    assert {each.get("refId") for each in texts.iterfind(".//p:presentation/*", NAMESPACE)} == elements
    for reference, target in (("parentCategory", "category"), ("policy/p:supportedOn", "definition")):
        names = {each.get("name") for each in template.iterfind(f".//p:{target}", NAMESPACE)}
        assert {each.get("ref") for each in template.iterfind(f".//p:{reference}", NAMESPACE)} == names
    assert template.find(".//p:using", NAMESPACE) is None, "Intune refuses a namespace that it was not given"


def test_the_template_writes_the_value_that_claude_code_reads(org: Organization, found: dict[str, bytes]) -> None:
    template, texts = parsed(found["gpo/llmgw-claude-code.admx"]), parsed(found["gpo/en-US/llmgw-claude-code.adml"])
    rule, text = template.find(".//p:policy", NAMESPACE), template.find(".//p:text", NAMESPACE)
    assert rule is not None
    assert text is not None
    assert (rule.get("class"), rule.get("key")) == ("Machine", r"SOFTWARE\Policies\ClaudeCode")
    assert text.get("valueName") == "Settings"
    value = texts.findtext(".//p:defaultValue", namespaces=NAMESPACE)
    assert json.loads(value or "") == policy.claude_code(org, "windows")
    assert len(value or "") <= int(text.get("maxLength", "0"))


def test_settings_that_no_policy_can_hold_are_refused(org_with: Callable[..., Organization]) -> None:
    org = org_with(rollout={"platforms": ["windows"]}, claude_code={"settings": {"claudeMd": "x" * 70000}})
    with pytest.raises(ConfigurationError, match="a policy holds 65535"):
        render.artefacts(org)


def csp_value(text: str) -> Any:
    """The settings in a value of the Policy CSP."""
    data = parsed(f"<value>{text}</value>".encode()).find("data")
    assert data is not None
    assert data.get("id") == group_policy.ELEMENT
    return json.loads(data.get("value", ""))


def test_intune_s_custom_configuration_brings_template_and_value(org: Organization, found: dict[str, bytes]) -> None:
    template, value = json.loads(found["intune/oma-uri.json"])["omaSettings"]
    assert template["value"].encode() == found["gpo/llmgw-claude-code.admx"]
    assert template["omaUri"].startswith("./Device/Vendor/MSFT/Policy/ConfigOperations/ADMXInstall/llmgw/Policy/")
    category = parsed(template["value"].encode()).find(".//p:category", NAMESPACE)
    assert category is not None
    # The address of a value is made of application, kind, category and policy.
    assert value["omaUri"] == f"./Device/Vendor/MSFT/Policy/Config/llmgw~Policy~{category.get('name')}/Settings"
    assert csp_value(value["value"]) == policy.claude_code(org, "windows")


def opened(package: bytes) -> tuple[ET.Element, dict[str, bytes]]:
    """What is in an `.intunewin`, as a reader opens it: MAC, key, padding, digest."""
    with zipfile.ZipFile(io.BytesIO(package)) as outer:
        info = parsed(outer.read("IntuneWinPackage/Metadata/Detection.xml"))
        sealed = outer.read(f"IntuneWinPackage/Contents/{info.findtext('FileName')}")
    names = ("EncryptionKey", "MacKey", "InitializationVector", "Mac", "FileDigest")
    secret = {name: base64.b64decode(info.findtext(f"EncryptionInfo/{name}") or "") for name in names}
    assert sealed[:32] == hmac.digest(secret["MacKey"], sealed[32:], "sha256") == secret["Mac"]
    assert sealed[32:48] == secret["InitializationVector"]
    decryptor = Cipher(algorithms.AES(secret["EncryptionKey"]), modes.CBC(sealed[32:48])).decryptor()
    padded = decryptor.update(sealed[48:]) + decryptor.finalize()
    plain = padded[: -padded[-1]]
    assert hashlib.sha256(plain).digest() == secret["FileDigest"]
    assert len(plain) == int(info.findtext("UnencryptedContentSize") or 0)
    with zipfile.ZipFile(io.BytesIO(plain)) as inner:
        return info, {name: inner.read(name) for name in inner.namelist()}


def test_intune_s_container_opens_and_holds_the_scripts(found: dict[str, bytes]) -> None:
    info, files = opened(found["intune/llmgw-claude-code.intunewin"])
    assert info.findtext("SetupFile") == "remediate.ps1"
    assert files == {name: found[f"intune/{name}"] for name in ("remediate.ps1", "remove.ps1")}


def test_workspace_one_takes_what_intune_takes(found: dict[str, bytes]) -> None:
    rows = json.loads(found["intune/oma-uri.json"])["omaSettings"]
    for name, row in zip(("template", "settings"), rows, strict=True):
        install = parsed(found[f"workspace-one/windows-{name}-install.xml"])
        remove = parsed(found[f"workspace-one/windows-{name}-remove.xml"])
        assert install.findtext(".//LocURI") == remove.findtext(".//LocURI") == row["omaUri"]
        assert install.findtext(".//Data") == row["value"]
        assert (remove.tag, remove.find(".//Data")) == ("Delete", None)


@pytest.mark.parametrize("name", PROFILES)
def test_workspace_one_gets_the_bare_payload_of_a_profile(found: dict[str, bytes], name: str) -> None:
    content = found[f"workspace-one/macos-{name}.xml"]
    assert content.startswith(b"<dict>")
    profile = plistlib.loads(found[f"macos/{name}.mobileconfig"])
    assert plistlib.loads(b'<plist version="1.0">' + content + b"</plist>") == profile["PayloadContent"][0]


POWERSHELL = ("intune/detect.ps1", "intune/remediate.ps1", "intune/remove.ps1", "workspace-one/windows-sensor.ps1")


@pytest.mark.parametrize("name", POWERSHELL)
def test_a_script_for_windows_is_ascii_with_its_line_ends(found: dict[str, bytes], name: str) -> None:
    content = found[name]
    assert content.isascii()
    assert content.count(b"\n") == content.count(b"\r\n")


def test_a_parser_of_powershell_takes_every_script(found: dict[str, bytes]) -> None:
    parser = tree_sitter.Parser(tree_sitter.Language(tree_sitter_powershell.language()))
    for name in POWERSHELL:
        assert not parser.parse(found[name]).root_node.has_error, name
        # It would say so: the last brace of a script is one that something needs.
        cut = found[name].rpartition(b"}")
        assert parser.parse(cut[0] + cut[2]).root_node.has_error, name


def test_every_script_for_windows_is_looked_at(found: dict[str, bytes]) -> None:
    assert {path for path in found if path.endswith(".ps1")} == set(POWERSHELL)


@pytest.mark.parametrize("name", [name for name in POWERSHELL if "remove" not in name])
def test_a_script_for_windows_wants_what_is_rendered(org: Organization, found: dict[str, bytes], name: str) -> None:
    wanted = re.search(r"^\$wanted = '(.*)'\r$", found[name].decode(), re.MULTILINE)
    assert wanted
    assert json.loads(wanted[1].replace("''", "'")) == policy.claude_code(org, "windows")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (r"C:\Program Files\x.exe", r"'C:\Program Files\x.exe'"),
        ("it's $home `n", "'it''s $home `n'"),
        ("C:\\Büro \u2019", "(ConvertFrom-Json '\"C:\\\\B\\u00fcro \\u2019\"')"),
    ],
)
def test_powershell_takes_a_text_as_it_is(text: str, wanted: str) -> None:
    assert powershell.quoted(text) == wanted


def test_the_role_is_spelt_as_its_linter_wants_it(found: dict[str, bytes]) -> None:
    for path in (path for path in found if path.endswith(".yml")):
        lines = found[path].decode().splitlines()
        assert lines[0] == "---"
        assert all(line == line.rstrip() and len(line) <= 160 for line in lines)


@pytest.mark.long
@pytest.mark.skipif(not shutil.which("ansible-lint"), reason="needs ansible-lint")
def test_a_linter_of_ansible_finds_nothing_in_the_role(org: Organization, tmp_path: Path) -> None:
    render.write(render.artefacts(org), tmp_path / "dist")
    folder = tmp_path / "dist" / "ansible"
    command = ["ansible-lint", "--offline", "--nocolor", "--profile=production", "site.yml", "roles"]
    env = os.environ | {"HOME": str(tmp_path)}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    tasks = folder / "roles" / "llmgw_settings" / "tasks" / "present.yml"
    tasks.write_text(tasks.read_text(encoding="utf-8").replace("ansible.builtin.copy", "copy"), encoding="utf-8")
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert "fqcn" in done.stdout, "it would say so"


def test_the_role_says_what_the_install_script_does(found: dict[str, bytes]) -> None:
    documents = {path: yaml.safe_load(content) for path, content in found.items() if path.endswith(".yml")}
    systems = documents[f"{ROLE}/vars/main.yml"]["llmgw_settings_by_system"]
    sources = {file["source"] for system in systems.values() for file in system["files"]}
    assert {f"{ROLE}/files/{name}" for name in sources} == {path for path in found if path.startswith(f"{ROLE}/files/")}
    for system, platform in (("Linux", "linux"), ("Darwin", "macos")):
        script = found[f"{platform}/install.sh"].decode()
        puts = re.findall(r"^put '?([^'\n]+?)'? <<", script, re.MULTILINE)
        assert [file["path"] for file in systems[system]["files"]] == puts
        for file in systems[system]["files"]:
            assert found[f"{ROLE}/files/{file['source']}"].decode() in script
            assert file["path"].rpartition("/")[0] in systems[system]["folders"]
    assert systems["Linux"]["files"][-1]["path"].startswith("/etc/claude-code"), "taken away first: it names the helper"
    assert documents[f"{ROLE}/tasks/absent.yml"][0]["loop"].endswith("| reverse }}")
