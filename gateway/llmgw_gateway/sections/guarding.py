"""The section `[[guardrails]]` of the configuration: Bedrock's guardrails, which policies can require by name."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import TYPE_CHECKING, Final, Literal

from llmgw_gateway.call import UNGUARDED, Guard
from llmgw_gateway.sections.reading import Section, Text

if TYPE_CHECKING:
    from pathlib import Path

MOST_USD: Final = Decimal(10)
UNIT_TOKENS: Final = 250
"""Tokens of a text unit: it holds up to 1,000 characters (Amazon Bedrock pricing), and a token is four of them."""
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
# The patterns of the API: Amazon Bedrock API reference, GuardrailConfiguration.
_ID = re.compile(r"[a-z0-9]{1,64}|arn:aws(-[a-z]+)*:bedrock:[a-z0-9-]{1,20}:[0-9]{12}:guardrail/[a-z0-9]{1,64}")
_VERSION = re.compile(r"[1-9][0-9]{0,7}|DRAFT")


class Guardrail(Section, frozen=True, kw_only=True):
    """A guardrail as one upstream knows it: guardrails belong to one region of one account."""

    name: Text
    """How policies call it. One name may stand here several times, once for each upstream."""
    upstream: Text = "bedrock"
    """`bedrock`, or a name of `[[regions]]`."""
    id: Text
    """Its id there, or its ARN."""
    version: Text
    """The number of a version, or `DRAFT`: what is being edited."""
    trace: Literal["disabled", "enabled", "enabled_full"] = "disabled"
    """Whether answers tell what it found, and in which words: the client reads it, too."""
    usd_per_thousand_units: Decimal = Decimal(0)
    """What its policies cost together for 1,000 text units. 0: budgets do not see it."""

    @property
    def identity(self) -> str:
        """One name has one guardrail at an upstream."""
        return f"{self.name} at {self.upstream}"

    @property
    def guard(self) -> Guard:
        """What is sent with a call."""
        rate = int(self.usd_per_thousand_units * 1_000_000 * 1_000 / UNIT_TOKENS)
        return Guard(self.name, self.id, self.version, self.trace, rate)

    def faults(self, _base: Path) -> list[str]:
        """A name that policies cannot say, what Bedrock would refuse with every call, a price beyond reason."""
        found = []
        if not _NAME.fullmatch(self.name) or self.name == UNGUARDED:
            found.append(
                f"name: {self.name!r} has to be small letters, digits, dots and hyphens, and not {UNGUARDED!r}"
            )
        if not _ID.fullmatch(self.id):
            found.append(f"id: {self.id!r} is no id and no ARN of a guardrail")
        if not _VERSION.fullmatch(self.version):
            found.append(f"version: {self.version!r} is no number of a version, and not DRAFT")
        if not (self.usd_per_thousand_units.is_finite() and 0 <= self.usd_per_thousand_units <= MOST_USD):
            found.append(f"usd_per_thousand_units: must be between 0 and {MOST_USD}")
        return found
