"""Changes one member of a JSON text and leaves every other character as it is: comments, order, spacing.

Editors' settings are JSON with comments and trailing commas, so a parser of ours reads it and says where things stand.
Pure: text in, text out. Whoever calls it reads the result again before it is written anywhere.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any, Final

SPACE: Final = re.compile(r"(?:[ \t\r\n]|//[^\n]*|/\*.*?\*/)*", re.DOTALL)
STRING: Final = re.compile(r'"(?:[^"\\\x00-\x1f]|\\.)*"')
SCALAR: Final = re.compile(r"-?\d[\d.eE+-]*|true|false|null")
REST_OF_LINE: Final = re.compile(r"[ \t]*(?://[^\n]*|/\*[^\n]*?\*/[ \t]*)?(?=\r?\n)")
UNIT: Final = "  "
DEEPEST: Final = 100


@dataclass(frozen=True, slots=True)
class Node:
    """A value and where it stands: `text[start:end]`."""

    start: int
    end: int
    value: Any
    members: dict[str, Member] = field(default_factory=dict)
    """Of an object, in their order."""

    @property
    def is_object(self) -> bool:
        """Whether it can have members."""
        return isinstance(self.value, dict)


@dataclass(frozen=True, slots=True)
class Member:
    """One member of an object: its key begins at `start`; after its value a comma may stand, which ends at `comma`."""

    start: int
    node: Node
    comma: int
    """0: there is none."""


def loads(text: str) -> Any:  # noqa: ANN401 -- JSON
    """The value; ValueError says where the text is not JSON with comments."""
    return _parse(text).value


def get(text: str, path: tuple[str, ...]) -> tuple[bool, Any]:
    """Whether there is such a member, and its value."""
    node = _parse(text)
    for key in path:
        if key not in node.members:
            return False, None
        node = node.members[key].node
    return True, node.value


def put(text: str, path: tuple[str, ...], value: Any) -> str:  # noqa: ANN401 -- JSON
    """The text with that member set; objects on the way that are missing are made.

    ValueError if something on the way is no object.
    """
    node = _parse(text)
    for depth, key in enumerate(path):
        if not node.is_object:
            raise ValueError(f"{'.'.join(path[:depth]) or 'the file'} is not an object")
        if key not in node.members:
            for later in reversed(path[depth + 1 :]):
                value = {later: value}
            return _insert(text, node, key, value)
        member = node.members[key]
        if depth == len(path) - 1:
            shown = _shown(value, _indentation(text, member.start))
            return text[: member.node.start] + shown + text[member.node.end :]
        node = member.node
    raise ValueError("no member is named")


def drop(text: str, path: tuple[str, ...]) -> str:
    """The text without that member; as it is if there is none."""
    node = _parse(text)
    for key in path[:-1]:
        if key not in node.members:
            return text
        node = node.members[key].node
    return _remove(text, node, path[-1]) if path[-1] in node.members else text


def _insert(text: str, node: Node, key: str, value: Any) -> str:  # noqa: ANN401 -- JSON
    """A new member at the end of an object, in the manner of those before it."""
    if not node.members:
        outer = _indentation(text, node.start)
        inner = outer + UNIT
        inside = text[node.start + 1 : node.end - 1].rstrip()
        made = f"{inside}\n{inner}{json.dumps(key)}: {_shown(value, inner)}\n{outer}"
        return text[: node.start + 1] + made + text[node.end - 1 :]
    last = list(node.members.values())[-1]
    end = last.comma or last.node.end
    head = text[:end] + ("" if last.comma else ",")
    comma = "," if last.comma else ""
    if not _is_first_on_line(text, last.start):
        return f"{head} {json.dumps(key)}: {_shown(value, '', flat=True)}{comma}{text[end:]}"
    inner = _indentation(text, last.start)
    rest = REST_OF_LINE.match(text, end)
    stop = rest.end() if rest else end
    return f"{head}{text[end:stop]}\n{inner}{json.dumps(key)}: {_shown(value, inner)}{comma}{text[stop:]}"


def _remove(text: str, node: Node, key: str) -> str:
    """A member, its comma (or, of the last one, the comma before it), and its line if nothing else stands there."""
    keys = list(node.members)
    at, member = keys.index(key), node.members[key]
    start, end = member.start, member.comma or member.node.end
    before = node.members[keys[at - 1]] if at else None
    if _is_first_on_line(text, start):
        start = text.rindex("\n", 0, start)
        if text[start - 1 : start] == "\r":
            start -= 1
    elif before is not None:
        start = before.comma
    kept, rest = text[:start], text[end:]
    if before is not None and at == len(keys) - 1 and not member.comma:
        kept = kept[: before.comma - 1] + kept[before.comma :]
    if not at and len(keys) == 1 and not (kept[node.start + 1 :] + rest[: node.end - 1 - end]).strip():
        return text[: node.start] + "{}" + text[node.end :]
    return kept + rest


def _shown(value: Any, indentation: str, *, flat: bool = False) -> str:  # noqa: ANN401 -- JSON
    text = json.dumps(value, indent=None if flat else len(UNIT), ensure_ascii=False)
    return text.replace("\n", "\n" + indentation)


def _is_first_on_line(text: str, at: int) -> bool:
    line = text.rfind("\n", 0, at)
    return line >= 0 and not text[line + 1 : at].strip()


def _indentation(text: str, at: int) -> str:
    """The white space that begins the line of a position."""
    line = text[text.rfind("\n", 0, at) + 1 : at]
    return line[: len(line) - len(line.lstrip())]


def _parse(text: str) -> Node:
    start = _skip(text, 1 if text.startswith("\ufeff") else 0)
    node = _value(text, start, 0)
    end = _skip(text, node.end)
    if end != len(text):
        raise _fault(text, end)
    return node


def _skip(text: str, at: int) -> int:
    found = SPACE.match(text, at)
    return found.end() if found else at


def _value(text: str, at: int, depth: int) -> Node:
    if depth > DEEPEST:
        raise _fault(text, at)
    if text[at : at + 1] == "{":
        return _object(text, at, depth)
    if text[at : at + 1] == "[":
        return _array(text, at, depth)
    found = STRING.match(text, at) or SCALAR.match(text, at)
    if not found:
        raise _fault(text, at)
    try:
        return Node(at, found.end(), json.loads(found.group()))
    except ValueError:
        raise _fault(text, at) from None


def _object(text: str, at: int, depth: int) -> Node:
    members: dict[str, Member] = {}
    here = _skip(text, at + 1)
    while text[here : here + 1] != "}":
        start, key = here, STRING.match(text, here)
        colon = _skip(text, key.end()) if key else here
        if key is None or text[colon : colon + 1] != ":":
            raise _fault(text, here)
        node = _value(text, _skip(text, colon + 1), depth + 1)
        here = _skip(text, node.end)
        comma = here + 1 if text[here : here + 1] == "," else 0
        name = json.loads(key.group())
        if name in members:
            raise ValueError(f"{name!r} stands there twice")
        members[name] = Member(start, node, comma)
        if not comma and text[here : here + 1] != "}":
            raise _fault(text, here)
        here = _skip(text, comma) if comma else here
    return Node(at, here + 1, {name: member.node.value for name, member in members.items()}, members)


def _array(text: str, at: int, depth: int) -> Node:
    values = []
    here = _skip(text, at + 1)
    while text[here : here + 1] != "]":
        node = _value(text, here, depth + 1)
        values.append(node.value)
        here = _skip(text, node.end)
        if text[here : here + 1] == ",":
            here = _skip(text, here + 1)
        elif text[here : here + 1] != "]":
            raise _fault(text, here)
    return Node(at, here + 1, values)


def _fault(text: str, at: int) -> ValueError:
    return ValueError(f"line {text.count(chr(10), 0, at) + 1} is not JSON")
