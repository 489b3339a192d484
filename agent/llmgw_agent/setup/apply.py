"""`llmgw setup`: from a tool's name to changed files, and back. Asks the daemon only what the tool needs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from llmgw_agent import settings, system
from llmgw_agent.client import Client
from llmgw_agent.errors import UsageError
from llmgw_agent.setup import files, jsonc
from llmgw_agent.setup.edits import Member
from llmgw_agent.setup.tools import TOOLS, Facts

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llmgw_agent.setup.files import Change, Target

RECEIPTS: Final = "setup.json"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was done, or would be."""

    tool: str
    title: str
    changes: tuple[Change, ...]
    is_undo: bool
    is_dry: bool
    note: str


def set_up(environ: Mapping[str, str], tool: str, *, dialect: str, is_dry: bool) -> Outcome:
    """Make a tool go through the gateway; AgentError if that cannot be, and then nothing was changed."""
    chosen = TOOLS[tool]
    given = settings.load(environ)
    helper, command = (tuple(system.command_of(name, environ)) for name in ("llmgw-token", "llmgw"))
    facts = Facts(environ, given.gateway_url, helper, command, dialect)
    client = Client(environ)
    if chosen.forwards:
        facts = replace(facts, forwarder=client.post("/forward", {})["forward"])
    if chosen.wants_models:
        facts = replace(facts, models=tuple(client.get("/whoami")["me"]["models"]))
    changes = [files.plan(_sparing(target)) for target in chosen.targets(facts)]
    if not is_dry:
        receipts = files.Receipts(given.places.home / RECEIPTS)
        wanted = [change for change in changes if change.before != change.after]
        receipts.keep(tool, wanted)
        for change in wanted:
            files.carry_out(change)
    return Outcome(tool, chosen.title, tuple(changes), is_undo=False, is_dry=is_dry, note=chosen.note)


def take_back(environ: Mapping[str, str], tool: str, *, is_dry: bool) -> Outcome:
    """Undo what `set_up` wrote, and nothing else; UsageError if it wrote nothing."""
    receipts = files.Receipts(settings.places(environ).home / RECEIPTS)
    if tool not in receipts.tools():
        raise UsageError(f"llmgw has not set up {TOOLS[tool].title}", "See what is: llmgw setup --list")
    changes = receipts.undo(tool)
    if not is_dry:
        for change in changes:
            if change.before != change.after:
                files.carry_out(change)
        receipts.forget(tool)
    return Outcome(tool, TOOLS[tool].title, tuple(changes), is_undo=True, is_dry=is_dry, note="")


def listed(environ: Mapping[str, str]) -> dict[str, bool]:
    """Every tool, and whether it was set up here."""
    known = files.Receipts(settings.places(environ).home / RECEIPTS).tools()
    return {tool: tool in known for tool in TOOLS}


def _sparing(target: Target) -> Target:
    """Without the status line, if there is another one: that is a matter of taste."""
    try:
        text = target.path.read_text(encoding="utf-8")
        has_other = jsonc.get(text, ("statusLine",))[0]
    except (OSError, ValueError):
        return target
    kept = tuple(edit for edit in target.edits if not (isinstance(edit, Member) and edit.path == ("statusLine",)))
    return replace(target, edits=kept) if has_other else target
