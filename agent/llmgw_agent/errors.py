"""What can go wrong, as its reader sees it: what happened, to what, and what to do next.

Exit codes are a contract with scripts and with the tools that call `llmgw-token`: numbers are added, never
reused. An error travels from the daemon to a command as `code`, `message` and `hint`, and is the same class there.
No message may hold a credential: messages are built from names, addresses and error codes only.
"""

from __future__ import annotations

from typing import ClassVar, Final

COMMAND: Final = "Run: llmgw "
_speaking_for = [""]
"""The profile of this process, once it is known: what is to be typed next has to name it."""


def speak_for(profile: str) -> None:
    """From now on this process acts for a profile; empty for the first one, which needs no name."""
    _speaking_for[0] = profile


def advice(hint: str) -> str:
    """What to do next, with the profile that it is to be done for."""
    profile = _speaking_for[0]
    if not profile or not hint.startswith(COMMAND) or hint.startswith((f"{COMMAND}-p ", f"{COMMAND}profile")):
        return hint
    return f"{COMMAND}-p {profile} {hint.removeprefix(COMMAND)}"


class AgentError(Exception):
    """Something of ours went wrong. Itself only for the unexpected; every expected case is a subclass.

    Args:
        message: One sentence without its full stop: what happened, to what.
        hint: What to do next, as a full phrase such as "Run: llmgw login". Empty if there is nothing to do.
    """

    exit_code: ClassVar[int] = 1
    code: ClassVar[str] = "internal"

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = advice(hint)

    @property
    def line(self) -> str:
        """The one line for a person: message and hint; line breaks and control characters become spaces."""
        text = f"{self.message}. {self.hint}" if self.hint else f"{self.message}."
        return "".join(letter if letter.isprintable() else " " for letter in text)


class UsageError(AgentError):
    """The command was used wrongly, or its user ended it."""

    exit_code = 2
    code = "usage"


class SignInRequiredError(AgentError):
    """Nobody is signed in, or the identity provider has ended the sign-in."""

    exit_code = 4
    code = "sign_in_required"


class RefusedError(AgentError):
    """The gateway or the identity provider said no, and asking again will not change that."""

    exit_code = 5
    code = "refused"


class TemporaryError(AgentError):
    """The network, the gateway or the identity provider is away: the same request may work in a moment."""

    exit_code = 6
    code = "temporary"


class DaemonError(AgentError):
    """The agent's background process is not there, does not answer, or is not ours."""

    exit_code = 7
    code = "daemon"


class ConfigurationError(AgentError):
    """The settings are missing or wrong, here or at the gateway."""

    exit_code = 8
    code = "configuration"


class SessionEndedError(SignInRequiredError):
    """The identity provider ended this sign-in for good (`invalid_grant`, `interaction_required`)."""


class StaleSignInError(SignInRequiredError):
    """The gateway wants a more recent token of the identity provider than the one it was shown."""


CLASSES: dict[str, type[AgentError]] = {
    kind.code: kind
    for kind in (
        AgentError,
        UsageError,
        SignInRequiredError,
        RefusedError,
        TemporaryError,
        DaemonError,
        ConfigurationError,
    )
}


def from_code(code: str, message: str, hint: str) -> AgentError:
    """The error that a daemon of ours described. An unknown code (a newer daemon) is an internal error."""
    return CLASSES.get(code, AgentError)(message, hint)
