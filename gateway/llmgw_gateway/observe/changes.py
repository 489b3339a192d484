"""What administrators change, and what they were refused: a row for each, in the transaction of the change itself.

A row should never hold a name, an e-mail address or a subject: people stand in it by their random `person_id`. Rows are
chained (`change_chain.py`), so that none can be altered or taken away unseen; a text that names somebody all the same
can be erased without breaking the chain.
"""

from __future__ import annotations

import json
import secrets
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from sqlalchemy import select

from llmgw_gateway.observe import change_chain
from llmgw_gateway.store.schema import changes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection

OPERATOR: Final = "operator"
"""The role of who runs a command on the gateway's own machine: the system has let them in."""


@dataclass(frozen=True, slots=True)
class Author:
    """Who asks for a change. Made once for each request: a transaction that is run again writes no second row."""

    actor: str
    """A `person_id`, the id of a service key, or who the system says runs a command (name@host)."""
    role: str
    """What they did it as: a role, or `operator`."""
    change_id: str
    request_id: str = ""
    """Of the request at the admin listener; empty for a command."""


@dataclass(frozen=True, slots=True)
class Change:
    """One change of one thing, or the refusal of one."""

    by: Author
    at: int
    """Milliseconds since the epoch, by the store's clock."""
    action: str
    """What was done to what, such as `budget.grant` or `person.disable`."""
    object_kind: str
    """budget, service_key, person, role, ..."""
    object_id: str
    before: Mapping[str, Any] | None = None
    """The part that changed as it was; None: there was nothing."""
    after: Mapping[str, Any] | None = None
    """The part that changed as it is now, or what was asked for and denied; None: there is nothing any more."""
    outcome: Literal["allowed", "denied"] = "allowed"


def operator(name: str) -> Author:
    """The author of one command."""
    return Author(name, OPERATOR, new_change_id())


def new_change_id() -> str:
    """As random as a change needs."""
    return f"chg_{secrets.token_hex(12)}"


def record(connection: Connection, change: Change) -> None:
    """Write the row into the caller's transaction: both are there afterwards, or neither."""
    change_chain.append(connection, [_row(change)])


def record_all(connection: Connection, made: Sequence[Change]) -> None:
    """The same for many at once."""
    change_chain.append(connection, [_row(change) for change in made])


def _row(change: Change) -> dict[str, Any]:
    return asdict(change.by) | {
        "at": change.at,
        "action": change.action,
        "object_kind": change.object_kind,
        "object_id": change.object_id,
        "before": _json(change.before),
        "after": _json(change.after),
        "outcome": change.outcome,
    }


def is_recorded(connection: Connection, author: Author) -> bool:
    """Whether this author's change was made already: the transaction is run again, or the request repeated."""
    query = select(changes.c.change_id).where(changes.c.change_id == author.change_id, changes.c.outcome == "allowed")
    return connection.execute(query).first() is not None


def _json(part: Mapping[str, Any] | None) -> str | None:
    return None if part is None else json.dumps(part, sort_keys=True, separators=(",", ":"))
