"""Every word that `llmgw` prints.

Rules:

* stdout holds what was asked for, stderr everything else; with --json stdout is exactly one object with `schema`.
* An error is one line on stderr: `llmgw: what happened. What to do`, the second half a command wherever there is one.
* Plain words, present tense, no colour, no symbol that carries meaning alone; it reads the same in a log file.
* Times are told as what is left; money in US dollars and cents.
* Nothing here is asked of anybody: functions take what was answered and return text.
"""

from __future__ import annotations

import shlex
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from llmgw_agent.checks import State

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from llmgw_agent.checks import Check
    from llmgw_agent.errors import AgentError
    from llmgw_agent.setup.apply import Outcome

BAR_WIDTH: Final = 20
MICRO: Final = 1_000_000
LABEL: Final = 12


def error(failure: AgentError) -> str:
    """The one line for stderr."""
    return f"llmgw: {failure.line}"


def failure(failure: AgentError) -> dict[str, Any]:
    """The same for programs."""
    error = {
        "code": failure.code,
        "message": failure.message,
        "hint": failure.hint,
        "exit_code": failure.exit_code,
    }
    return {"ok": False, "error": error}


def open_browser() -> str:
    """Above the address, when the browser is being opened."""
    return "Your browser opens this page to sign you in. If it does not, open it yourself:"


def visit() -> str:
    """Above the address, when it is not."""
    return "No browser is opened. Open this page to sign in:"


def enter_code(code: str, seconds: int) -> str:
    """Above the address, when a code has to be typed in there."""
    return f"Open this page on any device and enter the code {code} (good for {_span(seconds)}; never one sent to you):"


def waiting() -> str:
    """Below the address."""
    return "Waiting for the sign-in ..."


def paste_prompt() -> str:
    """Asks for the address that a browser on another machine ended at."""
    return "When its browser shows an error page at the end, paste that page's address here"


def signed_in(account: dict[str, str]) -> str:
    """The end of a sign-in."""
    return f"Signed in as {_name(account)} ({account['issuer']})."


def signed_out(answer: dict[str, Any]) -> str:
    """What a sign-out did, and what it could not."""
    if not answer["was_signed_in"]:
        return "You were not signed in."
    lines = ["Signed out: sign-in and device key are gone from this machine."]
    lines += [f"Revoked at {party}." for party in answer["revoked"]]
    lines += [f"Not revoked at {failed['party']}: {failed['reason']}." for failed in answer["not_revoked"]]
    return "\n".join(lines)


def stopped(pid: int) -> str:
    """The daemon was told to end."""
    return f"The agent (process {pid}) ends."


def not_running() -> str:
    """There was nothing to stop."""
    return "The agent is not running."


def already_running() -> str:
    """A second daemon for the same home."""
    return "The agent is already running."


def status(document: dict[str, Any], now: datetime) -> str:
    """The status screen; `now` decides what is left."""
    account, token, gateway = document["account"], document["token"], document["gateway"]
    signed = f"{_name(account)} ({account['issuer']})" if account else "nobody. Run: llmgw login"
    reach = "ok" if gateway["reachable"] else "not reachable"
    skew = gateway["clock_offset_seconds"]
    lines = [
        _line("Signed in", signed),
        _line("Sign-in kept", document["storage"]["description"]),
        _line("Gateway", f"{gateway['url']} {reach}" + (f", clocks differ by {skew:g} s" if abs(skew) >= 5 else "")),  # noqa: PLR2004 -- less is noise
        _line("Token", f"{_span(token['seconds_left'])} left" if token else "none yet"),
    ]
    lines += [_line("Budget", budget(view, now)) for view in document["budgets"]]
    lines += [_line("Limit", limit(view)) for view in document["limits"]]
    lines += [_line("Forwarder", document["forwarder"]["url"])] if document["forwarder"]["url"] else []
    lines.append(_line("Agent", f"version {document['daemon']['version']}, process {document['daemon']['pid']}"))
    failure = document["error"]
    if failure and failure["code"] != "sign_in_required":
        lines.append(_line("Problem", f"{failure['message']}. {failure['hint']}".strip()))
    return "\n".join(lines)


def statusline(glance: dict[str, Any] | None, now: datetime) -> str:
    """What a coding agent shows below its prompt: what is wrong, else the budget of which least is left."""
    if glance is None:
        return "llmgw: the agent is not running"
    if glance["error"]:
        return f"llmgw: {glance['error']['message']}. {glance['error']['hint']}".strip()
    views = [view for view in glance["budgets"] if view["limit"]]
    if not views:
        return "llmgw: signed in"
    view = min(views, key=lambda each: each["remaining"] / each["limit"])
    unit = view.get("unit", "usd")
    left, whole = _amount(view["remaining"], unit), _amount(view["limit"], unit)
    model = f", {view['model']}" if view.get("model") else ""
    resets = _until(view["resets_at"], now)
    return f"llmgw: {left} of {whole}{UNITS.get(unit, f' {unit}')} left ({view['name']}{model}), resets {resets}"


def exports(variables: Mapping[str, str]) -> str:
    """Variables as a shell takes them: eval "$(llmgw forward)"."""
    return "\n".join(f"export {name}={shlex.quote(value)}" for name, value in variables.items())


def doctor(checks: Sequence[Check]) -> str:
    """One line for each check, and below those that are not well what is right and what to do."""
    lines = []
    for check in checks:
        lines.append(f"{check.state.value:<5} {check.name:<18} {check.found}")
        lines += [f"{'':<24} right: {check.right}"] if check.right else []
        lines += [f"{'':<24} fix: {check.fix}"] if check.fix else []
    counts = {state: sum(check.state is state for check in checks) for state in State}
    bad = ((State.FAIL, "failed"), (State.WARN, "to be looked at"))
    found = ", ".join(f"{counts[state]} {words}" for state, words in bad if counts[state])
    return "\n".join([*lines, "", f"{len(checks)} checks: {found or 'all is well'}."])


def doctor_json(checks: Sequence[Check], *, is_healthy: bool) -> dict[str, Any]:
    """The same for programs."""
    return {
        "schema": 1,
        "ok": is_healthy,
        "checks": [asdict(check) | {"state": check.state.value} for check in checks],
    }


def setup(outcome: Outcome) -> str:
    """What was written for a tool, or taken back, file by file."""
    lines = [change.diff() for change in outcome.changes if outcome.is_dry and change.before != change.after]
    for change in outcome.changes:
        told = change.state if change.before == change.after or not outcome.is_dry else f"would be {change.state}"
        kept = f" (as it was: {change.backup.name} beside it)" if not outcome.is_undo and change.before else ""
        lines.append(f"{change.path}: {told}{kept if change.state == 'changed' and not outcome.is_dry else ''}")
        lines += [f"{change.path}: {name} is left, it was changed since" for name in change.left]
    if not outcome.is_undo and not outcome.is_dry:
        lines.append(f"{outcome.title} goes through the gateway. {outcome.note}.")
        lines.append(f"To take it back: llmgw setup {outcome.tool} --undo")
    return "\n".join(lines)


def setup_json(outcome: Outcome) -> dict[str, Any]:
    """The same for programs."""
    files = [
        {"path": str(change.path), "state": change.state, "left": change.left, "diff": change.diff()}
        for change in outcome.changes
    ]
    return {"tool": outcome.tool, "undo": outcome.is_undo, "dry_run": outcome.is_dry, "files": files}


def setup_list(tools: Mapping[str, bool]) -> str:
    """Every tool that can be set up, and whether it is."""
    return "\n".join(f"{name:<{LABEL}}  {'set up' if is_set else '-'}" for name, is_set in tools.items())


def whoami(me: dict[str, Any]) -> str:
    """Who the gateway takes the caller for."""
    lines = [
        _line("Name", me["name"] or "-"),
        _line("E-mail", me["email"] or "-"),
        _line("Issuer", me["issuer"] or "-"),
        _line("Person", me["person"]),
        _line("Session", me["session"] or "-"),
        _line("Models", ", ".join(me["models"]) or "none"),
    ]
    return "\n".join(lines)


def budget(view: dict[str, Any], now: datetime) -> str:
    """One budget on one line: a bar, what is spent of what, and when it starts again."""
    used = view["spent"] + view["held"]
    share = min(1.0, used / view["limit"]) if view["limit"] else 1.0
    bar = "#" * round(share * BAR_WIDTH)
    model = f", {view['model']}" if view.get("model") else ""
    unit = view.get("unit", "usd")
    spent, whole, left = (_amount(view[name], unit) for name in ("spent", "limit", "remaining"))
    state = f"{spent} of {whole}{UNITS.get(unit, f' {unit}')} spent, {left} left"
    resets = _until(view["resets_at"], now)
    return f"[{bar:-<{BAR_WIDTH}}] {view['name']} ({view['level']}{model}): {state}, resets {resets}"


def limit(view: dict[str, Any]) -> str:
    """One limit on rates or concurrency on one line: what is left of what at this moment."""
    unit = "calls at a time" if view["kind"] == "concurrent" else f"{view['kind']} a minute"
    return f"{view['name']} ({view['level']}): {view['remaining']:,} of {view['limit']:,} {unit} left"


UNITS = {"usd": "", "tokens": " tokens", "weighted_tokens": " weighted tokens"}


def _line(label: str, text: str) -> str:
    return f"{label:<{LABEL}}  {text}"


def _name(account: dict[str, str]) -> str:
    return account["email"] or account["name"] or account["subject"]


def _amount(value: int, unit: str) -> str:
    return f"${value / MICRO:,.2f}" if unit == "usd" else f"{value:,}"


def _until(moment: str, now: datetime) -> str:
    try:
        left = datetime.fromisoformat(moment).astimezone(UTC) - now
    except ValueError:
        return f"at {moment}"
    return f"in {_span(max(0, int(left.total_seconds())))}"


def _span(seconds: int) -> str:
    """A length of time in its two largest units."""
    units = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))
    parts: list[str] = []
    for size, name in units:
        if seconds >= size or (name == "s" and not parts):
            parts.append(f"{seconds // size} {name}")
            seconds %= size
    return " ".join(parts[:2])
