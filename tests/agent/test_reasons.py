"""What a provider's refusal becomes: why, in words, and the next thing to do. Conditional access ends no session."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from aiohttp import web

from llmgw_agent.errors import RefusedError, SessionEndedError
from llmgw_agent.session import reasons
from llmgw_agent.session.entra import _checked
from llmgw_agent.session.id_token import Discovery
from llmgw_agent.session.oidc import OidcProvider
from llmgw_agent.session.reasons import declined, refusal
from llmgw_agent.session.record import Account, SignIn
from llmgw_wire.messages import IssuerOffer
from llmgw_wire.secret import Secret

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from llmgw_agent.outgoing import Outgoing

ISSUER = "https://login.example/t/v2.0"
TRACE = "Trace ID: 9af Correlation ID: 77 Timestamp: 2026-11-21 18:00:00Z"


def answer(error: str, number: int) -> dict[str, object]:
    """As Entra ID answers."""
    return {"error": error, "error_codes": [number], "error_description": f"AADSTS{number}: ada@example.com. {TRACE}"}


@pytest.mark.parametrize("number", [50076, 50079, 50173, 700082])
def test_what_a_sign_in_mends_leads_to_one(number: int) -> None:
    found = refusal(ISSUER, answer("interaction_required" if number < 50100 else "invalid_grant", number))
    assert type(found) is SessionEndedError
    assert found.message.endswith(f"{reasons.AGAIN[number]} (AADSTS{number})")
    assert found.hint == "Run: llmgw login"


@pytest.mark.parametrize("number", reasons.BLOCKED)
def test_what_a_sign_in_does_not_mend_leads_to_it(number: int) -> None:
    for error in ("invalid_grant", "interaction_required", "access_denied"):
        found = refusal(ISSUER, answer(error, number))
        assert type(found) is RefusedError, "the sign-in is good still"
        assert (f"AADSTS{number}" in found.message, "Run:" in found.hint) == (True, False)
        assert declined(ISSUER, answer(error, number)).hint == found.hint


def test_a_browser_s_answer_has_the_number_in_its_description_only() -> None:
    found = declined(ISSUER, {"error": "access_denied", "error_description": f"AADSTS53003: Blocked. {TRACE}"})
    assert "(conditional access) blocks it from here (AADSTS53003)" in found.line
    assert "Trace" not in found.line


@pytest.mark.parametrize("error", reasons.STEP_UP)
def test_a_stronger_sign_in_is_asked_for_in_words(error: str) -> None:
    found = refusal(ISSUER, {"error": error})
    assert isinstance(found, SessionEndedError)
    assert found.line == f"{ISSUER} ended the sign-in: {reasons.STEP_UP[error]} ({error}). Run: llmgw login"


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"error": "temporarily_unavailable"},
        {"error": "server_error", "error_codes": [90033, "53003", None], "error_description": 53003},
        {"error": "slow_down", "error_codes": 53003},
    ],
)
def test_a_provider_that_is_ill_ends_nothing(document: dict[str, object]) -> None:
    assert refusal(ISSUER, document) is None


def test_the_way_by_msal_says_the_same() -> None:
    offer = IssuerOffer(issuer=ISSUER, client_id="llmgw", kind="entra")
    with pytest.raises(RefusedError, match="not compliant"):
        _checked(offer, answer("interaction_required", 53000))
    with pytest.raises(SessionEndedError, match="second factor now"):
        _checked(offer, answer("interaction_required", 50076))


@pytest.fixture
async def provider() -> AsyncIterator[tuple[str, list[dict[str, object]]]]:
    """An issuer that refuses each refresh with what the test has put there."""
    told: list[dict[str, object]] = []

    async def discovery(request: web.Request) -> web.Response:
        at = f"http://{request.host}"
        names = ("authorization_endpoint", "token_endpoint", "jwks_uri")
        return web.json_response({"issuer": at} | {name: f"{at}/{name}" for name in names})

    async def token(_request: web.Request) -> web.Response:
        return web.json_response(told[-1], status=400)

    app = web.Application()
    app.router.add_get("/.well-known/openid-configuration", discovery)
    app.router.add_post("/token_endpoint", token)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}", told
    await runner.cleanup()


async def test_the_own_way_says_it_when_it_renews(
    outgoing: Outgoing, provider: tuple[str, list[dict[str, object]]]
) -> None:
    issuer, told = provider
    offer = IssuerOffer(issuer=issuer, client_id="llmgw")
    sign_in = SignIn("s", offer, Account("1", "Ada", ""), Secret("x"), 0.0, Secret("refresh"), 0.0)
    own = OidcProvider(outgoing, Discovery(outgoing))
    told.append(answer("invalid_grant", 53003))
    with pytest.raises(RefusedError, match="conditional access"):
        await own.renew(sign_in)
    told.append({"error": "insufficient_user_authentication"})
    with pytest.raises(SessionEndedError, match="stronger sign-in"):
        await own.renew(sign_in)
