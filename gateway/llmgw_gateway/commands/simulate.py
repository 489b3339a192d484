"""`llmgw-gateway policy simulate`: what the policies of a file would have done to the calls of the last days."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final
from zoneinfo import ZoneInfo

import click
from msgspec.structs import replace
from sqlalchemy import func, select, true

from llmgw_gateway.call import Account, Caller, Usage, geography_of
from llmgw_gateway.commands import tables
from llmgw_gateway.commands.configuration import CONFIG, load, place, refusals
from llmgw_gateway.errors import GatewayError
from llmgw_gateway.identity.directory import all_teams
from llmgw_gateway.identity.people import found
from llmgw_gateway.money.usage import ENTRIES, Span
from llmgw_gateway.offer import policy
from llmgw_gateway.policy.accounts import Accounts
from llmgw_gateway.store.reading import reading
from llmgw_gateway.store.schema import ledger, payers, service_keys

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import date
    from pathlib import Path

    from sqlalchemy import Connection

    from llmgw_gateway.money.prices import Catalogue
    from llmgw_gateway.sections.permitting import Permission
    from llmgw_gateway.settings import Settings

ROWS_AT_ONCE: Final = 5_000
TOKENS: Final = tuple(f"{name}_tokens" for name in Usage.__struct_fields__)
HEADER: Final = ("who", "model", "what", "attempts", "of", "saved USD", "by")
DAYS: Final = re.compile(r"(\d{1,4})d")
WHY: Final = {
    "open": "",
    "no_entry": "no policy allows it",
    "entry": "",
    "groups_unknown": "groups unknown",
    "key": "not a model of this key",
}


@dataclass(slots=True)
class Effect:
    """What one line would have done to the calls of one person with one model. Money in micro-USD."""

    who: str
    model: str
    what: str
    """refused; or cut: the answer would have been shorter, or the call refused, by how the entry caps."""
    by: str
    attempts: int = 0
    saved: int = 0


@dataclass(slots=True)
class Simulation:
    """All of it."""

    effects: dict[tuple[str, str, str, str], Effect] = field(default_factory=dict)
    attempts: int = 0
    cost: int = 0
    of: dict[tuple[str, str], int] = field(default_factory=dict)
    """How many attempts somebody has made with a model."""


@click.command()
@CONFIG
@click.option("--since", default="30d", show_default=True, help="Days back (30d), or the first day (2026-11-01).")
@click.option("--format", "form", type=click.Choice(["table", "csv", "json"]), default="table", show_default=True)
def simulate(config: Path, since: str, form: str) -> None:
    """Say who would have been refused by the policies of CONFIG, by which line, and what that would have saved.

    CONFIG is a whole configuration, such as a changed copy of the one in force, with the same store. The past calls of
    its ledger are judged one by one, by what is known of people, groups and teams today. A prompt's length is the one
    that was billed. What a call had asked for is not known: a cap on output counts where an answer was longer.
    """
    settings, catalogue = load(config)
    zone = ZoneInfo(settings.organisation.time_zone)
    span = Span(zone, _day(since, zone))
    with refusals(), reading(settings) as connection:
        done = _simulate(config, settings, catalogue, connection, span)
    effects = sorted(done.effects.values(), key=lambda each: (-each.saved, -each.attempts, each.who, each.model))
    {"table": _table, "csv": _csv, "json": _json}[form](done, effects, span)


def _day(since: str, zone: ZoneInfo) -> date:
    if days := DAYS.fullmatch(since):
        return datetime.now(zone).date() - timedelta(days=int(days[1]))
    try:
        return datetime.strptime(since, "%Y-%m-%d").replace(tzinfo=zone).date()
    except ValueError:
        raise click.UsageError("--since takes days back, such as 30d, or a day, such as 2026-11-01.") from None


def _simulate(config: Path, settings: Settings, catalogue: Catalogue, connection: Connection, span: Span) -> Simulation:
    judge = _Judge(config, settings, catalogue, connection)
    done = Simulation()
    calls = span.filter(span.start)
    size = connection.scalar(select(func.count()).select_from(ledger).where(*calls)) or 0
    with tables.progress("judging", size) as advance:
        for number, row in enumerate(_attempts(connection, calls), 1):
            who, cost = judge.name(row.person_id), int(row.cost)
            done.attempts += 1
            done.cost += cost
            pair = (who, row.model)
            done.of[pair] = done.of.get(pair, 0) + 1
            what, by, saved = judge.effect(row, cost)
            if what:
                effect = done.effects.setdefault((*pair, what, by), Effect(who, row.model, what, by))
                effect.attempts += 1
                effect.saved += saved
            if number % ROWS_AT_ONCE == 0:
                advance(ROWS_AT_ONCE)
    return done


def _attempts(connection: Connection, calls: tuple[Any, ...]) -> Iterator[Any]:
    """Each attempt with its correction, if it has one."""
    names = ("person_id", "project", "access_key", "model", "target")
    query = (
        select(
            *(func.min(payers.c[name]).label(name) for name in names),
            func.min(ledger.c.admitted_at).label("admitted_at"),
            *(func.sum(ledger.c[name]).label(name) for name in (*TOKENS, "cost")),
        )
        .select_from(ENTRIES)
        .where(*calls)
        .group_by(ledger.c.attempt_id)
    )
    yield from connection.execute(query, execution_options={"yield_per": ROWS_AT_ONCE})


class _Judge:
    """Decides for past attempts as the gateway would for new calls."""

    def __init__(self, config: Path, settings: Settings, catalogue: Catalogue, connection: Connection) -> None:
        self._config = config
        self._settings = settings
        self._catalogue = catalogue
        self._served = {model.name for model in settings.models}
        self._policy = policy(settings, catalogue)
        self._permissions = self._policy.permissions
        self._accounts = Accounts(settings.teams, settings.projects, settings.deciding)
        self._people = {each.person_id: each for each in found(connection, true())}
        self._keys = {row.key_id: row for row in connection.execute(select(service_keys))}
        self._teams = all_teams(connection)
        self._known: dict[tuple[str, str, str], Account | str] = {}
        self._places: dict[int, str] = {}

    def name(self, person_id: str) -> str:
        """What a person calls it."""
        if person_id in self._people:
            person = self._people[person_id]
            return person.email or person.name or person_id
        return self._keys[person_id].name if person_id in self._keys else person_id

    def effect(self, row: Any, cost: int) -> tuple[str, str, int]:  # noqa: ANN401 -- a row
        """What would have become of an attempt, by which line, and what would not have been spent; "" for nothing."""
        account = self._account(row.person_id, row.access_key, row.project)
        if isinstance(account, str):
            return "refused", account, cost
        if row.model not in self._served:
            return "refused", "not served", cost
        verdict = self._permissions.decide(account, row.model)
        by = WHY[verdict.why] if verdict.number is None else self._place(verdict.number)
        if not verdict.allowed:
            return "refused", by, cost
        if nowhere := self._nowhere(account, row.model):
            return "refused", f"{by}, {nowhere}".removeprefix(", "), cost
        return self._capped(row, verdict.entry, by, cost)

    def _nowhere(self, account: Account, model: str) -> str:
        """What keeps a model that is allowed from being asked anywhere; "" for nothing."""
        try:
            self._policy.authorize(account, model, 0, kind=self._policy.kind_of(model))
        except GatewayError:
            guardrail, served = self._policy.guardrail(account, model), self._policy.named(model)
            applied = served is not None and self._policy.can_apply(guardrail, served)
            return "guardrail" if guardrail and not applied else "geographies or upstreams"
        return ""

    def _capped(self, row: Any, entry: Permission | None, by: str, cost: int) -> tuple[str, str, int]:  # noqa: ANN401 -- a row
        """What the caps of an entry would have done."""
        usage = Usage(*(int(getattr(row, name)) for name in TOKENS))
        if entry is not None and entry.context_tokens is not None and usage.prompt > entry.context_tokens:
            return "refused", f"{by}, context_tokens", cost
        if entry is not None and entry.max_tokens is not None and usage.output > entry.max_tokens:
            return "cut", f"{by}, max_tokens", self._excess(row, usage, entry.max_tokens)
        return "", "", 0

    def _account(self, person_id: str, access_key: str, project: str) -> Account | str:
        """Who would have paid; a text when nobody could."""
        asked = (person_id, access_key, project)
        if asked not in self._known:
            try:
                self._known[asked] = self._resolve(*asked)
            except GatewayError:
                self._known[asked] = f"project {project} not theirs" if project else "team not configured"
        return self._known[asked]

    def _resolve(self, person_id: str, access_key: str, project: str) -> Account:
        key = self._keys.get(person_id)
        if key is not None:
            models = json.loads(key.models)
            caller = Caller(person_id, "", access_key, "", 0, service=True, team=key.team,
                            models=None if models is None else frozenset(models))  # fmt: skip
            return self._accounts.resolve(caller, "", frozenset(), project, self._teams)
        person = self._people.get(person_id)
        caller = Caller(person_id, "", access_key, "", 0)
        if person is None:
            return self._accounts.resolve(caller, "", frozenset(), project, self._teams)
        return self._accounts.resolve(caller, person.email, person.groups, project, person.stored)

    def _excess(self, row: Any, usage: Usage, cap: int) -> int:  # noqa: ANN401 -- a row
        """What the output beyond a cap costs, by the catalogue; 0 where it has no price."""
        day = datetime.fromtimestamp(row.admitted_at / 1000, UTC).date()
        try:
            price = self._catalogue.price(
                row.model, geography=geography_of(row.target), day=day, prompt_tokens=usage.prompt
            )
        except LookupError:
            return 0
        return price.cost(usage) - price.cost(replace(usage, output=cap))

    def _place(self, number: int) -> str:
        if number not in self._places:
            self._places[number] = place(self._config, self._settings, number)
        return self._places[number]


def _total(effects: list[Effect], what: str) -> tuple[int, int]:
    those = [each for each in effects if each.what == what]
    return sum(each.attempts for each in those), sum(each.saved for each in those)


def _table(done: Simulation, effects: list[Effect], span: Span) -> None:
    click.echo(f"settled attempts from {span.since} ({span.zone.key}), by what is known of people today")
    rows = [
        (
            tables.cut(each.who, 28),
            each.model,
            each.what,
            tables.count(each.attempts),
            tables.count(done.of[each.who, each.model]),
            tables.usd(each.saved),
            tables.clean(each.by),
        )
        for each in effects
    ]
    if rows:
        for line in _aligned(rows):
            click.echo(line)
    for what in ("refused", "cut"):
        attempts, saved = _total(effects, what)
        click.echo(
            f"{what}: {attempts:,} of {done.attempts:,} attempts, USD {tables.usd(saved)} of {tables.usd(done.cost)}"
        )


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """The line that decides comes last, and may be as long as it is."""
    body = tables.table(HEADER[:-1], [row[:-1] for row in rows], left=3)
    return [f"{line}  {by}" for line, by in zip(body, ("by", *(row[-1] for row in rows)), strict=True)]


def _csv(done: Simulation, effects: list[Effect], _span: Span) -> None:
    header = ("who", "model", "what", "attempts", "of_attempts", "saved_usd", "by")
    rows = [
        (
            each.who,
            each.model,
            each.what,
            each.attempts,
            done.of[each.who, each.model],
            tables.exact_usd(each.saved),
            each.by,
        )
        for each in effects
    ]
    click.echo(tables.as_csv(header, rows))


def _json(done: Simulation, effects: list[Effect], span: Span) -> None:
    """Amounts in micro-USD."""
    sums = {what: dict(zip(("attempts", "saved"), _total(effects, what), strict=True)) for what in ("refused", "cut")}
    click.echo(
        tables.as_json(
            {
                "since": span.since.isoformat() if span.since else None,
                "attempts": done.attempts,
                "cost": done.cost,
                **sums,
                "rows": [asdict(each) for each in effects],
            }
        )
    )
