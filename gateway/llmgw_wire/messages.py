"""The messages that agent and gateway exchange: frozen, each with `parse` and `dump`.

Parsing is tolerant of unknown members (an older agent meets a newer gateway, and the other way round) and strict about
the known ones: a missing or mistyped member is a `ValueError` that names it.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Final

from llmgw_wire.secret import Secret

TOKEN_EXCHANGE_GRANT: Final = "urn:ietf:params:oauth:grant-type:token-exchange"  # noqa: S105 -- RFC 8693 section 2.1
ACCESS_TOKEN_TYPE: Final = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105 -- RFC 8693 section 3
BOUND: Final = "DPoP"
"""The `token_type` of a token that is bound to a key (RFC 9449 section 5), and how an exchange asks for one."""
ID_TOKEN_TYPE: Final = "urn:ietf:params:oauth:token-type:id_token"  # noqa: S105 -- RFC 8693 section 3


@dataclass(frozen=True, slots=True)
class IssuerOffer:
    """One way to sign in, as the gateway offers it: everything an agent needs besides its own state.

    `kind` is "entra" (through MSAL), "oidc" (own flow) or "workload" (nobody signs in: jobs bring a token of theirs).
    `subject_token_type` says which of the provider's tokens the gateway wants to see. `scopes` may hold the scope of
    the gateway's own API at that provider.
    """

    issuer: str
    client_id: str
    kind: str = "oidc"
    scopes: tuple[str, ...] = ("openid", "profile", "email", "offline_access")
    subject_token_type: str = ID_TOKEN_TYPE
    redirect_host: str = "127.0.0.1"
    response_mode: str = "query"
    resource: str = ""
    client_secret: str = ""
    """Of a public client, at providers that give it one and ask for it back: everybody may know it."""
    max_age: int = 0
    """Seconds; with an older sign-in the provider asks again (OpenID Connect Core 3.1.2.1). 0: any age will do.
    A gateway that enrols a new device only after a recent sign-in asks for one here."""


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """The answer of `GET /.well-known/llmgw`: from just a gateway URL an agent learns the rest here."""

    gateway: str
    token_endpoint: str
    audience: str
    issuers: tuple[IssuerOffer, ...]
    minimum_agent_version: str = "0"
    """The gateway trades no sign-in for an older agent."""
    dialects: tuple[str, ...] = ("anthropic", "bedrock", "openai")
    binds_tokens: bool = False
    """Whether an exchange may ask for a token that works with proofs of the device key only (RFC 9449)."""
    require_pop: bool = False
    """Whether there are no other tokens here."""

    def dump(self) -> bytes:
        """The JSON document."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def parse(cls, body: bytes) -> Bootstrap:
        """Read the JSON document; ValueError names the member that is missing or of the wrong type."""
        document = _document(body)
        offers = tuple(
            IssuerOffer(
                issuer=_text(offer, "issuer"),
                client_id=_text(offer, "client_id"),
                kind=_text(offer, "kind", "oidc"),
                scopes=_texts(offer, "scopes"),
                subject_token_type=_text(offer, "subject_token_type", ID_TOKEN_TYPE),
                redirect_host=_text(offer, "redirect_host", "127.0.0.1"),
                response_mode=_text(offer, "response_mode", "query"),
                resource=_text(offer, "resource", ""),
                client_secret=_text(offer, "client_secret", ""),
                max_age=_number(offer, "max_age") if "max_age" in offer else 0,
            )
            for offer in _objects(document, "issuers")
        )
        if not offers:
            raise ValueError("'issuers' is empty: the gateway offers no way to sign in")
        return cls(
            gateway=_text(document, "gateway"),
            token_endpoint=_text(document, "token_endpoint"),
            audience=_text(document, "audience"),
            issuers=offers,
            minimum_agent_version=_text(document, "minimum_agent_version", "0"),
            dialects=_texts(document, "dialects"),
            binds_tokens=_flag(document, "binds_tokens"),
            require_pop=_flag(document, "require_pop"),
        )


@dataclass(frozen=True, slots=True)
class ExchangeAnswer:
    """The answer of `POST /oauth/token` (RFC 8693 section 2.2.1)."""

    access_token: Secret
    expires_in: int
    """Seconds of life from the moment it was issued."""
    issued_token_type: str = ACCESS_TOKEN_TYPE
    token_type: str = "Bearer"  # noqa: S105 -- RFC 6750

    def dump(self) -> bytes:
        """The JSON document, with the token in clear: write it to the response only."""
        document = {
            "access_token": self.access_token.reveal(),
            "expires_in": self.expires_in,
            "issued_token_type": self.issued_token_type,
            "token_type": self.token_type,
        }
        return json.dumps(document).encode()

    @classmethod
    def parse(cls, body: bytes) -> ExchangeAnswer:
        """Read the JSON document; ValueError names the faulty member and never quotes the body."""
        document = _document(body)
        life = document.get("expires_in")
        if not isinstance(life, int) or isinstance(life, bool) or life <= 0:
            raise ValueError("'expires_in' is not a positive number of seconds")
        return cls(
            access_token=Secret(_text(document, "access_token")),
            expires_in=life,
            issued_token_type=_text(document, "issued_token_type"),
            token_type=_text(document, "token_type"),
        )


@dataclass(frozen=True, slots=True)
class BudgetView:
    """One budget as its owner may see it. Amounts are whole numbers: micro-USD (1 USD = 1,000,000), or tokens."""

    name: str
    level: str
    period: str
    period_key: str
    limit: int
    spent: int
    held: int
    overshoot_limit: int
    resets_at: str
    """RFC 3339, UTC."""
    model: str | None = None
    unit: str = "usd"
    """usd, tokens, or weighted_tokens: a token counts as many input tokens of its model as it costs."""

    @property
    def remaining(self) -> int:
        """What can still be admitted: never below zero."""
        return max(0, self.limit - self.spent - self.held)


@dataclass(frozen=True, slots=True)
class LimitView:
    """One limit on rates or concurrency as those may see it whom it concerns."""

    name: str
    level: str
    kind: str
    """requests or tokens (a minute), or concurrent (at a time)."""
    limit: int
    used: int
    """At this moment; more than the limit where a call took more than was expected of it."""
    model: str | None = None

    @property
    def remaining(self) -> int:
        """What can be admitted at this moment: never below zero."""
        return max(0, self.limit - self.used)


@dataclass(frozen=True, slots=True)
class CapView:
    """What bounds each call of a model; None: nothing but the model itself."""

    model: str
    max_tokens: int | None = None
    thinking_tokens: int | None = None
    context_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Me:
    """The answer of `GET /v1/me`: who the gateway takes the caller for, what is allowed, and what is left."""

    person: str
    name: str
    email: str
    issuer: str
    session: str
    token_expires_at: int
    """Seconds since the epoch."""
    models: tuple[str, ...]
    budgets: tuple[BudgetView, ...] = field(default=())
    limits: tuple[LimitView, ...] = field(default=())
    caps: tuple[CapView, ...] = field(default=())

    def dump(self) -> bytes:
        """The JSON document; each budget and each limit also carries `remaining`."""
        document = asdict(self)
        document["budgets"] = [asdict(budget) | {"remaining": budget.remaining} for budget in self.budgets]
        document["limits"] = [asdict(limit) | {"remaining": limit.remaining} for limit in self.limits]
        return json.dumps(document).encode()

    @classmethod
    def parse(cls, body: bytes) -> Me:
        """Read the JSON document; ValueError names the faulty member."""
        document = _document(body)
        return cls(
            person=_text(document, "person"),
            name=_text(document, "name", ""),
            email=_text(document, "email", ""),
            issuer=_text(document, "issuer", ""),
            session=_text(document, "session", ""),
            token_expires_at=_number(document, "token_expires_at"),
            models=_texts(document, "models"),
            budgets=tuple(
                BudgetView(
                    name=_text(budget, "name"),
                    level=_text(budget, "level"),
                    period=_text(budget, "period"),
                    period_key=_text(budget, "period_key"),
                    limit=_number(budget, "limit"),
                    spent=_number(budget, "spent"),
                    held=_number(budget, "held"),
                    overshoot_limit=_number(budget, "overshoot_limit"),
                    resets_at=_text(budget, "resets_at"),
                    model=_text(budget, "model") if budget.get("model") is not None else None,
                    unit=_text(budget, "unit", "usd"),
                )
                for budget in _objects(document, "budgets")
            ),
            limits=tuple(
                LimitView(
                    name=_text(limit, "name"),
                    level=_text(limit, "level"),
                    kind=_text(limit, "kind"),
                    limit=_number(limit, "limit"),
                    used=_number(limit, "used"),
                    model=_text(limit, "model") if limit.get("model") is not None else None,
                )
                for limit in _objects({"limits": []} | document, "limits")  # an older gateway has none
            ),
            caps=tuple(
                CapView(_text(cap, "model"), *(_optional_number(cap, name) for name in _CAPS))
                for cap in _objects({"caps": []} | document, "caps")  # the same
            ),
        )


@dataclass(frozen=True, slots=True)
class UsageLine:
    """What some requests came to."""

    name: str
    """A model, a project (empty: none was named), or empty for a total."""
    requests: int
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    cost: int
    """Micro-USD."""
    estimated: int
    """The part of the cost whose usage is not known."""


@dataclass(frozen=True, slots=True)
class UsagePeriod:
    """From the beginning of a day to now."""

    name: str
    """today, week (since Monday), or month."""
    since: str
    """Its first day, as YYYY-MM-DD in the time zone of the report."""
    total: UsageLine
    models: tuple[UsageLine, ...]
    """The dearest first."""
    projects: tuple[UsageLine, ...]


@dataclass(frozen=True, slots=True)
class UsageReport:
    """The answer of `GET /v1/me/usage`: what the caller used. Calls that still run are not in it."""

    time_zone: str
    periods: tuple[UsagePeriod, ...]

    def dump(self) -> bytes:
        """The JSON document."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def parse(cls, body: bytes) -> UsageReport:
        """Read the JSON document; ValueError names the faulty member."""
        document = _document(body)
        return cls(
            time_zone=_text(document, "time_zone"),
            periods=tuple(
                UsagePeriod(
                    name=_text(period, "name"),
                    since=_text(period, "since"),
                    total=_usage_line(period.get("total")),
                    models=tuple(_usage_line(line) for line in _objects(period, "models")),
                    projects=tuple(_usage_line(line) for line in _objects(period, "projects")),
                )
                for period in _objects(document, "periods")
            ),
        )


def _usage_line(document: object) -> UsageLine:
    if not isinstance(document, dict):
        raise ValueError("'total' is missing or not an object")  # noqa: TRY004 -- callers catch one type
    counts = {each.name: _number(document, each.name) for each in fields(UsageLine) if each.name != "name"}
    return UsageLine(name=_text(document, "name"), **counts)


def _document(body: bytes) -> dict[str, Any]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        raise ValueError("the answer is not JSON") from None
    if not isinstance(document, dict):
        raise ValueError("the answer is not a JSON object")  # noqa: TRY004 -- callers catch one type
    return document


def _text(document: dict[str, Any], name: str, default: str | None = None) -> str:
    value = document.get(name, default)
    if not isinstance(value, str):
        raise ValueError(f"{name!r} is missing or not a string")  # noqa: TRY004 -- callers catch one type
    return value


def _number(document: dict[str, Any], name: str) -> int:
    value = document.get(name)
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"{name!r} is missing or not a whole number")  # noqa: TRY004 -- callers catch one type
    return value


def _flag(document: dict[str, Any], name: str) -> bool:
    """What an older gateway does not say is not so."""
    value = document.get(name, False)
    if not isinstance(value, bool):
        raise ValueError(f"{name!r} is neither true nor false")  # noqa: TRY004 -- callers catch one type
    return value


_CAPS = ("max_tokens", "thinking_tokens", "context_tokens")


def _optional_number(document: dict[str, Any], name: str) -> int | None:
    return None if document.get(name) is None else _number(document, name)


def _texts(document: dict[str, Any], name: str) -> tuple[str, ...]:
    values = document.get(name)
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise ValueError(f"{name!r} is missing or not a list of strings")
    return tuple(values)


def _objects(document: dict[str, Any], name: str) -> list[dict[str, Any]]:
    values = document.get(name)
    if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
        raise ValueError(f"{name!r} is missing or not a list of objects")
    return values
