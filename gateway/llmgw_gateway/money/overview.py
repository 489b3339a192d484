"""Every budget there is, as an operator sees it: the configured ones, each for everybody it concerns. Queries only."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from sqlalchemy import select

from llmgw_gateway.call import Account
from llmgw_gateway.money.adjustments import present
from llmgw_gateway.money.budgets import Budgets
from llmgw_gateway.money.overrides import Adjustment, Overrides
from llmgw_gateway.store.schema import adjustments, counters, events, persons, service_keys, sessions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from sqlalchemy import Connection

    from llmgw_gateway.money.levels import BudgetRef
    from llmgw_gateway.settings import Settings

    TeamOf = Callable[[str, str, frozenset[str]], str]
    """The paying team of a person (id, e-mail address, groups)."""


@dataclass(frozen=True, slots=True)
class Standing:
    """One budget in its present period. Amounts in its unit."""

    budget: BudgetRef
    subject: str
    """Whose it is, as a person says it: an e-mail address, a team, a project, a key; empty for the organisation."""
    spent: int
    held: int
    exposure: int
    account: Account
    """Whom it is of, with the team that pays."""

    @property
    def remaining(self) -> int:
        """What can still be admitted."""
        return max(0, self.budget.limit - self.spent - self.held)


@dataclass(frozen=True, slots=True)
class Event:
    """A threshold that was reached."""

    event_id: int
    kind: str
    budget: str
    period_key: str
    percent: int
    limit_amount: int
    spent: int
    created_at: int
    """Milliseconds since the epoch."""


def standings(
    connection: Connection, settings: Settings, teams: Iterable[str], team_of: TeamOf, now: float
) -> list[Standing]:
    """All budgets of everybody who is known, in their present periods."""
    budgets = Budgets(
        settings.budgets,
        ZoneInfo(settings.organisation.time_zone),
        Overrides(present(connection, int(now * 1000))),
    )
    sums = {
        (row.budget, row.period_key): (row.spent, row.held, row.exposure)
        for row in connection.execute(select(counters))
    }
    found: dict[str, Standing] = {}
    for level, subject, account in _accounts(connection, settings, teams, team_of):
        for budget in budgets.concerning(account, now):
            if budget.level == level and budget.budget not in found:
                spent, held, exposure = sums.get((budget.budget, budget.period_key), (0, 0, 0))
                found[budget.budget] = Standing(budget, subject, spent, held, exposure, account)
    return list(found.values())


def _accounts(
    connection: Connection, settings: Settings, teams: Iterable[str], team_of: TeamOf
) -> Iterator[tuple[str, str, Account]]:
    """Everything that a budget can be of: level, what a person calls it, and an account that it concerns."""
    yield "organisation", "", Account("")
    for team in teams:
        yield "team", team, Account("", team=team)
    for project in settings.projects:
        yield "project", project.name, Account("", project=project.name)
    people = {}
    for row in connection.execute(select(persons).order_by(persons.c.email)):
        team_name = team_of(row.person_id, row.email, frozenset(json.loads(row.groups) or ()))
        account = people[row.person_id] = Account(row.person_id, row.email, team_name)
        yield "user", row.email or row.name or row.person_id, account
    places = select(sessions.c.access_key, sessions.c.person_id).order_by(sessions.c.access_key)
    for access_key, person_id in connection.execute(places):
        yield "key", access_key, Account(person_id, team=people[person_id].team, key=access_key)
    keys = select(service_keys.c.key_id, service_keys.c.team).distinct().order_by(service_keys.c.key_id)
    for key_id, team_name in connection.execute(keys):
        yield "key", key_id, Account(key_id, team=team_name, key=key_id)


def adjustments_of(connection: Connection, budget: str) -> list[Adjustment]:
    """Every adjustment that a budget ever had, oldest first."""
    query = select(adjustments).where(adjustments.c.budget == budget).order_by(adjustments.c.made_at)
    return [Adjustment(**row) for row in connection.execute(query).mappings()]


def events_since(connection: Connection, since: int) -> list[Event]:
    """Events from a moment on (milliseconds since the epoch), oldest first."""
    query = select(events).where(events.c.created_at >= since).order_by(events.c.created_at, events.c.event_id)
    return [Event(**row) for row in connection.execute(query).mappings()]
