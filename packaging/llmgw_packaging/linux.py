"""The packages for Linux: what each is called, needs and does. Formats are written by deb.py and rpm.py."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from llmgw_packaging import deb, rpm
from llmgw_packaging.agent import HOME
from llmgw_packaging.documents import for_debian, for_rpm
from llmgw_packaging.scripts import script

if TYPE_CHECKING:
    from llmgw_packaging.agent import Agent
    from llmgw_packaging.organization import Settings
    from llmgw_packaging.wheels import Target

SUMMARY: Final = "sign in once, use the company's language models everywhere"
DESCRIPTION: Final = """\
The agent keeps its user's sign-in at the company's identity provider, and
gives Claude Code and other tools short-lived tokens for the company's
gateway. No cloud credential is ever on this machine.

It runs for each user, started by systemd when a tool asks.
"""


OWN_DESCRIPTION: Final = """\
What {name} sets for llmgw and for Claude Code on this machine. It leads
them to {gateway}, and to nothing else.
"""
DEB_SCRIPTS: Final = ("postinst", "prerm", "postrm", "triggers")
RPM_SCRIPTS: Final = ("pre", "post", "posttrans", "preun", "postun")
RPM_ARCHITECTURES: Final = {"amd64": "x86_64", "arm64": "aarch64"}


def agent_deb(agent: Agent, target: Target, architecture: str) -> deb.Package:
    """The agent's Debian package."""
    return deb.Package(
        name="llmgw",
        release=agent.release,
        architecture=architecture,
        summary=SUMMARY,
        description=DESCRIPTION,
        tree=for_debian(agent.tree, "llmgw", agent.release, "agent-overrides"),
        relations={
            "Depends": f"init-system-helpers (>= 1.52), libc6 (>= 2.28), python3 (>= {target.pythons[0]}), "
            f"python3 (<< {above(target.pythons[-1])}~)",
            "Recommends": "dbus-user-session",
            "Suggests": "gnome-keyring",
        },
        scripts={name: script(f"deb/agent.{name}") for name in DEB_SCRIPTS},
    )


def agent_rpm(agent: Agent, target: Target, architecture: str) -> rpm.Package:
    """The agent's RPM package."""
    return rpm.Package(
        name="llmgw",
        release=agent.release,
        architecture=RPM_ARCHITECTURES[architecture],
        summary=rpm_summary(SUMMARY),
        description=DESCRIPTION,
        tree=for_rpm(agent.tree, "llmgw"),
        relations=(
            rpm_python(target),
            "Requires(post): /usr/bin/find",
        ),
        scripts={name: script(f"rpm/agent.{name}") for name in RPM_SCRIPTS},
        ghosts=frozenset({f"{HOME}/bin/python3"}),
    )


def organization_deb(settings: Settings) -> deb.Package:
    """An organisation's settings as a Debian package; only one can be installed."""
    return deb.Package(
        name=settings.name,
        release=settings.release,
        architecture="all",
        summary=_own_summary(settings),
        description=_own_description(settings),
        tree=for_debian(settings.tree, settings.name, settings.release, "organization-overrides"),
        relations={"Depends": "llmgw", "Provides": "llmgw-org", "Conflicts": "llmgw-org"},
        scripts={name: script(f"deb/organization.{name}") for name in ("postinst", "postrm")},
        section="admin",
    )


def organization_rpm(settings: Settings) -> rpm.Package:
    """The same as an RPM package."""
    return rpm.Package(
        name=settings.name,
        release=settings.release,
        architecture="noarch",
        summary=rpm_summary(_own_summary(settings)),
        description=_own_description(settings),
        tree=for_rpm(settings.tree, settings.name),
        relations=("Requires: llmgw", "Provides: llmgw-org = 1", "Conflicts: llmgw-org"),
        scripts={name: script(f"rpm/organization.{name}") for name in ("posttrans", "postun")},
    )


def above(python: str) -> str:
    """The version of Python after this one: the first that a package has no libraries for."""
    major, minor = python.split(".")
    return f"{major}.{int(minor) + 1}"


def _own_summary(settings: Settings) -> str:
    return f"settings of llmgw and Claude Code for {settings.organization.name}"


def _own_description(settings: Settings) -> str:
    return OWN_DESCRIPTION.format(name=settings.organization.name, gateway=settings.organization.gateway_url)


def rpm_python(target: Target) -> str:
    """The interpreter that an RPM package requires: where the distribution's `python3` is too old, a newer one."""
    others = " or ".join(f"python{each}" for each in reversed(target.pythons))
    return f"Requires: ((python3 >= {target.pythons[0]} with python3 < {above(target.pythons[-1])}) or {others})"


def rpm_summary(text: str) -> str:
    """With a capital letter: rpmlint wants one, lintian none."""
    return text[:1].upper() + text[1:]
