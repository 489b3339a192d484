"""The gateway's own AWS identity: keys in a file are replaced while it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from llmgw_gateway.providers.credentials import AwsCredentials

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that the chain reads, and nothing else that it could find."""
    path = tmp_path / "credentials"
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(path))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return path


def write(path: Path, key: str) -> None:
    path.write_text(f"[default]\naws_access_key_id = {key}\naws_secret_access_key = secret\n", encoding="ascii")


def spoil(path: Path, *, gone: bool = False) -> None:
    if gone:
        path.unlink()
    else:
        path.write_text("no such format", encoding="ascii")


async def test_keys_in_a_file_are_replaced_without_a_restart(file: Path) -> None:
    write(file, "AKIAFORMER")
    credentials = AwsCredentials()
    await credentials.start()
    try:
        assert credentials.current().access_key == "AKIAFORMER"
        write(file, "AKIALATTER")
        await credentials.refresh()
        assert credentials.current().access_key == "AKIALATTER"
    finally:
        credentials.stop()


async def test_a_file_that_is_gone_or_spoiled_leaves_the_last_keys_in_use(file: Path) -> None:
    write(file, "AKIAFORMER")
    credentials = AwsCredentials()
    await credentials.start()
    try:
        spoil(file)
        await credentials.refresh()
        assert credentials.current().access_key == "AKIAFORMER"
        spoil(file, gone=True)
        await credentials.refresh()
        assert credentials.current().access_key == "AKIAFORMER"
    finally:
        credentials.stop()
