"""A laptop without an agent: a device key, the exchange, and plain requests: a test can say any of them wrongly."""

from __future__ import annotations

import http.client
import json
import secrets
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric import ec

from llmgw_wire.messages import ACCESS_TOKEN_TYPE, TOKEN_EXCHANGE_GRANT
from tests.lab.loopback import HOST

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True)
class Reply:
    """An answer, read to its end."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """The error object of the Anthropic envelope."""
        error: dict[str, Any] = self.json["error"]
        return error


PROMPT = {"max_tokens": 100, "messages": [{"role": "user", "content": "Say hello."}]}
ANTHROPIC = PROMPT | {"model": "claude-sonnet-4-5"}
BEDROCK = PROMPT | {"anthropic_version": "bedrock-2023-05-31"}
BEDROCK_MODEL = "us.anthropic.claude-sonnet-4-5-20250929-v1%3A0"


def read_to_end(answer: http.client.HTTPResponse, *, seconds: float = 30) -> bytes:
    """The rest of an answer that has to end by itself.

    Pings go on for as long as it does: whoever only reads on would wait for ever for what does not end.
    """
    deadline, words = time.monotonic() + seconds, b""
    while part := answer.read1():
        words += part
        assert time.monotonic() < deadline, "a running answer was never ended"
    return words


class Device:
    """One laptop; `token` is the last gateway token it got."""

    def __init__(self, gateway_url: str) -> None:
        self.url = gateway_url
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.token = ""

    def proof(self, **claims: Any) -> str:
        """A DPoP proof for the exchange; `claims` override what would be right."""
        jwk = jwt.algorithms.ECAlgorithm.to_jwk(self.key.public_key(), as_dict=True)
        payload = {
            "jti": secrets.token_urlsafe(16),
            "htm": "POST",
            "htu": f"{self.url}/oauth/token",
            "iat": int(time.time()),
        }
        return jwt.encode(payload | claims, self.key, "ES256", headers={"typ": "dpop+jwt", "jwk": jwk})

    def try_exchange(self, subject_token: str, *, proof: str = "", **form: str) -> Reply:
        """One exchange as it comes."""
        fields = {
            "grant_type": TOKEN_EXCHANGE_GRANT,
            "subject_token": subject_token,
            "subject_token_type": ACCESS_TOKEN_TYPE,
            "audience": "llmgw",
        }
        headers = {"DPoP": proof or self.proof(), "content-type": "application/x-www-form-urlencoded"}
        return self.request("POST", "/oauth/token", urlencode(fields | form).encode(), headers, token="")

    def exchange(self, subject_token: str) -> str:
        """An exchange that must succeed."""
        reply = self.try_exchange(subject_token)
        assert reply.status == 200, reply.body
        self.token = reply.json["access_token"]
        return self.token

    def ask(self, *, stream: bool = False, token: str | None = None, **body: Any) -> Reply:
        """A prompt in the Anthropic dialect."""
        document = ANTHROPIC | ({"stream": True} if stream else {}) | body
        return self.request("POST", "/v1/messages", json.dumps(document).encode(), token=token)

    def ask_bedrock(self, *, stream: bool = False, model: str = BEDROCK_MODEL, token: str | None = None) -> Reply:
        """The same prompt in the Bedrock dialect."""
        action = "invoke-with-response-stream" if stream else "invoke"
        return self.request("POST", f"/bedrock/model/{model}/{action}", json.dumps(BEDROCK).encode(), token=token)

    def me(self) -> dict[str, Any]:
        """What the gateway says about the caller."""
        reply = self.request("GET", "/v1/me")
        assert reply.status == 200, reply.body
        document: dict[str, Any] = reply.json
        return document

    def request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
        *,
        token: str | None = None,
    ) -> Reply:
        """Any request; `token` None sends the device's own, "" sends none."""
        credential = self.token if token is None else token
        sent = {"authorization": f"Bearer {credential}"} if credential else {}
        sent |= {"content-type": "application/json"} if body is not None else {}
        with self._send(method, path, body, sent | (headers or {})) as answer:
            return Reply(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())

    @contextmanager
    def streaming(self, dialect: str = "anthropic") -> Iterator[http.client.HTTPResponse]:
        """A streamed prompt whose head has arrived: the rest is read by the test, or not."""
        anthropic = dialect == "anthropic"
        path = "/v1/messages" if anthropic else f"/bedrock/model/{BEDROCK_MODEL}/invoke-with-response-stream"
        body = json.dumps(ANTHROPIC | {"stream": True} if anthropic else BEDROCK).encode()
        headers = {"authorization": f"Bearer {self.token}", "content-type": "application/json"}
        with self._send("POST", path, body, headers) as answer:
            yield answer

    @contextmanager
    def _send(
        self, method: str, path: str, body: bytes | None, headers: dict[str, str]
    ) -> Iterator[http.client.HTTPResponse]:
        connection = http.client.HTTPConnection(HOST, urlsplit(self.url).port, timeout=60)
        try:
            connection.request(method, path, body, headers)
            yield connection.getresponse()
        finally:
            connection.close()
