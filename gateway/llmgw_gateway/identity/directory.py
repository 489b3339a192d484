"""Who a `person_id` is: read from the one erasable table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import select

from llmgw_gateway.store.schema import persons

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from llmgw_gateway.store.database import Database


@dataclass(frozen=True, slots=True)
class Person:
    """A person as they may see themselves. Empty texts once the person was erased."""

    name: str = ""
    email: str = ""
    issuer: str = ""


class Directory:
    """Looks people up."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def person(self, person_id: str) -> Person:
        """The person, or an empty one."""

        def query(connection: Connection) -> Person:
            row = connection.execute(select(persons).where(persons.c.person_id == person_id)).one_or_none()
            return Person(row.name, row.email, row.issuer) if row else Person()

        return await self._database.read(query)
