"""Reads the tables of a TOML file with a fault for everything that is wrong, so that all of them are told at once."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

_T = TypeVar("_T")
MOST_TEXT: Final = 2000


class Fields:
    """One table. Each value is asked for once; `close` then finds those that nobody asked for.

    Args:
        table: What stands in the file.
        where: Its name there, such as `claude_code`.
        faults: Comes to hold one sentence for each fault.
    """

    def __init__(self, table: object, where: str, faults: list[str]) -> None:
        self._where = where
        self._faults = faults
        self._known: list[str] = []
        self._table: Mapping[str, Any] = table if isinstance(table, dict) else {}
        if not isinstance(table, dict):
            faults.append(f"{where} is not a table")

    def name(self, key: str) -> str:
        """The key as a person finds it in the file."""
        return f"{self._where}.{key}" if self._where else key

    def fault(self, key: str, what: str) -> None:
        """Something is wrong with a value."""
        self._faults.append(f"{self.name(key)} {what}")

    def has(self, key: str) -> bool:
        """Whether it stands in the file; if not, that is no fault."""
        self._known.append(key)
        return key in self._table

    def text(self, key: str, default: str | None = None, *, check: Callable[[str], str] | None = None) -> str:
        """A string; without `default` it has to be there. `check` says what is wrong with it, or nothing."""
        value: str = self._take(key, str, "a string", default, "")
        if default is None and self._table.get(key) == "":
            self.fault(key, "is empty")
        elif len(value) > MOST_TEXT or any(not letter.isprintable() for letter in value):
            self.fault(key, f"has to be one line of at most {MOST_TEXT} printable characters")
        elif value and check is not None and (fault := check(value)):
            self.fault(key, fault)
        return value

    def number(self, key: str, default: int, least: int, most: int) -> int:
        """A whole number within bounds."""
        value: int = self._take(key, int, "a whole number", default, default)
        if not least <= value <= most:
            self.fault(key, f"is {value}: it has to be from {least} to {most}")
        return value

    def flag(self, key: str, *, default: bool) -> bool:
        """True or false."""
        value: bool = self._take(key, bool, "true or false", default, default)
        return value

    def choice(self, key: str, words: Iterable[str], default: str) -> str:
        """One of these words."""
        value = self.text(key, default)
        if value not in words:
            self.fault(key, f"is {value!r} (there are: {', '.join(words)})")
        return value

    def texts(
        self,
        key: str,
        default: tuple[str, ...] = (),
        *,
        words: Iterable[str] = (),
        check: Callable[[str], str] | None = None,
    ) -> tuple[str, ...]:
        """A list of strings, each once; of these words, if there are any."""
        value = self._take(key, list, "a list of strings", list(default), [])
        for each in value:
            if not isinstance(each, str) or not each or len(each) > MOST_TEXT or not each.isprintable():
                self.fault(key, "is not a list of strings of one line each")
                return default
            if words and each not in words:
                self.fault(key, f"names {each!r} (there are: {', '.join(words)})")
            elif check is not None and (fault := check(each)):
                self.fault(key, f"names {each!r}, which {fault}")
        if len(set(value)) != len(value):
            self.fault(key, "names something twice")
        return tuple(value)

    def table(self, key: str) -> Fields:
        """A table within this one; an empty one if it is not there."""
        self._known.append(key)
        return Fields(self._table.get(key, {}), self.name(key), self._faults)

    def raw(self, key: str) -> dict[str, Any]:
        """A table whose members are somebody else's."""
        value: dict[str, Any] = self._take(key, dict, "a table", {}, {})
        return value

    def close(self) -> None:
        """Whatever else stands there is a fault: a misspelt key must not be ignored."""
        for key in self._table:
            if key not in self._known:
                near = difflib.get_close_matches(key, self._known, n=1)
                hint = f": is it {near[0]!r}?" if near else f" (there are: {', '.join(sorted(self._known))})"
                self.fault(key, f"is not known{hint}")

    def _take(self, key: str, kind: type, name: str, default: Any, empty: _T) -> Any:  # noqa: ANN401 -- callers know
        self._known.append(key)
        if key not in self._table:
            if default is None:
                self.fault(key, "is missing")
                return empty
            return default
        value = self._table[key]
        if type(value) is not kind:  # a bool is an int to Python, not to whoever writes the file
            self.fault(key, f"is not {name}")
            return empty if default is None else default
        return value
