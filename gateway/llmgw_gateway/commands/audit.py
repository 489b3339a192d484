"""`llmgw-gateway audit`: whether the audit trail is whole, and what it says. Nothing here writes."""

from __future__ import annotations

import sys
from collections import deque
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from zoneinfo import ZoneInfo

import click
import msgspec
from sqlalchemy import select

from llmgw_gateway.commands import tables
from llmgw_gateway.commands.configuration import CONFIG, EXIT_FAULTS, read, refusals
from llmgw_gateway.errors import ConfigurationError
from llmgw_gateway.identity import people
from llmgw_gateway.money.usage import Span
from llmgw_gateway.observe import change_chain, trail
from llmgw_gateway.observe.anchors import writer_of
from llmgw_gateway.observe.chain import Head, key_of
from llmgw_gateway.store.reading import reading
from llmgw_gateway.store.schema import audit_heads, persons

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from llmgw_gateway.observe.chain import Key
    from llmgw_gateway.settings import Settings

DAY = click.DateTime(["%Y-%m-%d"])
PATHS = click.argument("paths", nargs=-1, type=click.Path(path_type=Path, exists=True))
COLUMNS: Final = ("who", "time", "model", "status", "what", "in", "out", "cost USD", "ms")
AT_ONCE: Final = 1_000
TIMES: Final = 3
"""How often files are listed anew because the gateway has begun another one meanwhile."""


@click.group(short_help="Verify, show and export the audit trail.")
def audit() -> None:
    """Examine the audit trail: one record for each request, and the changes by administrators."""


@audit.command()
@CONFIG
@PATHS
@click.option("--day", type=DAY, help="Only files of this day (UTC).")
@click.option("--against", type=click.Path(path_type=Path, exists=True), help="An earlier report in JSON.")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
def verify(config: Path, paths: tuple[Path, ...], day: datetime | None, against: Path | None, form: str) -> None:
    """Check that no record was altered, removed, added, reordered or cut off, and name the first that was.

    PATHS are files and folders of audit trails, also of other replicas; without them, those of CONFIG's own. The store
    says how long each file has to be, and which changes administrators have made. What `--format json` once printed,
    and was kept where nobody could change it, says so, too (--against). The exit status is 1 for any fault.
    """
    with refusals():
        settings, _ = read(config)
        kept = _kept(against)
        report = _verified(settings, paths, day, kept.heads)
        with reading(settings) as connection:
            if day is None:
                known = report.changes | ({kept.last_change.number: kept.last_change.hash} if kept.last_change else {})
                report.faults += change_chain.faults(connection, known, _keys(settings))
            changes, last = change_chain.count(connection), change_chain.last(connection)
    if form == "json":
        click.echo(
            tables.as_json(
                {
                    "files": report.files,
                    "records": report.records,
                    "changes": changes,
                    "faults": report.faults,
                    "notes": report.notes,
                    "heads": [msgspec.to_builtins(head) for head in report.heads.values()],
                    "last_change": {"number": last[0], "hash": last[1]} if last else None,
                }
            )
        )
    else:
        for note in report.notes:
            click.echo(tables.clean(f"note: {note}"))
        for fault in report.faults:
            click.echo(tables.clean(fault))
    size = f"{report.records:,} records in {report.files} files" + ("" if day else f", {changes:,} changes")
    if report.faults:
        count = len(report.faults)
        what = f"has {count} {'fault' if count == 1 else 'faults'}"
        click.echo(f"llmgw-gateway: the audit trail {what} ({size})", err=True)
        sys.exit(EXIT_FAULTS)
    if form == "text":
        click.echo(f"the audit trail is whole ({size})")


def _filters(command: Callable[..., None]) -> Callable[..., None]:
    for option in (
        click.option("--until", type=DAY, help="The last day, included."),
        click.option("--since", type=DAY, help="The first day, included; in the organisation's time zone."),
        click.option("--model", default="", help="Only this model."),
        click.option("--person", default="", help="Only this person: e-mail address, id, or subject."),
        PATHS,
        CONFIG,
    ):
        command = option(command)
    return command


@audit.command()
@_filters
@click.option("--last", type=click.IntRange(1, 100_000), default=50, show_default=True, help="How many to show.")
def show(
    config: Path,
    paths: tuple[Path, ...],
    person: str,
    model: str,
    since: datetime | None,
    until: datetime | None,
    last: int,
) -> None:
    """Show the newest records, with the names that the store has for their people."""
    with refusals():
        settings, _ = read(config)
        found = deque(_chosen(settings, paths, person, model, since, until), maxlen=last)
        with reading(settings) as connection:
            names = {row.person_id: row.email or row.name for row in connection.execute(select(persons))}
    rows = [_row(record, names) for record in found]
    for line in tables.table(COLUMNS, rows, left=5):
        click.echo(line)


@audit.command()
@_filters
@click.option(
    "--format",
    "form",
    type=click.Choice(["json", "csv"]),
    default="json",
    show_default=True,
    help="json: one object a line.",
)
def export(
    config: Path,
    paths: tuple[Path, ...],
    person: str,
    model: str,
    since: datetime | None,
    until: datetime | None,
    form: str,
) -> None:
    """Write records to standard output, without anybody's name."""
    with refusals():
        settings, _ = read(config)
        chosen = _chosen(settings, paths, person, model, since, until)
        if form == "json":
            for record in chosen:
                click.echo(msgspec.json.encode(record))
            return
        names = tuple(_flat(_example()))
        click.echo(",".join(names))
        while rows := list(islice(chosen, AT_ONCE)):
            flat = [_flat(record) for record in rows]
            lines = tables.as_csv(names, [[_cell(each.get(name, "")) for name in names] for each in flat])
            click.echo(lines.partition("\n")[2])


class LastChange(msgspec.Struct, frozen=True):
    """How far administrators' changes went."""

    number: int
    hash: str


class Kept(msgspec.Struct, frozen=True):
    """What counts of an earlier report."""

    heads: tuple[Head, ...] = ()
    last_change: LastChange | None = None


def _kept(against: Path | None) -> Kept:
    if against is None:
        return Kept()
    try:
        return msgspec.json.decode(against.read_bytes(), type=Kept)
    except (OSError, msgspec.DecodeError) as error:
        raise ConfigurationError(str(against), [f"is no report of `audit verify --format json`: {error}"]) from error


def _verified(
    settings: Settings, paths: tuple[Path, ...], day: datetime | None, kept: tuple[Head, ...]
) -> trail.Report:
    own = settings.path(settings.audit.path)
    keys = _keys(settings)
    wanted = f"{day:%Y-%m-%d}" if day else ""
    report = trail.Report()
    for _ in range(TIMES):
        # Before the files: what the store was told of is on disk, and what is written now it may not know yet.
        anchors = [each for each in _anchors(settings) if wanted in ("", each.head.day)]
        found = _files(own, paths, wanted)
        with tables.progress("verifying", sum(each.path.stat().st_size for each in found)) as advance:
            report = trail.verify(found, keys, anchors, writer_of(own), advance, day=wanted, kept=kept)
        if not report.faults or _files(own, paths, wanted) == found:
            break
    return report


def _keys(settings: Settings) -> list[Key]:
    return [key_of(secret) for secret in settings.audit_secrets()]


def _files(own: Path, paths: tuple[Path, ...], day: str) -> list[trail.File]:
    found = trail.files(paths or trail.of(own))
    return [each for each in found if not day or each.opening is None or each.opening.day == day]


def _anchors(settings: Settings) -> list[trail.Anchor]:
    with reading(settings) as connection:
        rows = connection.execute(select(audit_heads).order_by(audit_heads.c.day)).all()
    return [
        trail.Anchor(Head(row.chain, row.day, row.records, row.seal), row.writer, row.key_id, row.mac) for row in rows
    ]


def _chosen(
    settings: Settings,
    paths: tuple[Path, ...],
    person: str,
    model: str,
    since: datetime | None,
    until: datetime | None,
) -> Iterator[dict[str, Any]]:
    """The records about requests that were asked for, oldest first."""
    who = _person_id(settings, person) if person else ""
    zone = ZoneInfo(settings.organisation.time_zone)
    span = Span(zone, since.date() if since else None, until.date() if until else None)
    start, end = _time(span.start), _time(span.end) if span.end is not None else "~"
    found = trail.files(paths or trail.of(settings.path(settings.audit.path)))
    found = [each for each in found if each.opening is not None and each.opening.day >= start[:10]]
    with tables.progress("reading", sum(each.path.stat().st_size for each in found)) as advance:
        for record in trail.records(found, advance):
            if (
                "request_id" in record
                and who in ("", record["person_id"])
                and model in ("", record["model"])
                and start <= record["time"] < end
            ):
                yield record


def _person_id(settings: Settings, person: str) -> str:
    with reading(settings) as connection:
        found = people.found(connection, people.means(person))
    # Somebody who was erased is still known by the id.
    return found[0].person_id if len(found) == 1 else person


def _time(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds")


def _row(record: dict[str, Any], names: dict[str, str]) -> tuple[str, ...]:
    tokens = record["tokens"]
    went_in = sum(tokens.values()) - tokens["output"]
    who = names.get(record["person_id"]) or record["person_id"] or "-"
    return (
        tables.cut(who, 24),
        record["time"][:19],
        tables.cut(record["model"] or "-", 20),
        str(record["status"]),
        tables.cut(record["code"] if record["code"] != "ok" else record["outcome"] or "ok", 14),
        tables.count(went_in),
        tables.count(tokens["output"]),
        tables.usd(record["cost_micro_usd"]),
        f"{record['latency_ms']:.0f}",
    )


def _example() -> dict[str, Any]:
    """A record with every member, for a header that is there also when no record is."""
    from llmgw_gateway.observe.entry import Entry  # noqa: PLC0415 -- only for this

    example: dict[str, Any] = {"seq": 0} | msgspec.to_builtins(Entry("", "", "").line())
    return example


def _flat(record: dict[str, Any]) -> dict[str, Any]:
    """One level: tokens by class, attempts as their number."""
    flat: dict[str, Any] = {}
    for name, value in record.items():
        if name == "tokens":
            flat |= {f"{each}_tokens": count for each, count in value.items()}
        else:
            flat[name] = len(value) if name == "attempts" else value
    return flat


def _cell(value: Any) -> str | int:  # noqa: ANN401 -- JSON
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, int) else str(value)
