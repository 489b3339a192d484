"""Erases one person: whatever names them in the store gives way to their random `person_id`; no sum changes.

Ledger, attempts, counters and audit trail know people by that id alone, so nothing in them is touched. The person's row
keeps the id and its times. Every other free text of every table is looked through for what the person was called; which
texts were replaced by which is a row of the changes, so that their chain holds. Why so:
docs/decisions/0012-erasing.md.
"""

from __future__ import annotations

import json
import logging
import re
from collections import Counter
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import String, Text, delete, select, update

from llmgw_gateway.identity.people import KIND, end_sessions, is_person
from llmgw_gateway.identity.service_keys import ISSUER
from llmgw_gateway.observe import change_chain
from llmgw_gateway.observe.changes import Author, Change, is_recorded, record
from llmgw_gateway.store import schema
from llmgw_gateway.store.schema import persons, sessions

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence

    from sqlalchemy import Column, Connection, RowMapping, Table

    from llmgw_gateway.observe.chain import Key
    from llmgw_gateway.store.database import Database

ACTION: Final = "person.erase"
ERASED: Final = "erased"
"""In the place of the identity provider: whoever signs in again is somebody new."""
NAMELESS: Final = frozenset(
    {
        *("ledger", "ledger_sums", "attempts", "payers", "counters", "events", "teams"),
        *("proofs", "revocations", "replica_keys", "audit_heads"),
    }
)
"""Tables without a text about a person: ids, digests, names by which something else is known. They may be large."""
BINDING: Final = frozenset({"budget", "home", "models", "team"})
"""Columns by which the gateway finds something else: somebody may be called like a part of what stands there."""
KEPT: Final = frozenset({"person_id", "first_seen", "last_seen", "disabled_at"})
NO_NAMES: Final = frozenset({"issuer", "home", "groups", "attributes", "source", "directory_id"})
"""Columns of the person's row that say something else than what the person is called."""
SHORTEST: Final = 3
LEAST_DIGITS: Final = 8
"""Shorter names, and shorter numbers, would be found in texts that are about something else."""
log = logging.getLogger("llmgw.identity")


@dataclass(frozen=True, slots=True)
class Erasure:
    """Whom to erase. Times in milliseconds since the epoch."""

    person_id: str
    also: tuple[str, ...]
    """What else the person was called: a former address, a nickname."""
    by: Author
    now: int


@dataclass(frozen=True, slots=True)
class Erased:
    """What an erasure did, or would do."""

    texts: dict[str, int]
    """How many texts were replaced, by table and column."""
    sessions: int = 0
    """How many ended."""
    purged: bool = True
    """Whether nothing of what was overwritten is left in the store's files."""


async def erase_person(
    database: Database, sealing: Callable[[], Key], erasure: Erasure, tell: Callable[[], Awaitable[None]] | None = None
) -> dict[str, Any] | None:
    """Erase somebody; what was done (the members of `Erased`), or None when there is no such person.

    `sealing` reads the key of the audit trail, which vouches for what was replaced. StoreAwayError tells whether it may
    have been done; other GatewayErrors that it was not.
    """
    erasure = replace(erasure, now=int(database.now() * 1000))
    done = await database.submit(erase, (erasure, sealing()))
    if done is None:
        return None
    if tell is not None:
        await tell()
    log.info("%s was erased by %s", erasure.person_id, erasure.by.actor)
    return asdict(replace(done, purged=await database.purge()))


def erase(connection: Connection, batch: list[tuple[Erasure, Key]]) -> list[Erased | None]:
    """Carry erasures out. One that was carried out already answers that there was nothing left to do."""
    order = sorted(range(len(batch)), key=lambda number: batch[number][0].person_id)
    answers = {number: _erase(connection, *batch[number]) for number in order}
    return [answers[number] for number in range(len(batch))]


def unseen(connection: Connection, before: int, most: int | None = None) -> Sequence[str]:
    """Who has not signed in since, is in no directory any more, and has not been erased yet.

    Not whom an administrator has disabled: who is erased may sign in as somebody new. What a directory has changed
    since is no older than that: it knows people who have never signed in.
    """
    gone = (persons.c.source == "") | persons.c.inactive_at.is_not(None)
    since = [persons.c[name] < before for name in ("last_seen", "first_seen", "changed_at")]
    query = select(persons.c.person_id).where(
        is_person(), *since, persons.c.issuer != ERASED, persons.c.disabled_at.is_(None), gone
    )
    return connection.scalars(query.order_by(persons.c.last_seen, persons.c.person_id).limit(most)).all()


def preview(connection: Connection, person_id: str, also: Sequence[str]) -> Erased | None:
    """What an erasure would do. It only reads."""
    row = (
        connection.execute(select(persons).where(is_person(), persons.c.person_id == person_id))
        .mappings()
        .one_or_none()
    )
    if row is None:
        return None
    replaced = _replacing(row, also)
    return Erased(_counted(connection, row, replaced, _elsewhere(connection, replaced)))


def _erase(connection: Connection, erasure: Erasure, key: Key) -> Erased | None:
    mine = is_person() & (persons.c.person_id == erasure.person_id)
    row = connection.execute(select(persons).where(mine).with_for_update()).mappings().one_or_none()
    if row is None or is_recorded(connection, erasure.by):
        return None if row is None else Erased({})
    ended = end_sessions(connection, erasure.person_id, erasure.now)
    replaced = _replacing(row, erasure.also)
    elsewhere = list(_elsewhere(connection, replaced))
    for table, mine_there, values in elsewhere:
        connection.execute(update(table).where(*mine_there).values(values))
    texts = _counted(connection, row, replaced, elsewhere)
    redactions = change_chain.redact(connection, replaced)
    _empty(connection, row, erasure.now)
    after = {"texts": texts, "sessions": len(ended)}
    after |= change_chain.told(key, erasure.by.change_id, change_chain.REDACTIONS, redactions)
    record(connection, Change(erasure.by, erasure.now, ACTION, KIND, erasure.person_id, None, after))
    return Erased(texts, len(ended))


def _empty(connection: Connection, row: RowMapping, now: int) -> None:
    """The person's own row, and what hangs on it: devices have thumbprints, a directory has members."""
    values = {column.name: _nothing(column) for column in persons.c if column.name not in KEPT}
    values |= {"issuer": ERASED, "subject": row["person_id"], "disabled_at": row["disabled_at"] or now}
    connection.execute(update(persons).where(persons.c.person_id == row["person_id"]).values(values))
    for (sid,) in connection.execute(select(sessions.c.sid).where(sessions.c.person_id == row["person_id"])).all():
        connection.execute(update(sessions).where(sessions.c.sid == sid).values(device=f"{ERASED}_{sid}"))
    for table in schema.metadata.tables.values():
        if table not in (persons, sessions) and any(key.references(persons) for key in table.foreign_keys):
            connection.execute(delete(table).where(table.c.person_id == row["person_id"]))


def _nothing(column: Column[Any]) -> object:
    if column.default is not None and column.default.is_scalar:
        return column.default.arg  # type: ignore[attr-defined] # a scalar default has it
    return None if column.nullable else ""


def _named(row: RowMapping) -> list[Column[Any]]:
    """The columns of the person's row that hold something."""
    return [
        column
        for column in persons.c
        if column.name not in KEPT
        and isinstance(column.type, String)
        and row[column.name] not in (None, _nothing(column), ERASED, row["person_id"])
    ]


def _replacing(row: RowMapping, also: Sequence[str]) -> Callable[[str], str]:
    """Puts the id in the place of every way in which a text may call the person: as a word, in whatever case."""
    own = {str(row[column.name]) for column in _named(row) if column.name not in NO_NAMES}
    names = {each for each in own | set(also) if _is_telling(each)}
    # Texts in JSON have other letters than these escaped.
    spelled = names | {json.dumps(form)[1:-1] for each in names for form in (each, each.lower(), each.upper())}
    if not spelled:
        return lambda text: text
    longest_first = "|".join(map(re.escape, sorted(spelled, key=lambda each: (-len(each), each))))
    pattern = re.compile(rf"(?<!\w)(?:{longest_first})(?!\w)", re.IGNORECASE)
    return lambda text: pattern.sub(row["person_id"], text)


def _is_telling(name: str) -> bool:
    return len(name) >= (LEAST_DIGITS if name.isdecimal() else SHORTEST)


Found = tuple["Table", list[Any], dict[str, str]]


def _elsewhere(connection: Connection, replaced: Callable[[str], str]) -> Iterator[Found]:
    """Rows of other tables that name the person: the table, the row's key, and the texts without the name."""
    for table in schema.metadata.sorted_tables:
        if table.name in NAMELESS or table is schema.changes:
            continue
        texts = [column for column in table.c if isinstance(column.type, Text) and column.name not in BINDING]
        keys = list(table.primary_key.columns)
        query = select(table)
        if table is persons:  # a service key's name may be a person's; whoever else has the same name keeps it
            query, texts = query.where(persons.c.issuer == ISSUER), [persons.c.name]
        for row in connection.execute(query).mappings().all():
            values = {
                column.name: new
                for column in texts
                if row[column.name] is not None and (new := replaced(row[column.name])) != row[column.name]
            }
            if values:
                yield table, [key == row[key.name] for key in keys], values


def _counted(
    connection: Connection, row: RowMapping, replaced: Callable[[str], str], elsewhere: Iterable[Found]
) -> dict[str, int]:
    texts = Counter(f"{table.name}.{name}" for table, _, values in elsewhere for name in values)
    texts.update(change_chain.naming(connection, replaced))
    texts.update(f"persons.{column.name}" for column in _named(row))
    return dict(sorted(texts.items()))
