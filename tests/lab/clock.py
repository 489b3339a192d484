"""A wall clock that a test sets, for one process of the laboratory: what an operator, NTP or a resumed machine does."""

from __future__ import annotations

import os
import struct
import subprocess
import time
from pathlib import Path

SOURCE = Path(__file__).with_suffix(".c")


class Clock:
    """Ahead of this machine's by so many seconds, or behind; monotonic time is not touched."""

    def __init__(self, folder: Path) -> None:
        self._library = folder / "clock.so"
        self._file = folder / "clock"
        self._ahead = 0
        self.set(0)
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", self._library, SOURCE, "-ldl"], check=True)

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs that shall live by it."""
        return {"LD_PRELOAD": str(self._library), "LAB_CLOCK": str(self._file)}

    def set(self, ahead: int) -> None:
        """From now on for all of them."""
        self._ahead = ahead
        file = os.open(self._file, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            os.pwrite(file, struct.pack("=q", ahead), 0)  # in place: they have it mapped
        finally:
            os.close(file)

    def milliseconds(self) -> int:
        """Since the epoch, as they see it."""
        return int((time.time() + self._ahead) * 1000)
