#!/bin/sh
# ruff: noqa: EXE003 -- the kernel starts sh, and line 4, a string to Python, starts Python
# fmt: off
''''[ -x "${0%/*}/python3" ] && exec "${0%/*}/python3" -I -S "$0" "$@"; exec python3 -I -S "$0" "$@" # '''  # noqa: D210, D300, D415 -- sh
# fmt: on

# `llmgw-token`: prints a gateway token. Its interpreter lies beside it, in whatever environment it was installed, and
# runs with -I -S: no start-up hooks of other packages, nothing from the project's folder. Tools run this command
# before every few requests, so it imports modules written in C only and stays short (it is compiled each time);
# what is slow or rare is in token_cold.py. The contract: token and newline in one write on stdout, or nothing
# there and one line on stderr that says what to type. Exit codes are those of errors.py.

import sys
from time import monotonic

if sys.platform != "win32":
    import _socket
    import posix
else:  # there llmgw_agent.windows does what needs these; a type checker reads the rest all the same
    from typing import Any

    _socket: Any
    posix: Any

SECONDS = 10.0
PATH_LIMIT = 103  # bytes: sun_path of macOS without its NUL; Linux has four more
TOKEN_LIMIT = 16384  # characters: what Claude Code takes from a helper
NAME_LIMIT = 32
NAME_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789-"
PRIVATE_FOLDER = 0o040000  # a folder (no symbolic link), and no bit for group and others
REQUEST = b"GET /token HTTP/1.1\r\nHost: llmgw.local\r\nConnection: close\r\n\r\n"
EXIT_HEADER = b"\r\nx-llmgw-exit-code: "


def profile_of(environ: dict[str, str]) -> str:
    """The profile's name, empty for the first one; ValueError if it is none: it becomes a part of paths."""
    name = environ.get("LLMGW_PROFILE", "")
    if name == "default":
        return ""
    if len(name) > NAME_LIMIT or name[:1] == "-" or name.strip(NAME_LETTERS):
        raise ValueError("a profile's name (-p, LLMGW_PROFILE) has at most 32 of a-z, 0-9 and -")
    return name


def socket_path(environ: dict[str, str], uid: int) -> str:
    """Where the daemon listens: the one rule, for this command and for the rest of the agent."""
    profile = profile_of(environ)
    home = environ.get("HOME", "")
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    if sys.platform == "darwin":
        runtime = f"{home}/Library/Caches"
    elif not runtime:
        runtime = f"/run/user/{uid}" if posix.access(f"/run/user/{uid}", 7) else f"{home}/.cache"
    chosen = environ.get("LLMGW_HOME", "").rstrip("/")
    if not chosen:
        return f"{runtime}/llmgw{profile and '@' + profile}/agent.sock"
    if profile:
        chosen = f"{chosen}/profiles/{profile}"
    path = f"{chosen}/run/agent.sock"
    if len(path.encode("utf-8", "surrogateescape")) <= PATH_LIMIT:
        return path
    from _blake2 import blake2b  # noqa: PLC0415 -- only for a home with a very long name

    name = blake2b(chosen.encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()
    if sys.platform != "darwin" and posix.access(f"/run/user/{uid}", 7):
        return f"/run/user/{uid}/llmgw-{name}/agent.sock"
    # Found by LLMGW_HOME alone, whatever else is set. Anybody can make a folder of this name, so both ends look whose
    # it is, as they do everywhere.
    return f"/tmp/llmgw-{uid}-{name}/agent.sock"  # noqa: S108 -- see above


def peer_of(sock: "_socket.socket") -> tuple[int, int]:
    """Process id and user id at the other end, as the kernel recorded them when it connected."""
    if sys.platform == "darwin":  # LOCAL_PEERPID and LOCAL_PEERCRED of SOL_LOCAL; struct xucred: version, uid, ...
        return sock.getsockopt(0, 2), int.from_bytes(sock.getsockopt(0, 1, 76)[4:8], sys.byteorder)
    record = sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, 12)
    return int.from_bytes(record[:4], sys.byteorder), int.from_bytes(record[4:8], sys.byteorder)


def connect(path: str, deadline: float) -> "_socket.socket":
    """Connect to a daemon of ours; PermissionError, before a byte is sent, if folder or process are not ours."""
    folder = path.rpartition("/")[0]
    found = posix.lstat(folder)
    if found.st_uid != posix.getuid() or found.st_mode & 0o170077 != PRIVATE_FOLDER:
        raise PermissionError(f"{folder} is not a folder that only you can enter")
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    sock.settimeout(max(0.01, deadline - monotonic()))
    try:
        sock.connect(path)
    except OSError:
        sock.close()
        raise
    if peer_of(sock)[1] != posix.getuid():
        sock.close()
        raise PermissionError(f"another user listens at {path}")
    return sock


def ask(path: str, deadline: float) -> tuple[int, bytes]:
    """Ask for a token: exit code 0 and the token, or another code and the line for stderr (with newlines)."""
    sock = connect(path, deadline)
    sock.sendall(REQUEST)
    answer = b""
    while part := sock.recv(65536):
        answer += part
        sock.settimeout(max(0.01, deadline - monotonic()))
    return judged(answer)


def judged(answer: bytes) -> tuple[int, bytes]:
    """What the daemon's answer comes to: exit code and line, as `ask` gives them."""
    head, _, body = answer.partition(b"\r\n\r\n")
    whole = body.endswith(b"\n")
    # One ASCII word: whatever else came back, it must not reach a tool as if it were a token.
    if whole and head[9:12] == b"200" and body.isascii() and len(body.split()) == 1 and len(body) < TOKEN_LIMIT:
        return 0, body
    code = head.lower().partition(EXIT_HEADER)[2][:1]
    if whole and code and code in b"1245678":
        return int(code), b"llmgw: " + body
    return 7, b"llmgw: the agent gave no proper answer. Run: llmgw daemon stop\n"


def cold_path() -> None:
    """Become the slow command, which can start the daemon; links lead to the environment it is installed in."""
    import os  # noqa: PLC0415 -- costs a millisecond that the warm path does not pay

    beside = os.path.realpath(sys.argv[0]).rpartition("/")[0] + "/python3"
    python = beside if os.access(beside, os.X_OK) else sys.executable
    os.execv(python, [python, "-I", "-m", "llmgw_agent.token_cold"])  # noqa: S606 -- our own interpreter


def main() -> int:
    """Print a token; the exit code."""
    if len(sys.argv) > 1:
        posix.write(2, b"llmgw: llmgw-token takes no arguments. Run: llmgw token --help\n")
        return 2
    names = ("HOME", "XDG_RUNTIME_DIR", "LLMGW_HOME", "LLMGW_PROFILE")
    values = (posix.environ.get(name.encode(), b"").decode("utf-8", "surrogateescape") for name in names)
    try:
        code, line = ask(socket_path(dict(zip(names, values, strict=True)), posix.getuid()), monotonic() + SECONDS)
    except ValueError as error:
        code, line = 8, f"llmgw: {error}. Run: llmgw profile list\n".encode()
    except PermissionError as error:
        code, line = 7, f"llmgw: no token asked for: {error}. Run: llmgw status\n".encode(errors="replace")
    except TimeoutError:
        code, line = 6, b"llmgw: the agent did not answer within 10 s. Run: llmgw status\n"
    except OSError:
        cold_path()
        return 7
    posix.write(2 if code else 1, line)
    return code


if __name__ == "__main__":
    try:
        status = main()
    except KeyboardInterrupt:
        status = 2
    except Exception as error:  # noqa: BLE001 -- the last line of defence: never a stack trace in somebody's tool
        posix.write(2, f"llmgw: llmgw-token failed ({type(error).__name__}). Run: llmgw status\n".encode())
        status = 1
    posix._exit(status)  # noqa: SLF001 -- public as os._exit; there is nothing to tidy up first
