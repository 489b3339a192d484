"""PATCH (RFC 7644 section 3.5.2), in every form in which Okta and Entra ID write it. Pure.

Where the clients and the standard disagree, the clients are understood: operations in any case (`Replace`), "False" for
false, members removed by a list of values, dotted names without a path, a part of an e-mail address that is not there
yet, and no operations at all.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from llmgw_gateway.scim import documents
from llmgw_gateway.scim.filters import Comparison, Path, holds, parse_path
from llmgw_gateway.scim.refusals import ScimError, invalid_value

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llmgw_gateway.scim.attributes import Attribute, Kind

MOST_OPERATIONS: Final = 1_000
MOST_VISITS: Final = 1_000_000
"""Operations times values of the resource: a second of the store's writer, for which every call waits."""
MEMBERS: Final = "members"
_ONE_MEMBER: Final = re.compile(r'members\[value eq "([^"\\]+)"\]', re.IGNORECASE)
_OPERATIONS: Final = frozenset({"add", "replace", "remove"})


def patched(document: Mapping[str, Any], request: object, kind: Kind) -> dict[str, Any]:
    """The resource as it is after all operations; ScimError for the first that cannot be done: then none counts."""
    result = {name: value for name, value in document.items()}  # noqa: C416 -- the caller's mapping stays as it is
    operations = _together(_operations(request))
    largest = max((len(each) for each in document.values() if isinstance(each, list)), default=0)
    if len(operations) > 1 and len(operations) * largest > MOST_VISITS:
        raise ScimError(413, "Too many operations for a resource of this size: send fewer at once.", "tooMany")
    for operation in operations:
        word = str(operation.get("op", "")).lower()
        if word not in _OPERATIONS:
            raise ScimError(400, "op must be add, replace or remove.", "invalidSyntax")
        path, value = operation.get("path"), operation.get("value")
        if path is None or path == "":
            _pathless(result, word, value, kind)
        elif not isinstance(path, str):
            raise ScimError(400, "path must be a text.", "invalidPath")
        else:
            _apply(result, word, parse_path(path, kind), value, kind, named=True)
    documents.check(result, kind)
    return result


def _operations(request: object) -> list[dict[str, Any]]:
    if not isinstance(request, dict):
        raise ScimError(400, "A change is a JSON object with Operations.", "invalidSyntax")
    found = next((value for name, value in request.items() if name.lower() == "operations"), None)
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise ScimError(400, "Operations must be a list of objects.", "invalidSyntax")
    if len(found) > MOST_OPERATIONS:
        raise ScimError(413, f"More than {MOST_OPERATIONS} operations in one request.", "tooMany")
    return [{name.lower(): value for name, value in each.items()} for each in found]


def _together(operations: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Members that neighbouring operations add or remove, in one: directories name each, and a team may have 50,000."""
    found: list[dict[str, Any]] = []
    last = ""
    for operation in operations:
        word, members = _members_of(operation)
        if word and word == last:
            found[-1]["value"] += members
        else:
            found.append({"op": word, "path": MEMBERS, "value": [*members]} if word else operation)
        last = word
    return found


def _members_of(operation: dict[str, Any]) -> tuple[str, list[Any]]:
    """Whether an operation adds or removes members, and which; nothing when it is about something else."""
    word, path, value = str(operation.get("op", "")).lower(), operation.get("path"), operation.get("value")
    if isinstance(path, str) and word in {"add", "remove"}:
        if path.lower() == MEMBERS and isinstance(value, list):
            return word, value
        one = _ONE_MEMBER.fullmatch(path)
        if word == "remove" and value is None and one is not None:
            return word, [{"value": one[1]}]
    return "", []


def _pathless(result: dict[str, Any], word: str, value: object, kind: Kind) -> None:
    """Several attributes at once, by their names; what cannot be changed stands there because it was read so."""
    if word == "remove":
        raise ScimError(400, "remove needs a path.", "noTarget")
    if not isinstance(value, dict):
        raise invalid_value("Without a path, value must be an object of attributes.")
    for name, part in value.items():
        if name.lower() != "schemas":
            _apply(result, word, parse_path(name, kind), part, kind, named=False)


def _apply(result: dict[str, Any], word: str, path: Path, value: Any, kind: Kind, *, named: bool) -> None:  # noqa: ANN401 -- JSON
    attribute = kind.attribute(path.name)
    if attribute is None:
        return  # not kept
    if attribute.mutability == "readOnly":
        if named:
            raise ScimError(400, f"{attribute.name} cannot be changed.", "mutability")
        return
    if attribute.type != "complex" and (path.sub or path.only is not None):
        raise ScimError(400, f"{attribute.name} is one value and has no parts.", "invalidPath")
    if word == "remove" or value is None:
        _remove(result, path, attribute, value)
    elif attribute.multiple and (path.only is not None or path.sub):
        _part_of_some(result, path, attribute, value)
    elif attribute.multiple:
        new = documents.read_value(value, attribute) or []
        _set(result, attribute.name, documents.merged(result.get(attribute.name, []), new) if word == "add" else new)
    elif path.sub:
        part = documents.read_value({path.sub: value}, attribute) or {}
        result[attribute.name] = result.get(attribute.name, {}) | part
    elif attribute.type == "complex":
        result[attribute.name] = result.get(attribute.name, {}) | (documents.read_value(value, attribute) or {})
    else:
        _set(result, attribute.name, documents.read_value(value, attribute))


def _remove(result: dict[str, Any], path: Path, attribute: Attribute, value: Any) -> None:  # noqa: ANN401 -- JSON
    old = result.get(attribute.name)
    if attribute.type == "boolean" and not attribute.multiple:
        # Without a value it would be true: nobody is let in again because a directory says nothing.
        raise ScimError(400, f"{attribute.name} must be true or false; it cannot be removed.", "mutability")
    if old is None:
        return
    if attribute.multiple:
        chosen = [each for each in old if path.only is None or holds(path.only, each, attribute)]
        if value is not None:  # Entra ID names the members to be removed in the value
            named = {each.get("value") for each in documents.read_value(value, attribute) or []}
            chosen = [each for each in chosen if each.get("value") in named]
        them = {id(each) for each in chosen}
        kept = [each for each in old if id(each) not in them]
        if path.sub:
            kept = [_without(each, path.sub) if id(each) in them else each for each in old]
        _set(result, attribute.name, [each for each in kept if each])
    elif path.sub:
        _set(result, attribute.name, _without(old, path.sub))
    else:
        del result[attribute.name]


def _part_of_some(result: dict[str, Any], path: Path, attribute: Attribute, value: Any) -> None:  # noqa: ANN401 -- JSON
    """Change those values that the path selects; one that is described by what it equals is made if it is missing."""
    new = documents.read_value({path.sub: value} if path.sub else value, attribute)
    if not new:
        raise invalid_value(f"{attribute.name} needs a value.")
    old = result.get(attribute.name, [])
    chosen = [each for each in old if path.only is None or holds(path.only, each, attribute)]
    if not chosen:
        only = path.only
        said = {only.path.name: only.value} if isinstance(only, Comparison) and only.operator == "eq" else {}
        made = documents.read_value(said, attribute)
        if not made:
            raise ScimError(400, f"{attribute.name} has no such value.", "noTarget")
        _set(result, attribute.name, documents.merged(old, [made[0] | new[0]]))
        return
    them = {id(each) for each in chosen}
    _set(result, attribute.name, [each | new[0] if id(each) in them else each for each in old])


def _without(value: dict[str, Any], sub: str) -> dict[str, Any]:
    return {name: part for name, part in value.items() if name != sub}


def _set(result: dict[str, Any], name: str, value: Any) -> None:  # noqa: ANN401 -- JSON
    if value in (None, [], {}):
        result.pop(name, None)
    else:
        result[name] = value
