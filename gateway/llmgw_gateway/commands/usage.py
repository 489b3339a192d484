"""`llmgw-gateway usage`: who used what, and what it cost."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import click

from llmgw_gateway.commands import tables
from llmgw_gateway.commands.configuration import CONFIG, read, refusals
from llmgw_gateway.money.usage import DIMENSIONS, Line, Span, Sums, total, usage
from llmgw_gateway.store.reading import reading

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime
    from pathlib import Path

COLUMNS = ("operations", "attempts", "input", "read", "write", "output", "cost USD", "estimated")
TOKENS = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_5m_tokens", "cache_write_1h_tokens")
DAY = click.DateTime(["%Y-%m-%d"])


@click.command(name="usage", short_help="Add up what calls used and cost.")
@CONFIG
@click.option("--by", type=click.Choice(list(DIMENSIONS)), required=True, help="What to group by.")
@click.option("--since", type=DAY, help="The first day, included; in the organisation's time zone.")
@click.option("--until", type=DAY, help="The last day, included.")
@click.option("--format", "form", type=click.Choice(["table", "csv", "json"]), default="table", show_default=True)
def usage_command(config: Path, by: str, since: datetime | None, until: datetime | None, form: str) -> None:
    """Add up operations, attempts, tokens and cost of what is settled.

    An operation is one request of a client, an attempt is one dispatch to the provider. An attempt counts on the day on
    which it was admitted, as in its budgets. "write" is cache writes of both lives, "estimated" the share of the cost
    whose usage is not known. CSV and JSON have exact numbers of everything.
    """
    if since and until and until < since:
        raise click.UsageError("--until must not be before --since.")
    with refusals():
        settings, _ = read(config)
        zone = settings.organisation.time_zone
        span = Span(ZoneInfo(zone), since.date() if since else None, until.date() if until else None)
        with reading(settings) as connection:
            lines = usage(connection, by, span)
    writers: dict[str, Callable[[str, Span, list[Line]], str]] = {"table": _table, "csv": _csv, "json": _json}
    click.echo(writers[form](by, span, lines))


def _table(by: str, span: Span, lines: list[Line]) -> str:
    rows = [_row(line.label, line.sums) for line in lines]
    body = tables.table((by, *COLUMNS), [*rows, _row("total", total(lines))])
    rule = "-" * max(map(len, body))
    return "\n".join([_title(span), *body[:-1], rule, body[-1]])


def _title(span: Span) -> str:
    since = f" from {span.since}" if span.since else ""
    until = f" until {span.until}" if span.until else ""
    return f"settled attempts{since}{until} ({span.zone.key})"


def _row(label: str, sums: Sums) -> tuple[str, ...]:
    counts = (
        sums.operations,
        sums.attempts,
        sums.input_tokens,
        sums.cache_read_tokens,
        sums.cache_write_5m_tokens + sums.cache_write_1h_tokens,
        sums.output_tokens,
    )
    return (label, *map(tables.count, counts), tables.usd(sums.cost), tables.share(sums.estimated, sums.cost))


def _csv(by: str, _span: Span, lines: list[Line]) -> str:
    """No line for the total: a spreadsheet that adds up the column would count everything twice."""
    names = list(lines[0].of) if lines else [by]
    header = (*names, "operations", "attempts", *TOKENS, "cost_usd", "estimated_usd")
    rows = [
        (
            *line.of.values(),
            line.sums.operations,
            line.sums.attempts,
            *(getattr(line.sums, name) for name in TOKENS),
            tables.exact_usd(line.sums.cost),
            tables.exact_usd(line.sums.estimated),
        )
        for line in lines
    ]
    return tables.as_csv(header, rows)


def _json(by: str, span: Span, lines: list[Line]) -> str:
    """Amounts in micro-USD."""
    return tables.as_json(
        {
            "by": by,
            "since": span.since.isoformat() if span.since else None,
            "until": span.until.isoformat() if span.until else None,
            "time_zone": span.zone.key,
            "rows": [line.of | asdict(line.sums) for line in lines],
            "total": asdict(total(lines)),
        }
    )
