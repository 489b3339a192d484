"""The sections `[administration]` and `[[roles]]` of the configuration: the Admin API, and who may use it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from llmgw_gateway.sections import faults
from llmgw_gateway.sections.reading import Section, Text

if TYPE_CHECKING:
    from pathlib import Path

Role = Literal["admin", "auditor", "team_lead"]
"""What can be granted. Everybody who has signed in is a developer, and a service key a service, without being told."""


class Administration(Section, frozen=True, kw_only=True):
    """The Admin API."""

    listen: str = ""
    """host:port of the Admin API; empty: there is none. Over TLS where `[server]` has a certificate."""

    def faults(self, _base: Path) -> list[str]:
        """An address that cannot be listened on."""
        try:
            if self.listen:
                faults.listen_address(self.listen)
        except ValueError as error:
            return [f"listen: {error}"]
        return []


class RoleRule(Section, frozen=True, kw_only=True):
    """Who has a role because the configuration says so: people by their groups, or by themselves."""

    role: Role
    issuer: str = ""
    """Whose groups and subjects these are; needed with more than one of `[[issuers]]`: each could say any name."""
    groups: tuple[Text, ...] = ()
    """Values of the sign-in's `groups` claim, compared exactly. Unknown groups (an overage) give nobody a role."""
    subjects: tuple[Text, ...] = ()
    """People as `people show` has them: `sub`, for Entra ID tenant and object id."""
    teams: tuple[Text, ...] = ()
    """Role team_lead: of which teams."""

    def faults(self, _base: Path) -> list[str]:
        """A rule for nobody, a lead of nothing."""
        found = [] if self.groups or self.subjects else ["groups: groups or subjects are needed: it is for nobody"]
        if (self.role == "team_lead") != bool(self.teams):
            found.append('teams: is needed with role = "team_lead", and only there')
        return found
