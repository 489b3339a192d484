"""What can be wrong with a name that one section gives to what another defines, each as "key: what is wrong"."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmgw_gateway.sections.administering import RoleRule
    from llmgw_gateway.sections.defaulting import Default
    from llmgw_gateway.sections.permitting import Permission
    from llmgw_gateway.sections.reading import Rule


def rule_faults(place: str, rule: Rule, known: dict[str, set[str]], models: set[str]) -> list[str]:
    """A team, project or model that a budget or limit names and that is not there: it would silently never apply."""
    found = []
    if rule.of and rule.of not in known.get(rule.level, {rule.of}):
        found.append(f"{place}.of: there is no {rule.level} {rule.of!r}")
    if rule.team and rule.team not in known["team"]:
        found.append(f"{place}.team: there is no team {rule.team!r}")
    if rule.model and rule.model not in models:
        found.append(f"{place}.model: {rule.model!r} is not served here")
    return found


def permission_faults(
    place: str, entry: Permission, teams: set[str], models: set[str], upstreams: set[str]
) -> list[str]:
    """A team, model or upstream that a policy names and that is not there: it would silently never apply."""
    found = [f"{place}.teams: there is no team {name!r}" for name in entry.teams if name not in teams]
    found += [f"{place}.upstreams: there is no upstream {name!r}" for name in entry.upstreams if name not in upstreams]
    return found + [f"{place}.models: {name!r} is not served here" for name in entry.models if name not in models]


def default_faults(place: str, entry: Default, teams: set[str], models: set[str]) -> list[str]:
    """A team or a model that a default names and that is not there."""
    found = [f"{place}.teams: there is no team {name!r}" for name in entry.teams if name not in teams]
    if entry.model and entry.model not in models:
        found.append(f"{place}.model: {entry.model!r} is not served here")
    return found


def role_faults(place: str, rule: RoleRule, teams: set[str], issuers: set[str]) -> list[str]:
    """A rule that gives a role to whomever any provider calls so, or that would silently never apply."""
    found = [f"{place}.teams: there is no team {name!r}" for name in rule.teams if name not in teams]
    if rule.issuer and rule.issuer not in issuers:
        found.append(f"{place}.issuer: {rule.issuer!r} is none of the issuers")
    if not rule.issuer and len(issuers) > 1:
        found.append(f"{place}.issuer: is needed with several issuers: a group or subject is one provider's")
    return found
