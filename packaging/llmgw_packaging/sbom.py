"""Bills of materials: what of whom is in a package, by name, version, hash and licence (CycloneDX 1.6, JSON)."""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llmgw_packaging.compiled import Compiled
    from llmgw_packaging.release import Release
    from llmgw_packaging.runtime import Runtime
    from llmgw_packaging.wheels import Wheel

SUFFIX: Final = ".cdx.json"
NAMESPACE: Final = uuid.UUID("6f0f5a0e-6d5e-5b0b-9c57-0d6f7c1f2a44")
"""Of serial numbers: the same package always has the same."""
SPDX: Final = re.compile(r"[A-Za-z0-9.+-]+( (AND|OR|WITH) [A-Za-z0-9.+-]+)*")


def bill(
    file_name: str,
    content: bytes,
    release: Release,
    wheels: Sequence[Wheel],
    runtime: Runtime | None = None,
    compiled: Sequence[Compiled] = (),
) -> bytes:
    """The bill of one package: itself with its hash, every library in it with the hash of the wheel, and its Python.

    What was compiled is ours but for mypyc's runtime, which became part of it.
    """
    parts = [_component(wheel) for wheel in wheels]
    parts += {part["bom-ref"]: part for part in map(_mypyc, compiled)}.values()
    if runtime is not None:
        parts.append(_interpreter(runtime))
    digest = hashlib.sha256(content).hexdigest()
    document: dict[str, Any] = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(NAMESPACE, digest)}",
        "version": 1,
        "metadata": {
            "timestamp": datetime.fromtimestamp(release.epoch, UTC).isoformat().replace("+00:00", "Z"),
            "component": {
                "type": "application",
                "bom-ref": file_name,
                "name": file_name,
                "version": release.version,
                "licenses": [{"license": {"id": "Apache-2.0"}}],
                "hashes": [{"alg": "SHA-256", "content": digest}],
            },
        },
        "components": parts,
        "dependencies": [{"ref": file_name, "dependsOn": sorted(str(part["bom-ref"]) for part in parts)}],
    }
    return json.dumps(document, indent=1, sort_keys=True).encode() + b"\n"


def _component(wheel: Wheel) -> dict[str, Any]:
    about = wheel.metadata()
    found = {
        "type": "library",
        "bom-ref": wheel.path.name,
        "name": wheel.pin.name,
        "version": wheel.pin.version,
        "purl": f"pkg:pypi/{wheel.pin.name}@{wheel.pin.version}?file_name={wheel.path.name}",
        "hashes": [{"alg": "SHA-256", "content": wheel.sha256}],
    }
    return found | ({"licenses": licences} if (licences := _licences(about)) else {})


def _mypyc(compiled: Compiled) -> dict[str, Any]:
    about = compiled.about
    version = about["version"][0]
    return {
        "type": "library",
        "bom-ref": f"mypyc-{version}",
        "name": "mypyc",
        "version": version,
        "purl": f"pkg:pypi/mypy@{version}",
        "licenses": _licences(about),
    }


def _interpreter(runtime: Runtime) -> dict[str, Any]:
    return {
        "type": "platform",
        "bom-ref": runtime.archive,
        "name": "CPython",
        "version": runtime.version,
        "purl": f"pkg:generic/cpython@{runtime.version}?file_name={runtime.archive}",
        "hashes": [{"alg": "SHA-256", "content": runtime.sha256}],
        "licenses": [{"license": {"id": "PSF-2.0"}}],
    }


def _licences(about: dict[str, list[str]]) -> list[dict[str, Any]]:
    """What its authors say: an SPDX expression, or else their own words."""
    for stated in about.get("license-expression", []):
        if SPDX.fullmatch(stated):
            return [{"expression": stated}]
    names = [each.rpartition(" :: ")[2] for each in about.get("classifier", []) if each.startswith("License :: ")]
    names = names or [each.splitlines()[0][:100] for each in about.get("license", []) if each.strip()]
    return [{"license": {"name": name}} for name in names]
