"""Budgets and the changes of their limits beside the configuration."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Final, Literal

from msgspec import UNSET, Meta, UnsetType
from sqlalchemy import select, true

from llmgw_gateway.admin.asking import (
    LEADS,
    READERS,
    Document,
    LongLine,
    Nothing,
    Page,
    Paragraph,
    Route,
    missing,
    time_text,
)
from llmgw_gateway.admin.moments import Moment, milliseconds
from llmgw_gateway.admin.roles import Revoked
from llmgw_gateway.errors import GatewayError
from llmgw_gateway.identity.directory import all_memberships
from llmgw_gateway.identity.people import is_paid_by
from llmgw_gateway.money.adjustments import NewAdjustment, Withdrawal, make, withdraw
from llmgw_gateway.money.budgets import parts
from llmgw_gateway.money.overrides import Adjustment
from llmgw_gateway.money.overview import Standing, standings
from llmgw_gateway.policy.accounts import Accounts
from llmgw_gateway.store.schema import adjustments, persons, service_keys
from llmgw_wire.errors import ErrorCode

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Connection

    from llmgw_gateway.admin.asking import Asking

MOST: Final = 10**15
"""Micro-USD or tokens: a billion USD."""
KIND: Final = "adjustment"
Level = Literal["organisation", "team", "project", "user", "key"]


class BudgetStanding(Document, frozen=True):
    """One budget in its present period. Amounts in micro-USD or tokens, as the unit says."""

    budget: str
    """Its key: what adjustments name."""
    level: str
    subject: str
    model: str
    period: str
    unit: str
    limit: int
    spent: int
    held: int
    remaining: int
    exposure: int
    overshoot: int
    resets_at: str


class Budgets(Document, frozen=True):
    """A page of budgets."""

    budgets: tuple[BudgetStanding, ...]
    next: str | None


class BudgetsQuery(Page, frozen=True):
    """Which budgets."""

    level: Level | UnsetType = UNSET


class AdjustmentShown(Document, frozen=True):
    """One change of one limit."""

    adjustment: str
    kind: str
    budget: str
    amount: int
    starts_at: str
    ends_at: str | None
    reason: str
    made_by: str
    made_at: str
    withdrawn_by: str | None
    withdrawn_at: str | None
    in_force: bool


class Adjustments(Document, frozen=True):
    """A page of changes of limits."""

    adjustments: tuple[AdjustmentShown, ...]
    next: str | None


class AdjustmentsQuery(Page, frozen=True):
    """Which changes of limits."""

    budget: LongLine = ""


class NewLimit(Document, frozen=True):
    """A new limit in the place of the configured one, or an increase with an end."""

    budget: Paragraph
    kind: Literal["limit", "grant"]
    amount: Annotated[int, Meta(ge=0, le=MOST)]
    """Micro-USD or tokens, in the budget's unit."""
    reason: Paragraph
    ends_at: Moment | None = None
    """Needed for a grant."""


def list_budgets(asking: Asking, connection: Connection, query: BudgetsQuery) -> Budgets:
    """Answer with a page, in the order of their keys."""
    mine = [each for each in _standings(asking, connection) if query.level in (UNSET, each.budget.level)]
    ordered = sorted((each for each in mine if each.budget.budget > query.cursor), key=lambda each: each.budget.budget)
    shown = ordered[: query.limit]
    following = shown[-1].budget.budget if ordered[query.limit :] else None
    return Budgets(budgets=tuple(_budget(each) for each in shown), next=following)


def list_adjustments(asking: Asking, connection: Connection, query: AdjustmentsQuery) -> Adjustments:
    """Answer with a page, in the order of their ids."""
    where = _visible(asking, connection) & (adjustments.c.adjustment_id > query.cursor)
    if query.budget:
        where &= adjustments.c.budget == query.budget
    rows = connection.execute(
        select(adjustments).where(where).order_by(adjustments.c.adjustment_id).limit(query.limit + 1)
    ).mappings()
    page = [Adjustment(**row) for row in rows]
    shown = page[: query.limit]
    following = shown[-1].adjustment_id if page[query.limit :] else None
    return Adjustments(adjustments=tuple(_adjustment(each, asking.now) for each in shown), next=following)


def adjust(asking: Asking, connection: Connection, body: NewLimit) -> AdjustmentShown:
    """Change a limit. A team lead may only add to budgets of their members' own, never to their own."""
    if (body.kind == "grant") != (body.ends_at is not None):
        raise GatewayError(ErrorCode.REQUEST_MALFORMED, "`ends_at` is needed for a grant, and only there.")
    ends_at = milliseconds(body.ends_at, asking.now)
    standing = next((each for each in _standings(asking, connection) if each.budget.budget == body.budget), None)
    if standing is None:
        raise missing("budget")
    if asking.teams is not None:
        _check_lead(asking, standing, body)
    new = Adjustment(
        adjustment_id=asking.new_id("adj"),
        kind=body.kind,
        budget=body.budget,
        amount=body.amount,
        starts_at=asking.now,
        ends_at=ends_at,
        reason=body.reason,
        made_by=asking.by.actor,
        made_at=asking.now,
    )
    make(connection, [NewAdjustment(new, asking.by)])
    return _adjustment(_stored(connection, adjustments.c.adjustment_id == new.adjustment_id), asking.now)


def end_adjustment(asking: Asking, connection: Connection, _query: Nothing) -> Revoked:
    """End a change of a limit early. A team lead ends what they have granted."""
    name = asking.places["adjustment"]
    mine = adjustments.c.adjustment_id == name
    if asking.teams is not None:
        mine &= adjustments.c.made_by == asking.standing.actor
    if connection.execute(select(adjustments.c.adjustment_id).where(mine)).first() is None:
        raise missing("adjustment")
    if not withdraw(connection, [Withdrawal(name, asking.by, asking.now)])[0]:
        raise missing("adjustment in force")
    return Revoked(id=name)


def _check_lead(asking: Asking, standing: Standing, body: NewLimit) -> None:
    own = asking.standing.actor == standing.account.person_id
    if standing.budget.level != "user" or body.kind != "grant" or own:
        raise GatewayError(
            ErrorCode.ROLE_REQUIRED,
            "A team lead grants increases with an end to budgets of their members, and not to themselves.",
        )


def _standings(asking: Asking, connection: Connection) -> list[Standing]:
    """The budgets that the caller may see: of everybody, or of the teams that they lead and of whom these pay for."""
    settings = asking.settings
    accounts = Accounts(settings.teams, settings.projects)
    stored = all_memberships(connection)
    names = sorted({team.name for team in settings.teams} | stored[""].known_teams)

    def team_of(person_id: str, email: str, groups: frozenset[str]) -> str:
        return accounts.team_of(email, groups, stored.get(person_id, stored[""]))

    everything = standings(connection, settings, names, team_of, time.time())
    if asking.teams is None:
        return everything
    return [each for each in everything if each.account.team and each.account.team in asking.teams]


def _visible(asking: Asking, connection: Connection) -> ColumnElement[bool]:
    """The owner's check of adjustments: by the budgets of the teams, their members and their keys."""
    if asking.teams is None:
        return true()
    people = select(persons.c.person_id).where(is_paid_by(connection, asking.settings.teams, asking.teams))
    keys = select(service_keys.c.key_id).where(service_keys.c.team.in_(asking.teams), service_keys.c.team != "")
    owners = [f"team/{team}" for team in asking.teams]
    owners += [f"user/{person}" for person in connection.scalars(people)]
    owners += [f"key/{key}" for key in connection.scalars(keys.distinct())]
    budgets = connection.scalars(select(adjustments.c.budget).distinct()).all()
    mine = [each for each in budgets if "/".join(parts(each)[:2]) in owners]
    return adjustments.c.budget.in_(mine)


def _stored(connection: Connection, where: ColumnElement[bool]) -> Adjustment:
    return Adjustment(**connection.execute(select(adjustments).where(where)).mappings().one())


def _budget(each: Standing) -> BudgetStanding:
    ref = each.budget
    return BudgetStanding(
        budget=ref.budget,
        level=ref.level,
        subject=each.subject,
        model=ref.model,
        period=ref.period_key,
        unit=ref.unit,
        limit=ref.limit,
        spent=each.spent,
        held=each.held,
        remaining=each.remaining,
        exposure=each.exposure,
        overshoot=ref.overshoot,
        resets_at=ref.resets_at,
    )


def _adjustment(each: Adjustment, now: int) -> AdjustmentShown:
    return AdjustmentShown(
        adjustment=each.adjustment_id,
        kind=each.kind,
        budget=each.budget,
        amount=each.amount,
        starts_at=time_text(each.starts_at),
        ends_at=None if each.ends_at is None else time_text(each.ends_at),
        reason=each.reason,
        made_by=each.made_by,
        made_at=time_text(each.made_at),
        withdrawn_by=each.withdrawn_by,
        withdrawn_at=None if each.withdrawn_at is None else time_text(each.withdrawn_at),
        in_force=each.in_force(now),
    )


ROUTES: Final = (
    Route(
        "GET", "/admin/v1/budgets", "budgets.list", "Where budgets stand in their present periods.",
        READERS, list_budgets, Budgets, BudgetsQuery, "budget",
    ),
    Route(
        "GET", "/admin/v1/adjustments", "adjustments.list", "Changes of limits beside the configuration.",
        READERS, list_adjustments, Adjustments, AdjustmentsQuery, KIND,
    ),
    Route(
        "POST", "/admin/v1/adjustments", "budget.adjust", "Set another limit, or grant an increase with an end.",
        LEADS, adjust, AdjustmentShown, NewLimit, KIND,
    ),
    Route(
        "DELETE", "/admin/v1/adjustments/{adjustment}", "budget.withdraw", "End a change of a limit early.",
        LEADS, end_adjustment, Revoked, kind=KIND,
    ),
)  # fmt: skip
