"""`llmgw-gateway policy`: what the policies of a configuration mean, and which entry decides for whom."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from llmgw_gateway.call import Account, Caller
from llmgw_gateway.commands import tables
from llmgw_gateway.commands.configuration import CONFIG, EXIT_FAULTS, load, place, refusals
from llmgw_gateway.commands.people import person_of
from llmgw_gateway.commands.simulate import simulate
from llmgw_gateway.offer import policy as offered
from llmgw_gateway.policy import residency
from llmgw_gateway.policy.accounts import Accounts
from llmgw_gateway.policy.permissions import Permissions
from llmgw_gateway.store.reading import reading

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from llmgw_gateway.identity.people import Known
    from llmgw_gateway.money.prices import Catalogue
    from llmgw_gateway.permitting import Permission
    from llmgw_gateway.policy.permissions import Step, Verdict
    from llmgw_gateway.settings import Settings

FORMAT = click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)


@click.group()
def policy() -> None:
    """See who may use which models, and why."""


@policy.command()
@CONFIG
def check(config: Path) -> None:
    """Say every fault of the configuration, and which policies can never decide anything."""
    settings, catalogue = load(config)
    permissions = _permissions(settings)
    warnings = [
        f"{place(config, settings, number)}: never decides, because entries before it do"
        for number in permissions.unreachable()
    ]
    warnings += [f"{model}: no policy allows it to anybody" for model in permissions.unusable()]
    warnings += _unguarded(config, settings, catalogue)
    for warning in warnings:
        click.echo(f"warning: {warning}")
    count = len(settings.policies)
    what = f"{count} {'policy' if count == 1 else 'policies'}" if count else "no policies: everyone may use every model"
    click.echo(f"{config}: {what}, {f'{len(warnings)} warnings' if warnings else 'no warnings'}")


@policy.command()
@CONFIG
@click.argument("user")
@click.argument("model")
@FORMAT
def explain(config: Path, user: str, model: str, form: str) -> None:
    """Say whether USER (e-mail address, id, or subject at the provider) may use MODEL, and which entry decides."""
    settings, catalogue = load(config)
    known = next((each for each in catalogue.models.values() if model in each.names()), None)
    served = [each.name for each in settings.models]
    if known is None or known.name not in served:
        raise click.UsageError(f"The model {tables.clean(model)!r} is not served here. Served: {', '.join(served)}.")
    with refusals(), reading(settings) as connection:
        person = person_of(connection, user)
    account = Accounts(settings.teams, settings.projects, settings.policies).resolve(
        Caller(person.person_id, "", "", "", 0), person.email, person.groups, "", person.stored
    )
    judge = offered(settings, catalogue)
    verdict = judge.permissions.decide(account, known.name)
    steps = judge.permissions.steps(account, known.name)
    guardrail = judge.guardrail(account, known.name)
    if form == "json":
        click.echo(tables.as_json(_document(person, account, known.name, verdict, steps) | {"guardrail": guardrail}))
    else:
        for line in _sentences(config, settings, person, account, known.name, verdict, steps, guardrail):
            click.echo(line)
    if not verdict.allowed:
        sys.exit(EXIT_FAULTS)


policy.add_command(simulate)


def _permissions(settings: Settings) -> Permissions:
    return Permissions(settings.policies, [model.name for model in settings.models])


def _sentences(
    config: Path,
    settings: Settings,
    person: Known,
    account: Account,
    model: str,
    verdict: Verdict,
    steps: list[Step],
    guardrail: str,
) -> list[str]:
    groups = "groups unknown (too many for a token)" if account.groups is None else _listed(account.groups)
    team = f"team {account.team}" if account.team else "in no team"
    who = tables.clean(f"{person.email or person.name or person.person_id}: {team}, {groups}")
    by = {
        "open": "because there are no policies",
        "no_entry": "because no policy allows it",
        "entry": "",
        "groups_unknown": "because groups decide, and the provider did not say which",
        "key": "",
    }[verdict.why]
    if verdict.number is not None:
        by = f"by {place(config, settings, verdict.number)}" + (f", {by}" if by else "")
    lines = [who, f"{model} is {'allowed' if verdict.allowed else 'refused'} {by}"]
    if verdict.allowed and verdict.entry is not None and (caps := _caps(verdict.entry)):
        lines.append(f"  each call: {caps}")
    if verdict.allowed and verdict.entry is not None and (bounds := residency.bounds(verdict.entry)):
        lines.append(f"  only what is {bounds}")
    if guardrail:
        lines.append(f"  under the guardrail {guardrail}, where it can be applied")
    for step in steps:
        if step.number == verdict.number:
            break
        reason = "is not about them" if step.concerns == "no" else f"is not about {model}"
        lines.append(f"  passed over: {place(config, settings, step.number)}, {reason}")
    return lines


def _unguarded(config: Path, settings: Settings, catalogue: Catalogue) -> Iterator[str]:
    """Models that need a guardrail which nothing that serves them can apply; entries without one among others."""
    judge = offered(settings, catalogue)
    names = {place(config, settings, n): e for n, e in enumerate(settings.policies) if e.action == "allow"}
    wanted = {where: judge.guards.wanted(entry) for where, entry in names.items()}
    if not settings.policies:
        wanted = {"organisation": judge.guards.wanted(None)}
    for where, name in wanted.items():
        entry = names.get(where)
        models = [m for m in judge.models if entry is None or not entry.models or m.name in entry.models]
        for model in models:
            if name and not judge.can_apply(name, model):
                yield f"{where}: refuses {model.name}: nothing that serves it can apply the guardrail {name!r}"
        if not name and any(wanted.values()):
            yield f"{where}: its calls need no guardrail, and those of others do"


def _listed(groups: frozenset[str]) -> str:
    return f"of the groups that policies name in {', '.join(sorted(groups)) or 'none'}"


def _caps(entry: Permission) -> str:
    names = {"max_tokens": "of output", "thinking_tokens": "of thinking", "context_tokens": "of prompt"}
    caps = [f"{getattr(entry, name):,} tokens {what}" for name, what in names.items() if getattr(entry, name)]
    over = "what asks for more is refused" if entry.over_cap == "refuse" else "what asks for more gets that"
    return f"at most {', '.join(caps)}; {over}" if caps else ""


def _document(person: Known, account: Account, model: str, verdict: Verdict, steps: list[Step]) -> dict[str, object]:
    entry = verdict.entry
    return {
        "person": person.person_id,
        "email": person.email,
        "team": account.team,
        "groups": None if account.groups is None else sorted(account.groups),
        "model": model,
        "allowed": verdict.allowed,
        "why": verdict.why,
        "policy": verdict.number,
        "name": entry.name if entry is not None else "",
        "geographies": list(entry.geographies) if entry is not None else [],
        "upstreams": list(entry.upstreams) if entry is not None else [],
        "max_tokens": entry.max_tokens if entry is not None else None,
        "thinking_tokens": entry.thinking_tokens if entry is not None else None,
        "context_tokens": entry.context_tokens if entry is not None else None,
        "passed_over": [step.number for step in steps if step.number != verdict.number],
    }
