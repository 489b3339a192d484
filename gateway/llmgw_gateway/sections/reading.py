"""Reads TOML into frozen sections and reports all faults at once, each with its place.

An unknown key is a fault: a misspelt limit must not silently mean "no limit".
"""

from __future__ import annotations

import tomllib
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any, Protocol, TypeVar

import msgspec
from msgspec import Meta, Struct

from llmgw_gateway.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

S = TypeVar("S", bound="Section")
Text = Annotated[str, Meta(min_length=1, max_length=2048)]


class Section(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the file: immutable, every key named."""

    @property
    def identity(self) -> str | None:
        """What must be unique among the entries of a list; None: nothing must."""
        return None

    def faults(self, base: Path) -> list[str]:  # noqa: ARG002 -- sections that name files need it
        """What the types cannot say, each as "key: what is wrong". Relative paths start at `base`."""
        return []


class Rule(Protocol):
    """A budget or a limit: whom and which models it is for."""

    @property
    def level(self) -> str:
        """Who shares it."""

    @property
    def of(self) -> str:
        """Which team, project, person (by e-mail) or key; empty: each has one of their own."""

    @property
    def team(self) -> str:
        """Level user only: for the members of this team."""

    @property
    def model(self) -> str:
        """Only calls of this model count; empty: all."""


def load(kind: type[S], path: Path) -> S:
    """Read a file into a section with a key `base` (the file's folder). ConfigurationError carries every fault."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"), parse_float=Decimal)
    except OSError as error:
        raise ConfigurationError(str(path), [f"cannot be read: {error.strerror}"]) from None
    except UnicodeDecodeError:
        raise ConfigurationError(str(path), ["is not UTF-8 text"]) from None
    except (tomllib.TOMLDecodeError, RecursionError, ValueError) as error:  # ValueError: a number of 5,000 digits
        raise ConfigurationError(str(path), [f"is not valid TOML: {error}"]) from None
    faults = ["base: unknown key"] if "base" in document else []
    base = path.resolve().parent
    section: S | None = _Reader(base, faults).section(kind, document | {"base": str(base)}, "")
    if faults or section is None:
        raise ConfigurationError(str(path), faults)
    return section


class _Reader:
    """Converts table by table; a faulty one does not hide the faults of its neighbours."""

    def __init__(self, base: Path, faults: list[str]) -> None:
        self._base = base
        self._faults = faults

    def section(self, kind: type[Any], value: Any, place: str) -> Any:  # noqa: ANN401 -- what TOML holds
        if not isinstance(value, dict):
            self._faults.append(f"{place}: must be a table")
            return None
        before = len(self._faults)
        fields = {field.name: field for field in msgspec.structs.fields(kind)}
        self._faults += [f"{_join(place, key)}: unknown key" for key in value if key not in fields]
        self._faults += [
            f"{_join(place, name)}: missing" for name, field in fields.items() if field.required and name not in value
        ]
        converted = {
            name: self._field(field.type, value[name], _join(place, name))
            for name, field in fields.items()
            if name in value
        }
        if len(self._faults) > before:
            return None
        section = kind(**converted)
        self._faults += [_join(place, fault) for fault in section.faults(self._base)]
        return section

    def _field(self, kind: Any, value: Any, place: str) -> Any:  # noqa: ANN401 -- a type form
        info = msgspec.inspect.type_info(kind)
        if isinstance(info, msgspec.inspect.StructType):
            return self.section(info.cls, value, place)
        item = getattr(info, "item_type", None)
        if isinstance(item, msgspec.inspect.StructType):
            return self._list(item.cls, value, place)
        if _is_decimal(info) and (not isinstance(value, int | Decimal) or isinstance(value, bool)):
            self._faults.append(f"{place}: must be a number")
            return None
        try:
            # A whole number is a fine amount of money; nothing else is coerced.
            return msgspec.convert(Decimal(value) if type(value) is int and _is_decimal(info) else value, kind)
        except msgspec.ValidationError as error:
            self._faults.append(f"{place}: {error}")
            return None

    def _list(self, kind: type[Any], value: Any, place: str) -> Any:  # noqa: ANN401 -- what TOML holds
        if not isinstance(value, list) or not value:
            self._faults.append(f"{place}: must be one or more tables, each headed [[{place}]]")
            return None
        entries = [self.section(kind, each, f"{place}[{number}]") for number, each in enumerate(value)]
        names = [entry.identity for entry in entries if entry is not None and entry.identity is not None]
        doubles = sorted({name for name in names if names.count(name) > 1})
        self._faults += [f"{place}: {name!r} stands there twice" for name in doubles]
        return tuple(entries)


def _is_decimal(info: msgspec.inspect.Type) -> bool:
    """Whether a field holds an amount of money, alone or beside None."""
    members = info.types if isinstance(info, msgspec.inspect.UnionType) else (info,)
    return any(isinstance(member, msgspec.inspect.DecimalType) for member in members)


def _join(place: str, name: str) -> str:
    return f"{place}.{name}" if place else name
