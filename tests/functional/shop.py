"""One gateway and one cloud for all tests of a file: for dialects, where nothing but the answer is looked at.

Starting a gateway takes seconds, because it signs with a new key only once every replica must know it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.functional import ledger

if TYPE_CHECKING:
    from sqlalchemy import Row

    from tests.functional.device import Device
    from tests.lab.gateway import Gateway
    from tests.lab.scripted import ScriptedBedrock


@dataclass
class Shop:
    """A gateway that serves every model, the cloud behind it, and Ada's device."""

    gateway: Gateway
    cloud: ScriptedBedrock
    ada: Device
    begun: int = 0
    """Ledger entries from before the test."""

    def begin(self) -> None:
        """Begin a test: nothing of the one before is left."""
        self.begun = ledger.at_rest(self.gateway.db)
        self.cloud.reset()

    def entries_as_they_are(self, count: int) -> list[Row[Any]]:
        """The ledger entries of this test, as soon as they are there, whatever they say."""
        return ledger.settled(self.gateway.db, self.begun + count)[self.begun :]

    def entries(self, count: int) -> list[Row[Any]]:
        """The ledger entries of this test, as soon as they are there; they say what the cloud counted."""
        rows = self.entries_as_they_are(count)
        # An entry without usage is one for which the provider billed nothing.
        counted = sorted(repr(ledger.usage_of(row)) for row in rows if row.input_tokens or row.output_tokens)
        assert counted == sorted(map(repr, self.cloud.usages))
        return rows
