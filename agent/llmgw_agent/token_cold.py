"""The slow path of `llmgw-token`: no daemon was listening. Start one, then ask it like the fast path does.

On a machine with an identity of its own (a CI job, a pod) none is started: that identity is traded instead.
"""

from __future__ import annotations

import os
import time

from llmgw_agent import launcher, system
from llmgw_agent.errors import AgentError, TemporaryError
from llmgw_agent.token_stub import SECONDS


def fetch() -> tuple[int, bytes]:
    """Exit code and what to print; the same promise as `token_stub.ask`. Ten seconds in all."""
    deadline = time.monotonic() + SECONDS - 0.5
    path = system.address(os.environ)
    try:
        if launcher.is_ambient(os.environ):
            from llmgw_agent.ambient import fetch_now  # noqa: PLC0415 -- a third of a second that nobody else needs

            return 0, f"{fetch_now(os.environ).value.reveal()}\n".encode("ascii")
        launcher.ensure(path, os.environ, deadline)
        return system.ask(str(path), deadline)
    except AgentError as error:
        failure = error
    except TimeoutError:
        failure = TemporaryError("the agent did not answer within 10 s", "Run: llmgw status")
    except OSError as error:
        failure = AgentError(f"the agent cannot be asked ({error.strerror or error})", "Run: llmgw status")
    return failure.exit_code, f"llmgw: {failure.line}\n".encode(errors="replace")


def main() -> None:
    """Print a token, or the reason why there is none."""
    code, line = fetch()
    os.write(2 if code else 1, line)
    raise SystemExit(code)


if __name__ == "__main__":
    main()
