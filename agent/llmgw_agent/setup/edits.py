"""What `llmgw setup` changes in a file, as data: each edit can be made, and taken back if what it wrote still stands.

Pure: text in, text out. An edit is kept as JSON beside what stood there before, so that a later `--undo` can tell
lines of ours from lines that somebody has changed since. Those are left alone.
"""

from __future__ import annotations

import tomllib
from dataclasses import asdict, dataclass
from typing import Any

from llmgw_agent.setup import jsonc, lines


@dataclass(frozen=True, slots=True)
class Member:
    """One member of a JSON file is set."""

    path: tuple[str, ...]
    value: Any
    before: Any = None
    had: bool = False
    """Whether there was one, with the value `before`."""

    def make(self, text: str) -> tuple[str, Member]:
        """The text with it, and the edit with what stood there before."""
        had, before = jsonc.get(text or "{}", self.path)
        if had and before == self.value:
            return text, Member(self.path, self.value, before, had)
        return jsonc.put(text or "{}\n", self.path, self.value), Member(self.path, self.value, before, had)

    def unmake(self, text: str) -> str | None:
        """The text without it; None if something else stands there now."""
        had, now = jsonc.get(text, self.path)
        if not had or now != self.value:
            return None
        if self.had:
            return jsonc.put(text, self.path, self.before)
        text = jsonc.drop(text, self.path)
        # Objects that were made for it go with it.
        for depth in range(len(self.path) - 1, 0, -1):
            if jsonc.get(text, self.path[:depth]) != (True, {}):
                break
            text = jsonc.drop(text, self.path[:depth])
        return text


@dataclass(frozen=True, slots=True)
class Block:
    """Lines of ours between marks: at the end, or first in a list of a YAML file."""

    tool: str
    content: str
    list_key: str = ""
    """The root list that they begin; empty: they stand at the end."""

    def make(self, text: str) -> tuple[str, Block]:
        """The text with them, in place of older ones of ours."""
        found = lines.find(text, self.tool)
        if found is not None:
            indentation = text[found[0] :][: len(text[found[0] :]) - len(text[found[0] :].lstrip(" "))]
            made = lines.block(self.tool, self._told(text[: found[0]] + text[found[1] :]), indentation)
            return text[: found[0]] + made + text[found[1] :], self
        place = lines.after_list_key(text, self.list_key) if self.list_key else None
        if place is None:
            return lines.append(text, lines.block(self.tool, self._told(text))), self
        return text[: place[0]] + lines.block(self.tool, self.content, place[1]) + text[place[0] :], self

    def unmake(self, text: str) -> str | None:
        """The text without them; None if somebody has changed them."""
        found = lines.find(text, self.tool)
        if found is None:
            return None
        stripped = [line.strip() for line in text[found[0] : found[1]].splitlines()[1:-1]]
        ours = {tuple(line.strip() for line in told.strip("\n").split("\n")) for told in (self.content, self._listed())}
        return lines.remove(text, self.tool) if tuple(stripped) in ours else None

    def _told(self, others: str) -> str:
        """The lines; with the list's own key before them where the file has none."""
        return self.content if not self.list_key or lines.after_list_key(others, self.list_key) else self._listed()

    def _listed(self) -> str:
        return f"{self.list_key}:\n{self.content}" if self.list_key else self.content


@dataclass(frozen=True, slots=True)
class RootKey:
    """One root key of a TOML file is set: a line before its first table."""

    line: str
    before: str | None = None
    """The line that stood there."""

    def make(self, text: str) -> tuple[str, RootKey]:
        """The text with it, and the edit with what stood there before."""
        key = self.line.partition("=")[0].strip()
        before = lines.root_line(text, key)
        made = f"{self.line}\n{text}" if before is None else text.replace(before, self.line, 1)
        wanted = (tomllib.loads(text) if text else {}) | tomllib.loads(self.line)
        if tomllib.loads(made) != wanted:
            raise ValueError(f"{key} is written in a way that is not understood")
        return made, RootKey(self.line, before)

    def unmake(self, text: str) -> str | None:
        """The text without it; None if something else stands there now."""
        if lines.root_line(text, self.line.partition("=")[0].strip()) != self.line:
            return None
        return text.replace(self.line + "\n" if self.before is None else self.line, self.before or "", 1)


Edit = Member | Block | RootKey


def dump(edit: Edit) -> dict[str, Any]:
    """The edit as JSON."""
    return {"kind": type(edit).__name__, **asdict(edit)}


def load(document: dict[str, Any]) -> Edit:
    """The reverse of `dump`; KeyError or TypeError on what another version wrote."""
    values = {key: value for key, value in document.items() if key != "kind"}
    if document["kind"] == "Member":
        return Member(**values | {"path": tuple(values["path"])})
    if document["kind"] == "Block":
        return Block(**values)
    return RootKey(**values)
