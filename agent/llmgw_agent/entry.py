"""What the script `llmgw` calls. The command that is drawn all the time takes a short way: no click, no HTTP client.

Claude Code runs `llmgw statusline` with every message; importing the command line costs three times what this does.
"""

from __future__ import annotations

import sys


def main() -> None:
    """`llmgw`."""
    if sys.argv[1:] != ["statusline"] or not _drawn():
        from llmgw_agent.cli import main as command_line  # noqa: PLC0415 -- that is the point

        command_line()


def _drawn() -> bool:
    """Print the line as a running agent says it. False, and nothing is printed, if that is not to be had."""
    if sys.platform != "win32":  # there is no short way to a named pipe
        import os  # noqa: PLC0415 -- the same
        from time import monotonic  # noqa: PLC0415 -- the same

        from llmgw_agent.token_stub import connect, socket_path  # noqa: PLC0415 -- the same

        answer = b""
        try:
            deadline = monotonic() + 1.0
            sock = connect(socket_path(dict(os.environ), os.getuid()), deadline)
            sock.sendall(b"GET /statusline HTTP/1.1\r\nHost: llmgw.local\r\nConnection: close\r\n\r\n")
            while part := sock.recv(65536):
                answer += part
            sock.close()
        except (OSError, ValueError):  # no agent, not ours, or no such name: the long way says which
            answer = b""
        head, _, line = answer.partition(b"\r\n\r\n")
        if head[9:12] == b"200" and line.endswith(b"\n"):
            os.write(1, line)
            return True
    return False
