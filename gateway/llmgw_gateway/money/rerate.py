"""What settled attempts would cost by another catalogue. Queries only: the ledger is append-only, nothing is rewritten.

An attempt has at most one correction, and that one belongs to usage that became known late; so a changed price is
reported, for the books and for the talk with the provider, and does not change what was charged.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, select

from llmgw_gateway.call import Usage, geography_of
from llmgw_gateway.money.posting import USAGE
from llmgw_gateway.money.tariffs import surcharge_in
from llmgw_gateway.money.usage import ADMITTED, ENTRIES, UNKNOWN
from llmgw_gateway.store.schema import ledger, payers

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from sqlalchemy import Connection, Row

    from llmgw_gateway.money.prices import Catalogue
    from llmgw_gateway.money.usage import Span

ROWS_AT_ONCE = 5_000


@dataclass(slots=True)
class Rerated:
    """One model. Money in micro-USD."""

    model: str
    attempts: int = 0
    """Those whose usage is known: the only ones that a price says anything about."""
    charged: int = 0
    today: int = 0
    """The same attempts by the catalogue, each by its price of the day on which it was admitted."""
    estimated: int = 0
    """Attempts whose usage is not known; what they were charged does not come from a price."""
    estimated_cost: int = 0
    unpriced: int = 0
    """Attempts for which the catalogue has no price; not in `charged`."""
    unpriced_cost: int = 0
    versions: set[str] = field(default_factory=set)
    """Of the catalogues by which they were charged."""

    @property
    def difference(self) -> int:
        """What the catalogue would add to what was charged."""
        return self.today - self.charged


def rerate(connection: Connection, catalogue: Catalogue, span: Span, direct: Collection[str] = ()) -> list[Rerated]:
    """Rate the settled attempts of a span again; one entry for each model, the largest difference first.

    `direct` are the upstreams with Anthropic's own prices.
    """
    found: dict[str, Rerated] = {}
    for row in _attempts(connection, span):
        entry = found.setdefault(row.model, Rerated(row.model))
        entry.versions.add(row.price_version)
        cost = int(row.cost)
        if row.unknown:
            entry.estimated += 1
            entry.estimated_cost += cost
            continue
        again = _cost(catalogue, row, direct)
        if again is None:
            entry.unpriced += 1
            entry.unpriced_cost += cost
            continue
        entry.attempts += 1
        entry.charged += cost
        entry.today += again
    return sorted(found.values(), key=lambda entry: (-abs(entry.difference), entry.model))


def _attempts(connection: Connection, span: Span) -> Iterator[Row[Any]]:
    query = (
        select(
            func.min(payers.c.model).label("model"),
            func.min(payers.c.target).label("target"),
            func.min(payers.c.price_version).label("price_version"),
            func.min(ADMITTED).label("admitted"),
            UNKNOWN.label("unknown"),
            *(func.sum(ledger.c[name]).label(name) for name in (*USAGE, "cost")),
        )
        .select_from(ENTRIES)
        .where(*span.filter(span.start))
        .group_by(ledger.c.attempt_id)
    )
    yield from connection.execution_options(yield_per=ROWS_AT_ONCE).execute(query)


def _cost(catalogue: Catalogue, row: Row[Any], direct: Collection[str]) -> int | None:
    """What an attempt costs by the catalogue; None without a price. One that used nothing costs nothing anywhere."""
    usage = Usage(*(int(getattr(row, name)) for name in USAGE))
    if usage == Usage():
        return 0
    if row.model not in catalogue.models:
        return None
    day = datetime.fromtimestamp(row.admitted / 1000, UTC).date()
    try:
        price = catalogue.price(
            row.model, geography=geography_of(row.target, direct), day=day, prompt_tokens=usage.prompt
        )
    except LookupError:
        return None
    return price.dearer_by(surcharge_in(row.price_version)).cost(usage)
