"""For Ansible: a role that puts Linux's files and macOS's drop-in there, or takes them away. Pure.

The role uses built-in modules only, and changes nothing when it runs again.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from llmgw_mdm import policy, shapes
from llmgw_mdm.artefact import Artefact
from llmgw_mdm.places import DROP_IN

if TYPE_CHECKING:
    from collections.abc import Iterator

    from llmgw_mdm.organization import Organization

ROLE: Final = "ansible/roles/llmgw_settings"
FOLDERS: Final = {"linux": "/etc/claude-code", "macos": "/Library/Application Support/ClaudeCode"}
SYSTEMS: Final = {"linux": "Linux", "macos": "Darwin"}
HEAD: Final = "---\n# Rendered by `llmgw mdm render`: change org.toml and render again.\n"
PLAYBOOK: Final = """- name: Managed settings of Claude Code and of the llmgw agent
  hosts: all
  become: true
  roles:
    - role: llmgw_settings
"""
DEFAULTS: Final = """# present, or absent: takes everything away again.
llmgw_settings_state: present
"""
META: Final = """galaxy_info:
  author: llmgw
  description: Leads Claude Code to the company's gateway
  license: Apache-2.0
  min_ansible_version: "2.15"
  platforms:
    - name: GenericLinux
      versions:
        - all
dependencies: []
"""
MAIN: Final = """- name: Apply to the systems that the organisation has
  ansible.builtin.include_tasks: "{{ llmgw_settings_state }}.yml"
  when: ansible_facts['system'] in llmgw_settings_by_system
"""
VARIABLES: Final = "llmgw_settings_by_system:\n"
SYSTEM: Final = """  {system}:
    helper: {helper}
    folders:{folders}
    files:{files}
"""
PRESENT: Final = """- name: Look for the agent's helper
  ansible.builtin.stat:
    path: "{{ llmgw_settings_by_system[ansible_facts['system']].helper }}"
  register: llmgw_settings_helper

- name: Stop where the agent is missing, because Claude Code would not start
  ansible.builtin.assert:
    that: llmgw_settings_helper.stat.exists
    fail_msg: Install the agent first

- name: Make folders
  ansible.builtin.file:
    path: "{{ item }}"
    state: directory
    owner: "0"
    group: "0"
    mode: "0755"
  loop: "{{ llmgw_settings_by_system[ansible_facts['system']].folders }}"

- name: Put settings there
  ansible.builtin.copy:
    src: "{{ item.source }}"
    dest: "{{ item.path }}"
    owner: "0"
    group: "0"
    mode: "0644"
  loop: "{{ llmgw_settings_by_system[ansible_facts['system']].files }}"
  loop_control:
    label: "{{ item.path }}"
"""
ABSENT: Final = """# Claude Code's settings first: they name the helper. Folders stay: others may use them.
- name: Take settings away
  ansible.builtin.file:
    path: "{{ item.path }}"
    state: absent
  loop: "{{ llmgw_settings_by_system[ansible_facts['system']].files | reverse }}"
  loop_control:
    label: "{{ item.path }}"
"""


def artefacts(org: Organization) -> Iterator[Artefact]:
    """The role with its files, and a playbook. Nothing where there is Windows only."""
    platforms = [platform for platform in org.platforms if platform in FOLDERS]
    if not platforms:
        return
    yield _text("ansible/site.yml", PLAYBOOK, "playbook: the role on every host")
    yield _text(f"{ROLE}/defaults/main.yml", DEFAULTS, "`llmgw_settings_state`: present, or absent for the removal")
    yield _text(f"{ROLE}/meta/main.yml", META, "what the role is")
    yield _text(f"{ROLE}/tasks/main.yml", MAIN, "chooses what to do")
    yield _text(f"{ROLE}/tasks/present.yml", PRESENT, "puts drop-in and agent settings there")
    yield _text(f"{ROLE}/tasks/absent.yml", ABSENT, "takes both away")
    variables = VARIABLES + "".join(_system(org, platform) for platform in platforms)
    yield _text(f"{ROLE}/vars/main.yml", variables, "what lies where")
    for platform in platforms:
        claude = shapes.as_json(policy.claude_code(org, platform))
        yield Artefact(f"{ROLE}/files/{platform}-{DROP_IN}", claude, "Claude Code's drop-in")
    if "linux" in platforms:
        agent = shapes.as_toml(policy.agent(org, "linux"))
        yield Artefact(f"{ROLE}/files/managed.toml", agent, "our agent's settings")


def _system(org: Organization, platform: str) -> str:
    folder = f"{FOLDERS[platform]}/managed-settings.d"
    files = [{"source": f"{platform}-{DROP_IN}", "path": f"{folder}/{DROP_IN}"}]
    folders = [FOLDERS[platform], folder]
    if platform == "linux":
        files.insert(0, {"source": "managed.toml", "path": "/etc/llmgw/managed.toml"})
        folders.insert(0, "/etc/llmgw")
    # JSON is YAML.
    return SYSTEM.format(
        system=SYSTEMS[platform],
        helper=json.dumps(org.helpers[platform]),
        folders=_listed(folders),
        files=_listed(files),
    )


def _listed(values: list[str] | list[dict[str, str]]) -> str:
    """A list as YAML, each element on a line of its own, and there as JSON."""
    return "".join(f"\n      - {_element(value)}" for value in values)


def _element(value: str | dict[str, str]) -> str:
    if isinstance(value, str):
        return json.dumps(value)
    return "{" + ", ".join(f"{key}: {json.dumps(each)}" for key, each in value.items()) + "}"


def _text(path: str, content: str, purpose: str) -> Artefact:
    return Artefact(path, (HEAD + content).encode(), purpose)
