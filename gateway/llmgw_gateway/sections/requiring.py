"""What sign-ins of a provider must say beside whose they are: a second factor, an organisation, a repository."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

SHARED: Final = {
    "https://token.actions.githubusercontent.com": (
        "repository_owner",
        "repository_owner_id",
        "repository",
        "repository_id",
        "enterprise",
        "enterprise_id",
        "sub",
    ),
    "https://gitlab.com": ("namespace_path", "namespace_id", "project_path", "project_id", "groups_direct", "sub"),
    "https://accounts.google.com": ("hd", "sub"),
}
"""Issuers at which anybody may have an account, or let a job ask for a token with our audience, and the claims that say
whose it is: GitHub's "OpenID Connect reference", GitLab's "ID token authentication", Google's "OpenID Connect" (`hd`,
because an address of the company's domain can belong to an account that is not the company's)."""


def required_faults(issuer: str, kind: str, required: Mapping[str, tuple[str, ...]]) -> list[str]:
    """A claim that nothing fulfils, and issuers whose sign-ins would let in strangers."""
    found = [f"required.{claim}: names no value" for claim, values in required.items() if not values]
    owners = SHARED.get(issuer.rstrip("/"), ())
    if owners and not required.keys() & set(owners):
        found.append(f"required: anybody can get a token of {issuer}: say which are yours by {', '.join(owners)}")
    elif kind == "workload" and not required:
        found.append('required: kind = "workload" needs it: which of this issuer\'s machines are meant')
    return found


def unmet(claims: Mapping[str, Any], required: Mapping[str, tuple[str, ...]]) -> str:
    """The first claim that says none of what it must; empty when all do. Compared exactly; of a list one is enough."""
    for name, values in required.items():
        claim = claims.get(name)
        said = claim if isinstance(claim, list) else [claim]
        if not any(isinstance(each, str) and each in values for each in said):
            return name
    return ""


def is_in_domain(address: str, domains: tuple[str, ...]) -> bool:
    """Whether an e-mail address is in one of these domains itself: subdomains are others."""
    _, sign, domain = address.rpartition("@")
    return bool(sign) and domain.casefold() in {each.casefold() for each in domains}
