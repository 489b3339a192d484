"""Whom a budget or a limit is for: does it concern an account, who shares it, and what is it called. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmgw_gateway.call import Account
    from llmgw_gateway.sections.reading import Rule

LEVELS = ("key", "user", "project", "team", "organisation", "provider")
"""The order in which rules are asked, and named when they refuse: what its owner can do something about comes first."""


def applies(rule: Rule, account: Account) -> bool:
    """Whether a rule concerns what an account does."""
    if rule.level in {"organisation", "provider"}:
        return True
    if rule.level == "user":
        if rule.of:
            return rule.of == account.email
        return not rule.team or rule.team == account.team
    own = {"team": account.team, "project": account.project, "key": account.key}[rule.level]
    return bool(own) and rule.of in ("", own)


def particularity(rule: Rule) -> int:
    """Of several rules for the same thing the one with the highest number counts."""
    return 2 if rule.of else 1 if rule.team else 0


def subject(rule: Rule, account: Account) -> str:
    """Whose share of the level it is: a part of the key under which it is counted."""
    return {
        "key": account.key,
        "user": account.person_id,
        "team": account.team,
        "project": account.project,
    }.get(rule.level, "")


def whose(rule: Rule, account: Account) -> str:
    """As a refusal goes on after "budget" or "limit": " of team payments for claude-opus-5-5"."""
    owner = {
        "key": " of this device",
        "team": f" of team {account.team}",
        "project": f" of project {account.project}",
        "organisation": " of the organisation",
        "provider": " of the cloud account",
    }.get(rule.level, "")
    return owner + (f" for {rule.model}" if rule.model else "")
