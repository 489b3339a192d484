"""Statements over many rows, written once with SQLAlchemy Core and executed at the driver's speed on both databases.

A batch of admissions touches a handful of tables; building each statement anew for each batch would cost more than the
database does. So they are compiled once for each database, and the rows go over as the database takes them best: one
`executemany` for SQLite, where a row is a function call, and one JSON document for PostgreSQL, where it is a packet.
"""

from __future__ import annotations

from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

import msgspec
from sqlalchemy import JSON, Text, bindparam, cast, column, delete, func, literal_column, select, update
from sqlalchemy.exc import DBAPIError

from llmgw_gateway.store.upsert import insert_into

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from sqlalchemy import ClauseElement, Column, ColumnElement, Connection, Dialect, Select, Table

    Rows = Sequence[tuple[Any, ...]]
    Build = Callable[[bool], ClauseElement]

POSTGRESQL: Final = "postgresql"
TOGETHER: Final = (128, 32, 8, 1)
"""Rows that one INSERT takes on SQLite. Each statement lets go of the interpreter's lock and has to get it back."""
GIVEN: Final = "given"
"""How the one parameter of a statement of PostgreSQL is called: its rows as a document, or values of its key."""
_rows: Final = msgspec.json.Decoder(list[tuple[Any, ...]])


class _Compiled:
    """A statement as text, for each database that asked for it."""

    def __init__(self, build: Build) -> None:
        self._build = build
        self._known: dict[str, tuple[str, tuple[str, ...]]] = {}

    def on(self, dialect: Dialect) -> tuple[str, tuple[str, ...]]:
        """The text, and for databases with positional parameters their names in order."""
        known = self._known.get(dialect.name)
        if known is None:
            compiled = self._build(dialect.name == POSTGRESQL).compile(dialect=dialect)
            order = tuple(name.removesuffix("_") for name in getattr(compiled, "positiontup", None) or ())
            known = self._known[dialect.name] = (str(compiled), order)
        return known


class InsertRows:
    """Insert rows, tuples of `columns` in the table's order; `ignore` leaves out those that a unique key forbids."""

    def __init__(self, table: Table, *columns: str, ignore: bool = False) -> None:
        self._names = columns

        def build(postgresql: bool, together: int) -> ClauseElement:  # noqa: FBT001 -- see Build
            make = insert_into(table, postgresql=postgresql)
            if postgresql:
                rows = _recordset(table, columns)
                filled: Any = make.from_select(list(columns), select(*(rows.c[name] for name in columns)))
            else:
                # Parameters of one row must not be called like those of another.
                each: list[dict[str, Any]] = [
                    {name: bindparam(f"{name}_" if n == 0 else f"{name}_{n}") for name in columns}
                    for n in range(together)
                ]
                filled = make.values(each)
            return filled.on_conflict_do_nothing() if ignore else filled  # type: ignore[no-any-return]  # built above

        self._statements = {count: _Compiled(partial(build, together=count)) for count in TOGETHER}

    def __call__(self, connection: Connection, rows: Rows) -> None:
        """Insert all rows, in order."""
        if connection.dialect.name == POSTGRESQL:
            _execute(connection, self._statements[1], self._names, rows)
            return
        done = 0
        for count in TOGETHER:
            ends = len(rows) - (len(rows) - done) % count
            if ends > done:
                self._insert(connection, count, rows[done:ends])
                done = ends

    def for_postgresql(self, connection: Connection, rows: Rows) -> tuple[str, Any]:
        """The statement and its one parameter."""
        return self._statements[1].on(connection.dialect)[0], _document(self._names, rows)

    def _insert(self, connection: Connection, count: int, rows: Rows) -> None:
        """Insert on SQLite, so many rows at a time."""
        text, order = self._statements[count].on(connection.dialect)
        if order[: len(self._names)] != self._names:
            raise TypeError(f"the columns must stand in the table's order: {order[: len(self._names)]}")
        starts = range(0, len(rows), count)
        values = [list(chain.from_iterable(rows[start : start + count])) for start in starts]
        drive(connection, lambda driver: driver.executemany(text, values))


class UpdateRows:
    """Set columns of rows found by their key; rows are tuples of `columns`, in the table's order, and then the key."""

    def __init__(self, table: Table, key: str, *columns: str) -> None:
        self._names = (*columns, key)

        def build(postgresql: bool) -> ClauseElement:  # noqa: FBT001 -- see Build
            if postgresql:
                rows = _recordset(table, self._names)
                values = {name: rows.c[name] for name in columns}
                return update(table).where(table.c[key] == rows.c[key]).values(values)
            # A bind parameter must not be called like a column that is set.
            where = table.c[key] == bindparam(f"{key}_")
            return update(table).where(where).values({name: bindparam(name) for name in columns})

        self._statement = _Compiled(build)

    def __call__(self, connection: Connection, rows: Rows) -> None:
        """Update all rows."""
        _execute(connection, self._statement, self._names, rows)

    def for_postgresql(self, connection: Connection, rows: Rows) -> tuple[str, Any]:
        """The statement and its one parameter."""
        return self._statement.on(connection.dialect)[0], _document(self._names, rows)


class SelectRows:
    """Select rows of numbers and texts by values of one column, in its order; `lock` keeps others from changing them.

    SQLite hands them over as one JSON document: for each row its driver lets go of the interpreter's lock, which costs
    more than the row where the event loop is waiting for it.
    """

    def __init__(self, key: Column[Any], *columns: ColumnElement[Any], lock: bool = False) -> None:
        def build(postgresql: bool, document: bool) -> ClauseElement:  # noqa: FBT001 -- see Build
            query = select(*columns).where(_among(key, postgresql)).order_by(key)
            if not postgresql:
                found = query.subquery("found")
                return select(func.json_group_array(func.json_array(*found.c)))
            query = query.with_for_update() if lock else query
            return _as_document(query) if document else query

        self._statement = _Compiled(partial(build, document=False))
        self._document = _Compiled(partial(build, document=True))

    def as_document(self, connection: Connection) -> str:
        """The statement as text that gives all rows as one JSON document, in one row of one column."""
        return self._document.on(connection.dialect)[0]

    def __call__(self, connection: Connection, values: Iterable[Any]) -> Sequence[tuple[Any, ...]]:
        """The rows that are there."""
        text, _ = self._statement.on(connection.dialect)
        members = _members(connection, values)
        if connection.dialect.name == POSTGRESQL:
            return drive(connection, lambda driver: driver.execute(text, members).fetchall())  # type: ignore[no-any-return] # DB-API
        return _rows.decode(drive(connection, lambda driver: driver.execute(text, members).fetchone()[0]))


class SelectTogether:
    """Several `SelectRows` in one statement: each statement costs more than the rows that it finds.

    All of them see one moment. What one of them locks, another one may have read before.
    """

    def __init__(self, *selects: SelectRows) -> None:
        self._selects = selects
        self._known: dict[str, str] = {}

    def __call__(self, connection: Connection, *values: Iterable[Any]) -> list[list[tuple[Any, ...]]]:
        """The rows that are there, for each of the selects."""
        dialect = connection.dialect.name
        if dialect not in self._known:
            each = [select.as_document(connection) for select in self._selects]
            self._known[dialect] = f"SELECT {', '.join([f'({text})' for text in _apart(each)])}"
        text, members = self._known[dialect], _members_together(connection, values)
        found = drive(connection, lambda driver: driver.execute(text, members).fetchone())
        return [_rows.decode(each) for each in found]


class DeleteRows:
    """Delete rows by values of one column."""

    def __init__(self, key: Column[Any]) -> None:
        self._statement = _Compiled(lambda postgresql: delete(key.table).where(_among(key, postgresql)))

    def __call__(self, connection: Connection, values: Iterable[Any]) -> None:
        """Delete those that are there."""
        text, _ = self._statement.on(connection.dialect)
        members = _members(connection, values)
        drive(connection, lambda driver: driver.execute(text, members))

    def for_postgresql(self, connection: Connection, values: Iterable[Any]) -> tuple[str, Any]:
        """The statement and its one parameter."""
        return self._statement.on(connection.dialect)[0], list(values)


class WriteTogether:
    """Several writes, each to other rows than the rest: in order on SQLite, in one statement on PostgreSQL.

    There each of them would be a round trip. None of them sees what the others do.
    """

    def __init__(self, *writes: InsertRows | UpdateRows | DeleteRows) -> None:
        self._writes = writes
        self._known: dict[tuple[str, ...], str] = {}

    def __call__(self, connection: Connection, *rows: Collection[Any]) -> None:
        """Write all rows: for each of the writes its own, or none."""
        due = [(write, given) for write, given in zip(self._writes, rows, strict=True) if given]
        if connection.dialect.name != POSTGRESQL:
            for write, given in due:
                write(connection, given)  # type: ignore[arg-type]  # rows or values, as it takes them
        elif due:
            parts = [write.for_postgresql(connection, given) for write, given in due]  # type: ignore[arg-type]  # the same
            key = tuple([text for text, _ in parts])
            if key not in self._known:
                named = [f"w{n} AS ({text})" for n, text in enumerate(_apart(key))]
                self._known[key] = f"WITH {', '.join(named)} SELECT"
            text, values = self._known[key], {_name(n): value for n, (_, value) in enumerate(parts)}
            drive(connection, lambda driver: driver.execute(text, values))


def _apart(statements: Sequence[str]) -> list[str]:
    """Statements with one named parameter each, which is called otherwise in each; those of SQLite have no names."""
    return [text.replace(f"%({GIVEN})s", f"%({_name(n)})s") for n, text in enumerate(statements)]


def _name(number: int) -> str:
    return f"{GIVEN}_{number}"


def _execute(connection: Connection, statement: _Compiled, names: tuple[str, ...], rows: Rows) -> None:
    text, order = statement.on(connection.dialect)
    if connection.dialect.name == POSTGRESQL:
        drive(connection, lambda driver: driver.execute(text, {GIVEN: _document(names, rows)}))
        return
    if order != names:
        raise TypeError(f"the columns must stand in the table's order: {order}")
    drive(connection, lambda driver: driver.executemany(text, rows))


def _document(names: tuple[str, ...], rows: Rows) -> str:
    """Rows as `_recordset` reads them."""
    return msgspec.json.encode([dict(zip(names, row, strict=True)) for row in rows]).decode()


def drive(connection: Connection, work: Callable[[Any], Any]) -> Any:  # noqa: ANN401 -- what the driver gives
    """Use the driver's own connection, in the transaction that SQLAlchemy began; its errors become SQLAlchemy's."""
    dialect = connection.dialect
    errors = dialect.loaded_dbapi.Error
    try:
        return work(connection.connection.dbapi_connection)
    except errors as error:
        raise DBAPIError.instance(None, None, error, errors, dialect=dialect) from error


def _recordset(table: Table, columns: Sequence[str]) -> Any:  # noqa: ANN401 -- SQLAlchemy's TableValuedAlias
    document = cast(bindparam(GIVEN), JSON)
    typed = (column(name, table.c[name].type) for name in columns)
    return func.json_to_recordset(document).table_valued(*typed).render_derived(name="given", with_types=True)


def _as_document(query: Select[Any]) -> ClauseElement:
    """All rows of a query of PostgreSQL as one JSON text, in its order."""
    found = query.subquery("found")
    rows = func.json_agg(func.json_build_array(*found.c))
    return select(func.coalesce(cast(rows, Text), literal_column("'[]'")))


def _among(key: Column[Any], postgresql: bool) -> ColumnElement[bool]:  # noqa: FBT001 -- see Build
    if postgresql:
        from sqlalchemy.dialects.postgresql import ARRAY  # noqa: PLC0415 -- see upsert.insert_into

        return key == func.any(bindparam(GIVEN, type_=ARRAY(key.type)))
    return key.in_(select(func.json_each(bindparam(GIVEN)).table_valued("value").c.value))


def _members(connection: Connection, values: Iterable[Any]) -> Any:  # noqa: ANN401 -- a driver's parameters
    if connection.dialect.name == POSTGRESQL:
        return {GIVEN: list(values)}
    return (msgspec.json.encode(list(values)).decode(),)


def _members_together(connection: Connection, values: Iterable[Iterable[Any]]) -> Any:  # noqa: ANN401 -- the same
    if connection.dialect.name == POSTGRESQL:
        return {_name(n): list(each) for n, each in enumerate(values)}
    return [msgspec.json.encode(list(each)).decode() for each in values]
