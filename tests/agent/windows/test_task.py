"""The scheduled task, as its schema wants it (Task Scheduler Schema 1.2): what stands where, and in which order."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from llmgw_agent.windows import task

NAMESPACE = "{http://schemas.microsoft.com/windows/2004/02/mit/task}"
SID = "S-1-5-21-1-2-3-1001"
PYTHON = "C:\\Program Files\\R & D\\pythonw.exe"
SETTINGS = {
    "MultipleInstancesPolicy": {"IgnoreNew", "Parallel", "Queue", "StopExisting"},
    "DisallowStartIfOnBatteries": {"true", "false"},
    "StopIfGoingOnBatteries": {"true", "false"},
    "AllowHardTerminate": {"true", "false"},
    "StartWhenAvailable": {"true", "false"},
    "RunOnlyIfNetworkAvailable": {"true", "false"},
    "IdleSettings": set[str](),
    "AllowStartOnDemand": {"true", "false"},
    "Enabled": {"true", "false"},
    "Hidden": {"true", "false"},
    "RunOnlyIfIdle": {"true", "false"},
    "WakeToRun": {"true", "false"},
    "ExecutionTimeLimit": {"PT0S"},
    "Priority": {str(number) for number in range(11)},
    "RestartOnFailure": set[str](),
}


def rendered(user: str | None) -> ET.Element:
    content = task.task_xml(PYTHON, '-I -c "1 < 2"', user).encode(task.ENCODING)
    assert content.startswith((b"\xff\xfe", b"\xfe\xff"))
    return ET.fromstring(content)  # noqa: S314 -- our own


def children(root: ET.Element, path: str = "") -> list[str]:
    found = root.find("/".join(f"{NAMESPACE}{part}" for part in path.split("/"))) if path else root
    assert found is not None
    return [child.tag.removeprefix(NAMESPACE) for child in found]


def text(root: ET.Element, path: str) -> str:
    return root.findtext("/".join(f"{NAMESPACE}{part}" for part in path.split("/"))) or ""


@pytest.mark.parametrize("user", [SID, None], ids=["one", "all"])
def test_it_is_a_task_of_the_schema(user: str | None) -> None:
    root = rendered(user)
    assert (root.tag, root.get("version")) == (f"{NAMESPACE}Task", "1.2")
    assert children(root) == ["RegistrationInfo", "Triggers", "Principals", "Settings", "Actions"]
    principal = root.find(f"{NAMESPACE}Principals/{NAMESPACE}Principal")
    actions = root.find(f"{NAMESPACE}Actions")
    assert principal is not None
    assert actions is not None
    assert principal.get("id") == actions.get("Context")
    for name, allowed in SETTINGS.items():
        assert not allowed or text(root, f"Settings/{name}") in allowed, name
    assert set(children(root, "Settings")) == set(SETTINGS)
    assert children(root, "Settings/RestartOnFailure") == ["Interval", "Count"]
    assert (text(root, "Actions/Exec/Command"), text(root, "Actions/Exec/Arguments")) == (PYTHON, '-I -c "1 < 2"')


@pytest.mark.parametrize("user", [SID, None], ids=["one", "all"])
def test_it_needs_no_administrator_and_ends_by_itself_never(user: str | None) -> None:
    root = rendered(user)
    assert text(root, "Principals/Principal/RunLevel") == "LeastPrivilege"
    assert text(root, "Settings/ExecutionTimeLimit") == "PT0S"
    assert text(root, "Settings/StopIfGoingOnBatteries") == "false"
    assert text(root, "Settings/RunOnlyIfIdle") == "false"


def test_one_user_s_task_is_theirs_alone() -> None:
    root = rendered(SID)
    assert children(root, "Triggers/LogonTrigger") == ["Enabled", "UserId"]
    assert text(root, "Triggers/LogonTrigger/UserId") == SID
    assert children(root, "Principals/Principal") == ["UserId", "LogonType", "RunLevel"]
    assert text(root, "Principals/Principal/LogonType") == "InteractiveToken"
    assert text(root, "Settings/MultipleInstancesPolicy") == "IgnoreNew"


def test_everybody_s_task_runs_beside_itself() -> None:
    root = rendered(None)
    assert children(root, "Triggers/LogonTrigger") == ["Enabled"]
    assert children(root, "Principals/Principal") == ["GroupId", "RunLevel"]
    assert text(root, "Principals/Principal/GroupId") == "S-1-5-32-545"
    assert text(root, "Settings/MultipleInstancesPolicy") == "Parallel"


def test_names() -> None:
    assert task.name(SID) == f"llmgw-{SID}"
    assert task.name(SID, "work") == f"llmgw-{SID}@work"
