"""Who may ask what of the public listener, in one table: a new route without a row fails.

No role opens anything here: a route is open to all, or to whoever has a good credential and then about themselves. The
Admin API's own table is tests/gateway/admin/test_matrix.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

import pytest

from llmgw_gateway import edge, listing
from llmgw_gateway.observe.metrics import Metrics
from llmgw_gateway.peers import Peers
from tests.functional.device import BEDROCK_MODEL, Device
from tests.functional.test_service_keys import command, made

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.lab.gateway import Gateway

BEDROCK: Final = f"/bedrock/model/{BEDROCK_MODEL}"
OPEN = (200, 200, 200, 200, 200)
FORM = (400, 400, 400, 400, 400)
"""Open to everybody: what counts is in the form, and this one is empty."""
OWN = (401, 401, 401, 200, 200)
ASK = (401, 401, 401, 400, 400)
"""Authenticated first; then the body is empty."""
QUIET = (404, 401, 401, 200, 200)
"""Claude Code asks without a credential, and is told that there is nothing."""
# Statuses for: nobody, what is no token, the token of a session that has ended, a person, a service key.
TABLE: Final = {
    ("GET", "/healthz"): OPEN,
    ("GET", "/readyz"): OPEN,
    ("HEAD", "/"): OPEN,
    ("GET", "/.well-known/llmgw"): OPEN,
    ("GET", "/.well-known/oauth-authorization-server"): OPEN,
    ("GET", "/.well-known/jwks.json"): OPEN,
    ("POST", "/oauth/token"): FORM,
    ("POST", "/oauth/revoke"): OPEN,
    ("GET", "/v1/me"): OWN,
    ("GET", "/v1/me/usage"): OWN,
    ("POST", "/v1/messages"): ASK,
    ("POST", "/v1/messages/count_tokens"): ASK,
    ("POST", "/openai/v1/chat/completions"): ASK,
    ("POST", "/openai/v1/responses"): ASK,
    ("POST", "/openai/v1/embeddings"): ASK,
    ("POST", f"{BEDROCK}/invoke"): ASK,
    ("POST", f"{BEDROCK}/invoke-with-response-stream"): ASK,
    ("POST", f"{BEDROCK}/converse"): ASK,
    ("POST", f"{BEDROCK}/converse-stream"): ASK,
    ("POST", f"{BEDROCK}/count-tokens"): (404, 401, 401, 400, 400),
    ("GET", listing.ANTHROPIC): OWN,
    ("GET", listing.OPENAI): OWN,
    ("GET", listing.BEDROCK_MODELS): QUIET,
    ("GET", listing.BEDROCK_PROFILES): QUIET,
}


@pytest.mark.skipif(edge.__file__.endswith(".so"), reason="compiled, an edge takes no stand-in for its pipeline")
def test_every_public_route_has_a_row() -> None:
    nothing = cast("Any", None)
    pipeline = cast("Any", type("Pipeline", (), {"metrics": Metrics()}))
    front = edge.Edge(pipeline, nothing, nothing, nothing, 1, Peers((), in_clear=False), ())
    routes = set(front._routes)
    routes |= {("POST", f"{BEDROCK}/{action}") for action in edge.BEDROCK_ACTIONS}
    routes |= {("GET", base) for base in listing._LISTS}
    assert routes == set(TABLE)


@pytest.fixture
def credentials(gateway: Gateway, ada: Device, sign_in: Callable[[str], str]) -> list[str]:
    """In the order of the table's statuses; the person is an administrator, and so is the key."""
    _, machine = made(gateway)
    key = machine.me()["person"]
    for holder in (ada.me()["person"], key):
        done = command(gateway, "roles", "grant", holder, "admin")
        assert done.exit_code == 0, done.stderr
    ended = Device(gateway.url)
    ended.exchange(sign_in("grace"))
    form = {"content-type": "application/x-www-form-urlencoded"}
    assert ended.request("POST", "/oauth/revoke", f"token={ended.token}".encode(), form, token="").status == 200
    return ["", "no-token", ended.token, ada.token, machine.token]


def test_everybody_may_ask_what_the_table_says(gateway: Gateway, credentials: list[str]) -> None:
    wrong = []
    for (method, path), statuses in TABLE.items():
        for credential, expected in zip(credentials, statuses, strict=True):
            body = b"" if method == "POST" else None
            reply = Device(gateway.url).request(method, path, body, token=credential)
            if reply.status != expected:
                wrong.append(f"{method} {path} with {credential[:8]!r}: {reply.status}, not {expected}")
    assert not wrong, "\n".join(wrong)
