"""A store on a file that goes away when a test says so, at once and without a server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeVar

from llmgw_gateway.errors import StoreAwayError
from llmgw_gateway.store.sqlite import Sqlite

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

Result = TypeVar("Result")


class Interrupted(Sqlite):
    """`state`: here; away (nothing is done); deaf (it is done and committed, but the answer is lost).

    late: nobody knows about the COMMIT of one transaction, which lands when `land` is submitted; all else is as usual.
    """

    state: Literal["here", "away", "deaf", "late"] = "here"
    late: Callable[[Connection], Any] | None = None

    def transact(self, run: Callable[[Connection], Result], deadline: float) -> Result:
        if self.state == "away":
            raise StoreAwayError(uncertain=False)
        if self.state == "late":
            self.state, self.late = "here", run
            raise StoreAwayError(uncertain=True)
        result = super().transact(run, deadline)
        if self.state == "deaf":
            raise StoreAwayError(uncertain=True)
        return result

    def land(self, connection: Connection, batch: list[None]) -> list[None]:
        """A batch function: the COMMIT that was late."""
        assert self.late is not None
        self.late(connection)
        return batch

    def read(self, query: Callable[[Connection], Result]) -> Result:
        if self.state != "here":
            raise StoreAwayError(uncertain=False)
        return super().read(query)
