"""Takes a changed configuration into use while requests go on: checked whole, then all of it at once, or nothing.

Looked at every two seconds, and at once on SIGHUP. What a running process cannot change (addresses, store, providers)
keeps its value until a restart, and is named.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec

from llmgw_gateway.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from llmgw_gateway.money.prices import Catalogue
    from llmgw_gateway.observe.metrics import Metrics
    from llmgw_gateway.settings import Settings

CHECK_SECONDS = 2
LISTENING = frozenset(
    {
        *("public_url", "listen", "admin_listen", "certificate_file", "key_file", "redirect_listen", "trusted_proxies"),
        *("head_seconds", "idle_seconds", "most_connections", "most_connections_per_address"),
    }
)
RESTART: Final[dict[str, frozenset[str] | None]] = {
    "server": LISTENING,
    "store": None,
    "audit": frozenset({"path"}),
    "tokens": frozenset({"audience"}),
    "bedrock": None,
    "regions": None,
    "anthropic": None,
    "valkey": None,
    "administration": None,
    "organisation": frozenset({"time_zone"}),
}
"""What waits for a restart: of these sections these keys, or all (None). Every other section, and key, is followed.

Sockets, stores and upstreams are opened once; tokens that are out name their audience, and periods in progress hang on
the time zone.
"""
log = logging.getLogger("llmgw.configuration")
Stamp = tuple[tuple[int, int, int] | None, ...]


class Source(Protocol):
    """The configuration as a command line named it."""

    @property
    def path(self) -> Path:
        """The file."""

    def read(self) -> tuple[Settings, Catalogue]:
        """Configuration and prices that a gateway could start with; ConfigurationError carries every fault."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What an operator is told about the configuration."""

    since: float
    """Seconds since the epoch: when the one in force was taken into use."""
    faults: tuple[str, ...] = ()
    """Why the file as it is now was refused; empty when it is in force."""
    refused_at: float = 0.0
    waiting: tuple[str, ...] = ()
    """What differs in the file and has to wait for a restart."""

    def lines(self) -> list[str]:
        """As `/readyz` on the operators' listener says it."""
        told = [f"configuration: in force since {_time(self.since)}"]
        if self.waiting:
            told.append(f"configuration: waits for a restart: {', '.join(self.waiting)}")
        if self.faults:
            told.append(f"configuration: the file was refused at {_time(self.refused_at)}, and the last one stays:")
            told += [f"  {fault}" for fault in self.faults]
        return told


class Reloader:
    """Follows the configuration of one process. `apply` takes a good one into use without awaiting anything."""

    def __init__(
        self,
        source: Source,
        settings: Settings,
        catalogue: Catalogue,
        apply: Callable[[Settings, Catalogue], None],
        metrics: Metrics,
    ) -> None:
        self._source = source
        self._settings = settings
        self._catalogue = catalogue
        self._apply = apply
        self._metrics = metrics
        self._asked = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        # Since this process read its files they may have changed: the first look decides, by what they say.
        self._tried: Stamp = ()
        self._seen: Stamp = ()
        self.standing = Standing(time.time())
        metrics.configuration_since.set(self.standing.since)

    def start(self) -> None:
        """Begin to follow the files."""
        self._task = asyncio.create_task(self._follow(), name="configuration")

    def stop(self) -> None:
        """Stop following."""
        if self._task is not None:
            self._task.cancel()

    def ask(self) -> None:
        """Look at the files now (SIGHUP), also when they seem to be the same."""
        self._asked.set()

    async def _follow(self) -> None:
        while True:
            asked = False
            try:
                async with asyncio.timeout(CHECK_SECONDS):
                    asked = await self._asked.wait()
            except TimeoutError:
                pass
            self._asked.clear()
            try:
                await self._look(asked=asked)
            except Exception:
                log.exception("the configuration could not be looked at; the last one stays in force")

    async def _look(self, *, asked: bool) -> None:
        stamp = self._stamp()
        # A file is read once it has come to rest: an editor may be in the middle of writing it.
        at_rest, self._seen = stamp == self._seen, stamp
        if asked or (at_rest and stamp != self._tried):
            self._tried = stamp
            await self.reload(asked=asked)

    async def reload(self, *, asked: bool = False) -> None:
        """Read the files and take them into use, or say why not. `asked`: say also that nothing has changed."""
        try:
            settings, catalogue = await asyncio.to_thread(self._source.read)
            merged, waiting = self._merged(settings)
            # What runs may still be charged for a model that the file has no more.
            catalogue = replace(catalogue, models=self._catalogue.models | catalogue.models)
            changed = _changed(self._settings, merged)
            if catalogue.version != self._catalogue.version and "prices" not in changed:
                changed.append("prices")
            if changed:
                self._apply(merged, catalogue)
        except ConfigurationError as error:
            self._refused(error)
            return
        self._settings, self._catalogue = merged, catalogue
        self._taken(changed, waiting, asked=asked)

    def _merged(self, settings: Settings) -> tuple[Settings, list[str]]:
        merged, waiting = merge(self._settings, settings)
        # Good in itself, and maybe not together with what has to stay: limits that want a Valkey which is not there.
        if faults := merged.faults(self._source.path.parent):
            raise ConfigurationError(str(self._source.path), faults)
        return merged, waiting

    def _taken(self, changed: list[str], waiting: list[str], *, asked: bool) -> None:
        since = time.time() if changed else self.standing.since
        news = tuple(waiting) != self.standing.waiting or bool(self.standing.faults)
        self.standing = Standing(since, waiting=tuple(waiting))
        self._metrics.configuration_refused.set(0)
        self._metrics.configuration_since.set(since)
        if changed:
            self._metrics.reloads.labels("applied").inc()
            log.info("the configuration was taken into use: %s", ", ".join(changed))
        elif asked or news:
            log.info("the configuration is the one in force")
        if waiting:
            log.warning("of the configuration, this waits for a restart: %s", ", ".join(waiting))

    def _refused(self, error: ConfigurationError) -> None:
        self.standing = replace(
            self.standing,
            faults=tuple(f"{error.source}: {fault}" for fault in error.faults),
            refused_at=time.time(),
        )
        self._metrics.reloads.labels("refused").inc()
        self._metrics.configuration_refused.set(1)
        log.error(
            "the configuration was refused whole, the last one stays in force: %s",
            "; ".join(self.standing.faults),
        )

    def _stamp(self) -> Stamp:
        """What changes with the files: a new version has another time, size or place."""
        prices = self._settings.prices.file
        paths = [self._source.path, *([self._settings.path(prices)] if prices else [])]
        return tuple(_stamp_of(path) for path in paths)


def merge(old: Settings, new: Settings) -> tuple[Settings, list[str]]:
    """The new configuration as far as a running process can take it, and the names of what it cannot."""
    merged: dict[str, Any] = {}
    waiting: list[str] = []
    for section, keys in RESTART.items():
        before, after = getattr(old, section), getattr(new, section)
        if keys is None:
            merged[section] = before
            waiting += [section] if before != after else []
        else:
            merged[section] = msgspec.structs.replace(after, **{key: getattr(before, key) for key in keys})
            waiting += [f"{section}.{key}" for key in sorted(keys) if getattr(before, key) != getattr(after, key)]
    return msgspec.structs.replace(new, **merged), waiting


def _changed(old: Settings, new: Settings) -> list[str]:
    return [name for name in old.__struct_fields__ if getattr(old, name) != getattr(new, name)]


def _stamp_of(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
