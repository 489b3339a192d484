"""What every server of the laboratory has in common: it is entered, ready or refused, and never left running."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

    from tests.lab.process import Program


class Server(ABC):
    """One program with its folder. Entering starts it and waits; `start` and `wait_ready` do so in two steps."""

    program: Program

    @abstractmethod
    def wait_ready(self) -> None:
        """Return when it serves; ProgramError with the tail of its log when it does not."""

    def prepare(self) -> None:  # noqa: B027 -- some have nothing to write
        """Write what the program reads at its start."""

    @property
    def pid(self) -> int:
        return self.program.pid

    def start(self) -> Self:
        self.prepare()
        self.program.start()
        return self

    def terminate(self, *, seconds: float = 60) -> int:
        """SIGTERM; the exit code."""
        return self.program.terminate(seconds=seconds)

    def restart(self) -> None:
        """End it and start it again: same folder, same address."""
        self.program.terminate()
        self.start()
        self.wait_ready()

    def __enter__(self) -> Self:
        try:
            self.start()
            self.wait_ready()
        except BaseException:
            self.program.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.program.close()
