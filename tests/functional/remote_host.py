"""Stands in for `ssh`: "the host" is another home on this machine. It runs what it is told there, and with `-R`
connects a socket of that home with one of this, as sshd does."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading


def pump(source: socket.socket, sink: socket.socket) -> None:
    while part := source.recv(65536):
        sink.sendall(part)
    sink.shutdown(socket.SHUT_WR)


def serve(place: str, target: str) -> None:
    """Until it is terminated."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(place)
    listener.listen()
    while True:
        incoming, _ = listener.accept()
        outgoing = socket.socket(socket.AF_UNIX)
        try:
            outgoing.connect(target)
        except OSError:
            incoming.close()
            continue
        for pair in ((incoming, outgoing), (outgoing, incoming)):
            threading.Thread(target=pump, args=pair, daemon=True).start()


def main() -> None:
    words = sys.argv[1:]
    home = os.environ["REMOTE_HOME"]
    if "-R" in words:
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
        place, _, target = words[words.index("-R") + 1].partition(":")
        serve(place, target)
    if words[-2] != "build-host":
        sys.exit(255)
    env = {"HOME": home, "PATH": os.environ["PATH"], "XDG_RUNTIME_DIR": f"{home}/run"}
    sys.exit(subprocess.run([shutil.which("sh") or "sh", "-c", words[-1]], env=env, check=False).returncode)


main()
