"""The attributes that are served and kept: one table for /Schemas, for reading what comes, and for comparing. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable

USER: Final = "urn:ietf:params:scim:schemas:core:2.0:User"
GROUP: Final = "urn:ietf:params:scim:schemas:core:2.0:Group"
Type = Literal["string", "boolean", "complex", "reference"]


@dataclass(frozen=True, slots=True)
class Attribute:
    """One attribute (RFC 7643 section 7)."""

    name: str
    description: str
    type: Type = "string"
    multiple: bool = False
    required: bool = False
    exact: bool = False
    """Whether case matters when it is compared."""
    mutability: Literal["readWrite", "readOnly", "immutable"] = "readWrite"
    unique: bool = False
    inner: tuple[Attribute, ...] = ()
    references: tuple[str, ...] = ()
    canonical: tuple[str, ...] = ()

    def sub(self, name: str) -> Attribute | None:
        """A sub-attribute by its name in any case."""
        return _named(self.inner, name)


def _named(attributes: Iterable[Attribute], name: str) -> Attribute | None:
    return next((each for each in attributes if each.name.lower() == name.lower()), None)


_ID = Attribute("id", "The gateway's own name for it.", required=True, exact=True, mutability="readOnly", unique=True)
_EXTERNAL_ID = Attribute("externalId", "What the provisioning directory calls it.", exact=True)
_META = Attribute(
    "meta",
    "What the gateway knows about the resource.",
    "complex",
    mutability="readOnly",
    inner=tuple(Attribute(name, "", exact=True, mutability="readOnly") for name in ("resourceType", "version")),
)
COMMON: Final = (_ID, _EXTERNAL_ID, _META)
"""Attributes of every resource (RFC 7643 section 3.1): no schema lists them."""

_NAME_PARTS = {
    "formatted": "The whole name, as it is shown.",
    "familyName": "The family name.",
    "givenName": "The given name.",
    "middleName": "Middle names.",
    "honorificPrefix": "Such as Ms. or Dr.",
    "honorificSuffix": "Such as III.",
}
OF_USER: Final = (
    Attribute("userName", "The person's unique name in the directory.", required=True, unique=True),
    Attribute(
        "name",
        "The parts of the person's name.",
        "complex",
        inner=tuple(Attribute(name, description) for name, description in _NAME_PARTS.items()),
    ),
    Attribute("displayName", "The name that is shown."),
    Attribute(
        "emails",
        "The person's addresses; the primary one names them to budgets and policies.",
        "complex",
        multiple=True,
        inner=(
            Attribute("value", "The address."),
            Attribute("display", "The address as it is shown."),
            Attribute("type", "What it is for.", canonical=("work", "home", "other")),
            Attribute("primary", "Whether it is the one to use.", "boolean"),
        ),
    ),
    Attribute("active", "False ends every session of the person and refuses new ones.", "boolean"),
    Attribute(
        "groups",
        "The teams that the person is in; written at the team.",
        "complex",
        multiple=True,
        mutability="readOnly",
        inner=(
            Attribute("value", "The id of the team.", exact=True, mutability="readOnly"),
            Attribute("$ref", "Its address.", "reference", mutability="readOnly", references=("Group",)),
            Attribute("display", "Its name.", mutability="readOnly"),
        ),
    ),
)
OF_GROUP: Final = (
    Attribute("displayName", "The team's name, which budgets and policies know it by.", required=True, unique=True),
    Attribute(
        "members",
        "The people in the team.",
        "complex",
        multiple=True,
        inner=(
            Attribute("value", "The id of the person.", exact=True, mutability="immutable"),
            Attribute("$ref", "Its address.", "reference", mutability="immutable", references=("User",)),
            Attribute("type", "Always User.", mutability="immutable", canonical=("User",)),
            Attribute("display", "The person's name.", mutability="readOnly"),
        ),
    ),
)


@dataclass(frozen=True, slots=True)
class Kind:
    """A type of resource."""

    name: str
    endpoint: str
    schema: str
    description: str
    attributes: tuple[Attribute, ...]

    def attribute(self, name: str) -> Attribute | None:
        """One of its attributes by its name in any case; None: the gateway does not keep it."""
        return _named((*self.attributes, *COMMON), name)


USERS: Final = Kind("User", "Users", USER, "A person.", OF_USER)
GROUPS: Final = Kind("Group", "Groups", GROUP, "A team.", OF_GROUP)
KINDS: Final = (USERS, GROUPS)


def definition(attribute: Attribute) -> dict[str, Any]:
    """An attribute as /Schemas shows it: nothing of it is null, which Entra ID would not take."""
    shown: dict[str, Any] = {
        "name": attribute.name,
        "type": attribute.type,
        "multiValued": attribute.multiple,
        "description": attribute.description,
        "required": attribute.required,
        "caseExact": attribute.exact,
        "mutability": attribute.mutability,
        "returned": "default",
        "uniqueness": "server" if attribute.unique else "none",
    }
    if attribute.inner:
        shown["subAttributes"] = [definition(each) for each in attribute.inner]
    if attribute.references:
        shown["referenceTypes"] = list(attribute.references)
    if attribute.canonical:
        shown["canonicalValues"] = list(attribute.canonical)
    return shown
