"""One request to the Admin API: an endpoint as the table has it, who asks, and what they may see of it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final, Protocol

from msgspec import Meta, Struct
from sqlalchemy import true

from llmgw_gateway.errors import GatewayError
from llmgw_gateway.identity.people import is_paid_by
from llmgw_wire.errors import ErrorCode

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sqlalchemy import ColumnElement, Connection

    from llmgw_gateway.call import Caller
    from llmgw_gateway.identity.roles import Standing
    from llmgw_gateway.observe.changes import Author
    from llmgw_gateway.policy.models import Policy
    from llmgw_gateway.settings import Settings
    from llmgw_wire.secret import Secret

ADMIN: Final = frozenset({"admin"})
ALL_SEEING: Final = frozenset({"admin", "auditor"})
"""Who sees everything."""
LEADS: Final = frozenset({"admin", "team_lead"})
READERS: Final = frozenset({"admin", "auditor", "team_lead"})
ANYBODY: Final = frozenset({"admin", "auditor", "team_lead", "developer", "service"})
MOST_PER_PAGE: Final = 200
# `$` would let a line end pass in Python, and not in the schema's own kind of regular expression.
PRINTABLE: Final = r"^[^\x00-\x1f\x7f]*(?![\s\S])"
Id = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,64}(?![\s\S])", max_length=64)]
Name = Annotated[str, Meta(pattern=PRINTABLE, min_length=1, max_length=200)]
Line = Annotated[str, Meta(pattern=PRINTABLE, max_length=200)]
Title = Annotated[str, Meta(pattern=PRINTABLE, min_length=1, max_length=100)]
Paragraph = Annotated[str, Meta(pattern=PRINTABLE, min_length=1, max_length=500)]
LongLine = Annotated[str, Meta(pattern=PRINTABLE, max_length=500)]


class Document(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is sent or answered. An unknown member is an error: a misspelt one must not silently mean nothing."""


class Nothing(Document, frozen=True):
    """Neither query nor body."""


class Page(Document, frozen=True):
    """Which part of a list."""

    limit: Annotated[int, Meta(ge=1, le=MOST_PER_PAGE)] = 50
    cursor: Line = ""
    """`next` of the page before."""


class Reloading(Protocol):
    """Where the configuration stands."""

    @property
    def since(self) -> float:
        """Seconds since the epoch: when the one in force was taken into use."""

    @property
    def faults(self) -> tuple[str, ...]:
        """Why the file as it is now was refused."""

    @property
    def waiting(self) -> tuple[str, ...]:
        """What waits for a restart."""


@dataclass(frozen=True, slots=True)
class Asking:
    """One request. Made on the event loop, once: a transaction that is run again finds the same ids in it."""

    settings: Settings
    policy: Policy
    reloading: Reloading
    caller: Caller
    standing: Standing
    by: Author
    now: int
    """Milliseconds since the epoch, by the store's clock."""
    places: Mapping[str, str]
    """What stands in the path."""
    fresh: tuple[Secret, str]
    """A secret for who asks for one, and its digest."""

    @property
    def teams(self) -> frozenset[str] | None:
        """To which teams the view is limited; None: to none."""
        return None if self.standing.roles & ALL_SEEING else self.standing.teams

    def visible_people(self, connection: Connection) -> ColumnElement[bool]:
        """The owner's check of whatever is read of people."""
        return true() if self.teams is None else is_paid_by(connection, self.settings.teams, self.teams)

    def new_id(self, kind: str) -> str:
        """An id of what this request makes: the same when the request is repeated."""
        return f"{kind}_{hashlib.sha256(f'{kind}/{self.by.change_id}'.encode()).hexdigest()[:24]}"


@dataclass(frozen=True, slots=True)
class Route:
    """One endpoint. `handle` gets the request, the transaction, and the query (GET, DELETE) or the body (POST).

    Whatever a handler refuses it refuses before it writes anything.
    """

    method: str
    path: str
    """With `{name}` for a part that is given."""
    action: str
    """What it is called in the rows of changes, and in the OpenAPI document."""
    summary: str
    roles: frozenset[str]
    handle: Callable[[Asking, Connection, Any], Struct]
    answer: type[Struct]
    given: type[Struct] = Nothing
    kind: str = ""
    """What its object is called in the rows of changes."""
    people_only: bool = False
    """Whether a service key is refused, whatever its role."""
    parts: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        """The path is matched part by part."""
        object.__setattr__(self, "parts", tuple(self.path.split("/")))

    @property
    def writes(self) -> bool:
        """Whether it changes anything."""
        return self.method != "GET"

    def match(self, parts: Sequence[str]) -> dict[str, str] | None:
        """What stands in the path where the route has names; None when it is another path."""
        if len(parts) != len(self.parts):
            return None
        pairs = list(zip(self.parts, parts, strict=True))
        if any(mine != given for mine, given in pairs if not mine.startswith("{")):
            return None
        return {mine[1:-1]: given for mine, given in pairs if mine.startswith("{")}


def missing(what: str) -> GatewayError:
    """Something is not there, or not the caller's to see: both look the same."""
    return GatewayError(ErrorCode.NOT_FOUND, f"There is no such {what}, or it is not yours to see.")


def time_text(milliseconds: int) -> str:
    """A moment as every document has it (RFC 3339, UTC)."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
