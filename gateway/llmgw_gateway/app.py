"""The composition root: builds everything once; start, serve, drain."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp
from aiohttp import web

from llmgw_gateway.admin.edge import AdminEdge
from llmgw_gateway.bootstrap import bootstrap
from llmgw_gateway.control import Control, socket_of
from llmgw_gateway.edge import Edge
from llmgw_gateway.errors import ConfigurationError
from llmgw_gateway.following import Following, issuers_of
from llmgw_gateway.identity.authenticate import Authenticator
from llmgw_gateway.identity.directory import Directory
from llmgw_gateway.identity.exchange import Exchange
from llmgw_gateway.identity.people import People
from llmgw_gateway.identity.revocation import Revocations
from llmgw_gateway.identity.ring import Ring
from llmgw_gateway.identity.roles import Roles
from llmgw_gateway.identity.service_keys import ServiceKeys
from llmgw_gateway.identity.signin import SignInVerifier
from llmgw_gateway.listener import Bounds, listen, redirecting
from llmgw_gateway.money.adjustments import Adjustments
from llmgw_gateway.money.holds import Money
from llmgw_gateway.money.traffic import LEASE_SECONDS, Rates
from llmgw_gateway.observe.anchors import Anchors, key_in_force, writer_of
from llmgw_gateway.observe.audit import Audit
from llmgw_gateway.observe.metrics import Metrics
from llmgw_gateway.offer import policy
from llmgw_gateway.operators import operators
from llmgw_gateway.peers import Peers
from llmgw_gateway.pipeline import Pipeline
from llmgw_gateway.policy.accounts import Accounts
from llmgw_gateway.policy.health import Health
from llmgw_gateway.providers import bridging
from llmgw_gateway.providers.anthropic import Anthropic
from llmgw_gateway.providers.bedrock import Bedrock
from llmgw_gateway.providers.credentials import ApiKey, AwsCredentials
from llmgw_gateway.providers.upstreams import Provider, Upstreams
from llmgw_gateway.reloading import Reloader
from llmgw_gateway.retention import Retention
from llmgw_gateway.scim.api import Scim, beside
from llmgw_gateway.store.database import Database
from llmgw_gateway.store.opening import backend
from llmgw_gateway.streams.limits import Limits
from llmgw_gateway.streams.relay import Relay
from llmgw_gateway.tls import Certificate

if TYPE_CHECKING:
    from collections.abc import Callable

    from llmgw_gateway.listener import Handler
    from llmgw_gateway.money.prices import Catalogue
    from llmgw_gateway.money.valkey import Valkey
    from llmgw_gateway.observe.chain import Key
    from llmgw_gateway.providers.bridging import Table
    from llmgw_gateway.reloading import Source
    from llmgw_gateway.settings import Settings

CUT_OFF_SECONDS = 5
"""How long terminal events may take to reach slow clients."""
COLLECT_AFTER = 50_000
"""New objects after which cycles are looked for: ten megabytes at most."""
SETTLE_SECONDS = 10
"""How long a store that is away is waited for at the end."""
log = logging.getLogger("llmgw")


class Shared:
    """What replicas tell each other through the store: each looks every two seconds, or as soon as it is told to."""

    def __init__(self, database: Database, settings: Settings, secrets: Callable[[], tuple[bytes, ...]]) -> None:
        self.ring = Ring(database, settings.server.public_url, *secrets(), reread=secrets)
        self.revocations = Revocations(database)
        self.adjustments = Adjustments(database)
        self.keys = ServiceKeys(database)
        self.parts = self.ring, self.revocations, self.adjustments, self.keys
        self.refreshes = self.revocations.refresh, self.adjustments.refresh, self.keys.refresh

    async def start(self) -> None:
        """Look for the first time."""
        for part in self.parts:
            await part.start()

    def stop(self) -> None:
        """Look no more."""
        for part in self.parts:
            part.stop()


class Gateway:
    """One gateway process."""

    def __init__(self, settings: Settings, catalogue: Catalogue, source: Source) -> None:
        """`source` is where both come from: it is followed while the gateway runs."""
        self._settings = settings
        self._catalogue = catalogue
        self._source = source
        self._stopping = asyncio.Event()
        self._certificate: Certificate | None = None

    async def run(self) -> bool:
        """Serve until SIGTERM or SIGINT, then let running requests end.

        False when something had to be left behind: attempts that are not settled, audit lines that no disk took.
        """
        loop = asyncio.get_running_loop()
        for name in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(name, self._stopping.set)
        database = Database(backend(self._settings))
        database.start()
        path = self._settings.path(self._settings.audit.path)
        own = self._settings.audit
        audit = Audit(
            path,
            self._sealing(),
            writer=writer_of(path),
            most_waiting=own.most_waiting,
            most_bytes=own.file_megabytes << 20,
        )
        anchors = Anchors(database, audit, self._sealing)
        try:
            audit.start()
        except OSError as error:
            database.close()
            raise ConfigurationError("audit", [f"path: {path} cannot be written: {error.strerror}"]) from error
        connector = aiohttp.TCPConnector(limit=0)
        session = aiohttp.ClientSession(
            connector=connector, auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False
        )
        unsettled = unwritten = 0
        try:
            async with session as http:
                await anchors.start()
                unsettled = await self._serve(database, audit, anchors, http)
        finally:
            if unwritten := audit.close():
                log.error("%d audit line(s) are lost: the disk did not take them", unwritten)
            await anchors.stop()
            database.close()
        return not (unsettled or unwritten)

    def _keep(self, settings: Settings) -> None:
        self._settings = settings

    def _sealing(self) -> Key:
        return key_in_force(self._settings)

    def _cluster_secrets(self) -> tuple[bytes, ...]:
        return self._settings.cluster_secrets()

    async def _serve(self, database: Database, audit: Audit, anchors: Anchors, http: aiohttp.ClientSession) -> int:
        settings = self._settings
        credentials = Credentials(settings)
        await credentials.start()
        shared = Shared(database, settings, self._cluster_secrets)
        await shared.start()
        ring, revocations, adjustments, keys = shared.parts
        retention = Retention(database, settings, audit)
        control = self._control(database, shared, retention)
        if control is not None:
            await control.start()
        money = Money(database, self._catalogue, settings, adjustments.overrides)
        await money.start()
        authenticator = Authenticator(ring, revocations, settings.server.public_url, settings.tokens.audience, keys)
        relay = Relay(authenticator.has_ended, Limits.of(settings.bedrock, settings.streams))
        relay.start()
        metrics = Metrics()
        anchors.show(metrics)
        rates = Rates(settings, self._catalogue, money.learned, metrics, _valkey(settings))
        await rates.start()
        pipeline = Pipeline(
            audit=audit,
            metrics=metrics,
            authenticator=authenticator,
            directory=Directory(database, Accounts(settings.teams, settings.projects, settings.deciding)),
            policy=policy(settings, self._catalogue),
            rates=rates,
            money=money,
            upstreams=upstreams(settings, credentials, bridging_table(settings, self._catalogue)),
            health=Health(settings.fallbacks.rest_seconds, settings.fallbacks.most_rest_seconds),
            relay=relay,
        )
        verifier = SignInVerifier(issuers_of(settings, http), names_people=settings.names_people)
        exchange = Exchange(verifier, ring, database, settings.tokens, settings.server.public_url)
        peers = Peers(settings.server.trusted_proxies, in_clear=settings.server.in_clear)
        admin = AdminEdge(database, pipeline, peers, settings, lambda: reloader.standing, shared.refreshes)
        edge = Edge(
            pipeline,
            exchange,
            ring,
            bootstrap(settings),
            settings.server.body_seconds,
            peers,
            [each.unready for each in (*shared.parts, rates, relay, pipeline)],
        )
        follow = Following(pipeline, verifier, exchange, edge, admin, retention, audit, http, self._keep)
        reloader = Reloader(self._source, settings, self._catalogue, follow, metrics)
        scim = Scim(database, keys, peers, revocations.refresh)
        administrators = beside(admin, scim)
        runners = await self._listen(
            edge, administrators, operators(pipeline, edge, reloader, anchors), pipeline, peers
        )
        reloader.start()
        retention.start()
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._reload, reloader)
        spare_the_collector()
        log.info("listening on %s for %s", settings.server.listen, settings.server.public_url)
        await self._stopping.wait()
        unsettled = await self._drain(edge, money, runners)
        pipeline.upstreams.close()
        await rates.close()
        if control is not None:
            await control.stop()
        if self._certificate is not None:
            self._certificate.stop()
        for service in (retention, reloader, shared, relay, credentials):
            service.stop()
        return unsettled

    def _control(self, database: Database, shared: Shared, retention: Retention) -> Control | None:
        """The door for commands beside a store that is one process's file."""
        file = self._settings.store.path
        if not file:
            return None
        people, roles = People(database, shared.revocations.refresh), Roles(database)
        door = socket_of(self._settings.path(file))
        return Control(database, shared.adjustments, shared.keys, people, roles, retention, self._sealing, door)

    def _reload(self, reloader: Reloader) -> None:
        """SIGHUP: everything that comes from files, now."""
        reloader.ask()
        if self._certificate is not None:
            self._certificate.reload()

    async def _listen(
        self, edge: Edge, admin: Handler, probes: Handler, pipeline: Pipeline, peers: Peers
    ) -> list[web.ServerRunner]:
        """Every listener, the public one last: who is answered there finds all others."""
        server = self._settings.server
        if server.certificate_file:
            paths = self._settings.path(server.certificate_file), self._settings.path(server.key_file)
            try:
                self._certificate = Certificate(*paths)
            except (OSError, ValueError) as error:
                raise ConfigurationError("server", [f"certificate_file: cannot be used: {error}"]) from error
            self._certificate.start()
        runners = [await listen(server.admin_listen, probes)]
        if server.redirect_listen:
            runners.append(await listen(server.redirect_listen, redirecting(server.public_url)))
        bounds = Bounds(
            head_seconds=server.head_seconds,
            idle_seconds=server.idle_seconds,
            most_connections=server.most_connections,
            most_per_address=server.most_connections_per_address,
            stall_seconds=lambda: self._settings.streams.stall_seconds,
            peers=peers,
            refused=pipeline.metrics.refused_connections.inc,
        )
        context = self._certificate.context if self._certificate is not None else None
        if address := self._settings.administration.listen:
            runners.append(await listen(address, admin, bounds, context))
        public = await listen(server.listen, edge, bounds, context)
        pipeline.metrics.connections.set_function(lambda: len(public.server.connections) if public.server else 0)
        return [*runners, public]

    async def _drain(self, edge: Edge, money: Money, runners: list[web.ServerRunner]) -> int:
        """Take no new work, let streams end, settle. What still runs at the deadline ends with a terminal event.

        Every step has a deadline: a store that is away must not keep the process from ending. Returns how many attempts
        could not be settled.
        """
        edge.draining = True
        log.info("draining: waiting up to %d s for running requests", self._settings.server.drain_seconds)
        try:
            async with asyncio.timeout(self._settings.server.drain_seconds):
                await edge.idle.wait()
        except TimeoutError:
            log.warning("the deadline has passed: running answers are cut off and settled")
            edge.cut_off()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CUT_OFF_SECONDS):
                    await edge.idle.wait()
        for runner in runners:
            await runner.cleanup()
        unsettled = await money.drain(SETTLE_SECONDS)
        if unsettled:
            log.error(
                "%d attempt(s) could not be settled: the next gateway on this store charges what was held for them",
                unsettled,
            )
        else:
            log.info("drained")
        return unsettled


def spare_the_collector() -> None:
    """Take what lives as long as the process out of garbage collection, and collect less often.

    Requests leave hardly any cycles behind; looking for them with Python's defaults is a tenth of what a request costs.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER, 20, 20)


class Credentials:
    """The gateway's own credentials: an AWS identity for each profile, a key for each upstream that wants one."""

    def __init__(self, settings: Settings) -> None:
        profiles = {region.profile for region in settings.regions} | ({""} if settings.bedrock.region else set())
        self.aws = {profile: AwsCredentials(profile) for profile in profiles}
        self.keys = {each.name: ApiKey(settings.path(each.key_file)) for each in settings.anthropic}

    async def start(self) -> None:
        """Load all of them; ConfigurationError for one that is not there."""
        for identity in self.aws.values():
            await identity.start()
        for key in self.keys.values():
            await key.start()

    def stop(self) -> None:
        """Stop refreshing them."""
        for identity in self.aws.values():
            identity.stop()
        for key in self.keys.values():
            key.stop()


def upstreams(settings: Settings, credentials: Credentials, table: Table) -> Upstreams:
    """Everything that targets may name."""
    times = settings.bedrock
    known: dict[str, Provider] = {"": Bedrock(times, credentials.aws[""], table)} if times.region else {}
    for each in settings.regions:
        own = credentials.aws[each.profile]
        known[each.name] = Bedrock(times, own, table, region=each.region, endpoint=each.endpoint)
    for direct in settings.anthropic:
        known[direct.name] = Anthropic(direct, times, credentials.keys[direct.name], table)
    return Upstreams(known, times.first_byte_seconds)


def bridging_table(settings: Settings, catalogue: Catalogue) -> Table:
    """What each model takes, with the operator's rows; ConfigurationError when they cannot be used."""
    file = settings.bedrock.bridge_file
    return bridging.load(settings.path(file) if file else None, catalogue.models)


def _valkey(settings: Settings) -> Valkey | None:
    """The server that the replicas keep their limits on, if there is one."""
    url = settings.valkey.address(Path(settings.base))
    if not url:
        return None
    from llmgw_gateway.money.valkey import Valkey  # noqa: PLC0415 -- a gateway without Valkey does without the client

    own = settings.valkey
    ca_file = str(settings.path(own.ca_file)) if own.ca_file else ""
    reread = partial(own.address, Path(settings.base)) if own.url_file else None
    return Valkey(
        url,
        prefix=own.prefix,
        timeout_ms=own.timeout_ms,
        lease_seconds=LEASE_SECONDS,
        ca_file=ca_file,
        reread=reread,
    )
