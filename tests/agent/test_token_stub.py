"""`llmgw-token` as tools run it: what stands on stdout, what on stderr, which exit code. Always the real program."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

OTHER_UID = 54321
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"
REFUSAL = b"HTTP/1.1 %b\r\nx-llmgw-exit-code: %b\r\n\r\n%b"
needs_root = pytest.mark.skipif(os.getuid() != 0 or not shutil.which("setpriv"), reason="needs root and setpriv")


@contextmanager
def answering(path: Path, answer: bytes, *, silence: float = 0) -> Iterator[list[bytes]]:
    """A daemon that says the same to everybody; yields what it was asked."""
    path.parent.mkdir(mode=0o700, exist_ok=True)
    asked: list[bytes] = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(64)

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    asked.append(connection.recv(4096))
                    time.sleep(silence)
                    with suppress(BrokenPipeError):
                        connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield asked
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def run(command: Path, environ: Mapping[str, str], *arguments: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [command, *arguments], env=dict(environ), capture_output=True, text=True, timeout=30, check=False
    )
    assert not done.stderr or done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout, done.stderr


def test_a_token_and_a_newline(stub: Path, environ: dict[str, str], socket_path: Path) -> None:
    with answering(socket_path, OK + b"gw.canary\n") as asked:
        assert run(stub, environ) == (0, "gw.canary\n", "")
    assert asked == [b"GET /token HTTP/1.1\r\nHost: llmgw.local\r\nConnection: close\r\n\r\n"]


def test_it_is_one_write(stub: Path, environ: dict[str, str], socket_path: Path) -> None:
    with answering(socket_path, OK + b"gw.canary\n"):
        read, write = os.pipe()
        with subprocess.Popen([stub], env=environ, stdout=write) as process:
            os.close(write)
            assert os.read(read, 4096) == b"gw.canary\n"
            assert os.read(read, 4096) == b""
            os.close(read)
            assert process.wait() == 0


@pytest.mark.parametrize(
    ("status", "code", "text"),
    [
        (b"401 Unauthorized", 4, "you are not signed in. Run: llmgw login"),
        (b"403 Forbidden", 5, "the gateway refused: disabled. Ask whoever runs the gateway"),
        (b"503 Service Unavailable", 6, "gw cannot be reached. Try again in a moment"),
        (b"500 Internal Server Error", 8, "the certificate is not trusted. Set ca_file"),
        (b"500 Internal Server Error", 1, "something unexpected happened. See the log"),
    ],
)
def test_the_daemon_s_reason_is_passed_on(
    stub: Path, environ: dict[str, str], socket_path: Path, status: bytes, code: int, text: str
) -> None:
    with answering(socket_path, REFUSAL % (status, str(code).encode(), f"{text}\n".encode())):
        assert run(stub, environ) == (code, "", f"llmgw: {text}\n")


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\n",
        b"gw.canary\n",
        OK,
        OK + b"\n",
        OK + b"gw.canary",
        OK + b"gw.canary and more\n",
        OK + b"gw.\ncanary\n",
        OK + "gw.canäry\n".encode(),
        OK + b"x" * 20000 + b"\n",
        b"HTTP/1.1 500 no\r\nx-llmgw-exit-code: 0\r\n\r\ngw.canary\n",
        b"HTTP/1.1 500 no\r\nx-llmgw-exit-code: 3\r\n\r\ngw.canary\n",
        b"HTTP/1.1 302 Found\r\nLocation: http://evil.example\r\n\r\n",
    ],
)
def test_an_improper_answer_is_never_printed(
    stub: Path, environ: dict[str, str], socket_path: Path, answer: bytes
) -> None:
    with answering(socket_path, answer):
        result = run(stub, environ)
    assert result == (7, "", "llmgw: the agent gave no proper answer. Run: llmgw daemon stop\n")


def test_arguments_are_a_usage_error(stub: Path, environ: dict[str, str]) -> None:
    code, stdout, stderr = run(stub, environ, "--help")
    assert (code, stdout) == (2, "")
    assert "takes no arguments" in stderr


def test_ten_seconds_are_the_end(stub: Path, environ: dict[str, str], socket_path: Path) -> None:
    with answering(socket_path, OK + b"gw.canary\n", silence=10.5):
        begun = time.monotonic()
        assert run(stub, environ) == (
            *(6, ""),
            "llmgw: the agent did not answer within 10 s. Run: llmgw status\n",
        )
        assert 9.5 < time.monotonic() - begun < 11.5


def test_an_open_folder_is_not_trusted(stub: Path, environ: dict[str, str], socket_path: Path) -> None:
    with answering(socket_path, OK + b"gw.forged\n") as asked:
        socket_path.parent.chmod(0o755)
        code, stdout, stderr = run(stub, environ)
    assert (code, stdout, asked) == (7, "", [])
    assert f"{socket_path.parent} is not a folder that only you can enter" in stderr


@needs_root
def test_a_planted_socket_of_another_user_is_not_believed(
    stub: Path, environ: dict[str, str], socket_path: Path
) -> None:
    """Even in a folder of ours: the kernel says who listens."""
    socket_path.parent.mkdir(mode=0o700)
    planted = socket.socket(socket.AF_UNIX)
    planted.bind(str(socket_path))
    code = (
        "import os, socket, sys; s = socket.socket(fileno=int(sys.argv[1])); os.setuid(int(sys.argv[2])); s.listen(); "
        "print('ready', flush=True); c, _ = s.accept(); c.settimeout(5); asked = c.recv(99); "
        "c.sendall(b'HTTP/1.1 200 OK\\r\\n\\r\\ngw.forged\\n'); print(asked)"
    )
    argv = [sys.executable, "-c", code, str(planted.fileno()), str(OTHER_UID)]
    with subprocess.Popen(argv, pass_fds=[planted.fileno()], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as thief:
        planted.close()
        assert thief.stdout is not None
        assert thief.stdout.readline() == b"ready\n"
        result = run(stub, environ)
        asked, _ = thief.communicate()
    assert result[:2] == (7, "")
    assert "another user listens at" in result[2]
    assert asked in {b"", b"b''\n"}


def test_it_starts_the_daemon_and_tells_what_is_wrong_with_the_settings(stub: Path, environ: dict[str, str]) -> None:
    code, stdout, stderr = run(stub, environ)
    assert (code, stdout) == (8, "")
    assert stderr.startswith("llmgw: no gateway is set (gateway_url in ")


def test_twenty_at_once_start_one_daemon(stub: Path, environ: dict[str, str], home: Path, socket_path: Path) -> None:
    (home / "config.toml").write_text('gateway_url = "http://127.0.0.1:9"\n')
    commands = [
        subprocess.Popen([stub], env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(20)
    ]
    results = {(*command.communicate(timeout=30), command.returncode) for command in commands}
    stop(environ)
    assert results == {("", "llmgw: you are not signed in. Run: llmgw login\n", 4)}
    assert (home / "agent.log").read_text().count("serving") == 1
    assert not socket_path.exists()


def test_it_is_found_through_links_and_by_name(stub: Path, environ: dict[str, str], home: Path, tmp_path: Path) -> None:
    (home / "config.toml").write_text('gateway_url = "http://127.0.0.1:9"\n')
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "llmgw-token").symlink_to(stub)
    path = f"{tmp_path}/links:/usr/local/bin:/usr/bin:/bin"
    for argv in (
        ["llmgw-token"],
        ["sh", "-c", "llmgw-token"],
        ["sh", str(stub)],
        [str(tmp_path / "links/llmgw-token")],
    ):
        done = subprocess.run(
            argv, env=environ | {"PATH": path}, capture_output=True, text=True, check=False, timeout=30
        )
        assert (done.returncode, done.stdout) == (4, ""), done.stderr
    stop(environ)


def test_the_project_s_folder_and_environment_have_no_say(
    stub: Path, environ: dict[str, str], socket_path: Path, tmp_path: Path
) -> None:
    for name in ("sys", "time", "os", "_socket", "json", "llmgw_agent", "sitecustomize", "usercustomize"):
        (tmp_path / f"{name}.py").write_text("print('pwned')")
    hostile = environ | {
        "PYTHONPATH": str(tmp_path),
        "PYTHONSTARTUP": "x",
        "PYTHONWARNINGS": "error",
        "PYTHONVERBOSE": "1",
    }
    with answering(socket_path, OK + b"gw.canary\n"):
        done = subprocess.run([stub], env=hostile, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "gw.canary\n", "")


# Runs the command's own text and tells on stderr what it imports, opens, looks up or starts.
WATCH = """
import posix, sys

def hook(event, args):
    if event in {"import", "open", "compile", "exec"} or event.startswith(("os.", "subprocess.", "socket.get")):
        posix.write(2, f"{event} {str(args[0])[:60]}\\n".encode())

sys.argv = sys.argv[1:]
with open(sys.argv[0], "rb") as file:
    command = compile(file.read(), "llmgw-token", "exec")
sys.addaudithook(hook)
exec(command, {"__name__": "__main__"})
"""


def test_the_warm_path_reads_no_file_and_imports_next_to_nothing(
    stub: Path, environ: dict[str, str], socket_path: Path
) -> None:
    """What would make it slow, however busy the machine is: `make bench` measures the time itself."""
    python = stub.with_name("python3")
    with answering(socket_path, OK + b"gw.canary\n"):
        done = subprocess.run(
            [python, "-I", "-S", "-c", WATCH, stub], env=environ, capture_output=True, text=True, check=True
        )
    assert done.stdout == "gw.canary\n"
    events = [line.split(" ", 1) for line in done.stderr.splitlines()]
    assert {what for event, what in events if event == "import"} <= {"_socket"}, "a module from a file costs time"
    assert {event for event, _ in events} <= {"import", "exec", "os.listdir"}
    assert sum(event == "exec" for event, _ in events) == 1, "the command itself, and no module in Python"
    assert all("lib-dynload" in what for event, what in events if event == "os.listdir"), "where _socket lies"


def stop(environ: dict[str, str]) -> None:
    argv = [sys.executable, "-c", "from llmgw_agent.cli import main; main()", "daemon", "stop"]
    subprocess.run(argv, env=environ, check=True, capture_output=True, timeout=30)
    time.sleep(0.3)
