"""The other path: a sign-in becomes a gateway token (RFC 8693). Verify, prove, enrol, mint."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import delete, select, update

from llmgw_gateway.errors import GatewayError
from llmgw_gateway.identity import dpop, tokens
from llmgw_gateway.identity.entries import email_of, name_of
from llmgw_gateway.identity.joining import join
from llmgw_gateway.identity.matching import DIRECTORY, candidates, folded
from llmgw_gateway.observe.changes import Author
from llmgw_gateway.store.schema import persons, proofs, sessions
from llmgw_gateway.store.upsert import insert_if_absent
from llmgw_wire.errors import ErrorCode
from llmgw_wire.messages import ACCESS_TOKEN_TYPE, BOUND, TOKEN_EXCHANGE_GRANT, ExchangeAnswer
from llmgw_wire.secret import Secret
from llmgw_wire.versions import FORM, is_older

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import ColumnElement, Connection, Row

    from llmgw_gateway.identity.dpop import Proof
    from llmgw_gateway.identity.ring import Ring
    from llmgw_gateway.identity.signin import SignIn, SignInVerifier
    from llmgw_gateway.sections.exchanging import Tokens
    from llmgw_gateway.store.database import Database


@dataclass(frozen=True, slots=True)
class Enrolment:
    """A verified sign-in and a verified proof, to be recorded together."""

    sign_in: SignIn
    proof: Proof
    exchange: str
    """Names this exchange: run again after an uncertain commit, it finds its own proof and no replay."""
    now: int
    """Milliseconds since the epoch."""
    enrol_seconds: int


@dataclass(frozen=True, slots=True)
class Enrolled:
    """Whose token it will be."""

    person_id: str
    session: str
    access_key: str


class Exchange:
    """Serves `POST /oauth/token`."""

    def __init__(
        self, verifier: SignInVerifier, ring: Ring, database: Database, token_settings: Tokens, issuer: str
    ) -> None:
        self._verifier = verifier
        self._ring = ring
        self._database = database
        self._settings = token_settings
        self._issuer = issuer
        self._url = f"{issuer}/oauth/token"

    def follow(self, token_settings: Tokens) -> None:
        """Take other settings into use, but for the audience; tokens that are out stay as they are."""
        self._settings = token_settings

    async def exchange(
        self, form: Mapping[str, str], proof_headers: Sequence[str], agent_version: str = ""
    ) -> tuple[ExchangeAnswer, Enrolled]:
        """One exchange; GatewayError carries the OAuth error for every refusal."""
        minimum = self._settings.minimum_agent_version
        if is_older(agent_version, minimum):
            told = f"this is {agent_version}" if FORM.fullmatch(agent_version) else "this one does not say its version"
            raise GatewayError(
                ErrorCode.AGENT_OUTDATED, f"This gateway wants an agent of version {minimum} or later, {told}."
            )
        if form.get("grant_type") != TOKEN_EXCHANGE_GRANT:
            raise GatewayError(ErrorCode.GRANT_UNSUPPORTED, f"grant_type must be {TOKEN_EXCHANGE_GRANT}")
        if form.get("audience", self._settings.audience) != self._settings.audience:
            raise GatewayError(
                ErrorCode.TARGET_INVALID, f"This gateway issues tokens for {self._settings.audience!r} only."
            )
        if form.get("requested_token_type", ACCESS_TOKEN_TYPE) != ACCESS_TOKEN_TYPE:
            raise GatewayError(ErrorCode.TARGET_INVALID, "This gateway issues access tokens only.")
        binding = form.get("token_type", "Bearer")
        if binding not in {"Bearer", BOUND}:
            raise GatewayError(ErrorCode.TARGET_INVALID, f"token_type must be Bearer or {BOUND}.")
        if self._settings.require_pop and binding != BOUND:
            raise GatewayError(
                ErrorCode.TARGET_INVALID,
                "This gateway gives only tokens that are bound to the device's key (tokens.require_pop). "
                "Tools reach it through the agent's forwarder: llmgw run -- COMMAND",
            )
        now = self._database.now()
        proof = dpop.verify(proof_headers, method="POST", url=self._url, now=now)
        sign_in = await self._verifier.verify(
            Secret(form.get("subject_token", "")), form.get("subject_token_type", ""), now
        )
        exchange = f"exc_{secrets.token_hex(12)}"
        enrolment = Enrolment(sign_in, proof, exchange, int(now * 1000), self._settings.enrol_seconds)
        enrolled = await self._database.submit(enrol, enrolment)
        return self._mint(enrolled, sign_in, int(now), proof.device if binding == BOUND else ""), enrolled

    def _mint(self, enrolled: Enrolled, sign_in: SignIn, now: int, device: str) -> ExchangeAnswer:
        if self._ring.key is None:
            raise GatewayError(ErrorCode.DRAINING, "The gateway is starting; try again.", retry_after=2)
        life = self._settings.life_seconds
        claims = tokens.TokenClaims(
            person_id=enrolled.person_id,
            session=enrolled.session,
            access_key=enrolled.access_key,
            token_id=f"tok_{secrets.token_hex(12)}",
            client_id=sign_in.issuer.client_id,
            issued_at=now,
            expires_at=now + life,
            device=device,
        )
        token = tokens.mint(
            claims,
            issuer=self._issuer,
            audience=self._settings.audience,
            kid=self._ring.kid,
            key=self._ring.key,
        )
        return ExchangeAnswer(token, life, token_type=BOUND if device else "Bearer")


def enrol(connection: Connection, batch: list[Enrolment]) -> list[Enrolled | GatewayError]:
    """Record proof, person and device session; a replayed proof or a disabled person is refused."""
    # In one order at all replicas: two that enrol the same people would otherwise wait for each other.
    order = sorted(range(len(batch)), key=lambda number: (batch[number].sign_in.subject, batch[number].proof.digest))
    answers = {number: _enrol(connection, batch[number]) for number in order}
    _forget(connection, min(each.now for each in batch) // 1000)
    return [answers[number] for number in range(len(batch))]


def _enrol(connection: Connection, each: Enrolment) -> Enrolled | GatewayError:
    mine = {"proof": each.proof.digest, "exchange": each.exchange, "expires_at": each.proof.expires_at}
    if not insert_if_absent(connection, proofs, mine):
        user = connection.scalar(select(proofs.c.exchange).where(proofs.c.proof == each.proof.digest))
        if user != each.exchange:
            return GatewayError(ErrorCode.PROOF_INVALID, "The proof of the device key was used before.")
    sign_in = each.sign_in
    known = select(persons).where(persons.c.issuer == sign_in.issuer.issuer, persons.c.subject == sign_in.subject)
    person = connection.execute(known.with_for_update()).one_or_none()
    if person is None or person.user_key is None:
        waiting = _entries(connection, sign_in)
        if len(waiting) > 1 and all(entry.inactive_at is not None for entry in waiting):
            return _withdrawn()  # whichever of them it is has left
        if len(waiting) == 1:
            person = _take(connection, each, waiting[0], person)
    if person is None:
        identity = {"issuer": sign_in.issuer.issuer, "subject": sign_in.subject}
        times = {"first_seen": each.now, "last_seen": each.now}
        insert_if_absent(connection, persons, {"person_id": f"per_{secrets.token_hex(12)}"} | identity | times)
        person = connection.execute(known.with_for_update()).one()  # ours, or that of a replica that was faster
    if person.disabled_at is not None or person.inactive_at is not None:
        return _withdrawn()
    seen: dict[str, Any] = {"groups": json.dumps(sign_in.groups), "last_seen": each.now}
    seen |= _called(person, sign_in)
    connection.execute(update(persons).where(persons.c.person_id == person.person_id).values(seen))
    return _session(connection, person.person_id, each)


def _withdrawn() -> GatewayError:
    return GatewayError(ErrorCode.PERSON_DISABLED, "Your access to this gateway was withdrawn; ask the platform team.")


def _entries(connection: Connection, sign_in: SignIn) -> Sequence[Row[Any]]:
    """The entries of the provider's directory that could be this person's and that nobody has taken."""
    home = sign_in.issuer.issuer
    waiting = (persons.c.home == home) & (persons.c.issuer == DIRECTORY)
    means: ColumnElement[bool] = persons.c.external_id.in_({sign_in.subject, sign_in.subject.rpartition("/")[2]})
    if sign_in.email:
        address = folded(sign_in.email)
        means |= (persons.c.user_key == address) | (persons.c.email_key == address)
    rows = connection.execute(select(persons).where(waiting, means).order_by(persons.c.person_id)).all()
    found = {each.person_id for each in candidates(rows, home, sign_in.subject, sign_in.email)}
    return [row for row in rows if row.person_id in found]


def _take(connection: Connection, each: Enrolment, entry: Row[Any], person: Row[Any] | None) -> Row[Any] | None:
    """Give a sign-in the entry that is certainly its own; the person's row then.

    Who is new signs in as the entry. Who has been here before keeps their row, and gets what the directory says.
    """
    mine = (persons.c.person_id == entry.person_id) & (persons.c.issuer == DIRECTORY)
    if person is not None:
        # What the directory is changing at this moment is joined by that change, or by the next sign-in.
        free = select(persons).where(mine).with_for_update(skip_locked=True)
        locked = connection.execute(free).one_or_none()
        if locked is None:
            return person
        by = Author(person.person_id, "developer", f"{each.exchange}-join")
        return join(connection, locked, person, by, each.now)
    values = {"issuer": each.sign_in.issuer.issuer, "subject": each.sign_in.subject}
    if not connection.execute(update(persons).where(mine).values(values)).rowcount:
        return None
    row = select(persons).where(persons.c.person_id == entry.person_id)
    return connection.execute(row.with_for_update()).one()


def _called(person: Row[Any], sign_in: SignIn) -> dict[str, str]:
    """Name and address: the directory's where it has them, else what the provider says now."""
    said = json.loads(person.attributes) if person.user_key is not None else {}
    email = (email_of(said) if said else "") or sign_in.email
    return {"name": (name_of(said) if said else "") or sign_in.name, "email": email, "email_key": folded(email)}


def _session(connection: Connection, person_id: str, each: Enrolment) -> Enrolled | GatewayError:
    """The session of a device, or a new one in the place of one that has ended.

    What is counted by device is counted by place: signing out and in again, with another device key, too, begins no
    budget anew. A person has as many places as they ever had devices at a time.
    """
    mine = (sessions.c.person_id == person_id) & (sessions.c.device == each.proof.device)
    known = select(sessions.c.sid, sessions.c.access_key).where(mine, sessions.c.ended_at.is_(None))
    session = connection.execute(known).one_or_none()
    if session is None:
        if not each.sign_in.is_recent(each.now / 1000, each.enrol_seconds):
            return GatewayError(
                ErrorCode.SIGN_IN_INVALID,
                f"A new device needs a sign-in of the last {each.enrol_seconds // 60} minutes. "
                "Sign out at your identity provider, then run: llmgw login",
            )
        new = {"sid": f"ses_{secrets.token_hex(12)}", "device": each.proof.device, "enrolled_at": each.now}
        _take_place(connection, person_id, new | {"last_exchange": each.now, "ended_at": None})
        session = connection.execute(known).one()
    connection.execute(update(sessions).where(mine).values(last_exchange=each.now))
    return Enrolled(person_id, session.sid, session.access_key)


def _take_place(connection: Connection, person_id: str, new: dict[str, Any]) -> None:
    """Of the ended sessions that of the same device, or else the last one; without any, a place of its own."""
    ended = select(sessions.c.access_key).where(sessions.c.person_id == person_id, sessions.c.ended_at.is_not(None))
    nearest = (sessions.c.device != new["device"], sessions.c.ended_at.desc(), sessions.c.access_key)
    place = connection.scalars(ended.order_by(*nearest).limit(1)).one_or_none()
    if place is None:
        own = {"person_id": person_id, "access_key": f"key_{secrets.token_hex(12)}"}
        insert_if_absent(connection, sessions, new | own)
    else:
        connection.execute(update(sessions).where(sessions.c.access_key == place).values(new))


def _forget(connection: Connection, now: int) -> None:
    """Drop proofs that are too old to be accepted anyway; those that another replica is dropping are left to it."""
    old = select(proofs.c.proof).where(proofs.c.expires_at < now).with_for_update(skip_locked=True)
    connection.execute(delete(proofs).where(proofs.c.proof.in_(old)))
