"""The sections `[organisation]`, `[[teams]]` and `[[projects]]` of the configuration: who pays for what."""

from __future__ import annotations

from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from llmgw_gateway.sections.reading import Section, Text

if TYPE_CHECKING:
    from pathlib import Path


class Project(Section, frozen=True, kw_only=True):
    """What a call can be charged to besides its person: named by the request header `x-llmgw-project`."""

    name: Text
    teams: tuple[Text, ...] = ()
    """Teams whose members may charge it; empty: everyone."""

    @property
    def identity(self) -> str:
        """No two projects may have the same name."""
        return self.name


class Team(Section, frozen=True, kw_only=True):
    """People who share a budget: whoever is in one of the provider's groups, or is named."""

    name: Text
    groups: tuple[Text, ...] = ()
    """Values of the sign-in's `groups` claim, compared exactly. Unknown groups (an overage) make nobody a member."""
    members: tuple[Text, ...] = ()
    """E-mail addresses as the provider gives them, for people without a group."""

    @property
    def identity(self) -> str:
        """No two teams may have the same name."""
        return self.name


class Organisation(Section, frozen=True, kw_only=True):
    """Who pays, and what a refused person is told."""

    name: Text = "the organisation"
    time_zone: Text = "UTC"
    """IANA name; budget periods begin at midnight here."""
    contact: str = ""
    """Where to ask for more budget or access; shown in refusals."""
    guardrail: str = ""
    """Under which of `[[guardrails]]` every call is made for which no policy says otherwise; empty: under none."""

    def faults(self, _base: Path) -> list[str]:
        """A time zone that nobody knows."""
        try:
            ZoneInfo(self.time_zone)
        except (ZoneInfoNotFoundError, ValueError):
            return [f"time_zone: unknown time zone {self.time_zone!r}"]
        return []
