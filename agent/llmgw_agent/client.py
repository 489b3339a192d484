"""The commands' end of the local API: plain http.client over the unix socket. aiohttp would cost 150 ms to import."""

from __future__ import annotations

import http.client
import json
import time
from typing import TYPE_CHECKING, Any, Final

from llmgw_agent import launcher, system
from llmgw_agent.errors import AgentError, DaemonError, TemporaryError, from_code

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

START_SECONDS: Final = 10.0
ANSWER_SECONDS: Final = 30.0
GLANCE_SECONDS: Final = 1.0
OK: Final = 200
HOST: Final = "llmgw.local"


class _Connection(http.client.HTTPConnection):
    """HTTP over a socket whose folder and peer were checked."""

    def __init__(self, path: Path) -> None:
        super().__init__(HOST, timeout=ANSWER_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = system.stream(str(self._path), time.monotonic() + ANSWER_SECONDS)
        self.sock.settimeout(ANSWER_SECONDS)


class Client:
    """Asks the daemon of this user, and starts it first where needed."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._path = system.address(environ)

    @property
    def is_running(self) -> bool:
        """Whether a daemon listens."""
        return launcher.is_listening(self._path, time.monotonic() + ANSWER_SECONDS)

    def start(self) -> None:
        """Start the daemon if it is not running; AgentError says why it cannot."""
        launcher.ensure(self._path, self._environ, time.monotonic() + START_SECONDS)

    def token(self) -> str:
        """A gateway token."""
        status, headers, body = self._request("GET", "/token", None, {})
        if status != OK:
            message, _, hint = body.decode(errors="replace").strip().partition(". ")
            code = headers.get("x-llmgw-exit-code", "")
            kinds = {str(kind.exit_code): kind for kind in AgentError.__subclasses__()}
            raise kinds.get(code, AgentError)(message.removesuffix("."), hint)
        return body.decode("ascii").strip()

    def get(self, path: str) -> dict[str, Any]:
        """GET a document."""
        return self._document("GET", path, None)

    def glance(self) -> dict[str, Any] | None:
        """What a running agent sees at a glance; None if none runs. Nothing is started for it."""
        if not launcher.is_listening(self._path, time.monotonic() + GLANCE_SECONDS):
            return None
        glance: dict[str, Any] = self.get("/glance")["glance"]
        return glance

    def end(self) -> None:
        """End the daemon and wait until it has gone; DaemonError if it does not go."""
        pid = self.post("/stop", {})["stop"]["pid"]
        deadline = time.monotonic() + START_SECONDS
        while system.is_alive(pid):
            if time.monotonic() > deadline:
                raise DaemonError(f"the agent (process {pid}) does not end", f"Run: {system.KILL} {pid}")
            time.sleep(launcher.POLL_SECONDS)

    def post(self, path: str, document: dict[str, Any]) -> dict[str, Any]:
        """POST a document, get one."""
        return self._document("POST", path, json.dumps(document).encode())

    def _document(self, method: str, path: str, body: bytes | None) -> dict[str, Any]:
        _, _, answer = self._request(method, path, body, {"Accept": "application/json"})
        try:
            document = json.loads(answer)
        except ValueError:
            raise DaemonError("the agent gave no proper answer", "Run: llmgw daemon stop") from None
        if not isinstance(document, dict) or "schema" not in document:
            raise DaemonError("the agent gave no proper answer", "Run: llmgw daemon stop")
        error = document.get("error")
        # In a status the error is one of the things it reports; anywhere else it is the answer.
        if error and "signed_in" not in document:
            raise from_code(error["code"], error["message"], error["hint"])
        return document

    def _request(
        self, method: str, path: str, body: bytes | None, headers: dict[str, str]
    ) -> tuple[int, dict[str, str], bytes]:
        self.start()
        connection = _Connection(self._path)
        try:
            connection.request(method, path, body, headers | ({"Content-Type": "application/json"} if body else {}))
            answer = connection.getresponse()
            said = {name.lower(): value for name, value in answer.getheaders()}
            return answer.status, said, answer.read()
        except PermissionError as error:
            raise DaemonError(str(error), "Find out whose it is before you go on") from None
        except TimeoutError:
            raise TemporaryError("the agent did not answer in time", "Run: llmgw status") from None
        except (OSError, http.client.HTTPException) as error:
            raise DaemonError(
                f"the agent ended while it was asked ({type(error).__name__})", "Repeat the command"
            ) from None
        finally:
            connection.close()
