"""The whole product on this machine: a provider to sign in at, a cloud to pay for, gateway and agent between them."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Protocol, Self

from tests.lab.agent import Agent
from tests.lab.claude import Claude, Mode
from tests.lab.gateway import Gateway

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from tests.lab.ministack import AwsKey
    from tests.lab.person import Person


class Provider(Protocol):
    """Where people sign in: `Canaille`, `OidcProvider` and `Glewlwyd` are one each."""

    @property
    def ca_file(self) -> Path | None: ...

    def issuer_section(self) -> dict[str, Any]: ...

    def person(self, user_name: str = "ada") -> Person: ...


class Cloud(Protocol):
    """What answers as Bedrock: `Ministack`, `ScriptedBedrock`, or a `Recorder` before one of them."""

    @property
    def endpoint(self) -> str: ...

    @property
    def region(self) -> str: ...

    @property
    def key(self) -> AwsKey: ...


class System:
    """Gateway and agent; entering it starts both. `sign_in` makes somebody the agent's user."""

    def __init__(self, folder: Path, *, provider: Provider, cloud: Cloud, **gateway: Any) -> None:
        self.folder = folder
        self.provider = provider
        self.cloud = cloud
        self.gateway = Gateway(
            folder / "gateway",
            issuers=[provider.issuer_section()],
            endpoint=cloud.endpoint,
            region=cloud.region,
            credentials=cloud.key.environment(),
            **gateway,
        )
        self.agent = Agent(folder / "agent", gateway_url=self.gateway.url, ca_file=provider.ca_file)
        self._stack = ExitStack()

    def sign_in(self, user_name: str = "ada") -> None:
        """`llmgw login`, with the form filled in by the headless person."""
        self.agent.sign_in(self.provider.person(user_name).sign_in)

    def claude(self, mode: Mode, **environment: str) -> Claude:
        """The real CLI, set up to go through this gateway with `llmgw-token`."""
        helper = self.agent.token_command
        return Claude.through(self.folder / f"claude-{mode}", mode, self.gateway.url, helper=helper, **environment)

    def __enter__(self) -> Self:
        with ExitStack() as starting:
            starting.enter_context(self.gateway)
            starting.enter_context(self.agent)
            self._stack = starting.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)
