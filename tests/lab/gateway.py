"""The gateway as an operator runs it: a configuration file, a process, AWS credentials in its environment only."""

from __future__ import annotations

import json
import secrets
import sys
import time
from typing import TYPE_CHECKING, Any

from llmgw_gateway.money.catalogues import built_in
from tests.lab import toml_text
from tests.lab.environment import clean_environment
from tests.lab.loopback import HOST, answers, free_port
from tests.lab.process import POLL_SECONDS, Program
from tests.lab.server import Server

if TYPE_CHECKING:
    from pathlib import Path

USER_BUDGET = {"level": "user", "limit_usd": 20, "overshoot_usd": 10, "period": "month"}


class Gateway(Server):
    """One replica. `document` is its configuration; change it before the gateway is entered.

    Without `models` it serves every model of the price catalogue. `changes` are whole sections of the configuration.
    """

    def __init__(
        self,
        folder: Path,
        *,
        issuers: list[dict[str, Any]],
        endpoint: str,
        region: str,
        credentials: dict[str, str],
        models: tuple[str, ...] = (),
        budget: dict[str, Any] | None = None,
        changes: dict[str, Any] | None = None,
    ) -> None:
        self.folder = folder
        self.ca_file: Path | None = None
        """Whom to trust when `url` is made https."""
        self.port, self.admin_port, self.api_port = free_port(), free_port(), free_port()
        self.url = f"http://{HOST}:{self.port}"
        self.admin_url = f"http://{HOST}:{self.admin_port}"
        self.api_url = f"http://{HOST}:{self.api_port}"
        self.config = folder / "gateway.toml"
        self.db = folder / "gateway.db"
        self.audit = folder / "audit.jsonl"
        bedrock = {"region": region} | ({"endpoint": endpoint} if endpoint else {})
        self.document: dict[str, Any] = {
            "server": {
                "listen": f"{HOST}:{self.port}",
                "admin_listen": f"{HOST}:{self.admin_port}",
                "public_url": self.url,
                "drain_seconds": 30,
                "questions_per_minute": 100_000,  # tests ask until what they wait for is so
            },
            "administration": {"listen": f"{HOST}:{self.api_port}"},
            "organisation": {"name": "Example", "time_zone": "UTC", "contact": "#llm-help"},
            "store": {"path": self.db.name},
            "audit": {"path": self.audit.name},
            "tokens": {"cluster_secret_file": "cluster.secret", "audience": "llmgw", "life_seconds": 600},
            "bedrock": bedrock,
            "issuers": issuers,
            "models": [{"name": name} for name in models or built_in().models],
            "budgets": [budget or USER_BUDGET],
        } | (changes or {})
        env = clean_environment(folder, **credentials)
        self.program = Program("gateway", self.command("serve"), env=env, folder=folder)

    def command(self, verb: str) -> list[str | Path]:
        """`llmgw-gateway VERB CONFIG` with the interpreter of the laboratory."""
        return [sys.executable, "-m", "llmgw_gateway.main", verb, self.config]

    @property
    def log(self) -> Path:
        return self.program.log

    def audit_lines(self) -> list[dict[str, Any]]:
        """The requests in the audit trail so far: complete lines only."""
        text = self.audit.read_text(encoding="utf-8") if self.audit.exists() else ""
        lines = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
        return [line for line in lines if "request_id" in line]

    def audited(self, path: str, *, seconds: float = 10, **fields: Any) -> dict[str, Any]:
        """The first audit line of a path with these fields, as soon as it is written: that is off the response path."""
        deadline = time.monotonic() + seconds
        while True:
            for line in self.audit_lines():
                if line["path"] == path and fields.items() <= line.items():
                    return line
            if time.monotonic() > deadline:
                raise AssertionError(f"no audit line for {path} with {fields} after {seconds:g} s")
            time.sleep(POLL_SECONDS)

    def prepare(self) -> None:
        """The file, and the cluster secret beside it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        secret = self.folder / "cluster.secret"
        if not secret.exists():
            secret.touch(mode=0o600)
            secret.write_text(secrets.token_urlsafe(48), encoding="ascii")
        self.config.write_text(toml_text.dump(self.document), encoding="utf-8")

    def wait_ready(self) -> None:
        self.program.wait_until(lambda: answers(f"{self.url}/readyz", ca_file=self.ca_file), "ready")
