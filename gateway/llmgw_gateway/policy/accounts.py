"""Whose budgets a call concerns: the person's team and the project that the request names. Pure.

Who belongs to what is said in three places. The configuration counts most: it names people, and its order decides which
of several teams pays. A group that the store has from a directory has the members that the directory gave it, whatever
a token says: the directory is told at once who has left, a token tells what was so when it was made. About all other
groups the token is believed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmgw_gateway.call import NO_MEMBERSHIPS, Account
from llmgw_gateway.errors import GatewayError
from llmgw_wire.errors import ErrorCode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llmgw_gateway.call import Caller, Memberships
    from llmgw_gateway.sections.concerning import Concerning
    from llmgw_gateway.sections.organizing import Project, Team


class Accounts:
    """Resolves accounts by the configured teams and projects."""

    def __init__(self, teams: Sequence[Team], projects: Sequence[Project], policies: Sequence[Concerning] = ()) -> None:
        """`policies`: whatever is decided by groups and teams, defaults among it."""
        self._teams = teams
        self._deciding = frozenset(group for entry in policies for group in entry.groups)
        self._groups_matter = any(entry.groups or entry.teams for entry in policies)
        self._of_teams = frozenset(group for team in teams for group in team.groups)
        self._projects = {project.name: project for project in projects}

    def team_of(self, email: str, groups: frozenset[str] | None, stored: Memberships = NO_MEMBERSHIPS) -> str:
        """The paying team: the first in the order of the configuration that the person belongs to.

        Without one the first of the store's by name; "" for none.
        """
        groups = _joined(groups or frozenset(), stored)
        for team in self._teams:
            if team.name in stored.teams or not groups.isdisjoint(team.groups) or (email and email in team.members):
                return team.name
        return min(stored.teams, default="")

    def resolve(
        self,
        caller: Caller,
        email: str,
        groups: frozenset[str] | None,
        project: str,
        stored: Memberships = NO_MEMBERSHIPS,
    ) -> Account:
        """The account of a call; GatewayError when it names a project that is not there or not the caller's to charge.

        An unknown project is refused, not ignored: a misspelt one would escape its budget. `groups` None: unknown.
        """
        team = self._of_key(caller, stored) if caller.service else self.team_of(email, groups, stored)
        if project:
            known = self._projects.get(project)
            if known is None or (known.teams and team not in known.teams):
                mine = [each.name for each in self._projects.values() if not each.teams or team in each.teams]
                offered = f"Yours: {', '.join(mine)}." if mine else "You have none: leave the header out."
                raise GatewayError(
                    ErrorCode.REQUEST_MALFORMED, f"x-llmgw-project names no project that you may charge. {offered}"
                )
        # Of the groups only what decides: accounts of the same standing are one question to budgets and limits.
        unknown = groups is None and self._groups_matter and not self._are_stored(stored)
        deciding = None if unknown else _joined(groups or frozenset(), stored) & self._deciding
        return Account(caller.person_id, email, team, project, caller.access_key, deciding, caller.models)

    def _are_stored(self, stored: Memberships) -> bool:
        """Whether the store knows all that decides: then nobody need ask a token."""
        return self._deciding | self._of_teams <= stored.known_groups

    def _of_key(self, caller: Caller, stored: Memberships) -> str:
        """The team that pays for a service key. One that is gone is no team: its budgets would be passed by."""
        configured = any(caller.team == team.name for team in self._teams)
        if caller.team and not configured and caller.team not in stored.known_teams:
            raise GatewayError(
                ErrorCode.PERSON_DISABLED,
                f"This service key belongs to the team {caller.team!r}, which is not configured any more.",
            )
        return caller.team


def _joined(groups: frozenset[str], stored: Memberships) -> frozenset[str]:
    """The groups that somebody is in: those that the store knows by what it says, the others by the token."""
    return (groups - stored.known_groups) | stored.groups
