"""Both sides of the seam offer the same, and Windows' side answers as far as that can be seen from elsewhere."""

from __future__ import annotations

import inspect
import subprocess
from pathlib import PureWindowsPath
from typing import Any, Self

import pytest

from llmgw_agent import system
from llmgw_agent.errors import UsageError
from llmgw_agent.system import unix, windows
from llmgw_agent.windows import processes, registry
from llmgw_agent.windows.service import _arguments, _only_kept

SID = "S-1-5-21-1-2-3-1001"


@pytest.mark.parametrize("name", system.__all__)
def test_both_sides_offer_the_same(name: str) -> None:
    here, there = getattr(unix, name), getattr(windows, name)
    if callable(here):
        first, second = (
            [each for each in inspect.signature(side).parameters.values() if each.default is inspect.Parameter.empty]
            for side in (here, there)
        )
        assert [each.name.lstrip("_") for each in first] == [each.name.lstrip("_") for each in second]
    else:
        assert type(here) is type(there)


def test_the_pipe_s_name_stays_one_as_a_path() -> None:
    path = f"\\\\.\\pipe\\llmgw-{SID}@work"
    assert str(PureWindowsPath(path)) == path


@pytest.mark.parametrize("profile", ["", "work"])
def test_a_line_for_cmd_is_in_quotes(profile: str) -> None:
    line = windows.line_for(("C:\\Program Files\\llmgw\\llmgw-token.exe",), profile)
    assert line.endswith('"C:\\Program Files\\llmgw\\llmgw-token.exe"')
    assert line.startswith('set "LLMGW_PROFILE=work"&& ' if profile else '"')
    assert windows.line_for(("C:\\llmgw.exe", "statusline"), "") == '"C:\\llmgw.exe" statusline'


def test_a_tool_without_a_shell_gets_no_profile() -> None:
    assert windows.words_for(("llmgw-token.exe",), "") == ["llmgw-token.exe"]
    with pytest.raises(UsageError, match="work"):
        windows.words_for(("llmgw-token.exe",), "work")


class Registry:
    """winreg, over one key."""

    HKEY_LOCAL_MACHINE = "HKLM"
    HKEY_CURRENT_USER = "HKCU"

    def __init__(self, keys: dict[tuple[str, str], dict[str, Any]]) -> None:
        self._keys = keys

    def OpenKey(self, root: str, below: str, _reserved: int = 0, access: int = 0) -> Key:  # noqa: N802
        assert root == "HKCU" or access == 0x20119
        if (root, below) not in self._keys:
            raise FileNotFoundError(2, "no such key")
        return Key(self._keys[root, below])

    def QueryInfoKey(self, key: Key) -> tuple[int, int, int]:  # noqa: N802
        return 0, len(key.values), 0

    def EnumValue(self, key: Key, number: int) -> tuple[str, Any, int]:  # noqa: N802
        return *list(key.values.items())[number], 1

    def QueryValueEx(self, key: Key, name: str) -> tuple[Any, int]:  # noqa: N802
        if name not in key.values:
            raise FileNotFoundError(2, "no such value")
        return key.values[name], 1


class Key:
    def __init__(self, values: dict[str, Any]) -> None:
        self.values = values

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def test_a_company_s_settings_stand_in_the_registry() -> None:
    values = {"": "ours", "gateway_url": "https://llm.corp.example", "forward_port": 0, "sign_in_methods": ["browser"]}
    found = Registry({("HKLM", "SOFTWARE\\Policies\\llmgw"): values})
    place = PureWindowsPath(str(registry.place(registry.AGENT)))
    assert registry.is_key(registry.place(registry.AGENT))
    assert str(place) == "HKEY_LOCAL_MACHINE\\SOFTWARE\\Policies\\llmgw"
    assert registry.read(registry.place(registry.AGENT), found) == {
        "gateway_url": "https://llm.corp.example",
        "forward_port": 0,
        "sign_in_methods": ["browser"],
    }
    with pytest.raises(FileNotFoundError):
        registry.read(registry.place(registry.CLAUDE), found)


def test_a_user_s_own_part_of_the_registry_manages_nothing() -> None:
    found = Registry({("HKCU", "SOFTWARE\\Policies\\llmgw"): {"gateway_url": "https://evil.example"}})
    with pytest.raises(FileNotFoundError):
        registry.read(registry.place(registry.AGENT), found)


def test_a_task_gets_what_every_program_of_the_user_gets() -> None:
    found = Registry({("HKCU", "Environment"): {"LLMGW_GATEWAY_URL": "https://llm.corp.example"}})

    def stored(name: str) -> str:
        return registry.user_variable(name, found)

    _only_kept({"LLMGW_GATEWAY_URL": "https://llm.corp.example", "LLMGW_PROFILE": "work"}, stored)
    with pytest.raises(UsageError, match="LLMGW_CA_FILE is set in this shell only") as raised:
        _only_kept({"LLMGW_CA_FILE": "C:\\ca.pem"}, stored)
    assert raised.value.hint.startswith('Run: setx LLMGW_CA_FILE "C:\\ca.pem"')
    with pytest.raises(UsageError):
        _only_kept({"LLMGW_GATEWAY_URL": "https://other.example"}, stored)


def test_a_profile_stands_in_its_task() -> None:
    assert _arguments({}) == "-I -m llmgw_agent.daemon"
    assert _arguments({"LLMGW_PROFILE": "default"}) == _arguments({})
    line = _arguments({"LLMGW_PROFILE": "work"})
    assert "os.environ['LLMGW_PROFILE'] = 'work'" in line
    assert subprocess.list2cmdline(["-I", "-c", line.removeprefix('-I -c "').removesuffix('"')]) == line


def test_what_cannot_be_called_is_told() -> None:
    assert not processes.is_alive(1)  # there is no kernel32 here
    assert processes.folder_of(1) is None
    assert processes.environment_of(1) == {}
