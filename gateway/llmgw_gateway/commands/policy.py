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
from llmgw_gateway.policy.defaults import NAME
from llmgw_gateway.policy.permissions import Permissions
from llmgw_gateway.store.reading import reading

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from llmgw_gateway.identity.people import Known
    from llmgw_gateway.money.prices import Catalogue
    from llmgw_gateway.policy.models import Policy
    from llmgw_gateway.policy.permissions import Step, Verdict
    from llmgw_gateway.sections.permitting import Permission
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
    judge = offered(settings, catalogue)
    if model != NAME and judge.named(model) is None:
        served = ", ".join(each.name for each in judge.models)
        raise click.UsageError(f"The model {tables.clean(model)!r} is not served here. Served: {served}.")
    with refusals(), reading(settings) as connection:
        person = person_of(connection, user)
    account = Accounts(settings.teams, settings.projects, settings.deciding).resolve(
        Caller(person.person_id, "", "", "", 0), person.email, person.groups, "", person.stored
    )
    found = judge.named(judge.meant(account, model))
    if found is None:
        click.echo(f"{_who(person, account)}\nno entry of [[defaults]] names a default model for them")
        sys.exit(EXIT_FAULTS)
    verdict = judge.permissions.decide(account, found.name)
    steps = judge.permissions.steps(account, found.name)
    guardrail = judge.guardrail(account, found.name)
    answers = judge.answering(account, model)
    if form == "json":
        further = {"guardrail": guardrail, "answers": answers, "defaults": _filled(judge, account)}
        click.echo(tables.as_json(_document(person, account, found.name, verdict, steps) | further))
    else:
        lines = _sentences(config, settings, person, account, found.name, verdict, steps, guardrail)
        for line in [*lines, *_default_lines(judge, account, found.name, answers)]:
            click.echo(line)
    if not answers:
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
    who = _who(person, account)
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


def _who(person: Known, account: Account) -> str:
    groups = "groups unknown (too many for a token)" if account.groups is None else _listed(account.groups)
    team = f"team {account.team}" if account.team else "in no team"
    return tables.clean(f"{person.email or person.name or person.person_id}: {team}, {groups}")


def _default_lines(judge: Policy, account: Account, model: str, answers: str) -> Iterator[str]:
    """What defaults do for somebody."""
    entry = judge.defaults.of(account)
    if entry is None:
        return
    by = f"defaults[{judge.defaults.place(entry)}]" + (f" ({entry.name})" if entry.name else "")
    if answers not in {"", model}:
        yield f"  {answers} answers in its place, by {by}"
    if entry.model:
        yield f"  the name {NAME!r} means {entry.model}, by {by}"
    if entry.max_tokens:
        yield f"  where a request names no max_tokens: {entry.max_tokens:,}, by {by}"
    if entry.thinking_tokens:
        yield f"  where it says nothing of thinking, and the model takes a budget: {entry.thinking_tokens:,}, by {by}"


def _filled(judge: Policy, account: Account) -> dict[str, object] | None:
    entry = judge.defaults.of(account)
    if entry is None:
        return None
    return {
        "number": judge.defaults.place(entry),
        "name": entry.name,
        "model": entry.model,
        "max_tokens": entry.max_tokens,
        "thinking_tokens": entry.thinking_tokens,
    }


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
