"""Finds people and teams by a filter, page by page, always in the same order."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import func, select

from llmgw_gateway.identity.entries import KEPT
from llmgw_gateway.identity.joining import DIRECTORY_ID
from llmgw_gateway.identity.matching import folded
from llmgw_gateway.scim import filters, resources
from llmgw_gateway.scim.attributes import GROUPS, USERS
from llmgw_gateway.store.schema import persons, team_members, teams

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import ColumnElement, Connection, Row

    from llmgw_gateway.scim.filters import Filter

TOGETHER: Final = 500
"""Values in one condition of a query."""


@dataclass(frozen=True, slots=True)
class Query:
    """What is asked for."""

    home: str
    base: str
    found: Filter | None = None
    start: int = 1
    """From 1."""
    count: int = 100
    members: bool = True
    """Whether the members of teams are wanted."""


def people(connection: Connection, query: Query) -> tuple[int, list[dict[str, Any]]]:
    """How many there are in all, and the page."""
    mine = (persons.c.home == query.home) & persons.c.user_key.is_not(None)
    if query.found is not None:
        known = {"id": DIRECTORY_ID, "externalId": persons.c.external_id}
        mine &= _where(query.found, known, {"userName": persons.c.user_key})
        for text in filters.texts(query.found, KEPT):
            # As it stands in the JSON; beyond ASCII databases do not agree about case.
            if text.isascii() and json.dumps(text) == f'"{text}"':
                mine &= func.lower(persons.c.attributes).contains(text.lower(), autoescape=True)
    ordered = select(persons).where(mine).order_by(persons.c.first_seen, persons.c.person_id)
    if query.found is None:
        total = connection.scalar(select(func.count()).select_from(persons).where(mine)) or 0
        rows = connection.execute(ordered.offset(query.start - 1).limit(query.count)).all()
        return total, users(connection, rows, query.base)
    shown = users(connection, connection.execute(ordered).all(), query.base)
    return _page([each for each in shown if filters.holds(query.found, each, USERS)], query)


def users(connection: Connection, rows: Sequence[Row[Any]], base: str) -> list[dict[str, Any]]:
    """People as clients read them, with their teams."""
    theirs: dict[str, list[tuple[str, str]]] = {}
    joined = select(team_members.c.person_id, teams.c.team_id, teams.c.name)
    joined = joined.join(teams, teams.c.team_id == team_members.c.team_id).order_by(teams.c.name)
    names = [row.person_id for row in rows]
    for start in range(0, len(names), TOGETHER):
        some = team_members.c.person_id.in_(names[start : start + TOGETHER])
        for person_id, team_id, name in connection.execute(joined.where(some)):
            theirs.setdefault(person_id, []).append((team_id, name))
    return [resources.user(row, theirs.get(row.person_id, ()), base) for row in rows]


def groups(connection: Connection, query: Query) -> tuple[int, list[dict[str, Any]]]:
    """How many there are in all, and the page."""
    mine = teams.c.home == query.home
    if query.found is not None:
        known = {"id": teams.c.team_id, "externalId": teams.c.external_id}
        mine &= _where(query.found, known, {"displayName": teams.c.name_key})
    ordered = select(teams).where(mine).order_by(teams.c.made_at, teams.c.team_id)
    if query.found is None:
        total = connection.scalar(select(func.count()).select_from(teams).where(mine)) or 0
        rows = connection.execute(ordered.offset(query.start - 1).limit(query.count)).all()
        return total, [shown_group(connection, row, query.base, members=query.members) for row in rows]
    asked = query.members or filters.mentions(query.found, "members")
    rows = connection.execute(ordered).all()
    shown = [shown_group(connection, row, query.base, members=asked) for row in rows]
    return _page([each for each in shown if filters.holds(query.found, each, GROUPS)], query)


def shown_group(connection: Connection, row: Row[Any], base: str, *, members: bool) -> dict[str, Any]:
    """A team as clients read it."""
    if not members:
        return resources.group(row, None, base)
    theirs = select(DIRECTORY_ID, persons.c.name).join(team_members, team_members.c.person_id == persons.c.person_id)
    mine = theirs.where(team_members.c.team_id == row.team_id).order_by(persons.c.person_id)
    return resources.group(row, [(person_id, name) for person_id, name in connection.execute(mine)], base)


def _page(found: list[dict[str, Any]], query: Query) -> tuple[int, list[dict[str, Any]]]:
    return len(found), found[query.start - 1 : query.start - 1 + query.count]


def _where(
    found: Filter, exact: Mapping[str, ColumnElement[str]], in_one_case: Mapping[str, ColumnElement[Any]]
) -> ColumnElement[bool]:
    """What an index can say of a filter: the rest is asked of each resource."""
    where: ColumnElement[bool] = func.coalesce(1, 1) == 1
    for name, value in filters.required(found).items():
        if name in exact:
            where &= exact[name] == value
        elif name in in_one_case:
            where &= in_one_case[name] == folded(value)
    return where
