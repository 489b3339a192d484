"""The gateway's packages: the example configuration, and an image that is built and run."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import secrets
import shutil
import subprocess
import tarfile
from typing import TYPE_CHECKING

import pytest

from llmgw_gateway.settings import load
from llmgw_packaging import gateway
from tests.lab import machine
from tests.packaging.conftest import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from llmgw_packaging.release import Release
    from llmgw_packaging.wheels import Target


def test_the_example_is_a_configuration(tmp_path: Path) -> None:
    text = (REPOSITORY / "packaging" / "linux" / "gateway" / "gateway.toml").read_text(encoding="utf-8")
    for folder in ("/var/lib/llmgw-gateway", "/var/log/llmgw-gateway"):
        text = text.replace(folder, str(tmp_path))
    (tmp_path / "gateway.toml").write_text(text, encoding="utf-8")
    secret = tmp_path / "cluster.secret"
    secret.write_text(secrets.token_hex(32), encoding="utf-8")
    secret.chmod(0o600)
    assert load(tmp_path / "gateway.toml").budgets


@pytest.mark.long
@pytest.mark.skipif(not (machine.available() and shutil.which("buildah")), reason=f"{machine.NEEDS}, and buildah")
class TestImage:
    """Built without a network but for the base, which is a Debian of this test's own instead of Python's image."""

    @pytest.fixture
    def context(self, target: Target, store: Path, release: Release) -> bytes:
        made, again = (gateway.image(target, store, release, python="3.11")[0] for _ in range(2))  # Debian's
        assert hashlib.sha256(made).hexdigest() == hashlib.sha256(again).hexdigest()
        return made

    @pytest.fixture
    def buildah(self, tmp_path: Path) -> Iterator[list[str]]:
        """The tool with a store of its own."""
        words = ["buildah", "--storage-driver=vfs", f"--root={tmp_path}/images", f"--runroot={tmp_path}/run"]
        yield words
        subprocess.run([*words, "rm", "--all"], check=False, capture_output=True)
        subprocess.run([*words, "rmi", "--all", "--force"], check=False, capture_output=True)

    def test_it_runs_as_nobody_special(self, context: bytes, buildah: list[str], tmp_path: Path) -> None:
        base = machine.copy(tmp_path / "base")
        (base / "usr/local/bin/python3").symlink_to("/usr/bin/python3")
        made = self.said([*buildah, "from", "scratch"])
        self.said([*buildah, "add", "--quiet", made, str(base), "/"])
        self.said([*buildah, "commit", "--quiet", made, "localhost/base"])
        folder = tmp_path / "context"
        with tarfile.open(fileobj=io.BytesIO(gzip.decompress(context))) as files:
            for each in files:
                each.uid = each.gid = 0
            files.extractall(folder, filter="tar")
        options = [
            "--isolation=chroot",
            "--format=docker",
            "--build-arg=BASE=localhost/base",
            "--tag=localhost/gateway",
        ]
        self.said([*buildah, "bud", "--quiet", *options, str(folder)])
        config = json.loads(self.said([*buildah, "inspect", "--type=image", "localhost/gateway"]))["Docker"]["config"]
        assert config["User"] == "10001:10001"
        assert config["Healthcheck"]["Test"][0] == "CMD"
        assert config["Entrypoint"] == ["/opt/llmgw-gateway/bin/llmgw-gateway"]
        running = self.said([*buildah, "from", "localhost/gateway"])
        # By its exit code alone: buildah may lose what a command printed last.
        check = """
            test "$(id -u)" = 10001 && touch /var/lib/llmgw-gateway/x && ! touch /opt/llmgw-gateway/x &&
            case "$(/opt/llmgw-gateway/bin/llmgw-gateway --version)" in *"version 1.2.3") ;; *) exit 1 ;; esac
        """
        self.said([*buildah, "run", "--isolation=chroot", running, "--", "sh", "-c", check])

    @staticmethod
    def said(words: list[str]) -> str:
        done = subprocess.run(words, check=False, capture_output=True, text=True)
        assert done.returncode == 0, (words, done.stderr[-2000:])
        return done.stdout.strip()
