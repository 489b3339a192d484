"""`make demo`: the whole system on this machine, from sign-in to audit line, with real servers.

It starts an OpenID provider, a Bedrock emulator, the gateway and the agent, signs somebody in, sends one prompt in each
dialect, shows what it cost, and stays up for you to try. Environment: ONCE, DEMO_UPSTREAM, DEMO_BUDGET_USD,
DEMO_FOLDER.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
import webbrowser
from pathlib import Path

from tests.demo import account, conversation, handout, wishes
from tests.demo.screen import ReaderLeftError, Screen
from tests.demo.stage import Stage, StageError
from tests.lab.claude import executable_path
from tests.lab.node import REPOSITORY
from tests.lab.process import ProgramError

INTERRUPTED = 130
BROWSER_SECONDS = 300
PROMPT = "In one sentence: why does a company put a gateway in front of its models?"


MADE_UP_KEYS = (
    "No AWS keys in your environment, so the demo made some up. An endpoint that knows its keys, such as ministack "
    "with AUTH=true, refuses those: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
)


class TokenError(RuntimeError):
    """`llmgw-token` gave none."""


def main() -> int:
    """Run the demo; the exit code."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    screen = Screen()
    try:
        order = wishes.read(os.environ, folder=REPOSITORY / ".demo", macos=sys.platform == "darwin")
        screen.title("llmgw demo: Claude on Bedrock with sign-in, budget and audit, on your machine")
        with Stage(order.folder, order) as stage:
            perform(screen, stage)
            if not order.once:
                stay(screen, stage)
    except ReaderLeftError:
        # `make demo | head`: whoever reads has seen enough. Python would still complain when it flushes at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        screen.line("\nInterrupted; everything has ended.")
        return INTERRUPTED
    except (ProgramError, StageError, TokenError, conversation.ConversationError, ValueError, OSError) as error:
        screen.fail(str(error))
        return 1
    return 0


def perform(screen: Screen, stage: Stage) -> None:
    """Start everything, sign in, talk, account."""
    raise_servers(screen, stage)
    sign_in(screen, stage)
    token = _token(stage)
    screen.line()
    screen.field("Ada asks", PROMPT)
    if stage.wishes.upstream == "emulator":
        screen.field("", "(The emulator answers by rote. For a model: DEMO_UPSTREAM=aws)")
    for prompt in (conversation.anthropic(PROMPT), conversation.bedrock(PROMPT)):
        screen.heading(f"{prompt.dialect} dialect", f"POST {prompt.route}")
        spoken = screen.spoken()
        conversation.hold(prompt, stage.gateway.url, token, spoken.say)
        spoken.end()
    lines = account.settled(stage.gateway, 2)
    account.show(screen, account.me(stage.gateway, token), lines)
    handout.write_env(stage)


def raise_servers(screen: Screen, stage: Stage) -> None:
    """One line of progress each."""
    if stage.wishes.upstream == "emulator":
        with screen.step("Bedrock emulator ministack, which checks every signature"):
            stage.raise_emulator()
    else:
        costs = "It costs real money: at most" if stage.wishes.upstream == "aws" else "Budget:"
        screen.note(f"Bedrock is {stage.upstream_url}")
        screen.note(f"{costs} ${stage.wishes.budget_usd} a month for each user.")
        if not stage.wishes.credentials:
            screen.note(MADE_UP_KEYS)
    with screen.step("OpenID provider canaille, with real passwords"):
        stage.raise_provider()
    with screen.step("gateway on SQLite"):
        stage.raise_gateway()
    with screen.step("agent daemon with a home of its own"):
        stage.raise_agent()


def sign_in(screen: Screen, stage: Stage) -> None:
    """In the browser where there is one; otherwise the form is filled in for the user, and said so."""
    ada = stage.canaille.accounts["ada"]
    if stage.wishes.has_display:
        screen.note(f"Your browser opens. Sign in as {ada.user_name} with the password {ada.password}")
        with screen.step(f"{ada.name} signs in"):
            stage.agent.sign_in(webbrowser.open, seconds=BROWSER_SECONDS)
    else:
        with screen.step(f"{ada.name} signed in"):
            stage.agent.sign_in(stage.canaille.person("ada").sign_in)
        screen.note(
            "No display here: the demo itself opened the sign-in page, filled in name and password, and agreed."
        )


def stay(screen: Screen, stage: Stage) -> None:
    """Say how to use it, then wait for Ctrl-C or for a server that dies."""
    screen.heading("Try it", "in another terminal, while this one stays open")
    own = executable_path()
    command = "claude" if shutil.which("claude") or not own.exists() else f"{_short(own)} \\\n   "
    for mode in handout.MODES:
        settings = handout.write_claude_settings(stage, mode)
        screen.line(f"  {command} --settings {_short(settings)} -p 'say hi'")
    if command == "claude" and not shutil.which("claude"):
        screen.note(f"claude is not on your PATH. Get it with: {handout.INSTALL_CLAUDE}")
    screen.line()
    screen.line(f"  Variables for scripts are in {_short(stage.folder / 'env')}. Ctrl-C ends everything.")
    wake = threading.Event()
    try:
        while not wake.wait(1):
            for program in stage.programs:
                if program.exit_code is not None:
                    raise ProgramError(f"{program.name} ended with exit code {program.exit_code}\n{program.tail()}")
    except KeyboardInterrupt:
        screen.line("\nEnding.")


def _token(stage: Stage) -> str:
    finished = stage.agent.token()
    if finished.exit_code != 0:
        raise TokenError(f"llmgw-token ended with {finished.exit_code}: {finished.stderr.strip()}")
    return finished.stdout.strip()


def _short(path: Path) -> str:
    """Relative to where the user stands, if it is below."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
