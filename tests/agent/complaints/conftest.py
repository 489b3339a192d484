from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.agent.test_sign_in import offer_of
from tests.lab.agent import Agent

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.agent.small_gateway import SmallGateway
    from tests.lab.oidc_provider import OidcProvider


@pytest.fixture
async def agent(tmp_path: Path, gateway: SmallGateway, oidc_provider: OidcProvider) -> AsyncIterator[Agent]:
    """A laptop whose agent runs; nobody is signed in."""
    gateway.offers = (offer_of(oidc_provider),)
    running = Agent(tmp_path, gateway_url=gateway.url)
    await asyncio.to_thread(running.__enter__)
    yield running
    await asyncio.to_thread(running.__exit__, None, None, None)


@pytest.fixture
def browser(tmp_path: Path) -> Path:
    """A program in place of a browser: it talks a lot, and writes down which page it was to open."""
    program = tmp_path / "browser"
    program.write_text(f'#!/bin/sh\necho "[1:2:ERROR:gpu] hello"\necho warning >&2\necho "$1" >> "{tmp_path}/opened"\n')
    program.chmod(0o755)
    return program
