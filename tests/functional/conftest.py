from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from llmgw_gateway.money.catalogues import built_in
from tests.functional.device import Device
from tests.functional.shop import Shop
from tests.functional.trial import Trial
from tests.lab.fixtures import (
    canaille,
    glewlwyd,
    ministack,
    oidc_provider,
    postgres,
    recorder,
    scripted,
    system,
    valkey,
)
from tests.lab.gateway import Gateway
from tests.lab.native_app import NativeApp
from tests.lab.scripted import ScriptedBedrock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.lab.canaille import Canaille
    from tests.lab.postgres import Postgres
    from tests.lab.valkey import Valkey

__all__ = ["canaille", "glewlwyd", "ministack", "oidc_provider", "postgres", "recorder", "scripted", "system", "valkey"]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "configured(**sections): what `gateway` starts with; a test that starts it again needs seconds",
    )


@pytest.fixture(scope="session")
def sign_in(canaille: Canaille) -> Callable[[str], str]:
    """Signs a person in at canaille and gives the token that a gateway wants to see."""
    app = NativeApp(canaille.issuer)

    def visit(user_name: str) -> str:
        token: str = app.sign_in(canaille.person(user_name))["access_token"]
        return token

    return visit


@pytest.fixture
def gateway(
    request: pytest.FixtureRequest, tmp_path: Path, canaille: Canaille, scripted: ScriptedBedrock
) -> Iterator[Gateway]:
    """A gateway before the scripted cloud; nobody has a token yet. The marker `configured` says with what it starts."""
    made = Gateway(
        tmp_path / "gateway",
        issuers=[canaille.issuer_section()],
        endpoint=scripted.endpoint,
        region=scripted.region,
        credentials=scripted.key.environment(),
    )
    for mark in request.node.iter_markers("configured"):
        for name, value in mark.kwargs.items():
            # Of a section only what is named; lists are whole.
            made.document[name] = made.document.get(name, {}) | value if isinstance(value, dict) else value
    with made as running:
        yield running


@pytest.fixture
def ada(gateway: Gateway, sign_in: Callable[[str], str]) -> Device:
    """Ada's laptop without an agent: a device key and a gateway token."""
    device = Device(gateway.url)
    device.exchange(sign_in("ada"))
    return device


@pytest.fixture(scope="module")
def open_shop(
    tmp_path_factory: pytest.TempPathFactory, canaille: Canaille, sign_in: Callable[[str], str]
) -> Iterator[Shop]:
    folder = tmp_path_factory.mktemp("shop")
    with ScriptedBedrock() as cloud:
        gateway = Gateway(
            folder / "gateway",
            issuers=[canaille.issuer_section()],
            endpoint=cloud.endpoint,
            region=cloud.region,
            credentials=cloud.key.environment(),
            models=tuple(built_in(embeddings=True).models),
        )
        with gateway:
            device = Device(gateway.url)
            device.exchange(sign_in("ada"))
            yield Shop(gateway, cloud, device)


@pytest.fixture
def shop(open_shop: Shop, sign_in: Callable[[str], str]) -> Shop:
    """The shop of the test's file, with nothing in it of the tests before, and a fresh token."""
    open_shop.begin()
    open_shop.ada.exchange(sign_in("ada"))
    return open_shop


@pytest.fixture
def begin(
    tmp_path: Path, canaille: Canaille, scripted: ScriptedBedrock, sign_in: Callable[[str], str]
) -> Iterator[Callable[..., Trial]]:
    """Begins a trial with these budgets; what else is given goes to `Trial`."""
    with ExitStack() as stack:

        def enter(*budgets: dict[str, Any], **more: Any) -> Trial:
            trial = Trial(
                tmp_path / "trial", canaille.issuer_section(), scripted, sign_in, budgets=list(budgets), **more
            )
            return stack.enter_context(trial)

        yield enter


@pytest.fixture
def company(postgres: Postgres, valkey: Valkey) -> dict[str, Any]:
    """What `begin` needs for three replicas on PostgreSQL and Valkey, with limits that nobody reaches."""
    limits = [{"level": "user", "requests_per_minute": 1_000_000, "tokens_per_minute": 10**9, "concurrent": 10_000}]
    return {
        "replicas": 3,
        "database": postgres.url(postgres.database()),
        "valkey": valkey.url,
        "limits": limits,
    }
