"""`llmgw service` on Windows: a task of this user in the task scheduler. It needs no administrator."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from llmgw_agent import settings
from llmgw_agent.errors import ConfigurationError, TemporaryError, UsageError
from llmgw_agent.service import KEPT, State
from llmgw_agent.token_stub import profile_of
from llmgw_agent.windows import registry, task
from llmgw_agent.windows.api import WINDOWS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

SECONDS: Final = 20.0
ARGUMENTS: Final = ("-I", "-m", "llmgw_agent.daemon")
FOLDER: Final = "tasks"
"""Below the agent's own folder: the task as it was given to the scheduler."""


def install(environ: Mapping[str, str]) -> State:
    """Write the task and start it; ConfigurationError if the settings are wrong or the file cannot be written.

    UsageError if a setting stands in this shell only: the scheduler would not pass it on. TemporaryError if the
    scheduler does not take the task.
    """
    settings.load(environ)
    _only_kept(environ, registry.user_variable)
    path, task_name = _place(environ)
    text = task.task_xml(str(_python()), _arguments(environ), WINDOWS.own_sid())
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode(task.ENCODING))
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be written ({error.strerror})", "Check who owns it") from None
    try:
        _run(["/create", "/f", "/tn", task_name, "/xml", str(path)], environ)
        stop = [sys.executable, "-I", "-c", "from llmgw_agent.cli import main; main()", "daemon", "stop"]
        subprocess.run(stop, env=dict(environ), capture_output=True, timeout=SECONDS, check=False)  # noqa: S603 -- ours
        _run(["/run", "/tn", task_name], environ)
    except (TemporaryError, UsageError):
        path.unlink(missing_ok=True)
        raise
    return state(environ)


def uninstall(environ: Mapping[str, str]) -> State:
    """End the task and remove it; UsageError if there is none."""
    path, task_name = _place(environ)
    if not path.exists():
        raise UsageError("the service is not installed", "Run: llmgw service install")
    _run(["/end", "/tn", task_name], environ, must=False)
    _run(["/delete", "/f", "/tn", task_name], environ, must=False)
    path.unlink(missing_ok=True)
    return state(environ)


def state(environ: Mapping[str, str]) -> State:
    """What is there now."""
    path, task_name = _place(environ)
    says = ""
    if path.exists():
        code, said = _run(["/query", "/fo", "csv", "/nh", "/tn", task_name], environ, must=False)
        says = (
            said.splitlines()[-1].rpartition(",")[2].strip('" ') if said and not code else "not in the task scheduler"
        )
    return State((path,), path.exists(), says)


def _only_kept(environ: Mapping[str, str], stored: Callable[[str], str]) -> None:
    """UsageError for a setting that the scheduler would not pass on; the profile stands in the task itself."""
    for name in KEPT:
        if environ.get(name) and name != "LLMGW_PROFILE" and stored(name) != environ[name]:
            hint = f'Run: setx {name} "{environ[name]}", or write it into config.toml'
            raise UsageError(f"{name} is set in this shell only, and a task gets no variables of it", hint)


def _arguments(environ: Mapping[str, str]) -> str:
    profile = profile_of(dict(environ))
    if not profile:
        return subprocess.list2cmdline(ARGUMENTS)
    # A task has no variables of its own. The name of a profile is letters, digits and dashes: nothing needs quoting.
    return (
        f"-I -c \"import os; os.environ['LLMGW_PROFILE'] = '{profile}'; from llmgw_agent.daemon import main; main()\""
    )


def _place(environ: Mapping[str, str]) -> tuple[Path, str]:
    where = settings.places(environ)
    return where.home / FOLDER / "llmgw.xml", task.name(WINDOWS.own_sid(), where.profile)


def _python() -> Path:
    quiet = Path(sys.executable).with_name("pythonw.exe")
    return quiet if quiet.exists() else Path(sys.executable)


def _run(words: Sequence[str], environ: Mapping[str, str], *, must: bool = True) -> tuple[int, str]:
    program = shutil.which("schtasks", path=str(Path(environ.get("SYSTEMROOT") or os.sep) / "System32"))
    if program is None:
        raise UsageError(
            "there is no task scheduler on this machine", "Start the agent with the session by: llmgw daemon"
        )
    try:
        done = subprocess.run(  # noqa: S603 -- the task scheduler, with words of ours
            [program, *words], env=dict(environ), capture_output=True, timeout=SECONDS, check=False
        )
        code, said = done.returncode, (done.stdout or done.stderr).decode(errors="replace").strip()
    except subprocess.TimeoutExpired:
        code, said = 1, f"no answer within {SECONDS:g} s"
    if code and must:
        told = said.splitlines()[-1][:200] if said else f"exit code {code}"
        raise TemporaryError(f"schtasks did not take the task ({told})", "Run it in your own session")
    return code, said
