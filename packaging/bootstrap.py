"""Build the development environment from the lock file, and show how far it is. Standard library only.

Called by the Makefile: `python3 packaging/bootstrap.py VENV LOCK`. Packages are installed with hashes required and
without resolving anything (`--no-deps`: the lock file is complete); the project itself is installed in place.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

OLDEST = (3, 11)


def main() -> int:
    """Create the environment; the exit status of the step that failed, with its output."""
    if sys.version_info < OLDEST:
        found = ".".join(str(part) for part in sys.version_info[:3])
        say(f"Python {found} is too old: 3.11 or newer is needed. Name one with: make PYTHON=python3.12 ...")
        return 2
    venv, lock = Path(sys.argv[1]), Path(sys.argv[2])
    began = time.monotonic()
    say(f"preparing {venv} (once)")
    if code := run([sys.executable, "-m", "venv", str(venv)], total=0):
        return code
    pip = [str(venv / "bin" / "pip"), "install", "--disable-pip-version-check", "--no-deps"]
    total = len(re.findall(r"^\S+==", lock.read_text(encoding="utf-8"), re.MULTILINE))
    if code := run([*pip, "--require-hashes", "-r", str(lock)], total=total):
        return code
    if code := run([*pip, "--no-build-isolation", "--editable", "."], total=0):
        return code
    say(f"{venv} is ready after {time.monotonic() - began:.0f} s")
    return 0


def run(command: list[str], total: int) -> int:
    """Run a step. With `total`, count the packages it names as they go by; print its output only when it fails."""
    lines: list[str] = []
    count = 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:  # noqa: S603 -- our own commands
        for line in process.stdout or ():
            lines.append(line)
            if total and line.startswith("Collecting "):
                count += 1
                progress(count, total, line.split()[1].partition("==")[0])
            elif total and line.startswith("Installing "):
                progress(count, count, "unpacking")
    if total:
        progress(0, 0, "")
    if process.returncode:
        sys.stderr.writelines(lines[-40:])
        say(f"this failed: {' '.join(command)}")
    return process.returncode


def progress(count: int, total: int, what: str) -> None:
    """One line that rewrites itself on a terminal; every twentieth package elsewhere."""
    if sys.stderr.isatty():
        text = f"llmgw: downloading {count}/{total} {what}" if total else ""
        sys.stderr.write(f"\r\x1b[K{text[:79]}")
        sys.stderr.flush()
    elif total and count and count % 20 == 0:
        say(f"downloading packages: {count} of about {total}")


def say(text: str) -> None:
    """A line for the person who waits."""
    sys.stderr.write(f"llmgw: {text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
