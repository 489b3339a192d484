"""The gateway's own credentials at its providers, refreshed off the event loop.

botocore refreshes inline: a slow metadata endpoint froze the loop for as long as it took, and a failing one raises in
the last ten minutes although the credentials are still good. So a thread asks, and the hot path only reads the last
good set, until its real expiry.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import botocore.session
from botocore.credentials import RefreshableCredentials
from botocore.exceptions import BotoCoreError

from llmgw_gateway.errors import ConfigurationError, GatewayError
from llmgw_gateway.sections.faults import is_header_value, secret_file
from llmgw_wire.errors import ErrorCode
from llmgw_wire.secret import Secret

if TYPE_CHECKING:
    from pathlib import Path

    from botocore.credentials import Credentials, ReadOnlyCredentials

CHECK_SECONDS = 60
log = logging.getLogger("llmgw.providers")


def chain_faults(profile: str = "") -> list[str]:
    """What is wrong with the profile and the files of the chain, as far as it can be told without asking AWS."""
    try:
        _session(profile).get_scoped_config()
    except BotoCoreError as error:
        return [f"AWS credentials: {_sentence(error)}"]
    return []


def _session(profile: str) -> botocore.session.Session:
    return botocore.session.Session(profile=profile or None)


def _sentence(error: BotoCoreError) -> str:
    return f"{str(error).rstrip('.')}; correct AWS_PROFILE, or the files ~/.aws/config and ~/.aws/credentials"


class AwsCredentials:
    """An AWS identity of the gateway.

    From the default chain (environment, profile, container, instance), or from a profile, which may name a role.
    What ends is renewed before its end; keys in a file are read again every minute.
    """

    def __init__(self, profile: str = "") -> None:
        self._profile = profile
        self._source: Credentials | None = None
        self._frozen: ReadOnlyCredentials | None = None
        self._expires: datetime | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Load once; ConfigurationError when the chain has nothing, or names what is not there."""
        try:
            self._source = await asyncio.to_thread(self._look)
        except BotoCoreError as error:
            raise ConfigurationError("AWS credentials", [_sentence(error)]) from error
        if self._source is None:
            raise ConfigurationError(
                "AWS credentials",
                [
                    f"none found in the profile {self._profile!r}"
                    if self._profile
                    else "none found: give the gateway a role, a profile, or AWS_ACCESS_KEY_ID and its secret"
                ],
            )
        await self.refresh()
        self._task = asyncio.create_task(self._follow(), name="aws-credentials")

    def stop(self) -> None:
        """Stop refreshing."""
        if self._task is not None:
            self._task.cancel()

    def current(self) -> ReadOnlyCredentials:
        """The last good set; GatewayError(UPSTREAM_CREDENTIALS) once it has expired."""
        if self._frozen is None or (self._expires is not None and self._expires <= datetime.now(UTC)):
            raise GatewayError(
                ErrorCode.UPSTREAM_CREDENTIALS,
                "The gateway's own AWS credentials have expired and could not be refreshed; tell the platform team.",
                retry_after=10,
            )
        return self._frozen

    def _look(self) -> Credentials | None:
        """What the chain gives now. Takes tens of milliseconds: for a thread."""
        return _session(self._profile).get_credentials()

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            await self.refresh()

    async def refresh(self) -> None:
        """Look now; while nothing is found, the last set stays."""
        source = self._source
        if source is None:
            return
        try:
            if not isinstance(source, RefreshableCredentials):
                # Keys from a file never end by themselves, and botocore never looks at the file again.
                self._source = source = await asyncio.to_thread(self._look) or source
            self._frozen = await asyncio.to_thread(source.get_frozen_credentials)
        except Exception as error:  # noqa: BLE001 -- STS, a metadata server, a profile: none may end the refreshing
            log.warning("AWS credentials could not be refreshed, the last set stays in use: %s", type(error).__name__)
            return
        expiry = getattr(source, "_expiry_time", None)  # botocore keeps the real expiry nowhere else
        self._expires = expiry if isinstance(expiry, datetime) else None
        if self._expires is not None and self._expires - datetime.now(UTC) < timedelta(minutes=5):
            log.warning("AWS credentials end at %s", self._expires)


class ApiKey:
    """The key of an upstream that speaks the Anthropic format, from a file that is read again every minute.

    A file that is missing or unusable for a while leaves the last good key in use.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._key: Secret | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Read it once; ConfigurationError when there is none."""
        await self._refresh()
        if self._key is None:
            raise ConfigurationError("anthropic", [f"key_file: {self._path} holds no key that can be read"])
        self._task = asyncio.create_task(self._follow(), name="api-key")

    def stop(self) -> None:
        """Stop following the file."""
        if self._task is not None:
            self._task.cancel()

    def current(self) -> Secret:
        """The last good key; GatewayError(UPSTREAM_CREDENTIALS) when there never was one."""
        if self._key is None:
            raise GatewayError(ErrorCode.UPSTREAM_CREDENTIALS, "The gateway has no key for this upstream.")
        return self._key

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            await self._refresh()

    async def _refresh(self) -> None:
        key, found = await asyncio.to_thread(secret_file, "key_file", self._path, "the API key")
        if key is None or found or not is_header_value(key):
            log.warning("the API key in %s cannot be used, the last one stays in use", self._path)
            return
        self._key = Secret(key.decode())
