"""Writes `.intunewin`, the container in which Intune takes a Win32 app. Pure.

The format is not documented by its vendor. This is what public readers and writers of it agree on: a ZIP file with an
encrypted ZIP file in it, and beside that the keys in clear. So the encryption keeps nothing secret, and keys may be
derived from the content: the same content gives the same bytes.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import io
import xml.etree.ElementTree as ET
import zipfile
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.padding import PKCS7

if TYPE_CHECKING:
    from collections.abc import Mapping

TOOL_VERSION: Final = "1.8.4.0"
"""Of the vendor's tool whose output this is like."""
INNER: Final = "IntunePackage.intunewin"
EPOCH: Final = (1980, 1, 1, 0, 0, 0)
IV_BYTES: Final = 16
MSI_INFO: Final = (
    *("MsiProductCode", "MsiProductVersion", "MsiPackageCode", "MsiUpgradeCode", "MsiExecutionContext"),
    *("MsiRequiresLogon", "MsiRequiresReboot", "MsiIsMachineInstall", "MsiIsUserInstall", "MsiIncludesServices"),
    *("MsiIncludesODBCDataSource", "MsiContainsSystemRegistryKeys", "MsiContainsSystemFolders", "MsiPublisher"),
)


def package(name: str, setup: str, files: Mapping[str, bytes], msi: Mapping[str, str] | None = None) -> bytes:
    """The container.

    Args:
        name: What the console shows.
        setup: The one of the files that installs.
        files: Content by name.
        msi: If that is an `.msi`: what Intune then fills its form in with, and detects it by. Keys as in MSI_INFO.
    """
    plain = _zip(files)
    key, mac_key, start = (_derived(purpose, plain) for purpose in ("key", "mac", "iv"))
    start = start[:IV_BYTES]
    padder = PKCS7(algorithms.AES.block_size).padder()
    encryptor = Cipher(algorithms.AES(key), modes.CBC(start)).encryptor()
    sealed = start + encryptor.update(padder.update(plain) + padder.finalize()) + encryptor.finalize()
    mac = hmac.digest(mac_key, sealed, "sha256")
    secrets: dict[str, str | bytes] = {
        "EncryptionKey": key,
        "MacKey": mac_key,
        "InitializationVector": start,
        "Mac": mac,
        "ProfileIdentifier": "ProfileVersion1",
        "FileDigest": hashlib.sha256(plain).digest(),
        "FileDigestAlgorithm": "SHA256",
    }
    about = {"Name": name, "UnencryptedContentSize": str(len(plain)), "FileName": INNER, "SetupFile": setup}
    return _zip(
        {
            f"IntuneWinPackage/Contents/{INNER}": mac + sealed,
            "IntuneWinPackage/Metadata/Detection.xml": _detection(about, secrets, msi or {}),
        }
    )


def _derived(purpose: str, content: bytes) -> bytes:
    return hashlib.sha256(f"llmgw intunewin {purpose}\n".encode() + content).digest()


def _detection(about: Mapping[str, str], secrets: Mapping[str, str | bytes], msi: Mapping[str, str]) -> bytes:
    root = ET.Element("ApplicationInfo", ToolVersion=TOOL_VERSION)
    for tag, text in about.items():
        ET.SubElement(root, tag).text = text
    info = ET.SubElement(root, "EncryptionInfo")
    for tag, value in secrets.items():
        ET.SubElement(info, tag).text = value if isinstance(value, str) else base64.b64encode(value).decode()
    if msi:
        info = ET.SubElement(root, "MsiInfo")
        for tag in MSI_INFO:
            ET.SubElement(info, tag).text = msi[tag]
    ET.indent(root)
    return (ET.tostring(root, encoding="unicode") + "\n").encode()


def _zip(files: Mapping[str, bytes]) -> bytes:
    # Stored: what deflate writes differs from one zlib to the next.
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for name, content in files.items():
            info = zipfile.ZipInfo(name, EPOCH)
            info.create_system = 0
            archive.writestr(info, content)
    return target.getvalue()
