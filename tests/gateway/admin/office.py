"""An Admin API in this process: a real store, real tokens and keys, a real listener; and people of every kind."""

from __future__ import annotations

import json
import secrets
import time
from typing import TYPE_CHECKING, Any, Final, cast

from aiohttp import ClientSession
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import insert

from llmgw_gateway import settings as configured
from llmgw_gateway.admin.edge import AdminEdge
from llmgw_gateway.errors import GatewayError
from llmgw_gateway.identity.authenticate import Authenticator
from llmgw_gateway.identity.revocation import Revocations
from llmgw_gateway.identity.ring import Ring
from llmgw_gateway.identity.service_keys import ISSUER, ServiceKeys, fresh
from llmgw_gateway.identity.tokens import TokenClaims, mint
from llmgw_gateway.listener import listen
from llmgw_gateway.money.adjustments import Adjustments
from llmgw_gateway.money.catalogues import built_in
from llmgw_gateway.observe.audit import Audit
from llmgw_gateway.observe.chain import key_of
from llmgw_gateway.offer import policy
from llmgw_gateway.peers import Peers
from llmgw_gateway.reloading import Standing
from llmgw_gateway.store.schema import adjustments, persons, role_grants, service_keys, sessions
from llmgw_wire.errors import ErrorCode
from tests.gateway import configuration
from tests.lab.loopback import HOST, free_port

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Connection

    from llmgw_gateway.pipeline import Pipeline
    from llmgw_gateway.settings import Settings
    from llmgw_gateway.store.database import Database

HOME: Final = "https://login.example/tenant/v2.0"
DAY: Final = 86_400_000
KID: Final = "office"
NOW: Final = int(time.time() * 1000)
MEMBER, OUTSIDER = "per_member", "per_outsider"
GROUPS: Final[dict[str, list[str]]] = {
    "admin": ["platform"],
    "auditor": [],
    "lead": ["pay"],
    "developer": [],
    "member": ["pay"],
    "outsider": ["lab"],
}
"""People by the part that they play; the lead leads payments, whose member is `member`."""
PRINCIPALS: Final = ("admin", "auditor", "lead", "developer", "service", "key_admin", "nobody")
ROLES: Final = [
    {"role": "admin", "issuer": HOME, "groups": ["platform"]},
    {"role": "auditor", "issuer": HOME, "subjects": ["sub-auditor"]},
    {"role": "team_lead", "issuer": HOME, "subjects": ["sub-lead"], "teams": ["payments"]},
]
TEAMS: Final = [{"name": "payments", "groups": ["pay"]}, {"name": "research", "groups": ["lab"]}]


class Reply:
    """An answer, read to its end."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        return str(self.json["error"]["code"])


class Questions:
    """Counts questions in the place of `Rates`, and can refuse them."""

    refusing = False

    def question(self, _person_id: str) -> None:
        if self.refusing:
            raise GatewayError(ErrorCode.RATE_EXCEEDED, "Too many questions.", retry_after=7)


class Parts:
    """What the Admin API uses of a pipeline."""

    def __init__(self, audit: Audit, authenticator: Authenticator, settings: Settings) -> None:
        self.audit = audit
        self.authenticator = authenticator
        self.rates = Questions()
        self.policy = policy(settings, built_in(embeddings=True))


class Office:
    """Everything, and a client for each principal."""

    def __init__(self, database: Database, folder: Path, **changes: Any) -> None:
        document = configuration.good() | {"teams": TEAMS, "roles": ROLES} | changes
        document["budgets"] = [*document["budgets"], {"level": "team", "limit_usd": 100}]
        self.settings = configured.load(configuration.write(configuration.folder(folder), document))
        self.database = database
        self.url = f"http://{HOST}:{free_port()}"
        # A replica's own key may sign only once the others know it, after seconds: here nobody else is.
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._ring = Ring(database, self.settings.server.public_url, secrets.token_bytes(32))
        self._ring.public = {KID: self._key.public_key()}
        self._revocations = Revocations(database)
        self._keys = ServiceKeys(database)
        self._adjustments = Adjustments(database)
        self.audit_file = folder / "audit.jsonl"
        self._audit = Audit(self.audit_file, key_of(b"secret"))
        self._secrets = {name: fresh() for name in ("service", "key_admin")}

    async def open(self) -> None:
        await self.database.submit(self._fill, None)
        self._audit.start()
        for service in (self._revocations, self._keys):
            await service.start()
        url = self.settings.server.public_url
        authenticator = Authenticator(self._ring, self._revocations, url, self.settings.tokens.audience, self._keys)
        self.parts = Parts(self._audit, authenticator, self.settings)
        told = (self._revocations.refresh, self._keys.refresh, self._adjustments.refresh)
        self.edge = AdminEdge(
            self.database,
            cast("Pipeline", self.parts),
            Peers((), in_clear=False),
            self.settings,
            lambda: Standing(NOW / 1000),
            told,
        )
        self._runner = await listen(self.url.removeprefix("http://"), self.edge)
        self._client = ClientSession()
        self._tokens = {name: self._token(name) for name in GROUPS}
        self._tokens |= {name: secret.reveal() for name, (secret, _) in self._secrets.items()}

    async def close(self) -> None:
        await self._client.close()
        await self._runner.cleanup()
        for service in (self._revocations, self._keys):
            service.stop()
        self._audit.close()

    def settle_audit(self) -> None:
        """Have every line on disk; nothing can be asked afterwards."""
        self._audit.close()

    def token(self, principal: str) -> str:
        return self._tokens.get(principal, "")

    async def ask(
        self,
        principal: str,
        method: str,
        path: str,
        body: Any = None,
        headers: dict[str, str] | None = None,
        raw: bytes | None = None,
    ) -> Reply:
        """One request as somebody, or as nobody."""
        sent = dict(headers or {})
        if token := self.token(principal):
            sent.setdefault("authorization", f"Bearer {token}")
        data = raw if body is None else json.dumps(body).encode()
        if data is not None:
            sent.setdefault("content-type", "application/json")
        async with self._client.request(method, self.url + path, data=data, headers=sent) as answer:
            lowered = {name.lower(): value for name, value in answer.headers.items()}
            return Reply(answer.status, lowered, await answer.read())

    def _token(self, name: str) -> str:
        seconds = int(time.time())
        claims = TokenClaims(f"per_{name}", f"ses_{name}", f"dev_{name}", "tok_1", "client", seconds, seconds + 600)
        settings = self.settings
        token = mint(
            claims,
            issuer=settings.server.public_url,
            audience=settings.tokens.audience,
            kid=KID,
            key=self._key,
        )
        return token.reveal()

    def _fill(self, connection: Connection, batch: list[None]) -> list[None]:
        seen = {"first_seen": NOW, "last_seen": NOW}
        for name, groups in GROUPS.items():
            row = {"person_id": f"per_{name}", "issuer": HOME, "subject": f"sub-{name}", "name": name.title()}
            row |= {"email": f"{name}@example.com", "groups": json.dumps(groups)}
            connection.execute(insert(persons).values(row | seen))
            times = {"enrolled_at": NOW, "last_exchange": NOW}
            device = {"sid": f"ses_{name}", "person_id": f"per_{name}", "device": name, "access_key": f"dev_{name}"}
            connection.execute(insert(sessions).values(device | times))
        for name in ("service", "key_admin"):
            self._add_key(connection, name, "payments" if name == "service" else "", self._secrets[name][1])
        self._add_key(connection, "key_scim", "", home=HOME)
        self._grant(connection, "rol_key", "key_admin", "admin")
        for principal in PRINCIPALS:  # things that each may try to end
            self._add_key(connection, f"mine_{principal}", "payments")
            self._add_key(connection, f"theirs_{principal}", "research")
            self._grant(connection, f"rol_{principal}", OUTSIDER, "auditor")
            for person in (MEMBER, OUTSIDER):
                self._adjust(connection, f"adj_{principal}_{person}", person, f"per_{principal}")
        return [None] * len(batch)

    def _add_key(self, connection: Connection, key: str, team: str, digest: str = "", home: str | None = None) -> None:
        person = {"person_id": key, "issuer": ISSUER, "subject": key, "name": key, "first_seen": NOW, "last_seen": NOW}
        connection.execute(insert(persons).values(person))
        row: dict[str, Any] = {"secret_id": f"sec_{key}", "key_id": key, "digest": digest or f"digest of {key}"}
        row |= {"name": key, "home": home}
        row |= {"owner": "ada", "team": team, "models": "null", "made_by": "root@host"}
        connection.execute(insert(service_keys).values(row | {"expires_at": NOW + DAY, "made_at": NOW}))

    def _grant(self, connection: Connection, grant: str, holder: str, role: str) -> None:
        row = {"grant_id": grant, "holder": holder, "role": role, "team": "", "made_by": "root@host", "made_at": NOW}
        connection.execute(insert(role_grants).values(row))

    def _adjust(self, connection: Connection, name: str, person: str, by: str) -> None:
        row = {"adjustment_id": name, "kind": "grant", "budget": f"user/{person}//month/usd", "amount": 1}
        row |= {"starts_at": NOW, "ends_at": NOW + DAY, "reason": "release", "made_by": by, "made_at": NOW}
        connection.execute(insert(adjustments).values(row))
