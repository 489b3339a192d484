"""What survives a restart: one wrapping key in the keyring of the operating system, one encrypted file beside it.

The only file that imports keyring, and only in a child process: a Secret Service that never answers blocks its caller
for ever, and a child can be killed. Backends are constructed by name from the list below. keyring's own choice is not
used: it follows the environment, a file in the home folder and every installed package, and would take one that writes
plain text. There is deliberately no fallback: without a safe place the sign-in lives in memory, and `status` says so.

The file: magic, rollback counter (8 bytes), nonce (12), AES-256-GCM ciphertext of a JSON object. Version, profile and
counter are its associated data. The counter last written is kept in the keyring too, so that a copy of an older file (a
refresh token that was rotated away, or belonged to somebody who signed out) is refused.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import importlib
import json
import logging
import os
import secrets
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from llmgw_agent import system
from llmgw_agent.errors import ConfigurationError
from llmgw_wire.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from pathlib import Path

log = logging.getLogger(__name__)

MAGIC: Final = b"llmgw-vault-1\n"
COUNTER_BYTES: Final = 8
NONCE_BYTES: Final = 12
KEY_BYTES: Final = 32
SERVICE: Final = "llmgw"
KEYRING_SECONDS: Final = 5.0
UNLOCK_SECONDS: Final = 30.0
"""With a display, a person may have to unlock the keyring first."""

PAUSE: Final = 20.0
LONGEST_PAUSE: Final = 600.0
"""Seconds between two questions to a keyring that was not to be had: each starts a process."""

BACKENDS: Final = {
    "linux": (("keyring.backends.SecretService", "Keyring"), ("keyring.backends.kwallet", "DBusKeyring")),
    "darwin": (("keyring.backends.macOS", "Keyring"),),
    "win32": (("keyring.backends.Windows", "WinVaultKeyring"),),
}
"""Per platform, best first: module and class."""


class KeyringUnavailableError(Exception):
    """The keyring did not give what was asked; the text says why, for `status`."""


class NoKeyringError(KeyringUnavailableError):
    """There will be none for as long as this process lives."""


class VaultDamagedError(Exception):
    """The file is not what was written last: altered, cut short, of another profile, or an older copy."""


@dataclass(frozen=True, slots=True)
class SealedFile:
    """The encrypted file alone: bytes in, bytes out, whole or not at all."""

    path: Path
    key: Secret
    """Base64 of 32 bytes."""
    profile: str

    def read(self, at_least: int) -> tuple[int, dict[str, Any]]:
        """Its counter and content. VaultDamagedError if it was altered or is older than `at_least`."""
        sealed = self.path.read_bytes()
        start = len(MAGIC) + COUNTER_BYTES
        if not sealed.startswith(MAGIC) or len(sealed) < start + NONCE_BYTES:
            raise VaultDamagedError("it is not a vault of this version")
        counter = int.from_bytes(sealed[len(MAGIC) : start], "big")
        nonce, ciphertext = sealed[start : start + NONCE_BYTES], sealed[start + NONCE_BYTES :]
        try:
            document = json.loads(self._cipher().decrypt(nonce, ciphertext, self._associated(counter)))
        except (InvalidTag, ValueError):
            raise VaultDamagedError("it was altered, or belongs to another profile or key") from None
        if counter < at_least:
            raise VaultDamagedError(f"it is an older copy (number {counter}, expected at least {at_least})")
        return counter, document

    def write(self, counter: int, document: dict[str, Any]) -> None:
        """Replace the file atomically and durably: a crash leaves the old file or the new one."""
        nonce = secrets.token_bytes(NONCE_BYTES)
        ciphertext = self._cipher().encrypt(nonce, json.dumps(document).encode(), self._associated(counter))
        temporary = self.path.with_suffix(".new")
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        handle = system.create(temporary)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(MAGIC + counter.to_bytes(COUNTER_BYTES, "big") + nonce + ciphertext)
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            temporary.unlink()  # half a file would only take what little space there is
            raise
        temporary.replace(self.path)
        system.sync_folder(self.path.parent)

    def _cipher(self) -> AESGCM:
        return AESGCM(base64.b64decode(self.key.reveal()))

    def _associated(self, counter: int) -> bytes:
        return MAGIC + counter.to_bytes(COUNTER_BYTES, "big") + self.profile.encode()


class Keyring:
    """The items of one profile in the operating system's keyring, each call in a child process with a deadline."""

    def __init__(self, profile: str) -> None:
        self.profile = profile
        self.backend = ""

    async def get(self, item: str) -> Secret | None:
        """Read an item; None if there is none."""
        value = await self._call({"verb": "get", "item": item})
        return Secret(value) if value else None

    async def put(self, item: str, value: Secret) -> None:
        """Write an item; it is read back, because some stores accept and forget."""
        await self._call({"verb": "set", "item": item, "value": value.reveal()})

    async def _call(self, request: dict[str, str]) -> str | None:
        if sys.platform == "linux" and not os.environ.get("DBUS_SESSION_BUS_ADDRESS"):
            # Asking anyway would start a message bus of our own, and the answer would still be no.
            raise NoKeyringError("no desktop session (DBUS_SESSION_BUS_ADDRESS is not set)")
        display = sys.platform != "linux" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
        seconds = UNLOCK_SECONDS if display else KEYRING_SECONDS
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-m", "llmgw_agent.vault"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            question = json.dumps(request | {"profile": self.profile}).encode()
            output, _ = await asyncio.wait_for(child.communicate(question), seconds)
            answer = json.loads(output)
        except TimeoutError:
            raise KeyringUnavailableError(f"the keyring did not answer within {seconds:g} s") from None
        except ValueError:
            raise KeyringUnavailableError("the keyring's process failed") from None
        finally:
            if child.returncode is None:
                child.kill()
                await child.wait()
        if answer.get("error"):
            raise KeyringUnavailableError(answer["error"])
        self.backend = answer["backend"]
        value = answer["value"]
        return value if isinstance(value, str) else None


class Vault:
    """Named JSON values that survive a restart, if there is a safe place for them.

    All calls come from one daemon, which holds the lock of this profile for as long as it lives.
    """

    def __init__(self, path: Path, profile: str) -> None:
        self._path = path
        self._profile = profile
        self._keyring = Keyring(profile)
        self._file: SealedFile | None = None
        self._counter = 0
        self._content: dict[str, Any] = {}
        self._turn = asyncio.Lock()
        self._anchoring: asyncio.Task[None] | None = None
        self._description = "memory only: not opened yet"
        self._problem = ""
        self._may_come = False
        """Whether the keyring may be there later."""
        self._again_at = 0.0
        self._pause = PAUSE

    @property
    def is_persistent(self) -> bool:
        """Whether what is kept survives a restart."""
        return self._file is not None and not self._problem

    @property
    def description(self) -> str:
        """Where things are kept, and what is wrong with that, for a person."""
        return f"memory only: {self._problem}" if self._problem else self._description

    async def open(self) -> None:
        """Get the wrapping key, or fall back to memory; read the file. A damaged file is set aside, not used."""
        async with self._turn:
            await self._open()

    async def reopen(self) -> bool:
        """Try again, with pauses, where the keyring was not to be had: it may have been locked. Whether it is now.

        What was entered meanwhile is newer than what the file holds, and is written to it.
        """
        if self._file is not None or not self._may_come or time.monotonic() < self._again_at:
            return False
        async with self._turn:
            entered = self._content
            if not await self._open():
                return False
            self._content |= entered
            if entered:
                await self._save()
        self._tell_keyring()
        log.info("the keyring is there now: %s", self._description)
        return True

    async def _open(self) -> bool:
        """Whether there is a keyring."""
        try:
            key = await self._keyring.get("key")
            if key is None:
                key = Secret(base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode())
                await self._keyring.put("key", key)
            anchor = await self._keyring.get("counter")
        except KeyringUnavailableError as error:
            self._description = f"memory only: {error}"
            self._may_come = not isinstance(error, NoKeyringError)
            self._again_at = time.monotonic() + self._pause
            self._pause = min(self._pause * 2, LONGEST_PAUSE)
            log.warning("sign-in is kept in memory only: %s", error)
            return False
        self._counter = int(anchor.reveal()) if anchor and anchor.reveal().isdecimal() else 0
        sealed = SealedFile(self._path, key, self._profile)
        self._description = f"encrypted file, key in {self._keyring.backend}"
        try:
            self._counter, self._content = await asyncio.to_thread(sealed.read, self._counter)
        except FileNotFoundError:
            pass
        except VaultDamagedError as error:
            aside = self._path.with_suffix(".damaged")
            log.error("the vault %s is not used: %s; moved to %s", self._path, error, aside)  # noqa: TRY400 -- expected
            self._path.replace(aside)
            self._description += f" (the file found was not used: {error})"
        except OSError as error:
            raise ConfigurationError(f"{self._path} cannot be read ({error.strerror})") from None
        # Not before it was read: whoever is cut off in between would leave a file open whose content nobody knows, and
        # the next to write would write over a sign-in.
        self._file = sealed
        return True

    @property
    def is_settled(self) -> bool:
        """Whether nothing is waited for: neither a keyring that may come nor a disk that is full."""
        return not self._problem and (self._file is not None or not self._may_come)

    def handed_over(self) -> dict[str, Any]:
        """All of it, for the agent that this one becomes (handover.py): a keyring may be locked when that wakes."""
        return {
            "key": self._file.key.reveal() if self._file is not None else None,
            "counter": self._counter,
            "content": self._content,
            "description": self._description,
            "backend": self._keyring.backend,
        }

    def take_over(self, left: dict[str, Any]) -> None:
        """Take up what was left, in place of `open`. Nobody else has written to the file: the lock was held."""
        self._counter, self._content = left["counter"], left["content"]
        self._description, self._keyring.backend = left["description"], left["backend"]
        if left["key"] is not None:
            self._file = SealedFile(self._path, Secret(left["key"]), self._profile)

    def get(self, name: str) -> Any:  # noqa: ANN401 -- JSON
        """The value as it was written last; None if there is none."""
        return self._content.get(name)

    async def reread(self) -> None:
        """Take over what the file holds now, if it is newer than what is in memory."""
        async with self._turn:
            if self._file is None:
                return
            with contextlib.suppress(OSError, VaultDamagedError):
                self._counter, self._content = await asyncio.to_thread(self._file.read, self._counter)

    async def put(self, **values: Any) -> None:  # noqa: ANN401 -- JSON
        """Set values (None removes). When this returns, the file is on disk, or `description` says why it is not.

        A full disk must not cost a sign-in: the provider has taken back the old refresh token, and would take a second
        use of it for theft. So the values are kept in memory, the file, which holds what is no longer true, goes, and
        `retry` writes it again.
        """
        async with self._turn:
            content = self._content | values
            self._content = {name: value for name, value in content.items() if value is not None}
            await self._save()
        self._tell_keyring()

    async def retry(self) -> None:
        """Write what could not be written; nothing if all is on disk."""
        if self._problem:
            async with self._turn:
                await self._save()
            self._tell_keyring()

    async def _save(self) -> None:
        if self._file is None:
            return
        self._counter += 1
        try:
            await _to_its_end(asyncio.to_thread(self._file.write, self._counter, self._content))
        except OSError as error:
            if not self._problem:
                log.error("the vault %s cannot be written: %s", self._path, error.strerror)  # noqa: TRY400 -- expected
            self._problem = f"{self._path} cannot be written ({error.strerror})"
            with contextlib.suppress(OSError):
                self._path.unlink(missing_ok=True)
        else:
            if self._problem:
                log.info("the vault is written again")
            self._problem = ""

    def _tell_keyring(self) -> None:
        if self._file is None or self._problem:
            return
        if self._anchoring is None or self._anchoring.done():
            self._anchoring = asyncio.create_task(self._anchor())

    async def close(self) -> None:
        """Wait for the keyring to know the newest counter."""
        if self._anchoring is not None:
            await self._anchoring

    async def _anchor(self) -> None:
        """Tell the keyring the newest counter. After the file, never before: a crash in between must not lock out.

        Beside the request, because a keyring takes its time; until it is done, only the previous file is accepted too.
        """
        written = -1
        while written != self._counter:
            written = self._counter
            try:
                await self._keyring.put("counter", Secret(str(written)))
            except KeyringUnavailableError as error:
                log.warning("the vault's counter was not recorded: %s", error)
                return


async def _to_its_end(work: Coroutine[Any, Any, None]) -> None:
    """Wait for work that a thread does, also when cancelled: the thread goes on, and whoever writes next must wait."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise


def answer_in_child(request: dict[str, str]) -> dict[str, str | None]:
    """Do one keyring call, in the child process. Error texts name classes only: messages may quote the value."""
    for module, name in BACKENDS.get(sys.platform, ()):
        try:
            kind = getattr(importlib.import_module(module), name)
            if not kind.viable:
                continue
            backend = kind()
            if hasattr(kind, "persist"):  # Windows would take it along to other machines of the domain
                backend.persist = "local machine"
            user = f"{request['profile']}/{request['item']}"
            if request["verb"] == "set":
                backend.set_password(SERVICE, user, request["value"])
            value = backend.get_password(SERVICE, user)
        except Exception as error:  # noqa: BLE001 -- every backend raises its own; the class is the diagnosis
            return {"error": f"{module.rpartition('.')[2]} failed ({type(error).__name__})"}
        if request["verb"] == "set" and value != request["value"]:
            return {"error": f"{module.rpartition('.')[2]} did not keep what was written"}
        return {"backend": module.rpartition(".")[2], "value": value}
    return {"error": "no keyring service of this operating system is available"}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(answer_in_child(json.load(sys.stdin))))
