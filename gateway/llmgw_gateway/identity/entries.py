"""What a directory says of a person or a team, whoever brings it: SCIM or a file. Pure.

A person is kept as a document in the form of RFC 7643, whatever brought them; of its many attributes those that a
gateway needs to recognise somebody and to call them by name. No telephone number, address or manager is kept.
"""

from __future__ import annotations

import json
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

Source = Literal["scim", "csv"]
MOST_TEXT: Final = 256
"""Characters of any one value."""
KEPT: Final = ("userName", "externalId", "displayName", "name", "emails")
"""The attributes of a person that are kept; `active` has a column of its own."""
_UNFIT: Final = frozenset({"Cc", "Cs"})


@dataclass(frozen=True, slots=True)
class Entry:
    """A person."""

    user_name: str
    external_id: str = ""
    email: str = ""
    name: str = ""
    active: bool = True
    attributes: str = "{}"
    """JSON: what is kept, to be given back as it came."""


@dataclass(frozen=True, slots=True)
class Group:
    """A team."""

    name: str
    external_id: str = ""


def entry(document: Mapping[str, Any]) -> Entry:
    """A person's document as what we make of it."""
    kept = {name: document[name] for name in KEPT if name in document}
    return Entry(
        user_name=document["userName"],
        external_id=document.get("externalId", ""),
        email=email_of(document),
        name=name_of(document),
        active=document.get("active", True),
        attributes=json.dumps(kept, ensure_ascii=False, separators=(",", ":")),
    )


def name_of(document: Mapping[str, Any]) -> str:
    """What a person is called: by their display name, or else by the parts of their name."""
    name = document.get("name", {})
    parts = " ".join(part for part in (name.get("givenName", ""), name.get("familyName", "")) if part)
    return str(document.get("displayName") or name.get("formatted") or parts)


def email_of(document: Mapping[str, Any]) -> str:
    """A person's address: the primary one, or that of their work, or the first; else a user name that is one."""
    emails = [each for each in document.get("emails", ()) if each.get("value")]
    first = sorted(emails, key=lambda each: (not each.get("primary"), each.get("type", "").lower() != "work"))
    user_name = document.get("userName", "")
    return str(first[0]["value"] if first else user_name if "@" in user_name else "")


def text_fault(value: str, *, needed: bool = False) -> str:
    """Why a value cannot be kept; empty when it can. Joiners are fine: names in some scripts need them."""
    if needed and not value.strip():
        return "must not be empty"
    if len(value) > MOST_TEXT:
        return f"must have at most {MOST_TEXT} characters"
    if any(unicodedata.category(character) in _UNFIT for character in value):
        return "must have no control characters"
    return ""
