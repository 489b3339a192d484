"""Resources as clients write them: read against the table of attributes, in the form that is kept. Pure.

What is not in the table is passed over: directories send telephone numbers, managers and addresses by default, and a
gateway has no use for them. What is in it is kept as it came.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from llmgw_gateway.identity.entries import text_fault
from llmgw_gateway.scim.refusals import ScimError, invalid_value

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llmgw_gateway.scim.attributes import Attribute, Kind

MOST_VALUES: Final = {"emails": 20, "members": 50_000}
_WORDS: Final = {"true": True, "false": False}


def decoded(given: bytes) -> Any:  # noqa: ANN401 -- JSON
    """A body as JSON; ScimError(invalidSyntax) when it is none."""
    try:
        return msgspec.json.decode(given)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ScimError(400, f"The body is no JSON: {error}.", "invalidSyntax") from None


def read(raw: object, kind: Kind, *, kept: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A whole resource; ScimError(invalidValue) names what cannot be. `kept`: what stays where the client is silent."""
    if not isinstance(raw, dict):
        raise invalid_value("A resource is a JSON object.")
    document = dict(kept or {})
    for name, given in raw.items():
        attribute = kind.attribute(_plain(name, kind))
        if attribute is None or attribute.mutability == "readOnly":
            continue
        value = read_value(given, attribute)
        if value is None:
            document.pop(attribute.name, None)
        else:
            document[attribute.name] = value
    check(document, kind)
    return document


def check(document: Mapping[str, Any], kind: Kind) -> None:
    """ScimError(invalidValue) when something is missing that every such resource has."""
    for attribute in kind.attributes:
        if attribute.required and not str(document.get(attribute.name, "")).strip():
            raise invalid_value(f"{attribute.name} must not be empty.")


def read_value(given: Any, attribute: Attribute) -> Any:  # noqa: ANN401 -- JSON
    """The value of an attribute as it is kept; None: there is none."""
    if given is None:
        return None
    if attribute.multiple:
        most = MOST_VALUES[attribute.name]
        several = given if isinstance(given, list) else [given]
        if len(several) > most:
            raise invalid_value(f"{attribute.name} must have at most {most} values.")
        found = [value for each in several if (value := _one(each, attribute)) is not None]
        return _one_primary(found) or None
    if isinstance(given, list) and len(given) == 1 and isinstance(given[0], dict):
        given = given[0].get("value")  # as Entra ID once wrote single values
    return _one(given, attribute)


def merged(old: list[dict[str, Any]], new: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Values with others added: none twice, and only the last that claims to be the primary one is."""
    have = {each.get("value") for each in old}
    added = [each for each in new if each.get("value") not in have]
    changed = {each.get("value"): each for each in new if each.get("value") in have}
    return _one_primary([each | changed.get(each.get("value"), {}) for each in old] + added)


def _one_primary(values: list[dict[str, Any]]) -> list[dict[str, Any]]:
    primary = [number for number, each in enumerate(values) if each.get("primary") is True]
    return [each if number not in primary[:-1] else each | {"primary": False} for number, each in enumerate(values)]


def _one(given: Any, attribute: Attribute) -> Any:  # noqa: ANN401 -- JSON
    if attribute.type == "complex":
        if isinstance(given, str) and attribute.multiple:
            given = {"value": given}
        if not isinstance(given, dict):
            raise invalid_value(f"{attribute.name} must be an object.")
        inner = {}
        for name, part in given.items():
            known = attribute.sub(name)
            if known is None or known.mutability == "readOnly" or part is None:
                continue
            inner[known.name] = _one(part, known)
        return inner or None
    if attribute.type == "boolean":
        word = _WORDS.get(given.lower()) if isinstance(given, str) else given  # Entra ID writes "False"
        if not isinstance(word, bool):
            raise invalid_value(f"{attribute.name} must be true or false.")
        return word
    if not isinstance(given, str):
        raise invalid_value(f"{attribute.name} must be a text.")
    if fault := text_fault(given):
        raise invalid_value(f"{attribute.name} {fault}.")
    return given


def _plain(name: str, kind: Kind) -> str:
    """The name of an attribute without its schema's."""
    return name[len(kind.schema) + 1 :] if name.lower().startswith(kind.schema.lower() + ":") else name
