"""`llmgw-token` on Windows: prints a gateway token. The contract is that of token_stub.py.

Started as a file, with -I -S like there: no start-up hooks of other packages, nothing from the project's folder.
Unlike there its modules are compiled once, and the slow way is taken in the same process: Windows has no exec.
"""

import sys

if __name__ == "__main__":  # behind the standard library: nothing of ours can take a module's place
    sys.path.append(__file__.replace("/", "\\").rpartition("\\llmgw_agent\\")[0])

from time import monotonic

from llmgw_agent.token_stub import SECONDS
from llmgw_agent.windows.api import WINDOWS, Api
from llmgw_agent.windows.pipe import address, ask


def fetch(environ: dict[str, str], api: Api = WINDOWS) -> tuple[int, bytes]:
    """Exit code and what to print."""
    try:
        return ask(address(environ, api), monotonic() + SECONDS, api)
    except ValueError as error:
        return 8, f"llmgw: {error}. Run: llmgw profile list\n".encode()
    except PermissionError as error:
        return 7, f"llmgw: no token asked for: {error}. Run: llmgw status\n".encode(errors="replace")
    except TimeoutError:
        return 6, b"llmgw: the agent did not answer within 10 s. Run: llmgw status\n"
    except OSError:
        from llmgw_agent.token_cold import fetch as slowly  # noqa: PLC0415 -- starts the agent

        return slowly()


def main() -> int:
    """Print a token; the exit code."""
    import os  # noqa: PLC0415 -- it is there already, on every start

    if len(sys.argv) > 1:
        code, line = 2, b"llmgw: llmgw-token takes no arguments. Run: llmgw token --help\n"
    else:
        try:
            code, line = fetch(dict(os.environ))
        except Exception as error:  # noqa: BLE001 -- the last line of defence: never a stack trace in somebody's tool
            code, line = 1, f"llmgw: llmgw-token failed ({type(error).__name__}). Run: llmgw status\n".encode()
    os.write(2 if code else 1, line)
    return code


if __name__ == "__main__":
    sys.exit(main())
