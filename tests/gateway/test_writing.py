"""Whose name stands behind a change: the system's word, not the environment's."""

from __future__ import annotations

import os
import pwd
import socket
from typing import TYPE_CHECKING

from llmgw_gateway.commands.writing import who

if TYPE_CHECKING:
    import pytest

ME = pwd.getpwuid(os.getuid()).pw_name


def test_it_is_whom_the_system_knows_whatever_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("USER", "LOGNAME", "USERNAME", "LNAME"):
        monkeypatch.setenv(name, "somebody-else")
    monkeypatch.delenv("SUDO_USER", raising=False)
    assert who() == f"{ME}@{socket.gethostname()}"


def test_under_sudo_it_is_also_for_whom(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUDO_USER", "ada")
    monkeypatch.setattr("os.getuid", lambda: 0)
    assert who() == f"ada/{pwd.getpwuid(0).pw_name}@{socket.gethostname()}"


def test_who_is_not_root_does_not_speak_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    other = next(entry for entry in pwd.getpwall() if entry.pw_uid != 0)
    monkeypatch.setenv("SUDO_USER", "ada")
    monkeypatch.setattr("os.getuid", lambda: other.pw_uid)
    assert who() == f"{pwd.getpwuid(other.pw_uid).pw_name}@{socket.gethostname()}"
