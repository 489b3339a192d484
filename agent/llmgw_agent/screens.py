"""What `llmgw` prints in columns: status, usage, checks, settings. The rules are those of output.py.

Eighty columns, unless a name or an address is longer. Functions take what was answered and return text.
"""

from __future__ import annotations

import textwrap
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from llmgw_agent.checks import State
from llmgw_agent.errors import advice

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from llmgw_agent.checks import Check
    from llmgw_agent.settings import Layer

WIDTH: Final = 80
BAR_WIDTH: Final = 20
MICRO: Final = 1_000_000
CENT: Final = 10_000
LABEL: Final = 12
UNITS: Final = {"usd": "", "tokens": " tokens", "weighted_tokens": " weighted tokens"}
PERIODS: Final = {"today": "Today", "week": "This week", "month": "This month"}


def status(document: dict[str, Any], now: datetime) -> str:
    """The status screen; `now` decides what is left."""
    account, session, token = document["account"], document["session"], document["token"]
    lines = [
        _line(
            "Signed in",
            f"{name_of(account)} ({account['issuer']})" if account else f"nobody. {advice('Run: llmgw login')}",
        )
    ]
    lines += [_line("Profile", document["profile"])] if document.get("profile", "default") != "default" else []
    if session:
        lines.append(_line("Session", _session(session, document["storage"], now)))
    lines.append(_line("Sign-in kept", document["storage"]["description"]))
    lines.append(_line("Gateway", _gateway(document["gateway"])))
    lines.append(_line("Token", f"{span(token['seconds_left'])} left" if token else "none yet"))
    for number, view in enumerate(document["budgets"]):
        lines += [_line("Budget" if not number else "", budget(view, now)), _line("", bar(view))]
    for number, view in enumerate(document["limits"]):
        lines.append(_line("Limit" if not number else "", limit(view)))
    lines += [_line("Forwarder", document["forwarder"]["url"])] if document["forwarder"]["url"] else []
    daemon = document["daemon"]
    since = f", up {_since(daemon['started_at'], now)}" if daemon.get("started_at") else ""
    lines.append(_line("Agent", f"version {daemon['version']}, process {daemon['pid']}{since}"))
    failure = document["error"]
    if failure and failure["code"] != "sign_in_required":
        lines.append(_line("Problem", f"{failure['message']}. {failure['hint']}".strip()))
    return "\n".join(lines)


def _session(session: dict[str, Any], storage: dict[str, Any], now: datetime) -> str:
    """How long it lasts is the provider's secret; what is known is what could end it sooner."""
    until = "until your identity provider ends it"
    if not session["renewable"]:
        until = "until its token ends: the provider gave nothing to renew it with"
    elif not storage["persistent"]:
        until = "until the agent ends"
    return f"for {_since(session['signed_in_at'], now)}, {until}"


def _gateway(gateway: dict[str, Any]) -> str:
    took, skew = gateway.get("answered_in_ms"), gateway["clock_offset_seconds"]
    reach = "not reachable" if not gateway["reachable"] else "ok" if took is None else f"ok, {took:.0f} ms"
    return f"{gateway['url']} {reach}" + (f", clocks differ by {skew:g} s" if abs(skew) >= 5 else "")  # noqa: PLR2004 -- less is noise


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


def usage(report: dict[str, Any]) -> str:
    """What was used: each period in all, then by model and by project."""
    lines: list[str] = []
    for period in report["periods"]:
        whole = period["total"]
        title = f"{PERIODS.get(period['name'], period['name'])}, from {period['since']}"
        lines += [] if not lines else [""]
        if not whole["requests"]:
            lines.append(f"{title}: nothing")
            continue
        lines.append(f"{title}: {_cost(whole)}, {_requests(whole['requests'])}")
        lines.append(_columns("", "requests", "input", "cached", "output", "cost"))
        lines += [_used(line, line["name"]) for line in period["models"]]
        if any(line["name"] for line in period["projects"]):
            lines += [_used(line, f"project {line['name'] or '-'}") for line in period["projects"]]
    if any(period["total"]["estimated"] for period in report["periods"]):
        lines += ["", "Part of the cost is estimated: the usage of some calls is not known yet."]
    return "\n".join([*lines, "", f"Days begin at midnight, {report['time_zone']}. Running calls are not in it."])


def _used(line: dict[str, Any], name: str) -> str:
    cached = line["cache_read_tokens"] + line["cache_write_tokens"]
    counts = (f"{line['requests']:,}", _short(line["input_tokens"]), _short(cached), _short(line["output_tokens"]))
    return _columns(name, *counts, _cost(line))


def _cost(line: dict[str, Any]) -> str:
    return "<$0.01" if 0 < line["cost"] < CENT else _amount(line["cost"], "usd")


def _columns(name: str, *cells: str) -> str:
    return f"  {name:<30}" + "".join(f"{cell:>9}" for cell in cells)


def _requests(count: int) -> str:
    return "1 request" if count == 1 else f"{count:,} requests"


def _short(count: int) -> str:
    """A count of tokens in at most six characters."""
    for size, name in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if count >= size:
            return f"{count / size:.1f} {name}"
    return str(count)


def doctor(checks: Sequence[Check]) -> str:
    """One line for each check, and below those that are not well what is right and what to do."""
    lines = []
    for check in checks:
        lines.append(wrapped(f"{check.state.value:<5} {check.name:<18} ", check.found))
        lines += [wrapped(f"{'':<25}right: ", check.right)] if check.right else []
        lines += [wrapped(f"{'':<25}fix: ", check.fix)] if check.fix else []
    counts = {state: sum(check.state is state for check in checks) for state in State}
    bad = ((State.FAIL, "failed"), (State.WARN, "to be looked at"))
    found = ", ".join(f"{counts[state]} {words}" for state, words in bad if counts[state])
    told = "1 check" if len(checks) == 1 else f"{len(checks)} checks"
    return "\n".join([*lines, "", f"{told}: {found or 'all is well'}."])


def doctor_json(checks: Sequence[Check], *, is_healthy: bool) -> dict[str, Any]:
    """The same for programs."""
    return {
        "schema": 1,
        "ok": is_healthy,
        "checks": [asdict(check) | {"state": check.state.value} for check in checks],
    }


def settings(found: Mapping[str, Sequence[Layer]], defaults: Mapping[str, str], faults: Sequence[str]) -> str:
    """Each setting, its value and where it comes from; below it what that overruled."""
    lines = []
    for key, layers in found.items():
        if not layers:
            lines.append(f"{key:<18}  {defaults[key] or 'not set'} (default)")
            continue
        *weaker, last = layers
        lines.append(f"{key:<18}  {last.value} ({_where(last)})")
        lines += [f"{'':<18}  overrules {layer.value} ({_where(layer)})" for layer in reversed(weaker)]
    return "\n".join([*lines, *(f"Fault: {fault}" for fault in faults)])


def settings_json(
    found: Mapping[str, Sequence[Layer]], defaults: Mapping[str, str], faults: Sequence[str]
) -> dict[str, Any]:
    """The same for programs."""
    told = [
        {
            "name": key,
            "value": layers[-1].value if layers else defaults[key],
            "source": layers[-1].source if layers else None,
            "managed": bool(layers) and layers[-1].kind == "company",
            "overrules": [{"value": layer.value, "source": layer.source} for layer in reversed(layers[:-1])],
        }
        for key, layers in found.items()
    ]
    return {"ok": not faults, "settings": told, "faults": list(faults)}


def _where(layer: Layer) -> str:
    return f"{layer.source}, set by your company" if layer.kind == "company" else layer.source


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
    """One budget: its name, what is left of it, and when it starts again."""
    model = f", {view['model']}" if view.get("model") else ""
    unit = view.get("unit", "usd")
    left = f"{_amount(view['remaining'], unit)}{UNITS.get(unit, f' {unit}')} left"
    return f"{view['name']} ({view['level']}{model}): {left}, resets {_until(view['resets_at'], now)}"


def bar(view: dict[str, Any]) -> str:
    """What is used of a budget, drawn and in numbers. What is held for running calls counts as used."""
    used, unit = view["spent"] + view["held"], view.get("unit", "usd")
    share = min(1.0, used / view["limit"]) if view["limit"] else 1.0
    drawn = "#" * round(share * BAR_WIDTH)
    numbers = f"{_amount(used, unit)} of {_amount(view['limit'], unit)}"
    return f"[{drawn:-<{BAR_WIDTH}}] {share:4.0%}  {numbers}"


def limit(view: dict[str, Any]) -> str:
    """One limit on rates or concurrency on one line: what is left of what at this moment."""
    unit = "calls at a time" if view["kind"] == "concurrent" else f"{view['kind']} a minute"
    return f"{view['name']} ({view['level']}): {view['remaining']:,} of {view['limit']:,} {unit} left"


def _line(label: str, text: str) -> str:
    return wrapped(f"{label:<{LABEL}}  ", text)


def wrapped(head: str, text: str) -> str:
    """A text beside its head, on as many lines as it takes; words (paths, addresses) stay whole."""
    return textwrap.fill(
        text,
        WIDTH,
        initial_indent=head,
        subsequent_indent=" " * len(head),
        break_long_words=False,
        break_on_hyphens=False,
    )


def name_of(account: dict[str, str]) -> str:
    """What a person calls the account."""
    return account["email"] or account["name"] or account["subject"]


def _amount(value: int, unit: str) -> str:
    return f"${value / MICRO:,.2f}" if unit == "usd" else f"{value:,}"


def _until(moment: str, now: datetime) -> str:
    try:
        left = datetime.fromisoformat(moment).astimezone(UTC) - now
    except ValueError:
        return f"at {moment}"
    return f"in {span(max(0, int(left.total_seconds())))}"


def span(seconds: int) -> str:
    """A length of time in its two largest units."""
    units = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))
    parts: list[str] = []
    for size, name in units:
        if seconds >= size or (name == "s" and not parts):
            parts.append(f"{seconds // size} {name}")
            seconds %= size
    return " ".join(parts[:2])


def _since(moment: str, now: datetime) -> str:
    return span(max(0, int((now - datetime.fromisoformat(moment).astimezone(UTC)).total_seconds())))
