"""`[store]`: exactly one store, no password where it would be seen, no connection in clear unless somebody says so."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from llmgw_gateway import settings
from llmgw_gateway.errors import ConfigurationError
from tests.gateway import configuration

if TYPE_CHECKING:
    from pathlib import Path

CANARY = "canary-of-the-password"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return configuration.folder(tmp_path)


def load(path: Path, store: dict[str, Any]) -> settings.Settings:
    return settings.load(configuration.write(path, configuration.good() | {"store": store}))


def faults(path: Path, store: dict[str, Any]) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        load(path, store)
    assert CANARY not in str(caught.value.faults)
    return caught.value.faults


GOOD: list[dict[str, Any]] = [
    {"path": "gateway.db"},
    {"url": "postgresql://llmgw@localhost/llmgw"},
    {"url": "postgresql://llmgw@127.0.0.1,[::1]:5433/llmgw?sslmode=disable"},
    {"url": "postgres://llmgw@db.example/llmgw?sslmode=verify-full"},
    {"url": "postgresql://llmgw@db.example/llmgw?sslmode=require", "prepared_statements": False},
    {"url": "postgresql://llmgw@db.example/llmgw", "unencrypted": True},
    {"url": "postgresql:///llmgw?host=/run/postgresql&user=llmgw"},
]


@pytest.mark.parametrize("store", GOOD, ids=str)
def test_what_names_one_store_is_read(path: Path, store: dict[str, Any]) -> None:
    assert load(path, store).store_url().reveal() == store.get("url", "")


FAULTY: dict[str, tuple[dict[str, Any], str]] = {
    "none": ({}, "path: exactly one of path, url and url_file is needed, not none"),
    "two": ({"path": "a.db", "url": "postgresql://a@localhost/a"}, "path: exactly one of path, url and url_file"),
    "no URL": ({"url": "host=localhost dbname=a"}, "url: is not a postgresql:// URL"),
    "SQLAlchemy's": ({"url": "postgresql+psycopg://a@localhost/a"}, "url: is not a postgresql:// URL"),
    "a port that is none": ({"url": "postgresql://a@localhost:port/a"}, "url: is not a URL that"),
    "a password with a slash": ({"url": f"postgresql://a:1/{CANARY}@db.example/a"}, "url: is not a URL that"),
    "an unknown parameter": ({"url": "postgresql://a@localhost/a?sslmod=require"}, "url: is not a URL that"),
    "a password": ({"url": f"postgresql://a:{CANARY}@localhost/a"}, "url: must have no password: write the URL into"),
    "no database": ({"url": "postgresql://a@localhost"}, "url: names no database"),
    "no host": ({"url": "postgresql:///a"}, "url: names no host"),
    "in clear by default": (
        {"url": "postgresql://a@db.example/a"},
        "url: would talk to db.example in clear: add",
    ),
    "in clear if need be": ({"url": "postgresql://a@10.0.0.1/a?sslmode=prefer"}, "url: would talk to 10.0.0.1 in"),
    "in clear": ({"url": "postgresql://a@db.example/a?sslmode=disable"}, "url: would talk to db.example in clear"),
    "in clear, second host": ({"url": "postgresql://a@localhost,db.example/a"}, "url: would talk to db.example in"),
    "in clear, by address": ({"url": "postgresql://a@localhost/a?hostaddr=10.0.0.1"}, "url: would talk to 10.0.0.1 in"),
    "a file that is not there": ({"url_file": "nowhere"}, "url_file: No such file or directory"),
}


@pytest.mark.parametrize("case", FAULTY)
def test_what_does_not_is_a_fault_that_says_what_to_write(path: Path, case: str) -> None:
    store, sentence = FAULTY[case]
    (fault,) = faults(path, store)
    assert fault.startswith(f"store.{sentence}")


def written(path: Path, url: str, mode: int = 0o600) -> dict[str, Any]:
    file = path.parent / "store.url"
    file.write_text(url + "\n", encoding="utf-8")
    file.chmod(mode)
    return {"url_file": "store.url"}


def test_a_password_comes_from_a_file_and_is_never_shown(path: Path) -> None:
    read = load(path, written(path, f"postgresql://a:{CANARY}@db.example/a?sslmode=require"))
    assert read.store_url().reveal() == f"postgresql://a:{CANARY}@db.example/a?sslmode=require"
    assert CANARY not in f"{read!r} {read.store_url()!r}"


@pytest.mark.parametrize(
    ("url", "mode", "sentence"),
    [
        (f"postgresql://a:{CANARY}@localhost/a", 0o644, "url_file: /"),
        (f"postgresql://a:{CANARY}@db.example/a", 0o600, "url_file: would talk to db.example in clear"),
        (f"mysql://a:{CANARY}@db.example/a", 0o600, "url_file: is not a postgresql:// URL"),
        (f"postgresql://a:{CANARY}@@db.example:x/a", 0o600, "url_file: is not a URL that"),
        ("", 0o600, "url_file: is not a postgresql:// URL"),
    ],
)
def test_a_file_that_will_not_do_is_refused_without_quoting_it(path: Path, url: str, mode: int, sentence: str) -> None:
    (fault,) = faults(path, written(path, url, mode))
    assert fault.startswith(f"store.{sentence}")
