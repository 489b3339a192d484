"""The chain of administrators' changes: each row is hashed together with the hash of the one before it.

The hash covers the texts that may name somebody (who, what, before, after) by salted commitments only. When a person is
erased, such a text is replaced and its salt gives way to the commitment: the chain holds as before, nobody can find out
by guessing what stood there, and a later row says which texts were replaced by which. Why so:
docs/decisions/0011-audit-chain.md.

The chain has no key, so that whatever writes changes can write them; the audit trail, which has one, names the newest
hash. Only a row that explains why others are gone or read differently is sealed: who can write the database, and does
not have the key, cannot write such a row.
"""

from __future__ import annotations

import json
import secrets
from collections import Counter
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import delete, func, insert, select, update

from llmgw_gateway.observe import chain
from llmgw_gateway.store.schema import changes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from sqlalchemy import Connection, RowMapping

    from llmgw_gateway.observe.chain import Key

FIRST: Final = "0" * 64
OPEN: Final = ("number", "change_id", "at", "role", "action", "object_kind", "outcome", "request_id")
ERASABLE: Final = ("actor", "object_id", "before", "after")
DOCUMENTS: Final = ("before", "after")
"""Those of them that are JSON."""
REDACTIONS: Final = "redactions"
"""In the `after` of a row about an erasure: what was replaced, as [number, column, SHA-256 of the new text]."""
REMOVED: Final = "removed"
"""In the `after` of a row about retention: number and hash of the last row of the beginning that is gone."""
SEAL: Final = "seal"
"""Beside either of them: the id of the key, and what was made with it (`chain.change_seal`)."""
NOT_SEALED: Final = "is not sealed by a gateway: it explains nothing"
COMMITTED: Final = "="
"""How the salt begins of a text that was erased: what follows is the commitment to the old text."""
LOCK: Final = 0x6C6C6D6763
"""The advisory lock under which replicas append one after the other: "llmgc" in ASCII. Changes are rare."""
ROWS_AT_ONCE: Final = 1_000


def append(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows at the end of the chain, but those that are there already: the transaction may be run again."""
    if not rows:
        return
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(LOCK)))
    wanted = [row["change_id"] for row in rows]
    there = frozenset(connection.scalars(select(changes.c.change_id).where(changes.c.change_id.in_(wanted))))
    have, before = last(connection) or (0, FIRST)
    chained: list[dict[str, Any]] = []
    new = (row for row in rows if row["change_id"] not in there)
    for number, row in enumerate(new, have + 1):
        salts = {name: secrets.token_hex(16) for name in ERASABLE}
        whole = dict(row) | {"number": number, "salts": _json(salts)}
        before = _hash(before, whole, salts)
        chained.append(whole | {"hash": before})
    if chained:
        connection.execute(insert(changes), chained)


def redact(connection: Connection, replaced: Callable[[str], str]) -> list[list[object]]:
    """Replace what names somebody in every row. Returns the redactions for the row that tells of the erasure."""
    done: list[list[object]] = []
    for row, new in _naming(connection, replaced):
        salts = json.loads(row["salts"])
        for name, text in new.items():
            if not salts[name].startswith(COMMITTED):
                salts[name] = COMMITTED + _commitment(salts[name], name, row[name])
            done.append([row["number"], name, _digest(text)])
        mine = changes.c.number == row["number"]
        connection.execute(update(changes).where(mine).values(new | {"salts": _json(salts)}))
    return done


def told(key: Key, change_id: str, name: str, said: object) -> dict[str, Any]:
    """What the `after` of a row says about other rows, sealed: `name` is REDACTIONS or REMOVED."""
    return {name: said, SEAL: [key.key_id, _seal(key, change_id, name, said)]}


def _seal(key: Key, change_id: str, name: str, said: object) -> str:
    return chain.change_seal(key, change_id, json.dumps([name, said], sort_keys=True))


def naming(connection: Connection, replaced: Callable[[str], str]) -> dict[str, int]:
    """How many texts `redact` would replace, by column."""
    return dict(Counter(f"changes.{name}" for _, new in _naming(connection, replaced) for name in new))


def _naming(connection: Connection, replaced: Callable[[str], str]) -> Iterator[tuple[RowMapping, dict[str, str]]]:
    """Rows with a text that would be another, and these texts as they would be; so many in memory at a time."""
    seen = 0
    while True:
        query = select(changes).where(changes.c.number > seen).order_by(changes.c.number).limit(ROWS_AT_ONCE)
        rows = connection.execute(query).mappings().all()
        for row in rows:
            texts = {name: row[name] for name in ERASABLE if row[name] is not None}
            if new := {
                name: other for name, text in texts.items() if (other := _without(name, text, replaced)) != text
            }:
                yield row, new
        if len(rows) < ROWS_AT_ONCE:
            return
        seen = rows[-1]["number"]


def _without(name: str, text: str, replaced: Callable[[str], str]) -> str:
    """A column without what is replaced: of a document the texts in it, never what holds it together."""
    if name not in DOCUMENTS:
        return replaced(text)
    document = json.loads(text)
    rest = _replaced(document, replaced)
    return text if rest == document else json.dumps(rest, sort_keys=True, separators=(",", ":"))


def _replaced(part: Any, replaced: Callable[[str], str]) -> Any:  # noqa: ANN401 -- JSON
    if isinstance(part, str):
        return replaced(part)
    if isinstance(part, list):
        return [_replaced(each, replaced) for each in part]
    if isinstance(part, dict):  # what vouches for other rows stays: somebody may be called like one of their columns
        return {
            key: value if key in {REDACTIONS, REMOVED, SEAL} else _replaced(value, replaced)
            for key, value in part.items()
        }
    return part


def oldest(connection: Connection, before: int, most: int) -> tuple[int, str] | None:
    """Number and hash of the last row of the beginning that is older than `before`, at most so many rows of it."""
    newer = connection.scalar(select(func.min(changes.c.number)).where(changes.c.at >= before))
    first, newest = connection.execute(select(func.min(changes.c.number), func.max(changes.c.number))).one()
    if first is None:
        return None
    end = min(newest if newer is None else newer - 1, first + most - 1)
    found = connection.execute(select(changes.c.number, changes.c.hash).where(changes.c.number == end)).one_or_none()
    return (found.number, found.hash) if found is not None and end >= first else None


def up_to(connection: Connection, number: int) -> int:
    """How many rows there are up to a number."""
    return connection.scalar(select(func.count()).where(changes.c.number <= number)) or 0


def remove(connection: Connection, number: int) -> None:
    """Remove the rows up to a number; a row that says so has to be there already."""
    connection.execute(delete(changes).where(changes.c.number <= number))


@dataclass
class _Reading:
    """What has been read of the chain."""

    number: int = 0
    hash: str = FIRST
    begins_at: int = 1
    replaced: dict[tuple[int, str], str] = field(default_factory=dict)
    """Texts without their salts, by place: the digests of what stands there now."""
    allowed: dict[tuple[int, str], str] = field(default_factory=dict)
    """What later rows say about them."""
    removed: dict[int, str] = field(default_factory=dict)
    """What later rows say about a beginning that is gone."""
    forged: list[str] = field(default_factory=list)
    """Rows that say something about others, and are not sealed by whom it is up to."""


def faults(connection: Connection, heads: Mapping[int, str], keys: Sequence[Key]) -> Iterator[str]:
    """What is wrong with the chain, each as a sentence; after the first break nothing more can be said.

    `heads` are hashes by number that the audit trail has: it is another witness. `keys` are those of the trail.
    """
    reading = _Reading()
    known = {key.key_id: key for key in keys}
    query = select(changes).order_by(changes.c.number).execution_options(yield_per=ROWS_AT_ONCE)
    with connection.execute(query) as rows:
        for row in rows.mappings():
            if not reading.number and row["number"] > 1:
                # What retention has removed: the row that says so vouches for the hash.
                reading.number, reading.begins_at = row["number"] - 1, row["number"]
                reading.hash = _removed_hash(connection, reading.number) or FIRST
            if fault := _fault(reading, row, heads):
                yield fault
                return
            _learn(reading, row, known)
    yield from reading.forged
    missing = [number for number in heads if number > reading.number]
    if missing:
        yield (
            f"changes: the table ends at change {reading.number}, but the audit trail or the kept report "
            f"knows change {max(missing)}: "
            "rows were taken away"
        )
    for place, digest in reading.replaced.items():
        if reading.allowed.get(place) != digest:
            yield f"changes: change {place[0]}: {place[1]} was replaced, and no erasure says by this"
    if reading.begins_at > 1 and reading.removed.get(reading.begins_at - 1) is None:
        yield f"changes: the first {reading.begins_at - 1} rows are gone, and no retention says so"


def count(connection: Connection) -> int:
    """How many rows there are."""
    return connection.scalar(select(func.count()).select_from(changes)) or 0


def last(connection: Connection) -> tuple[int, str] | None:
    """Number and hash of the newest row."""
    query = select(changes.c.number, changes.c.hash).order_by(changes.c.number.desc()).limit(1)
    row = connection.execute(query).one_or_none()
    return (row.number, row.hash) if row is not None else None


def _fault(reading: _Reading, row: RowMapping, heads: Mapping[int, str]) -> str:
    number = row["number"]
    if number != reading.number + 1:
        return f"changes: change {reading.number + 1} is missing (the next one is {number})"
    salts = _document(row["salts"])
    if {*salts} != {*ERASABLE} or _hash(reading.hash, row, salts) != row["hash"]:
        return f"changes: change {number} ({row['change_id']}, {row['action']}) was altered, or the one before it"
    if heads.get(number, row["hash"]) != row["hash"]:
        return f"changes: change {number} ({row['change_id']}) is known otherwise to the audit trail or the kept report"
    for name in ERASABLE:
        if salts[name].startswith(COMMITTED):
            reading.replaced[number, name] = _digest(row[name])
    reading.number, reading.hash = number, row["hash"]
    return ""


def _learn(reading: _Reading, row: RowMapping, keys: Mapping[str, Key]) -> None:
    """What a row says about others, if whoever has the key wrote it."""
    if row["action"] not in {"person.erase", "retention.changes"} or row["after"] is None:
        return
    after = _document(row["after"])
    name = next((each for each in (REDACTIONS, REMOVED) if each in after), None)
    if name is None:
        return
    match after:
        case {"seal": [str(key_id), str(mac)]} if key_id in keys:
            why = "" if mac == _seal(keys[key_id], row["change_id"], name, after[name]) else NOT_SEALED
        case {"seal": [str(key_id), str()]}:
            why = f"is sealed with another key ({key_id}); name its secret in audit.former_key_files"
        case _:
            why = NOT_SEALED
    if why:
        reading.forged.append(f"changes: change {row['number']} ({row['change_id']}, {row['action']}) {why}")
    elif name == REDACTIONS:
        reading.allowed |= {(place, column): digest for place, column, digest in after[name]}
    else:
        reading.removed[after[name]["number"]] = after[name]["hash"]


def _removed_hash(connection: Connection, number: int) -> str | None:
    query = select(changes.c.after).where(changes.c.action == "retention.changes").order_by(changes.c.number.desc())
    for after in connection.scalars(query):
        match _document(after):
            case {"removed": {"number": int(up_to), "hash": str(digest)}} if up_to == number:
                return digest
    return None


def _document(text: str | None) -> dict[str, Any]:
    """A JSON object; an empty one for whatever somebody has put in its place."""
    try:
        found = json.loads(text or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _hash(before: str, row: Mapping[str, Any] | RowMapping, salts: Mapping[str, str]) -> str:
    commitments = [
        salts[name][1:] if salts[name].startswith(COMMITTED) else _commitment(salts[name], name, row[name])
        for name in ERASABLE
    ]
    return _digest(_json([before, *(row[name] for name in OPEN), *commitments]))


def _commitment(salt: str, name: str, text: str | None) -> str:
    return _digest(_json([salt, name, text]))


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))
