"""The shell scripts that put files in place and take them away: short, for `sh`, run as root by any MDM."""

from __future__ import annotations

import shlex
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

END: Final = "LLMGW-END-OF-FILE"
HEAD: Final = "#!/bin/sh\n# Rendered by `llmgw mdm render`: change org.toml and render again.\nset -eu\numask 022\n"
ROOT: Final = '[ "$(id -u)" = 0 ] || { echo "llmgw: run this as root" >&2; exit 1; }\n'
PUT: Final = """
put() {
  mkdir -p "$(dirname "$1")"
  # Beside it, then renamed: a program that reads meanwhile finds the old file or the new one, never half of one.
  # Its name is hidden and has another ending: nobody takes it for a drop-in.
  new="$(dirname "$1")/.llmgw-new.$$"
  trap 'rm -f "$new"' EXIT
  cat > "$new"
  chmod 0644 "$new"
  mv -f "$new" "$1"
}
"""


def install(files: Sequence[tuple[str, bytes]]) -> bytes:
    """Writes files with their content; running it twice changes nothing."""
    parts = [HEAD, ROOT, PUT]
    for path, content in files:
        parts.append(f"\nput {shlex.quote(path)} <<'{END}'\n{content.decode()}{END}\n")
    return "".join(parts).encode()


def remove(files: Sequence[tuple[str, bytes]], profiles: Sequence[str] = ()) -> bytes:
    """Deletes files, and folders that are empty then; on macOS also profiles that no MDM has installed."""
    parts = [HEAD, ROOT, "\n"]
    # Claude Code's settings first: they name the helper.
    for path, _ in reversed(files):
        quoted = shlex.quote(path)
        parts.append(f"rm -f {quoted}\n")
        parts.append(f'rmdir "$(dirname {quoted})" 2>/dev/null || true\n')
    if profiles:
        parts.append("# What an MDM has installed, only the MDM can take away.\n")
    parts += [f"profiles remove -identifier {shlex.quote(name)} 2>/dev/null || true\n" for name in profiles]
    return "".join(parts).encode()


MARKED: Final = """
# A file that others may have written: theirs stays.
if [ -e {path} ] && ! grep -qxF {mark} {path}; then
  echo {told} >&2
  exit 1
fi
"""


def install_marked(path: str, content: bytes, mark: str) -> bytes:
    """Writes the one file of its kind, unless somebody else has: ours has a line that says so."""
    told = f"llmgw: {path} is somebody else's: put what is rendered into it"
    guard = MARKED.format(path=shlex.quote(path), mark=shlex.quote(mark), told=shlex.quote(told))
    return f"{HEAD}{ROOT}{guard}{PUT}\nput {shlex.quote(path)} <<'{END}'\n{content.decode()}{END}\n".encode()


def remove_marked(path: str, mark: str) -> bytes:
    """Deletes it, unless it is somebody else's."""
    told = f"llmgw: {path} is somebody else's: take what was rendered out of it"
    guard = MARKED.format(path=shlex.quote(path), mark=shlex.quote(mark), told=shlex.quote(told))
    quoted = shlex.quote(path)
    return f'{HEAD}{ROOT}{guard}rm -f {quoted}\nrmdir "$(dirname {quoted})" 2>/dev/null || true\n'.encode()


AUDIT: Final = """#!/bin/sh
# Rendered by `llmgw mdm render`: change org.toml and render again.
# Whether this machine leads Claude Code to the gateway, and to nothing else.
set -u
llmgw={llmgw}
helper={helper}
gateway={gateway}
state() {{
  if [ ! -x "$helper" ] || [ ! -x "$llmgw" ]; then
    echo "agent missing"
  elif "$llmgw" mdm show --gateway "$gateway" >/dev/null 2>&1; then
    echo "in force"
  else
    echo "not in force"
  fi
}}
"""
AUDITS: Final = {
    "status": 'found="$(state)"\necho "$found"\n[ "$found" = "in force" ]\n',
    "tag": 'echo "<result>$(state)</result>"\n',
    "line": "state\n",
}
"""How each console wants the answer: as exit code, in a tag, or as the only line."""


def audit(answer: str, helper: str, gateway_url: str) -> bytes:
    """A script that tells a console how a laptop stands, in one of the ways of `AUDITS`; it changes nothing."""
    llmgw = str(PurePosixPath(helper).with_name("llmgw"))
    values = {"llmgw": llmgw, "helper": helper, "gateway": gateway_url}
    return (AUDIT.format(**{key: shlex.quote(value) for key, value in values.items()}) + AUDITS[answer]).encode()


def remove_on_windows(files: Sequence[str]) -> bytes:
    """The same for `cmd`, run as administrator."""
    lines = ["@echo off", "rem Rendered by `llmgw mdm render`: change org.toml and render again."]
    lines += [f'if exist "{path}" del /f /q "{path}"' for path in files]
    return ("\r\n".join(lines) + "\r\n").encode()
