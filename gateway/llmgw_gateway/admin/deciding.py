"""May they? Asked of the store in the very transaction that reads or changes; what is denied leaves a row."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import msgspec

from llmgw_gateway.errors import GatewayError
from llmgw_gateway.identity.roles import standing_of
from llmgw_gateway.observe.changes import Author, Change, new_change_id, record
from llmgw_wire.errors import ErrorCode

if TYPE_CHECKING:
    from msgspec import Struct
    from sqlalchemy import Connection

    from llmgw_gateway.admin.asking import Asking, Route
    from llmgw_gateway.store.database import Database


OTHER: Final = "(no id)"
"""In the place of what somebody wrote who may not: it may be a name or an address."""
_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}(/[A-Za-z0-9_-]{0,64}){0,4}")
"""An id, or a budget's: of ids, and of names that stand in the configuration."""


@dataclass(frozen=True, slots=True)
class Order:
    """A request on its way into a transaction."""

    route: Route
    asking: Asking
    given: Any
    denial: str
    """The id of the row that a refusal leaves."""


class DeniedError(Exception):
    """A refusal that has to leave a row."""

    def __init__(self, error: GatewayError, change: Change) -> None:
        super().__init__(error.message)
        self.error = error
        self.change = change


async def decide(database: Database, route: Route, asking: Asking, given: Any) -> Struct:  # noqa: ANN401 -- a Document of the route's own
    """The answer; GatewayError says why there is none."""
    order = Order(route, asking, given, new_change_id())
    if route.writes:
        return await database.submit(_change, order)
    try:
        return await database.read(lambda connection: _answer(connection, order))
    except DeniedError as denied:
        await database.submit(_write_down, denied.change)
        raise denied.error from None


def _change(connection: Connection, batch: list[Order]) -> list[Struct | GatewayError]:
    return [_one_change(connection, order) for order in batch]


def _one_change(connection: Connection, order: Order) -> Struct | GatewayError:
    try:
        return _answer(connection, order)
    except DeniedError as denied:
        record(connection, denied.change)
        return denied.error
    except GatewayError as error:  # refused before anything was written
        return error


def _write_down(connection: Connection, batch: list[Change]) -> list[None]:
    for change in batch:
        record(connection, change)
    return [None] * len(batch)


def _answer(connection: Connection, order: Order) -> Struct:
    """What the route's handler says, once it is certain that the caller may ask it."""
    route, asking = order.route, order.asking
    try:
        standing = standing_of(connection, asking.caller, asking.settings.roles, asking.now)
    except GatewayError as error:
        raise DeniedError(error, _denial(order, "")) from None
    role = standing.role if standing.roles else ("service" if standing.service else "developer")
    asking = replace(
        asking, standing=standing, by=Author(standing.actor, role, asking.by.change_id, asking.by.request_id)
    )
    order = replace(order, asking=asking)
    if not route.roles & {*standing.roles, "service" if standing.service else "developer"}:
        needed = ", ".join(sorted(route.roles))
        raise DeniedError(
            GatewayError(ErrorCode.ROLE_REQUIRED, f"This needs one of the roles {needed}; you have {role}."),
            _denial(order, role),
        )
    if route.people_only and standing.service:
        raise DeniedError(
            GatewayError(ErrorCode.ROLE_REQUIRED, "A service key may not do this, whatever its role."),
            _denial(order, role),
        )
    # A role counts where the endpoint is for it: an auditor who leads a team, too, sees all and changes their team's.
    counts = replace(standing, roles=standing.roles & route.roles)
    asking = replace(asking, standing=counts, by=replace(asking.by, role=counts.role))
    try:
        return route.handle(asking, connection, order.given)
    except GatewayError as error:
        hidden = error.code is ErrorCode.NOT_FOUND and asking.teams is not None
        if hidden or error.code is ErrorCode.ROLE_REQUIRED:
            raise DeniedError(error, _denial(order, role)) from None
        raise


def _denial(order: Order, role: str) -> Change:
    """What was asked for, without free text: that may name people."""
    asking = order.asking
    by = Author(asking.caller.person_id, role or "developer", order.denial, asking.by.request_id)
    places = {name: text if _ID.fullmatch(text) else OTHER for name, text in asking.places.items()}
    asked = {"places": places} if places else None
    named = next(iter(places.values()), "") or _named(order.given)
    return Change(by, asking.now, order.route.action, order.route.kind, named, None, asked, "denied")


def _named(given: Any) -> str:  # noqa: ANN401 -- a Document
    """The id that a body or query names, if it names one."""
    fields = msgspec.structs.asdict(given)
    named = str(next((fields[name] for name in ("holder", "budget", "person") if fields.get(name)), ""))
    return named if not named or _ID.fullmatch(named) else OTHER
