from __future__ import annotations

import asyncio
import base64
import os
import shutil
import stat
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmgw_agent import vault as vault_module
from llmgw_agent.vault import Keyring, KeyringUnavailableError, SealedFile, Vault, VaultDamagedError
from llmgw_wire.secret import Secret
from tests.lab.secret_service import Bus, SecretService

KEY = Secret(base64.b64encode(bytes(range(32))).decode())
DOCUMENT = {"sign_in": {"renewal": "canary-refresh"}}
MANY = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
KEYRING = shutil.which("dbus-run-session") and shutil.which("gnome-keyring-daemon")
needs_proc = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
needs_keyring = pytest.mark.skipif(not KEYRING, reason="needs dbus-run-session and gnome-keyring-daemon")


@pytest.fixture
def sealed(home: Path) -> SealedFile:
    return SealedFile(home / "vault.bin", KEY, "profile")


def test_what_is_written_is_read(sealed: SealedFile) -> None:
    sealed.write(7, DOCUMENT)
    assert sealed.read(7) == (7, DOCUMENT)
    assert b"canary" not in sealed.path.read_bytes()
    assert stat.S_IMODE(sealed.path.stat().st_mode) == 0o600
    assert [path.name for path in sealed.path.parent.iterdir()] == ["vault.bin"]


@MANY
@given(position=st.integers(min_value=0), bit=st.integers(0, 7))
def test_one_flipped_bit_is_refused(sealed: SealedFile, position: int, bit: int) -> None:
    sealed.write(7, DOCUMENT)
    content = bytearray(sealed.path.read_bytes())
    content[position % len(content)] ^= 1 << bit
    sealed.path.write_bytes(content)
    with pytest.raises(VaultDamagedError):
        sealed.read(0)


@MANY
@given(length=st.integers(min_value=0, max_value=110))
def test_a_file_cut_short_is_refused(sealed: SealedFile, length: int) -> None:
    sealed.write(7, DOCUMENT)
    content = sealed.path.read_bytes()
    sealed.path.write_bytes(content[: min(length, len(content) - 1)])
    with pytest.raises(VaultDamagedError):
        sealed.read(0)


@MANY
@given(counters=st.lists(st.integers(0, 2**40), min_size=2, max_size=2, unique=True))
def test_an_older_file_is_refused(sealed: SealedFile, counters: list[int]) -> None:
    older, newer = sorted(counters)
    sealed.write(older, DOCUMENT)
    with pytest.raises(VaultDamagedError, match="older copy"):
        sealed.read(newer)


@pytest.mark.parametrize(
    "other",
    [
        lambda path: SealedFile(path, KEY, "another profile"),
        lambda path: SealedFile(path, Secret(base64.b64encode(bytes(32)).decode()), "profile"),
    ],
)
def test_another_profile_or_key_is_refused(sealed: SealedFile, other: type) -> None:
    sealed.write(7, DOCUMENT)
    with pytest.raises(VaultDamagedError, match="altered") as failure:
        other(sealed.path).read(0)
    assert "canary" not in str(failure.value)


def test_a_planted_link_is_not_followed(sealed: SealedFile, home: Path) -> None:
    target = home / "target"
    target.write_text("untouched")
    sealed.path.with_suffix(".new").symlink_to(target)
    sealed.write(1, DOCUMENT)
    assert target.read_text() == "untouched"


class HeldFile(SealedFile):
    """Waits in the middle of its first write until it is let go."""

    held = threading.Event()
    begun = threading.Event()
    written = threading.Semaphore(0)

    def write(self, counter: int, document: dict[str, Any]) -> None:
        is_first = not self.begun.is_set()
        self.begun.set()
        assert not is_first or self.held.wait(10)
        super().write(counter, document)
        self.written.release()


async def test_a_cancelled_write_does_not_come_after_a_later_one(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sign-in that is cancelled by a sign-out must not land in the file behind it."""
    monkeypatch.delenv("DBUS_SESSION_BUS_ADDRESS", raising=False)
    vault = Vault(home / "vault.bin", "profile")
    file = vault._file = HeldFile(home / "vault.bin", KEY, "profile")
    sign_in = asyncio.create_task(vault.put(sign_in="canary-refresh"))
    await asyncio.to_thread(file.begun.wait, 10)
    sign_in.cancel()
    sign_out = asyncio.create_task(vault.put(sign_in=None))
    await asyncio.wait({sign_out}, timeout=0.2)  # long enough to overtake, if it could
    file.held.set()
    await asyncio.gather(sign_in, sign_out, return_exceptions=True)
    for _ in range(2):
        assert await asyncio.to_thread(file.written.acquire, timeout=10)
    assert file.read(0) == (2, {})
    await vault.close()


def kept(vault: Vault) -> bool:
    return vault.is_persistent


async def test_a_disk_that_is_full_costs_no_sign_in(sealed: SealedFile, home: Path) -> None:
    vault = Vault(sealed.path, "profile")
    vault._file = sealed
    await vault.put(sign_in="first")
    assert kept(vault)
    obstacle = home / "vault.new"  # stands for a full disk, also for root
    obstacle.mkdir()
    await vault.put(sign_in="second")
    assert vault.get("sign_in") == "second"
    assert not kept(vault)
    assert vault.description.startswith(f"memory only: {sealed.path} cannot be written (")
    assert not sealed.path.exists()  # it held a refresh token that is spent
    await vault.retry()
    assert not kept(vault)
    obstacle.rmdir()
    await vault.retry()
    assert kept(vault)
    assert sealed.read(0)[1] == {"sign_in": "second"}
    await vault.close()


def test_half_a_file_does_not_stay(sealed: SealedFile) -> None:
    """A limit on the size of files, the kernel's, in a process of its own."""
    code = (
        "import base64, pathlib, resource, sys; from llmgw_agent.vault import SealedFile; "
        "from llmgw_wire.secret import Secret; resource.setrlimit(resource.RLIMIT_FSIZE, (64, 64)); "
        "path = pathlib.Path(sys.argv[1]); file = SealedFile(path, Secret(base64.b64encode(bytes(32)).decode()), 'p')\n"
        "try: file.write(1, {'a': 'b' * 4096})\n"
        "except OSError as error: print(error.strerror, [each.name for each in path.parent.iterdir()])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(sealed.path)], capture_output=True, text=True, check=True)
    assert done.stdout == "File too large []\n"


async def test_without_a_keyring_nothing_is_written(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DBUS_SESSION_BUS_ADDRESS", raising=False)
    vault = Vault(home / "vault.bin", "profile")
    await vault.open()
    await vault.put(sign_in="canary")
    await vault.close()
    assert vault.get("sign_in") == "canary"
    assert not vault.is_persistent
    assert vault.description.startswith("memory only: no desktop session")
    assert os.listdir(home) == []  # noqa: PTH208 -- the loop has nothing else to do


@needs_proc
async def test_the_keyring_s_process_shows_no_secret(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bus that takes the call and says nothing holds the child where it has the secret in hand."""
    called: asyncio.Future[asyncio.StreamWriter] = asyncio.get_running_loop().create_future()
    bus = await asyncio.start_unix_server(lambda _, writer: called.set_result(writer), home / "bus")
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", f"unix:path={home}/bus")
    put = asyncio.create_task(Keyring("profile").put("key", Secret("canary-secret")))
    connection = await called
    children = [pid for pid in processes() if b"llmgw_agent.vault" in seen(pid, "cmdline")]
    assert [pid for pid in children if b"canary" in seen(pid, "cmdline") + seen(pid, "environ")] == []
    assert children
    connection.close()
    bus.close()
    with pytest.raises(KeyringUnavailableError):
        await put


def processes() -> list[int]:
    """What this process has started."""
    return [
        int(folder.name)
        for folder in Path("/proc").iterdir()
        if folder.name.isdecimal() and f" {os.getpid()} ".encode() in seen(int(folder.name), "stat")
    ]


def seen(pid: int, name: str) -> bytes:
    """What the process list tells of a process; nothing if it has ended."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/{name}").read_bytes()
    return b""


async def test_a_bus_without_a_keyring_is_named_and_does_not_hang(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", f"unix:path={home}/nobody")
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyring.backends.null.Keyring")
    vault = Vault(home / "vault.bin", "profile")
    await vault.open()
    assert vault.description.startswith("memory only: ")


@needs_keyring
async def test_a_copy_of_the_folder_opens_nothing_in_another_user_s_session(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a keyring of their own, at the same path: the key is not there."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    with SecretService(tmp_path / "one") as ours, SecretService(tmp_path / "two") as theirs:
        monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", ours.environment["DBUS_SESSION_BUS_ADDRESS"])
        vault = Vault(home / "vault.bin", "profile")
        await vault.open()
        await vault.put(sign_in="canary-refresh")
        await vault.close()
        copy = (home / "vault.bin").read_bytes()
        assert b"canary" not in copy
        for address, found in ((theirs, None), (ours, "canary-refresh")):
            monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", address.environment["DBUS_SESSION_BUS_ADDRESS"])
            (home / "vault.bin").write_bytes(copy)
            other = Vault(home / "vault.bin", "profile")
            await other.open()
            assert (other.get("sign_in"), other.is_persistent) == (found, True)


PLAINTEXT = """
from keyring.backend import KeyringBackend
class Keyring(KeyringBackend):
    priority = 99
    def set_password(self, service, user, password): open({path!r}, "a").write(password)
    def get_password(self, service, user): return open({path!r}).read()
"""


@pytest.mark.skipif(not shutil.which("dbus-daemon"), reason="needs dbus-daemon")
async def test_a_plaintext_backend_is_never_taken(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the environment and the files of keyring itself say."""
    with Bus(tmp_path) as bus:
        plain = tmp_path / "plain.txt"
        (tmp_path / "plain.py").write_text(PLAINTEXT.format(path=str(plain)))
        (tmp_path / "python_keyring").mkdir()
        configuration = f"[backend]\ndefault-keyring=plain.Keyring\nkeyring-path={tmp_path}\n"
        (tmp_path / "python_keyring" / "keyringrc.cfg").write_text(configuration)
        for name, value in {
            **bus.environment,
            "PYTHON_KEYRING_BACKEND": "plain.Keyring",
            "PYTHONPATH": str(tmp_path),
            "XDG_CONFIG_HOME": str(tmp_path),
        }.items():
            monkeypatch.setenv(name, value)
        vault = Vault(home / "vault.bin", "profile")
        await vault.open()
        await vault.put(sign_in="canary")
        await vault.close()
    assert vault.description.startswith("memory only: ")
    assert not plain.exists()


@needs_keyring
async def test_a_locked_secret_service_is_named_and_taken_up_once_it_is_unlocked(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service starts with the session, before its owner has typed the password. Nobody has to start it again."""
    monkeypatch.setattr(vault_module, "PAUSE", 0.0)
    with SecretService(tmp_path) as keyring:
        monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", keyring.environment["DBUS_SESSION_BUS_ADDRESS"])
        before = Vault(home / "vault.bin", "profile")
        await before.open()
        await before.put(sign_in="from before", other="kept")
        await before.close()
        keyring.lock()
        vault = Vault(home / "vault.bin", "profile")
        await vault.open()
        assert vault.description == "memory only: SecretService failed (KeyringLocked)"
        assert not await vault.reopen()
        assert vault.get("sign_in") is None
        keyring.unlock()
        assert await vault.reopen()
        assert (vault.get("sign_in"), vault.is_persistent) == ("from before", True)
        assert not await vault.reopen(), "once is enough"
        keyring.lock()
        later = Vault(home / "vault.bin", "profile")
        await later.open()
        await later.put(sign_in="entered meanwhile")
        keyring.unlock()
        assert await later.reopen()
        await later.close()
        assert (later.get("sign_in"), later.get("other")) == ("entered meanwhile", "kept")
        last = Vault(home / "vault.bin", "profile")
        await last.open()
        assert last.get("sign_in") == "entered meanwhile"


class Given(Keyring):
    """One that is unlocked from the second question on."""

    asked = 0

    async def get(self, item: str) -> Secret | None:
        Given.asked += 1
        if Given.asked == 1:
            raise KeyringUnavailableError("locked")
        return KEY if item == "key" else None

    async def put(self, item: str, value: Secret) -> None: ...


class Slow(SealedFile):
    begun = threading.Event()
    held = threading.Event()

    def read(self, at_least: int) -> tuple[int, dict[str, Any]]:
        self.begun.set()
        assert self.held.wait(10)
        return super().read(at_least)


async def test_whoever_leaves_while_it_is_opened_does_not_cost_what_is_in_it(
    home: Path, sealed: SealedFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tool's request opens a vault that was locked, and is cancelled with its connection."""
    sealed.write(7, DOCUMENT)
    monkeypatch.setattr(vault_module, "PAUSE", 0.0)
    monkeypatch.setattr(vault_module, "Keyring", Given)
    monkeypatch.setattr(vault_module, "SealedFile", Slow)
    vault = Vault(home / "vault.bin", "profile")
    await vault.open()
    first = asyncio.create_task(vault.reopen())
    assert await asyncio.to_thread(Slow.begun.wait, 10)
    first.cancel()
    with suppress(asyncio.CancelledError):
        await first
    Slow.held.set()
    assert await vault.reopen()
    assert vault.get("sign_in") == DOCUMENT["sign_in"]
    await vault.put(other="x")
    await vault.close()
    assert sealed.read(8)[1] == DOCUMENT | {"other": "x"}


def in_session(script: str, folder: Path, *, keyring: bool) -> str:
    """Run Python inside a D-Bus session, perhaps with an unlocked gnome-keyring; what it printed."""
    runner = folder / "session.sh"
    unlock = "printf password | gnome-keyring-daemon --unlock --components=secrets >/dev/null 2>&1\n"
    runner.write_text((unlock if keyring else "") + f"exec {sys.executable} {folder}/script.py\n")
    (folder / "script.py").write_text(script)
    env = {"PATH": os.environ["PATH"], "HOME": str(folder), "XDG_DATA_HOME": str(folder / "share")}
    env |= {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
    done = subprocess.run(
        ["dbus-run-session", "--", "sh", str(runner)], env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@needs_keyring
def test_a_real_secret_service_keeps_the_key_and_the_counter(home: Path) -> None:
    script = f"""
import asyncio, pathlib, shutil
from llmgw_agent.vault import Vault
path = pathlib.Path({str(home)!r}) / "vault.bin"
async def main():
    first = Vault(path, "profile"); await first.open(); print(first.description)
    await first.put(sign_in="one"); await first.close()
    shutil.copy(path, path.with_suffix(".copy"))
    await first.put(sign_in="two"); await first.close()
    second = Vault(path, "profile"); await second.open(); print(second.get("sign_in"))
    shutil.copy(path.with_suffix(".copy"), path)
    third = Vault(path, "profile"); await third.open(); print(third.get("sign_in"), third.description)
asyncio.run(main())
"""
    lines = in_session(script, home, keyring=True).splitlines()
    assert lines[0] == "encrypted file, key in SecretService"
    assert lines[1] == "two"
    assert lines[2].startswith("None encrypted file, key in SecretService (the file found was not used: it is an older")


@pytest.mark.skipif(not shutil.which("dbus-run-session"), reason="needs dbus-run-session")
def test_a_silent_secret_service_costs_a_deadline_not_for_ever(home: Path) -> None:
    """Somebody owns the name and never answers."""
    script = f"""
import asyncio, pathlib, time
from jeepney.bus_messages import message_bus
from jeepney.io.blocking import open_dbus_connection
from llmgw_agent import vault
connection = open_dbus_connection()
connection.send_and_get_reply(message_bus.RequestName("org.freedesktop.secrets", 7))
vault.KEYRING_SECONDS = 1.0
async def main():
    begun = time.monotonic()
    opened = vault.Vault(pathlib.Path({str(home)!r}) / "vault.bin", "profile")
    await opened.open()
    print(opened.description, time.monotonic() - begun < 4)
asyncio.run(main())
"""
    assert in_session(script, home, keyring=False) == "memory only: the keyring did not answer within 1 s True\n"
