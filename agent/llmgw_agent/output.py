"""Every word that `llmgw` prints.

Rules:

* stdout holds what was asked for, stderr everything else; with --json stdout is exactly one object with `schema`.
* An error is one line on stderr: `llmgw: what happened. What to do`, the second half a command wherever there is one.
* Plain words, present tense, no colour, no symbol that carries meaning alone; it reads the same in a log file.
* Times are told as what is left; money in US dollars and cents.
* What is laid out in columns is in screens.py, and fits 80 of them unless a name is longer.
* Nothing here is asked of anybody: functions take what was answered and return text.
"""

from __future__ import annotations

import shlex
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from llmgw_agent.screens import LABEL, name_of, span, wrapped

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from llmgw_agent.errors import AgentError
    from llmgw_agent.setup.apply import Outcome


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
    return f"Open this page on any device and enter the code {code} (good for {span(seconds)}; never one sent to you):"


def waiting() -> str:
    """Below the address."""
    return "Waiting for the sign-in ..."


def paste_prompt() -> str:
    """Asks for the address that a browser on another machine ended at."""
    return "When its browser ends at an error page, paste that page's address here"


def signed_in(account: dict[str, str]) -> str:
    """The end of a sign-in."""
    return f"Signed in as {name_of(account)} ({account['issuer']})."


def signed_out(answer: dict[str, Any]) -> str:
    """What a sign-out did, and what it could not."""
    if not answer["was_signed_in"]:
        return "You were not signed in."
    lines = ["Signed out: sign-in and device key are gone from this machine."]
    lines += [f"Revoked at {party}." for party in answer["revoked"]]
    lines += [f"Not revoked at {failed['party']}: {failed['reason']}." for failed in answer["not_revoked"]]
    return "\n".join(lines)


def profiles(found: Sequence[Mapping[str, Any]]) -> str:
    """Which profiles there are: name, gateway, who is signed in as far as a running agent says so."""
    width = max(len(each["name"]) for each in found)
    lines = []
    for each in found:
        who = (
            name_of(each["account"]) if each["account"] else "nobody is signed in" if each["running"] else "not running"
        )
        lines.append(f"{each['name']:{width}}  {each['gateway_url'] or each['fault']}" + f" ({who})")
    return "\n".join(lines)


def profile_added(name: str, gateway_url: str, fault: str) -> str:
    """A new profile, and what is to be done with it."""
    if fault:
        return f"The profile {name} is there, but its settings are not right: {fault}."
    return f"The profile {name} goes to {gateway_url}. Sign in: llmgw -p {name} login"


def profile_removed(name: str, answer: Mapping[str, Any]) -> str:
    """What was ended with it."""
    lines = [f"The profile {name} is gone, with its settings and sign-in."]
    lines += [f"Revoked at {party}." for party in answer["revoked"]]
    return "\n".join(lines + [f"Not revoked at {each['party']}: {each['reason']}." for each in answer["not_revoked"]])


def stopped(pid: int) -> str:
    """The daemon was told to end."""
    return f"The agent (process {pid}) ends."


def resting(pid: int) -> str:
    """The daemon was told to rest."""
    return f"The agent (process {pid}) rests until it is asked."


def not_running() -> str:
    """There was nothing to stop."""
    return "The agent is not running."


def already_running() -> str:
    """A second daemon for the same home."""
    return "The agent is already running."


def exports(variables: Mapping[str, str]) -> str:
    """Variables as a shell takes them: eval "$(llmgw forward)"."""
    return "\n".join(f"export {name}={shlex.quote(value)}" for name, value in variables.items())


def setup(outcome: Outcome) -> str:
    """What was written for a tool, or taken back, file by file."""
    lines = [change.diff() for change in outcome.changes if outcome.is_dry and change.before != change.after]
    for change in outcome.changes:
        told = change.state if change.before == change.after or not outcome.is_dry else f"would be {change.state}"
        kept = f" (as it was: {change.backup.name} beside it)" if not outcome.is_undo and change.before else ""
        lines.append(f"{change.path}: {told}{kept if change.state == 'changed' and not outcome.is_dry else ''}")
        lines += [f"{change.path}: {name} is left, it was changed since" for name in change.left]
    if not outcome.is_undo and not outcome.is_dry:
        lines.append(wrapped("", f"Set up: {outcome.title}. {outcome.note}."))
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


def bugreport(path: str, sections: Sequence[str]) -> str:
    """Where it is, and what is in it."""
    listed = "\n".join(f"  {title}" for title in sections)
    return f"Written to {path}, for your eyes only:\n{listed}\nRead it before you share it: it was sent nowhere."


def service(files: Sequence[str], says: str, *, is_installed: bool) -> str:
    """Whether the agent starts with the session."""
    if not is_installed:
        return "The service is not installed; commands start the agent when they need it."
    return "\n".join([f"The service is installed{f' ({says})' if says else ''}:", *(f"  {path}" for path in files)])


def forwarding_to(host: str, seconds: int) -> str:
    """Beside a forwarding that runs."""
    return f"llmgw-token works on {host} for {span(seconds)}, or until you end this command (Ctrl-C)."


def mounting(socket: str, name: str, seconds: int) -> str:
    """How a container gets the socket."""
    folder = socket.rpartition("/")[0]
    return "\n".join(
        [
            f'--user "$(id -u)" -v {shlex.quote(folder)}:/llmgw/run -e LLMGW_HOME=/llmgw',
            f"# For docker run or podman run; in there llmgw-token works for {span(seconds)}.",
            f"# To end it sooner: llmgw forward revoke {name}",
        ]
    )


def passes(listed: Sequence[dict[str, Any]]) -> str:
    """The sockets for other machines."""
    if not listed:
        return "There is no socket for another machine."
    return "\n".join(f"{each['id']}  {each['for']:<30}  {span(each['seconds_left'])} left" for each in listed)


def revoked(meant_for: str) -> str:
    """One was ended."""
    return f"The socket for {meant_for} has ended; tokens that it gave live on for some minutes."


def ambient_token(value: str, expires_at: float, now: float) -> dict[str, Any]:
    """A token that no daemon was asked for, in the shape of the daemon's answer."""
    end = datetime.fromtimestamp(int(expires_at), UTC).isoformat().replace("+00:00", "Z")
    return {"token": {"value": value, "seconds_left": max(0, int(expires_at - now)), "expires_at": end}}


def version(own: str, document: dict[str, Any] | None) -> str:
    """This command's version; with a status also what runs here, and what the gateway asks for."""
    if document is None:
        return f"llmgw {own}"
    answer = "answers" if document["gateway"]["reachable"] else "does not answer"
    return f"llmgw {own}\nagent {document['daemon']['version']}\ngateway {document['gateway']['url']} {answer}"


def versions(document: dict[str, Any]) -> dict[str, Any]:
    """The same for programs."""
    return {"agent": document["daemon"]["version"], "gateway": document["gateway"]}
