"""A configuration that is good in every point: tests change one thing of it."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

from tests.lab import toml_text

if TYPE_CHECKING:
    from pathlib import Path

Document = dict[str, Any]


def good() -> Document:
    """Every section, with the keys that a company would set."""
    return {
        "server": {
            "listen": "127.0.0.1:8080",
            "admin_listen": "[::1]:9090",
            "public_url": "https://gateway.example",
            "drain_seconds": 60,
        },
        "organisation": {"name": "Example", "time_zone": "Europe/Berlin", "contact": "#llm-help"},
        "store": {"path": "gateway.db"},
        "audit": {"path": "audit.jsonl", "file_megabytes": 256, "most_waiting": 10_000},
        "tokens": {"cluster_secret_file": "cluster.secret", "audience": "llmgw", "life_seconds": 600},
        "bedrock": {"region": "eu-central-1", "endpoint": "http://127.0.0.1:4566"},
        "issuers": [
            {
                "issuer": "https://login.example/tenant/v2.0",
                "client_id": "client",
                "kind": "entra",
                "scopes": ["openid", "profile"],
                "algorithms": ["RS256"],
            },
            {"issuer": "https://other.example", "client_id": "client-2"},
        ],
        "models": [{"name": "claude-sonnet-4-5", "target": "eu.custom"}],
        "budgets": [{"level": "user", "limit_usd": 25.5, "overshoot_usd": 5}],
    }


def folder(base: Path) -> Path:
    """A folder with everything that the good document names; returns where the file itself belongs."""
    secret = base / "cluster.secret"
    secret.write_text(secrets.token_hex(32), encoding="ascii")
    secret.chmod(0o600)
    for name, key in (("good.key", "sk-ant-x"), ("bad.key", "two\nlines")):
        (base / name).touch(mode=0o600)
        (base / name).write_text(key, encoding="ascii")
    return base / "gateway.toml"


def write(path: Path, document: Document) -> Path:
    path.write_text(toml_text.dump(document), encoding="utf-8")
    return path
