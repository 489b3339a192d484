"""Whose budgets a call concerns: the person's team and the project that the request names. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmgw_gateway.call import Account
from llmgw_gateway.errors import GatewayError
from llmgw_wire.errors import ErrorCode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llmgw_gateway.call import Caller
    from llmgw_gateway.permitting import Permission
    from llmgw_gateway.settings import Project, Team


class Accounts:
    """Resolves accounts by the configured teams and projects."""

    def __init__(self, teams: Sequence[Team], projects: Sequence[Project], policies: Sequence[Permission] = ()) -> None:
        self._teams = teams
        self._deciding = frozenset(group for entry in policies for group in entry.groups)
        self._groups_matter = any(entry.groups or entry.teams for entry in policies)
        self._projects = {project.name: project for project in projects}

    def team_of(self, email: str, groups: frozenset[str]) -> str:
        """The paying team: the first in the order of the configuration that the person belongs to; "" for none."""
        for team in self._teams:
            if not groups.isdisjoint(team.groups) or (email and email in team.members):
                return team.name
        return ""

    def resolve(self, caller: Caller, email: str, groups: frozenset[str] | None, project: str) -> Account:
        """The account of a call; GatewayError when it names a project that is not there or not the caller's to charge.

        An unknown project is refused, not ignored: a misspelt one would escape its budget. `groups` None: unknown.
        """
        team = self._of_key(caller) if caller.service else self.team_of(email, groups or frozenset())
        if project:
            known = self._projects.get(project)
            if known is None or (known.teams and team not in known.teams):
                mine = [each.name for each in self._projects.values() if not each.teams or team in each.teams]
                offered = f"Yours: {', '.join(mine)}." if mine else "You have none: leave the header out."
                raise GatewayError(
                    ErrorCode.REQUEST_MALFORMED, f"x-llmgw-project names no project that you may charge. {offered}"
                )
        # Of the groups only what decides: accounts of the same standing are one question to budgets and limits.
        deciding = None if groups is None and self._groups_matter else (groups or frozenset()) & self._deciding
        return Account(caller.person_id, email, team, project, caller.access_key, deciding, caller.models)

    def _of_key(self, caller: Caller) -> str:
        """The team that pays for a service key. One that is gone is no team: its budgets would be passed by."""
        if caller.team and all(caller.team != team.name for team in self._teams):
            raise GatewayError(
                ErrorCode.PERSON_DISABLED,
                f"This service key belongs to the team {caller.team!r}, which is not configured any more.",
            )
        return caller.team
