"""`llmgw-gateway budget`: where every budget stands, and changes of limits beside the configuration."""

from __future__ import annotations

import secrets
import sys
import time
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal
from zoneinfo import ZoneInfo

import click

from llmgw_gateway import control
from llmgw_gateway.call import MICRO
from llmgw_gateway.commands import tables
from llmgw_gateway.commands.allowance import allowances_command, write_off_command
from llmgw_gateway.commands.configuration import CONFIG, EXIT_FAULTS, read, refusals
from llmgw_gateway.commands.writing import do, who
from llmgw_gateway.identity.directory import all_memberships
from llmgw_gateway.money.adjustments import Adjustments, NewAdjustment, Withdrawal
from llmgw_gateway.money.budgets import parts
from llmgw_gateway.money.overrides import Adjustment
from llmgw_gateway.money.overview import Standing, adjustments_of, events_since, standings
from llmgw_gateway.money.refusals import amount as words
from llmgw_gateway.observe.changes import operator
from llmgw_gateway.policy.accounts import Accounts
from llmgw_gateway.store.reading import reading

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from llmgw_gateway.money.amounts import Unit
    from llmgw_gateway.settings import Settings

LEVELS = click.Choice(["organisation", "team", "project", "user", "key"])
FORMAT = click.option(
    "--format", "form", type=click.Choice(["table", "csv", "json"]), default="table", show_default=True
)
COLUMNS = ("level", "whose", "budget", "period", "limit", "spent", "held", "left", "overshoot")


@click.group(short_help="See where budgets stand, and change limits.")
def budget() -> None:
    """See where budgets stand, and change limits beside the configuration."""


for command in (allowances_command, write_off_command):
    budget.add_command(command)


def which(command: Callable[..., None]) -> Callable[..., None]:
    """The arguments that name one budget."""
    for decorate in (
        click.option("--unit", type=click.Choice(["usd", "tokens", "weighted_tokens"]), help="If there are several."),
        click.option("--period", type=click.Choice(["day", "week", "month"]), help="If there are several."),
        click.option("--model", default="", help="The one that counts only this model."),
        click.argument("subject", default=""),
        click.argument("level", type=LEVELS),
        CONFIG,
    ):
        command = decorate(command)
    return command


@budget.command(name="list")
@CONFIG
@click.option("--level", type=LEVELS, help="Only these.")
@FORMAT
def list_command(config: Path, level: str | None, form: str) -> None:
    """Say where every budget stands in its present period.

    "held" is kept for running requests, "left" is what can still be admitted, and "overshoot" the published bound: how
    far the limit can be exceeded at worst. Amounts of budgets in tokens are tokens, all others USD.
    """
    with refusals():
        settings, _ = read(config)
        found = [each for each in _standings(settings) if level in (None, each.budget.level)]
    if form == "json":
        click.echo(tables.as_json({"budgets": [_document(each) for each in found]}))
    elif form == "csv":
        header = ("level", "subject", "model", "period", "unit", "limit", "spent", "held", "remaining", "overshoot")
        click.echo(tables.as_csv(header, [tuple(_document(each)[name] for name in header) for each in found]))
    else:
        for line in tables.table(COLUMNS, [_row(each) for each in found], left=4):
            click.echo(line)


@budget.command()
@which
def show(config: Path, level: str, subject: str, model: str, period: str | None, unit: str | None) -> None:
    """Show one budget whole: of LEVEL, and of SUBJECT (e-mail address, team, project or key)."""
    with refusals():
        settings, _ = read(config)
        standing = _the_one(_standings(settings), level, subject, model, period, unit)
        ref = standing.budget
        with reading(settings) as connection:
            past = adjustments_of(connection, ref.budget)
    lines = [
        ("limit", words(ref.limit, ref.unit)),
        ("spent", words(standing.spent, ref.unit)),
        ("held", f"{words(standing.held, ref.unit)} for running requests"),
        ("left", words(standing.remaining, ref.unit)),
        ("overshoot", f"{words(ref.overshoot, ref.unit)} at worst, {words(standing.exposure, ref.unit)} possible now"),
        ("resets", ref.resets_at),
        ("key", ref.budget),
    ]
    click.echo(
        f"{ref.name} for {ref.period_key}" + (f" ({tables.clean(standing.subject)})" if standing.subject else "")
    )
    for name, value in lines:
        click.echo(f"  {name:9}  {value}")
    for each in past:
        click.echo(f"  {_sentence(each, ref.unit, int(time.time() * 1000))}")


@budget.command(name="set")
@which
@click.option("--limit", "text", required=True, help="The new limit: USD, or tokens.")
@click.option("--reason", required=True, help="Why; it stays with the change.")
def set_command(
    config: Path, level: str, subject: str, model: str, period: str | None, unit: str | None, text: str, reason: str
) -> None:
    """Replace the configured limit of a budget until that is withdrawn."""
    _change(config, ("limit", text, reason, None), level, subject, model, period, unit)


@budget.command()
@which
@click.option("--amount", "text", required=True, help="How much more: USD, or tokens.")
@click.option("--until", type=click.DateTime(["%Y-%m-%d"]), required=True, help="The last day, in the company's zone.")
@click.option("--reason", required=True, help="Why; it stays with the change.")
def grant(
    config: Path,
    level: str,
    subject: str,
    model: str,
    period: str | None,
    unit: str | None,
    text: str,
    until: datetime,
    reason: str,
) -> None:
    """Add to the limit of a budget until the end of a day."""
    _change(config, ("grant", text, reason, until), level, subject, model, period, unit)


@budget.command()
@CONFIG
@click.argument("adjustment")
def withdraw(config: Path, adjustment: str) -> None:
    """End a change early: ADJUSTMENT is its id, as `budget show` says it."""
    with refusals():
        settings, _ = read(config)
        item = Withdrawal(adjustment, operator(who()), int(time.time() * 1000))
        if not do(settings, control.WITHDRAW, item, lambda database: Adjustments(database).withdraw(item)):
            click.echo(f"llmgw-gateway: there is no change {adjustment!r} that is not withdrawn yet", err=True)
            sys.exit(EXIT_FAULTS)
    click.echo(f"{adjustment} no longer counts")


@budget.command()
@CONFIG
@click.option("--since", type=click.DateTime(["%Y-%m-%d"]), help="The first day; without it the last 31 days.")
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
def events(config: Path, since: datetime | None, form: str) -> None:
    """List the thresholds that budgets have reached, oldest first."""
    with refusals():
        settings, _ = read(config)
        zone = ZoneInfo(settings.organisation.time_zone)
        start = since.replace(tzinfo=zone) if since else datetime.now(UTC) - timedelta(days=31)
        names = {each.budget.budget: each.subject for each in _standings(settings)}
        with reading(settings) as connection:
            found = events_since(connection, int(start.timestamp() * 1000))
    if form == "json":
        click.echo(tables.as_json({"events": [_event(each, names) for each in found]}))
        return
    for each in found:
        at = datetime.fromtimestamp(each.created_at / 1000, zone).strftime("%Y-%m-%d %H:%M")
        level, _, model, _, unit = parts(each.budget)
        whose = " ".join(part for part in (level, tables.clean(names.get(each.budget, "")), model) if part)
        spent, limit = words(each.spent, _unit(unit)), words(each.limit_amount, _unit(unit))
        click.echo(f"{at}  {whose} {each.period_key}: {each.percent} % reached ({spent} of {limit})")


def _standings(settings: Settings) -> list[Standing]:
    accounts = Accounts(settings.teams, settings.projects)
    with reading(settings) as connection:
        stored = all_memberships(connection)
        teams = dict.fromkeys([*(team.name for team in settings.teams), *sorted(stored[""].known_teams)])

        def team_of(person_id: str, email: str, groups: frozenset[str]) -> str:
            return accounts.team_of(email, groups, stored.get(person_id, stored[""]))

        return standings(connection, settings, teams, team_of, time.time())


def _the_one(
    found: list[Standing], level: str, subject: str, model: str, period: str | None, unit: str | None
) -> Standing:
    """The budget that the arguments name; a usage error says which there are."""
    mine = [each for each in found if each.budget.level == level and each.subject == subject]
    if not mine:
        known = ", ".join(dict.fromkeys(each.subject for each in found if each.budget.level == level and each.subject))
        whose = f" of {subject!r}" if subject else ""
        raise click.UsageError(f"There is no {level} budget{whose}." + (f" Known: {known}." if known else ""))
    fitting = [
        each
        for each in mine
        if each.budget.model == model and period in (None, each.budget.period) and unit in (None, each.budget.unit)
    ]
    if len(fitting) != 1:
        known = "; ".join(f"{e.budget.name} (--period {e.budget.period} --unit {e.budget.unit})" for e in mine)
        raise click.UsageError(f"Name one with --model, --period and --unit. There is: {known}.")
    return fitting[0]


def _change(
    config: Path,
    change: tuple[Literal["limit", "grant"], str, str, datetime | None],
    level: str,
    subject: str,
    model: str,
    period: str | None,
    unit: str | None,
) -> None:
    kind, text, reason, until = change
    with refusals():
        settings, _ = read(config)
        ref = _the_one(_standings(settings), level, subject, model, period, unit).budget
        now = int(time.time() * 1000)
        item = Adjustment(
            adjustment_id=f"adj_{secrets.token_hex(6)}",
            kind=kind,
            budget=ref.budget,
            amount=_amount(text, ref.unit),
            starts_at=now,
            ends_at=_end(until, settings) if until else None,
            reason=reason,
            made_by=who(),
            made_at=now,
        )
        order = NewAdjustment(item, operator(item.made_by))
        if item.ends_at is not None and item.ends_at <= now:
            raise click.UsageError("--until is in the past.")
        do(settings, control.MAKE, order, lambda database: Adjustments(database).make(order))
    click.echo(f"{ref.name}: {_sentence(item, ref.unit, now)}")


def _amount(text: str, unit: Unit) -> int:
    try:
        value = Decimal(text) * (MICRO if unit == "usd" else 1)
    except ArithmeticError:
        raise click.UsageError(f"{text!r} is not a number.") from None
    if not value.is_finite() or value < 0 or value != value.to_integral_value() or value > 10**18:
        raise click.UsageError(f"{text!r} is no amount of {'USD' if unit == 'usd' else 'tokens'}.")
    return int(value)


def _end(day: datetime, settings: Settings) -> int:
    """The end of a day in the organisation's time zone, in milliseconds since the epoch."""
    zone = ZoneInfo(settings.organisation.time_zone)
    return int((day + timedelta(days=1)).replace(tzinfo=zone).timestamp() * 1000)


def _unit(text: str) -> Unit:
    return text if text in ("tokens", "weighted_tokens") else "usd"  # type: ignore[return-value]  # just compared


def _sentence(each: Adjustment, unit: Unit, now: int) -> str:
    """One change, as its history reads."""
    what = f"limit {words(each.amount, unit)}" if each.kind == "limit" else f"{words(each.amount, unit)} more"
    until = f" until {_time(each.ends_at)}" if each.ends_at is not None else ""
    state = "" if each.in_force(now) else " [over]"
    if each.withdrawn_at is not None:
        state = f" [withdrawn by {each.withdrawn_by} at {_time(each.withdrawn_at)}]"
    reason = tables.clean(each.reason)
    return f"{each.adjustment_id}: {what}{until}, by {each.made_by} at {_time(each.made_at)}: {reason}{state}"


def _time(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _row(each: Standing) -> tuple[str, ...]:
    ref = each.budget
    amounts = (ref.limit, each.spent, each.held, each.remaining, ref.overshoot)
    shown = [tables.usd(amount)[:-2] if ref.unit == "usd" else tables.count(amount) for amount in amounts]
    what = ref.model or "all models"
    return (ref.level, tables.clean(each.subject) or "-", what, ref.period_key, *shown)


def _document(each: Standing) -> dict[str, Any]:
    """As a program reads it: amounts in micro-USD or tokens."""
    ref = each.budget
    return {
        "level": ref.level,
        "subject": each.subject,
        "model": ref.model,
        "period": ref.period_key,
        "unit": ref.unit,
        "limit": ref.limit,
        "spent": each.spent,
        "held": each.held,
        "remaining": each.remaining,
        "exposure": each.exposure,
        "overshoot": ref.overshoot,
        "resets_at": ref.resets_at,
        "key": ref.budget,
    }


def _event(each: Any, names: dict[str, str]) -> dict[str, Any]:  # noqa: ANN401 -- an Event
    level, _, model, _, unit = parts(each.budget)
    return {
        "kind": each.kind,
        "level": level,
        "subject": names.get(each.budget, ""),
        "model": model,
        "period": each.period_key,
        "unit": unit,
        "percent": each.percent,
        "limit": each.limit_amount,
        "spent": each.spent,
        "at": _time(each.created_at),
    }
