"""How a sign-in is carried out where nobody said how: by what the machine is like, and by what worked there before."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import pytest

from llmgw_agent import browser, ways

if TYPE_CHECKING:
    from pathlib import Path

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="the rules of Linux")
WSL = "5.15.167.4-microsoft-standard-WSL2\n"
URL = "https://id.example/authorize?state=a&scope=openid%20email&x='quoted'"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The files of a machine that is neither a container nor in Windows."""
    folder = tmp_path / "root"
    (folder / browser.KERNEL).parent.mkdir(parents=True)
    (folder / browser.KERNEL).write_text("6.1.0-32-amd64\n")
    (folder / "run").mkdir()
    return folder


@LINUX
@pytest.mark.parametrize(
    ("environ", "file", "kernel", "here"),
    [
        ({"DISPLAY": ":0"}, "", "", True),
        ({"WAYLAND_DISPLAY": "wayland-0"}, "", "", True),
        ({}, "", "", False),
        ({"DISPLAY": "localhost:10.0", "SSH_CONNECTION": "a 1 b 2"}, "", "", False),
        ({"DISPLAY": ":0"}, ".dockerenv", "", False),
        ({"DISPLAY": ":0"}, "run/.containerenv", "", False),
        ({"BROWSER": "/x/browser.sh", "VSCODE_IPC_HOOK_CLI": "/run/x.sock"}, ".dockerenv", "", True),
        ({"BROWSER": "/x/browser.sh", "VSCODE_IPC_HOOK_CLI": "/run/x.sock", "SSH_TTY": "/dev/pts/1"}, "", "", True),
        ({"BROWSER": "firefox"}, "", "", True),
        ({"BROWSER": "lynx", "SSH_TTY": "/dev/pts/1"}, "", "", False),
        ({}, "", WSL, True),
        ({"SSH_TTY": "/dev/pts/1"}, "", WSL, False),
    ],
)
def test_where_the_person_s_browser_is(
    root: Path, environ: dict[str, str], file: str, kernel: str, *, here: bool
) -> None:
    if file:
        (root / file).touch()
    if kernel:
        (root / browser.KERNEL).write_text(kernel)
    assert browser.is_here(environ, root) is here


@LINUX
def test_within_windows_its_own_browser_is_opened_and_no_shell_reads_the_address(root: Path) -> None:
    assert browser.openers(URL, {}, root) == []
    (root / browser.KERNEL).write_text(WSL)
    assert browser.openers(URL, {"BROWSER": "firefox"}, root) == [], "what the user named comes first"
    helper, windows = browser.openers(URL, {}, root)
    assert helper == ["/usr/bin/wslview", URL]
    assert windows[0].endswith("/powershell.exe")
    assert windows[-1] == f"Start-Process '{URL.replace(chr(39), '%27')}'"


def test_a_machine_in_front_of_the_person_opens_a_browser_and_another_one_asks(tmp_path: Path) -> None:
    far = {"SSH_TTY": "/dev/pts/1"}
    near = {"BROWSER": "firefox"}
    if browser.is_here(near):  # a container has none of its own
        assert ways.wanted("auto", near, tmp_path, has_terminal=True) == ["browser", "paste", "device"]
    assert ways.wanted("auto", far, tmp_path, has_terminal=True) == ["paste", "browser", "device"]
    assert ways.wanted("auto", far, tmp_path, has_terminal=False) == ["browser", "paste", "device"]
    assert ways.wanted("device", near, tmp_path, has_terminal=True) == ["device"]


def test_what_was_asked_for_and_worked_comes_first_on_this_host_only(tmp_path: Path) -> None:
    far = {"SSH_TTY": "/dev/pts/1"}
    ways.remember(tmp_path, "device")
    ways.remember(tmp_path, "browser", host="another")
    assert ways.wanted("auto", far, tmp_path, has_terminal=True) == ["device", "paste", "browser"]
    assert ways.remembered(tmp_path, "another") == "browser"
    ways.remember(tmp_path, "paste")
    assert ways.wanted("auto", far, tmp_path, has_terminal=True)[0] == "paste"
    assert ways.wanted("auto", far, tmp_path, has_terminal=False)[0] == "browser", "there is nobody to paste"


def test_a_home_of_many_hosts_keeps_the_latest(tmp_path: Path) -> None:
    for number in range(ways.MOST_HOSTS + 5):
        ways.remember(tmp_path, "paste", host=f"host-{number}")
    kept = json.loads((tmp_path / ways.FILE).read_text())
    assert len(kept) == ways.MOST_HOSTS
    assert f"host-{ways.MOST_HOSTS + 4}" in kept


@pytest.mark.parametrize("content", ["", "[]", '{"x": 1', "\0"])
def test_a_file_that_is_none_is_as_good_as_no_file(tmp_path: Path, content: str) -> None:
    (tmp_path / ways.FILE).write_text(content)
    assert ways.remembered(tmp_path) is None
    ways.remember(tmp_path, "paste")
    assert ways.remembered(tmp_path) == "paste"


def test_a_folder_that_cannot_be_written_costs_nothing(tmp_path: Path) -> None:
    ways.remember(tmp_path / "nowhere", "paste")
    assert ways.remembered(tmp_path / "nowhere") is None
