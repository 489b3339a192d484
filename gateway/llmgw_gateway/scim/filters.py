"""Filters and paths (RFC 7644 sections 3.4.2.2 and 3.5.2): read into a tree, and asked of a resource. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgspec

from llmgw_gateway.scim.attributes import Attribute
from llmgw_gateway.scim.refusals import ScimError, invalid_path

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from llmgw_gateway.scim.attributes import Kind

MOST_CHARACTERS: Final = 2_000
MOST_DEPTH: Final = 20
_TOKEN: Final = re.compile(
    r"""\s*(?:(?P<text>"(?:[^"\\]|\\.)*")|(?P<sign>[()\[\]])|(?P<word>[^\s()\[\]"]+))""", re.DOTALL
)
_PATH: Final = re.compile(r"(?:(?P<urn>urn:[\w.:-]+):)?(?P<name>[A-Za-z$][\w$-]*)(?:\.(?P<sub>[A-Za-z$][\w$-]*))?\Z")
_OPERATORS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "eq": lambda one, other: one == other,
    "ne": lambda one, other: one != other,
    "co": lambda one, other: other in one,
    "sw": lambda one, other: one.startswith(other),
    "ew": lambda one, other: one.endswith(other),
    "gt": lambda one, other: one > other,
    "ge": lambda one, other: one >= other,
    "lt": lambda one, other: one < other,
    "le": lambda one, other: one <= other,
}
_OF_TEXT_ONLY: Final = frozenset({"co", "sw", "ew", "gt", "ge", "lt", "le"})


@dataclass(frozen=True, slots=True)
class Path:
    """An attribute, maybe only those of its values that a filter selects, maybe a part of it."""

    name: str
    sub: str = ""
    only: Filter | None = None


@dataclass(frozen=True, slots=True)
class Comparison:
    """`path operator value`, or `path pr`."""

    path: Path
    operator: str
    value: Any = None


@dataclass(frozen=True, slots=True)
class Group:
    """Several filters of which all (`and`) or one (`or`) must hold, or one that must not (`not`)."""

    word: str
    parts: tuple[Filter, ...]


Filter = Comparison | Path | Group


def has_controls(text: str) -> bool:
    """Whether a text has characters that nothing here has, and with which no database need be asked."""
    return any(character < " " or character == "\x7f" for character in text)


def parse(text: str, kind: Kind) -> Filter:
    """Read a filter; ScimError(invalidFilter) says what is wrong with it."""
    return _Reader(text, kind, _invalid_filter).whole()


def parse_path(text: str, kind: Kind) -> Path:
    """Read the `path` of a change; ScimError(invalidPath) says what is wrong with it."""
    return _Reader(text, kind, invalid_path).path_alone()


def required(found: Filter) -> dict[str, str]:
    """Attributes that must be equal to a text, whatever else the filter says: what an index can be asked for."""
    if isinstance(found, Group) and found.word == "and":
        return {name: value for part in found.parts for name, value in required(part).items()}
    if isinstance(found, Comparison) and found.operator == "eq" and not found.path.sub and isinstance(found.value, str):
        return {found.path.name: found.value}
    return {}


def texts(found: Filter, names: Collection[str]) -> frozenset[str]:
    """What must stand somewhere in these attributes, in whatever case: what narrows a search down without an index."""
    if isinstance(found, Group) and found.word == "and":
        return frozenset(text for part in found.parts for text in texts(part, names))
    if not isinstance(found, Comparison) or found.operator not in {"eq", "co", "sw", "ew"}:
        return frozenset()
    return frozenset({found.value} if found.path.name in names and isinstance(found.value, str) else ())


def mentions(found: Filter, name: str) -> bool:
    """Whether a filter is about an attribute."""
    if isinstance(found, Group):
        return any(mentions(part, name) for part in found.parts)
    return (found if isinstance(found, Path) else found.path).name == name


def holds(found: Filter, resource: Mapping[str, Any], kind: Kind | Attribute) -> bool:
    """Whether a resource, or one value of an attribute, is as a filter says."""
    if isinstance(found, Group):
        each = (holds(part, resource, kind) for part in found.parts)
        return not next(each) if found.word == "not" else all(each) if found.word == "and" else any(each)
    path = found if isinstance(found, Path) else found.path
    attribute, values = _values(path, resource, kind)
    if isinstance(found, Path) or found.operator == "pr":
        return bool(values)
    exact = attribute is not None and attribute.exact
    if found.operator == "ne":
        return not any(_compare("eq", value, found.value, exact=exact) for value in values)
    return any(_compare(found.operator, value, found.value, exact=exact) for value in values)


def _values(path: Path, resource: Mapping[str, Any], kind: Kind | Attribute) -> tuple[Attribute | None, list[Any]]:
    attribute = kind.sub(path.name) if isinstance(kind, Attribute) else kind.attribute(path.name)
    value = resource.get(path.name)
    values = value if isinstance(value, list) else [] if value in (None, "") else [value]
    if attribute is None or not attribute.inner:
        return attribute, values
    if path.only is not None:
        values = [each for each in values if holds(path.only, each, attribute)]
        if not path.sub:
            return attribute, values
    # Of several values the one called `value` is meant (RFC 7644 section 3.4.2.2): emails co "@example.com".
    name = path.sub or ("value" if attribute.multiple else "")
    if not name:
        return attribute, values
    return attribute.sub(name), [each[name] for each in values if each.get(name) not in (None, "")]


def _compare(operator: str, one: Any, other: Any, *, exact: bool) -> bool:  # noqa: ANN401 -- JSON
    if isinstance(one, str) and isinstance(other, str):
        return _OPERATORS[operator](one, other) if exact else _OPERATORS[operator](one.lower(), other.lower())
    if operator in _OF_TEXT_ONLY:
        return False
    return type(one) is type(other) and _OPERATORS[operator](one, other)


def _invalid_filter(detail: str) -> ScimError:
    return ScimError(400, detail, "invalidFilter")


class _Reader:
    """Reads from left to right, one word ahead."""

    def __init__(self, text: str, kind: Kind, fault: Callable[[str], ScimError]) -> None:
        self._kind = kind
        self._fault = fault
        if len(text) > MOST_CHARACTERS:
            raise fault(f"More than {MOST_CHARACTERS} characters.")
        self._words: list[str] = []
        end = len(text.rstrip())
        at = 0
        while at < end:
            found = _TOKEN.match(text, at)
            if found is None:
                raise fault(f"It cannot be read from {text[at : at + 20]!r} on.")
            self._words.append(found.group().strip())
            at = found.end()
        self._at = 0
        self._depth = 0

    def whole(self) -> Filter:
        found = self._any_of(self._kind)
        if self._at < len(self._words):
            raise self._fault(f"Nothing was expected where {self._words[self._at]!r} stands.")
        return found

    def path_alone(self) -> Path:
        found = self._path(self._kind)
        if self._at < len(self._words):
            raise self._fault(f"Nothing was expected where {self._words[self._at]!r} stands.")
        return found

    def _any_of(self, kind: Kind | Attribute) -> Filter:
        return self._joined("or", lambda: self._joined("and", lambda: self._one(kind)))

    def _joined(self, word: str, part: Callable[[], Filter]) -> Filter:
        parts = [part()]
        while self._peek().lower() == word:
            self._at += 1
            parts.append(part())
        return parts[0] if len(parts) == 1 else Group(word, tuple(parts))

    def _one(self, kind: Kind | Attribute) -> Filter:
        negated = self._peek().lower() == "not"
        self._at += negated
        if negated or self._peek() == "(":
            self._expect("(")
            found = self._nested(kind)
            self._expect(")")
            return Group("not", (found,)) if negated else found
        path = self._path(kind)
        if path.only is not None and self._peek().lower() not in {*_OPERATORS, "pr"}:
            return path
        operator = self._next().lower()
        if operator == "pr":
            return Comparison(path, "pr")
        if operator not in _OPERATORS:
            raise self._fault(f"{operator!r} is no operator; known: {', '.join(_OPERATORS)}, pr.")
        return Comparison(path, operator, self._value())

    def _nested(self, kind: Kind | Attribute) -> Filter:
        self._depth += 1
        if self._depth > MOST_DEPTH:
            raise self._fault(f"More than {MOST_DEPTH} levels.")
        found = self._any_of(kind)
        self._depth -= 1
        return found

    def _path(self, kind: Kind | Attribute) -> Path:
        word = self._next()
        found = _PATH.fullmatch(word)
        if found is None:
            raise self._fault(f"{word!r} names no attribute.")
        schema = found["urn"]
        if schema and not (isinstance(kind, Attribute) or schema.lower() == kind.schema.lower()):
            # An attribute of an extension: none is kept, and its name must not be taken for one of the core schema.
            return Path(f"{schema}:{found['name']}", found["sub"] or "")
        attribute = kind.sub(found["name"]) if isinstance(kind, Attribute) else kind.attribute(found["name"])
        name, sub = attribute.name if attribute else found["name"], found["sub"] or ""
        only = None
        if self._peek() == "[":
            self._at += 1
            only = self._nested(attribute or kind)
            self._expect("]")
            if self._peek().startswith("."):
                sub = self._next()[1:]
        inner = attribute.sub(sub) if attribute and sub else None
        if attribute and attribute.inner and sub and inner is None:
            raise self._fault(f"{name} has no {sub!r}.")
        return Path(name, inner.name if inner else sub, only)

    def _value(self) -> Any:  # noqa: ANN401 -- JSON
        word = self._next()
        if word.lower() in {"true", "false", "null"}:
            word = word.lower()
        try:
            value = msgspec.json.decode(word)
        except msgspec.DecodeError:
            if word.startswith('"'):
                raise self._fault(f"{word} is no text of JSON.") from None
            value = word  # Entra ID's documentation has a filter without quotation marks
        if isinstance(value, str) and has_controls(value):
            raise self._fault("A text must have no control characters.")
        return value

    def _peek(self) -> str:
        return self._words[self._at] if self._at < len(self._words) else ""

    def _next(self) -> str:
        word = self._peek()
        if not word:
            raise self._fault("It ends too early.")
        self._at += 1
        return word

    def _expect(self, sign: str) -> None:
        if self._next() != sign:
            raise self._fault(f"{sign!r} was expected where {self._words[self._at - 1]!r} stands.")
