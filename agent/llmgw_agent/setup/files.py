"""Carries edits out: reads, backs up, replaces a file in one step, remembers what was written, and takes that back."""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import json
import os
import stat
import tempfile
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from llmgw_agent import system
from llmgw_agent.errors import ConfigurationError
from llmgw_agent.redaction import redacted
from llmgw_agent.setup import edits, jsonc

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llmgw_agent.setup.edits import Edit

MOST_BYTES: Final = 4 * 1024 * 1024
PRIVATE: Final = 0o600
CONTEXT_LINES: Final = 2
BY_HAND: Final = "Correct that, or see docs/agent.md for what to write there by hand"


@dataclass(frozen=True, slots=True)
class Target:
    """One file of a tool, and what has to stand in it."""

    path: Path
    edits: tuple[Edit, ...]
    is_private: bool = False
    """It comes to hold the forwarder's secret: nobody else may read it."""


@dataclass(slots=True)
class Change:
    """What is done to one file: `None` for a file that is not there before, or afterwards."""

    path: Path
    before: bytes | None
    after: bytes | None
    mode: int
    """Permissions afterwards."""
    made: tuple[Edit, ...] = ()
    left: list[str] = field(default_factory=list)
    """What was not taken back, because it was changed since."""

    @property
    def state(self) -> str:
        """created, changed, removed, or unchanged."""
        if self.before == self.after:
            return "unchanged"
        return "created" if self.before is None else "removed" if self.after is None else "changed"

    @property
    def backup(self) -> Path:
        """Where the file is kept as it was before the first edit."""
        return self.path.with_name(self.path.name + ".before-llmgw")

    def diff(self) -> str:
        """What changes, for a person; credentials are not shown."""
        old, new = ((content or b"").decode(errors="replace").splitlines() for content in (self.before, self.after))
        name = str(self.path)
        return "\n".join(
            redacted(line) for line in difflib.unified_diff(old, new, name, name, n=CONTEXT_LINES, lineterm="")
        )


def plan(target: Target) -> Change:
    """What `target` means for the file as it is now. ConfigurationError if it cannot be edited safely."""
    path = target.path.resolve()  # a link into somebody's dotfiles stays a link
    before, mode = _read(path)
    text = (before or b"").decode("utf-8", errors="surrogateescape")
    made: list[Edit] = []
    try:
        for edit in target.edits:
            text, done = edit.make(text)
            made.append(done)
        _check(path, text)
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"{path} is not changed: {error}", BY_HAND) from None
    mode = PRIVATE if before is None or target.is_private else mode
    return Change(path, before, text.encode("utf-8", errors="surrogateescape"), mode, tuple(made))


def carry_out(change: Change) -> None:
    """Make it so, in one step; ConfigurationError if the file has changed meanwhile or cannot be written."""
    if _read(change.path)[0] != change.before:
        raise ConfigurationError(f"{change.path} was changed by another program in this moment", "Repeat the command")
    try:
        if change.after is None:
            change.path.unlink(missing_ok=True)
            return
        change.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=change.path.parent, prefix=".llmgw-")
        try:
            with os.fdopen(handle, "wb") as file:
                system.restrict(handle, Path(name), change.mode)
                file.write(change.after)
                file.flush()
                os.fsync(handle)
            Path(name).replace(change.path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise ConfigurationError(f"{change.path} cannot be written ({error.strerror})", "Check who owns it") from None


class Receipts:
    """What was written for each tool: a file of ours, for its owner alone."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def tools(self) -> list[str]:
        """The tools that are set up."""
        return sorted(self._load())

    def keep(self, tool: str, changes: Sequence[Change]) -> None:
        """Back up what is about to be changed, and remember it. Before the files are written, never after."""
        document = self._load()
        known = {entry["path"]: entry for entry in document.get(tool, [])}
        entries = [_entry(change, known.pop(str(change.path), None)) for change in changes]
        document[tool] = [*entries, *known.values()]
        self._store(document)

    def undo(self, tool: str) -> list[Change]:
        """What has to be done to take everything back. Nothing is done yet."""
        changes = []
        for entry in self._load().get(tool, []):
            path = Path(entry["path"])
            before, mode = _read(path)
            change = Change(path, before, before, entry["mode"] or mode)
            if before is None:
                change.left.append("it is gone")
            elif _is_as_written(entry, change):
                change.after = _read(change.backup)[0] if entry["existed"] else None
            else:
                _take_back(change, [edits.load(each) for each in entry["edits"]])
            changes.append(change)
        return changes

    def forget(self, tool: str) -> None:
        """It is no longer set up; backups of files that are as they were go, too."""
        document = self._load()
        for entry in document.pop(tool, []):
            path = Path(entry["path"])
            backup = path.with_name(path.name + ".before-llmgw")
            if _read(backup)[0] == _read(path)[0]:
                backup.unlink(missing_ok=True)
        self._store(document)

    def _load(self) -> dict[str, Any]:
        content = _read(self._path)[0]
        try:
            document = json.loads(content or b'{"tools": {}}')["tools"]
        except (ValueError, KeyError, TypeError):
            document = None
        if not isinstance(document, dict):
            raise ConfigurationError(f"{self._path} is not what was written there", "Move it away") from None
        return document

    def _store(self, tools: dict[str, Any]) -> None:
        content = json.dumps({"schema": 1, "tools": tools}, indent=2).encode()
        carry_out(Change(self._path, _read(self._path)[0], content, PRIVATE))


def _is_as_written(entry: dict[str, Any], change: Change) -> bool:
    """Whether nobody else has written to a file, so that it can be put back byte for byte."""
    if not entry["exact"] or (entry["existed"] and not change.backup.exists()):
        return False
    return bool(hashlib.sha256(change.before or b"").hexdigest() == entry["written"])


def _entry(change: Change, known: dict[str, Any] | None) -> dict[str, Any]:
    """What is remembered of a change. What stood there before the first time is what counts."""
    digest = hashlib.sha256(change.before or b"").hexdigest()
    made = [edits.dump(edit) for edit in change.made]
    if known is None:
        existed = change.before is not None
        if existed:
            carry_out(Change(change.backup, _read(change.backup)[0], change.before, PRIVATE))
        mode = stat.S_IMODE(change.path.stat().st_mode) if existed else 0
        known = {"path": str(change.path), "existed": existed, "mode": mode, "exact": True, "edits": []}
        digest = ""
    first = {json.dumps(_place(each)): each for each in known["edits"]}
    for each in made:
        earlier = first.get(json.dumps(_place(each)))
        if earlier is not None:
            each |= {name: earlier[name] for name in ("before", "had") if name in earlier}
    return known | {
        "edits": [*made, *(each for key, each in first.items() if key not in {json.dumps(_place(e)) for e in made})],
        # Somebody else has written to it since: from then on only our own lines are taken back.
        "exact": known["exact"] and digest in {"", known.get("written", "")},
        "written": hashlib.sha256(change.after or b"").hexdigest(),
    }


def _place(edit: dict[str, Any]) -> list[Any]:
    """What an edit is about: two of the same place are one."""
    return [edit["kind"], edit.get("path") or edit.get("tool") or str(edit.get("line")).partition("=")[0]]


def _take_back(change: Change, made: Sequence[Edit]) -> None:
    text = (change.before or b"").decode("utf-8", errors="surrogateescape")
    for edit in reversed(made):
        try:
            rest = edit.unmake(text)
        except (ValueError, RecursionError):
            rest = None
        if rest is None:
            change.left.append(_told(edit))
        else:
            text = rest
    change.after = text.encode("utf-8", errors="surrogateescape")


def _told(edit: Edit) -> str:
    if isinstance(edit, edits.Member):
        return ".".join(edit.path)
    return edit.line.partition("=")[0].strip() if isinstance(edit, edits.RootKey) else f"the lines of {edit.tool}"


def _check(path: Path, text: str) -> None:
    """Read what was made as its tool will; ValueError if it is broken."""
    if path.suffix in {".json", ".jsonc"}:
        jsonc.loads(text)
    elif path.suffix == ".toml":
        tomllib.loads(text)


def _read(path: Path) -> tuple[bytes | None, int]:
    """The content, None if there is none, and the permissions."""
    try:
        with contextlib.closing(os.fdopen(os.open(path, system.READING), "rb")) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode) or status.st_size > MOST_BYTES:
                raise ConfigurationError(f"{path} is no ordinary file", "Move it away and repeat the command")
            return file.read(), stat.S_IMODE(status.st_mode)
    except FileNotFoundError:
        return None, PRIVATE
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read ({error.strerror})", "Check who owns it") from None
