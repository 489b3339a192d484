"""Windows Installer databases (`.msi`): tables and a cabinet, put together by msibuild (msitools).

msibuild is handed tables in the format of their archive files (.idt) and writes the database; it decides nothing else,
so what stands here is what is in the file. Names and columns are those of the Windows Installer reference.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from llmgw_packaging.rpm import ToolError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

NAMESPACE: Final = uuid.UUID("0d4b7c1e-4f0c-5f1c-9a53-7f6f6b2b9e10")
"""Of every identifier in a package: they follow from what is in it, and never from chance."""
CABINET: Final = "files.cab"
SCHEMA: Final = 500
"""Of the database: Windows Installer 5.0, which every supported Windows has."""
TABLES: Final = {
    "AdminExecuteSequence": "Action:s72* Condition:S255 Sequence:I2",
    "AdminUISequence": "Action:s72* Condition:S255 Sequence:I2",
    "AdvtExecuteSequence": "Action:s72* Condition:S255 Sequence:I2",
    "AppSearch": "Property:s72* Signature_:s72*",
    "Component": "Component:s72* ComponentId:S38 Directory_:s72 Attributes:i2 Condition:S255 KeyPath:S72",
    "CustomAction": "Action:s72* Type:i2 Source:S72 Target:S255 ExtendedType:I4",
    "Directory": "Directory:s72* Directory_Parent:S72 DefaultDir:l255",
    "DrLocator": "Signature_:s72* Parent:S72* Path:S255* Depth:I2",
    "Environment": "Environment:s72* Name:l255 Value:L255 Component_:s72",
    "Error": "Error:i2* Message:L0",
    "Feature": "Feature:s38* Feature_Parent:S38 Title:L64 Description:L255 Display:I2 Level:i2 Directory_:S72"
    " Attributes:i2",
    "FeatureComponents": "Feature_:s38* Component_:s72*",
    "File": "File:s72* Component_:s72 FileName:l255 FileSize:i4 Version:S72 Language:S20 Attributes:I2 Sequence:i2",
    "InstallExecuteSequence": "Action:s72* Condition:S255 Sequence:I2",
    "InstallUISequence": "Action:s72* Condition:S255 Sequence:I2",
    "LaunchCondition": "Condition:s255* Description:l255",
    "Media": "DiskId:i2* LastSequence:i4 DiskPrompt:L64 Cabinet:S255 VolumeLabel:S32 Source:S72",
    "Property": "Property:s72* Value:l0",
    "RegLocator": "Signature_:s72* Root:i2 Key:s255 Name:S255 Type:I2",
    "Registry": "Registry:s72* Root:i2 Key:l255 Name:L255 Value:L0 Component_:s72",
    "RemoveFile": "FileKey:s72* Component_:s72 FileName:L255 DirProperty:s72 InstallMode:i2",
    "Signature": "Signature:s72* FileName:s255 MinVersion:S20 MaxVersion:S20 MinSize:I4 MaxSize:I4 MinDate:I4"
    " MaxDate:I4 Languages:S255",
    "Upgrade": "UpgradeCode:s38* VersionMin:S20* VersionMax:S20* Language:S255* Attributes:i4* Remove:S255"
    " ActionProperty:s72",
}
"""Columns with their types, and a star at those of the primary key."""
CONTROL: Final = str.maketrans({"\t": "\x10", "\r": "\x11", "\n": "\x19"})
Row = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class About:
    """The summary of a database, which Windows reads before anything else."""

    title: str
    author: str
    epoch: int
    """The time that it bears, in seconds since 1970."""
    code: str
    """Of the package, a GUID: another one for each content."""


@dataclass(slots=True)
class Database:
    """Rows by table, in the order in which they were added."""

    tables: dict[str, list[Row]] = field(default_factory=dict)

    def add(self, table: str, *rows: Row) -> None:
        """Rows of a table of TABLES; ValueError if one has another number of columns."""
        width = len(TABLES[table].split())
        for row in rows:
            if len(row) != width:
                raise ValueError(f"a row of {table} has {width} columns: {row}")
            self.tables.setdefault(table, []).append(row)


def identifier(*parts: str) -> str:
    """A GUID that follows from a name, in the form that the installer reads."""
    return "{" + str(uuid.uuid5(NAMESPACE, "\n".join(parts))).upper() + "}"


def build(database: Database, cabinet: bytes, about: About) -> bytes:
    """The `.msi`. ToolError if msibuild is missing or refuses."""
    program = shutil.which("msibuild")
    if program is None:
        raise ToolError("there is no msibuild on this machine. Install msitools, or leave out: --format msi")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        texts = {table: _archived(table, rows) for table, rows in sorted(database.tables.items())}
        texts = {"_ForceCodepage": "\r\n\r\n65001\t_ForceCodepage\r\n", **texts, "_SummaryInformation": _summary(about)}
        for table, text in texts.items():
            (folder / f"{table}.idt").write_bytes(text.encode())
        (folder / CABINET).write_bytes(cabinet)
        done = subprocess.run(  # noqa: S603 -- a tool of the machine, with words of ours
            [program, "made.msi", "-i", *(f"{table}.idt" for table in texts), "-a", CABINET, CABINET],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        made = folder / "made.msi"
        if done.returncode or not made.is_file():
            raise ToolError(f"msibuild failed: {(done.stderr or done.stdout).strip()[-2000:]}")
        return made.read_bytes()


def _archived(table: str, rows: Iterable[Row]) -> str:
    columns = [each.rstrip("*").split(":") for each in TABLES[table].split()]
    keys = [each.partition(":")[0] for each in TABLES[table].split() if each.endswith("*")]
    lines: list[Sequence[str]] = [[name for name, _ in columns], [kind for _, kind in columns], [table, *keys]]
    lines += [[str(cell).translate(CONTROL) for cell in row] for row in rows]
    return "".join("\t".join(line) + "\r\n" for line in lines)


def _summary(about: About) -> str:
    when = datetime.fromtimestamp(about.epoch, UTC).strftime("%Y/%m/%d %H:%M:%S")
    properties = {
        1: 65001,
        2: "Installation Database",
        3: about.title,
        4: about.author,
        5: "Installer",
        7: "x64;1033",
        9: about.code,
        12: when,
        13: when,
        14: SCHEMA,
        15: 2,  # one cabinet inside, long file names, installed for all with an administrator's rights
        18: "llmgw",
        19: 2,  # for reading
    }
    lines = ["PropertyId\tValue", "i2\tl255", "_SummaryInformation\tPropertyId"]
    lines += [f"{number}\t{value}" for number, value in properties.items()]
    return "".join(f"{line}\r\n" for line in lines)
