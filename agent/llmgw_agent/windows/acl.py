"""Who may change a file or enter a folder, from the text of its security descriptor (SDDL). Pure.

Trusted are its user, SYSTEM and administrators: the latter two can do everything on the machine in any case.
"""

from __future__ import annotations

import re
from typing import Final

TRUSTED: Final = frozenset({"SY", "BA", "CO", "OW", "S-1-5-18", "S-1-5-32-544", "S-1-3-0", "S-1-3-4"})
"""SYSTEM, Administrators, CREATOR OWNER, OWNER RIGHTS: by the short names of SDDL and in full."""
ADMINISTRATOR: Final = "LA"
"""What SDDL calls the account whose SID ends with -500."""
OWNER: Final = re.compile(r"O:(S-[0-9-]+|[A-Z]{2})")
ENTRY: Final = re.compile(r"\(([A-Z]+);([A-Z]*);([^;]*);[^;]*;[^;]*;([^;)]*)[^)]*\)")
HARMLESS: Final = frozenset({"FR", "FX", "GR", "GX", "RC", "SY", "0x120089", "0x1200a0", "0x1200a9", "0x20000"})
"""Rights that change nothing: to read, to run, to see the descriptor."""
CREATOR_ONLY: Final = "IO"
"""An entry that is for what is made below, and not for the object itself."""


def private(sid: str) -> str:
    """The DACL of a folder of ours: its user and SYSTEM, passed on to all that is made in it; nothing is inherited."""
    return f"D:P(A;OICI;FA;;;{sid})(A;OICI;FA;;;SY)"


def is_ours(sddl: str, sid: str) -> bool:
    """Whether it belongs to a user, or to whoever may do everything anyway."""
    found = OWNER.match(sddl)
    return found is not None and _is_trusted(found.group(1), sid)


def is_private(sddl: str, sid: str) -> bool:
    """Whether nobody else has any right."""
    return is_ours(sddl, sid) and all(_is_trusted(who, sid) for _, who in _allowed(sddl))


def is_changeable(sddl: str, sid: str) -> bool:
    """Whether somebody else can change it."""
    others = (rights for rights, who in _allowed(sddl) if not _is_trusted(who, sid))
    return not is_ours(sddl, sid) or not all(_is_harmless(rights) for rights in others)


def _allowed(sddl: str) -> list[tuple[str, str]]:
    """Rights and trustee of every entry that allows something; everybody if there is no DACL."""
    _, has_one, dacl = sddl.partition("D:")
    if not has_one or "NO_ACCESS_CONTROL" in dacl:
        return [("GA", "WD")]
    return [
        (rights, who)
        for kind, flags, rights, who in ENTRY.findall(dacl)
        if kind in {"A", "XA", "OA"} and CREATOR_ONLY not in flags
    ]


def _is_harmless(rights: str) -> bool:
    return rights in HARMLESS or all(rights[at : at + 2] in HARMLESS for at in range(0, len(rights), 2))


def _is_trusted(who: str, sid: str) -> bool:
    return who in TRUSTED or who == sid or (who == ADMINISTRATOR and sid.endswith("-500"))
