"""The set of the demo: every server in its own folder under `.demo`, started in order, ended in reverse."""

from __future__ import annotations

import fcntl
import secrets
import shutil
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Self

from tests.lab.agent import Agent
from tests.lab.canaille import Canaille
from tests.lab.gateway import Gateway
from tests.lab.ministack import Ministack

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from tests.demo.wishes import Wishes
    from tests.lab.process import Program


MARK = "demo.lock"
"""Says that a folder is a demo's, which may be emptied; locked while one runs."""


class StageError(RuntimeError):
    """The demo cannot have its folder."""


class Stage:
    """Owns the folder and the programs. `raise_*` start one each; leaving ends all that were started."""

    def __init__(self, folder: Path, wishes: Wishes) -> None:
        self.folder = folder
        self.wishes = wishes
        self.canaille = Canaille(folder / "canaille")
        self.ministack: Ministack | None = None
        self._stack = ExitStack()
        self._gateway: Gateway | None = None
        self._agent: Agent | None = None

    @property
    def gateway(self) -> Gateway:
        if self._gateway is None:
            raise StageError("the gateway is not up yet")
        return self._gateway

    @property
    def agent(self) -> Agent:
        if self._agent is None:
            raise StageError("the agent is not up yet")
        return self._agent

    @property
    def programs(self) -> list[Program]:
        """Everything that runs."""
        parts = [self.ministack, self.canaille, self._gateway, self._agent]
        return [part.program for part in parts if part is not None]

    @property
    def upstream_url(self) -> str:
        if self.ministack is not None:
            return self.ministack.endpoint
        return self.wishes.endpoint or f"https://bedrock-runtime.{self.wishes.region}.amazonaws.com"

    def raise_emulator(self) -> None:
        self.ministack = self._stack.enter_context(Ministack(self.folder / "ministack"))

    def raise_provider(self) -> None:
        self._stack.enter_context(self.canaille)

    def raise_gateway(self) -> None:
        """Every model of the price catalogue, one monthly budget per user, SQLite."""
        budget: dict[str, Any] = {"level": "user", "limit_usd": float(self.wishes.budget_usd), "period": "month"}
        gateway = Gateway(
            self.folder / "gateway",
            issuers=[self.canaille.issuer_section()],
            endpoint=self.ministack.endpoint if self.ministack else self.wishes.endpoint,
            region=self.ministack.region if self.ministack else self.wishes.region,
            credentials=self.ministack.key.environment() if self.ministack else self._credentials(),
            budget=budget,
        )
        self._gateway = self._stack.enter_context(gateway)

    def raise_agent(self) -> None:
        self._agent = self._stack.enter_context(Agent(self.folder / "agent", gateway_url=self.gateway.url))

    def _credentials(self) -> dict[str, str]:
        """The caller's; an endpoint that checks none gets made-up ones."""
        made_up = {"AWS_ACCESS_KEY_ID": "AKIADEMO", "AWS_SECRET_ACCESS_KEY": secrets.token_urlsafe(30)}
        return self.wishes.credentials or made_up

    def __enter__(self) -> Self:
        self.folder.mkdir(mode=0o700, exist_ok=True)
        mark = self.folder / MARK
        if any(self.folder.iterdir()) and not mark.exists():
            raise StageError(f"{self.folder} holds something else than a demo: name another folder")
        self.folder.chmod(0o700)
        lock = self._stack.enter_context(mark.open("w"))
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._stack.close()
            raise StageError(f"another demo is running in {self.folder}: end it first") from None
        # Nothing of an earlier run is used again: its secrets, tokens and ledger go.
        for entry in self.folder.iterdir():
            if entry.is_dir():
                shutil.rmtree(entry)
            elif entry != mark:
                entry.unlink()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)
