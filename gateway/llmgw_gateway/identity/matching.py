"""Which entry of a directory a sign-in belongs to, and the other way round. Pure.

A person is recognised by what their provider alone can say of them, in this order: the subject; the id that the
directory carries for them, where it is the subject (Okta: the user id; Entra ID: the object id); an e-mail address that
the provider vouches for. Never by a display name, and never across providers: whoever administers one of them could
otherwise become anybody of another.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

DIRECTORY: Final = "directory"
"""In the place of a provider's address while nobody has signed in as this person: no provider's address looks so."""


class Known(Protocol):
    """The part of a row of `persons` that people are recognised by."""

    @property
    def person_id(self) -> str:
        """Ours."""

    @property
    def subject(self) -> str:
        """The provider's; ours again while nobody has signed in."""

    @property
    def external_id(self) -> str:
        """The directory's."""

    @property
    def user_key(self) -> str | None:
        """The directory's name for them, folded."""

    @property
    def email_key(self) -> str:
        """Folded."""


def folded(text: str) -> str:
    """Names and addresses are compared in one case: directories and providers do not agree about it."""
    return text.lower()  # not casefold: "straße" and "strasse" are two mailboxes


def subjects(home: str, external_id: str) -> frozenset[str]:
    """As whom a provider may sign in the one whom its directory calls so.

    At Entra ID a subject is tenant/object id; which tenant stands in the provider's address, and a directory only says
    the object id.
    """
    if not external_id:
        return frozenset()
    tenants = [part for part in urlsplit(home).path.split("/") if part]
    return frozenset({external_id, *(f"{tenant}/{external_id}" for tenant in tenants)})


def candidates(waiting: Sequence[Known], home: str, subject: str, email: str) -> Sequence[Known]:
    """The entries that could be meant by a first sign-in: all by the most certain of the ways by which there is any.

    `waiting` are entries of the provider's directory that nobody has taken yet, `email` is empty unless vouched for. A
    sign-in takes an entry only if it is the only one.
    """
    address = folded(email)
    by_id = [each for each in waiting if subject in subjects(home, each.external_id)]
    by_name = [each for each in waiting if address and each.user_key == address]
    by_address = [each for each in waiting if address and each.email_key == address]
    return by_id or by_name or by_address


def person_of(signed_in: Sequence[Known], home: str, external_id: str, keys: Collection[str]) -> Known | None:
    """Who of those that are in no directory is meant by a new entry; None when nobody, or more than one could be.

    `keys` are the entry's user name and address, folded.
    """
    own = subjects(home, external_id)
    by_id = [each for each in signed_in if each.subject in own]
    again = [each for each in signed_in if external_id and each.external_id == external_id]
    by_address = [each for each in signed_in if each.email_key in keys]
    return _one(by_id, again, by_address)


def _one(*kinds: Sequence[Known]) -> Known | None:
    """The only one of the first kind that has any: where two could be meant, nobody is."""
    for found in kinds:
        if found:
            return found[0] if len(found) == 1 else None
    return None
