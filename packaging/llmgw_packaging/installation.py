"""What every `.msi` of ours does: puts a tree below Program Files, replaces what was there, and leaves nothing.

One feature, one component for each folder. An older version is taken off, all of it, before the newer one is put there,
in one transaction: so it does not matter what the rules of components would keep of either.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final

from llmgw_packaging import cabinet
from llmgw_packaging.msi import CABINET, About, Database, identifier
from llmgw_packaging.tree import File, Tree

if TYPE_CHECKING:
    from collections.abc import Iterable

    from llmgw_packaging.release import Release

PROGRAM_FILES: Final = "ProgramFiles64Folder"
FEATURE: Final = "Main"
IS_64_BIT: Final = 256
IS_REGISTRY_KEY_PATH: Final = 4
MACHINE: Final = 2
"""Of the registry's roots: HKEY_LOCAL_MACHINE."""
WHEN_REMOVED: Final = 2
COMPILED: Final = "__pycache__"
UP_TO_AND_WITH: Final = 512
LOOKING: Final = "FindRelatedProducts:25 AppSearch:50 LaunchConditions:100 ValidateProductID:700"
COSTING: Final = "CostInitialize:800 FileCost:900 CostFinalize:1000"
BEGINNING: Final = "InstallValidate:1400 InstallInitialize:1500"
SEQUENCES: Final = {
    "InstallExecuteSequence": f"{LOOKING} {COSTING} {BEGINNING} RemoveExistingProducts:1510 ProcessComponents:1600"
    " UnpublishFeatures:1800 RemoveRegistryValues:2600 RemoveEnvironmentStrings:3300 RemoveFiles:3500 InstallFiles:4000"
    " WriteRegistryValues:5000 WriteEnvironmentStrings:5200 RegisterUser:6000 RegisterProduct:6100 PublishFeatures:6300"
    " PublishProduct:6400 InstallFinalize:6600",
    "InstallUISequence": f"{LOOKING} {COSTING} ExecuteAction:1300",
    "AdminExecuteSequence": f"{COSTING} {BEGINNING} InstallAdminPackage:3900 InstallFiles:4000 InstallFinalize:6600",
    "AdminUISequence": f"{COSTING} ExecuteAction:1300",
    "AdvtExecuteSequence": f"{COSTING} {BEGINNING} PublishFeatures:6300 PublishProduct:6400 InstallFinalize:6600",
}
"""The installer's standard actions in the order that its reference suggests; an old version goes first."""
NEWER_IS_THERE: Final = (
    "A newer [ProductName] is on this machine. To go back to this one all the same: msiexec /i FILE DOWNGRADE=1"
)


Values = Mapping[str, str | int | list[str]]
"""Of the registry, by name: REG_SZ, REG_DWORD, REG_MULTI_SZ."""


@dataclass(frozen=True, slots=True)
class Product:
    """What is installed, and how Windows knows it."""

    file_name: str
    name: str
    """As Windows lists it."""
    release: Release
    version: str
    """Three numbers: at most 255, 255 and 65535."""
    family: str
    """Whatever has the same replaces each other, whatever its version."""
    tree: Tree
    """Below Program Files."""
    conditions: Mapping[str, str] = field(default_factory=dict)
    """Of folders of the tree: when their files are installed. Others always are."""
    names: Mapping[str, str] = field(default_factory=dict)
    """Of folders of the tree, for rows of other tables. Others get a number."""

    @property
    def upgrade_code(self) -> str:
        """The same for all versions."""
        return identifier("upgrade", self.family)

    @property
    def digest(self) -> str:
        """Of what is installed."""
        found = hashlib.sha256()
        for path, entry in self.tree.entries():
            content = entry.content if isinstance(entry, File) else b""
            found.update(f"{path}\n{len(content)}\n".encode() + content)
        return found.hexdigest()

    @property
    def product_code(self) -> str:
        """Another one for each content and time, so that any two builds replace each other."""
        return identifier("product", self.family, self.version, str(self.release.epoch), self.digest)

    @property
    def package_code(self) -> str:
        """Of the file: what a product is built from decides what is in it."""
        return identifier("package", self.product_code)

    @property
    def publisher(self) -> str:
        """As Windows lists it."""
        return self.release.maintainer.partition(" <")[0]


@dataclass(frozen=True, slots=True)
class Laid:
    """Where the tree's folders are, by their path: rows of the tables Directory and Component."""

    directories: dict[str, str]
    components: dict[str, str]
    files: dict[str, bytes]
    """Contents by their key, in the order of the cabinet."""


def describe(product: Product) -> tuple[Database, Laid]:
    """The tables that every product of ours has."""
    database = Database()
    code = product.product_code
    laid = _laid(database, product, code)
    _properties(
        database,
        {
            "ALLUSERS": "1",
            "ARPNOMODIFY": "1",
            "Manufacturer": product.publisher,
            # What runs from our folder is ended by an action of ours, and nobody is asked to.
            "MSIRESTARTMANAGERCONTROL": "Disable",
            "ProductCode": code,
            "ProductLanguage": "1033",
            "ProductName": product.name,
            "ProductVersion": product.version,
            # Every file is put there, whatever version of it was found: also when somebody goes back to an older one.
            "REINSTALLMODE": "amus",
            "UpgradeCode": product.upgrade_code,
        },
    )
    database.add("Feature", (FEATURE, "", product.name, "", 0, 1, "", 0))
    database.add("Media", (1, len(laid.files), "", f"#{CABINET}", "", ""))
    database.add(
        "Upgrade",
        (product.upgrade_code, "", product.version, "", UP_TO_AND_WITH, "", "OLDER"),
        (product.upgrade_code, product.version, "", "", 0, "", "NEWER"),
    )
    database.add("LaunchCondition", ("Installed OR DOWNGRADE OR NOT NEWER", NEWER_IS_THERE))
    for table, actions in SEQUENCES.items():
        for each in actions.split():
            action, _, at = each.partition(":")
            database.add(table, (action, "", int(at)))
    return database, laid


def secure(database: Database, *names: str) -> None:
    """Public properties that are passed on to the part of the installer that runs as SYSTEM."""
    _properties(database, {"SecureCustomProperties": ";".join(sorted({"DOWNGRADE", "NEWER", "OLDER", *names}))})


def put_registry(database: Database, name: str, condition: str, key: str, values: Values, folder: str) -> None:
    """Values below a key of HKEY_LOCAL_MACHINE, as one component.

    Args:
        database: Where to.
        name: Of the component.
        condition: When they are written; empty: always.
        key: Where they are.
        values: By name.
        folder: Identifier of a folder, which a component has to have and this one does not use.
    """
    rows = [(f"{name}.{each}", MACHINE, key, each, registry_value(value), name) for each, value in values.items()]
    database.add("Registry", *rows)
    about = (name, identifier("component", name, condition, repr(rows)), folder, IS_64_BIT | IS_REGISTRY_KEY_PATH)
    database.add("Component", (*about, condition, rows[0][0]))
    database.add("FeatureComponents", (FEATURE, name))


def finished(product: Product, laid: Laid) -> tuple[bytes, About]:
    """The cabinet and the summary, which `msi.build` wants beside the tables."""
    epoch = product.release.epoch
    about = About(
        title=f"{product.name} {product.version}",
        author=product.publisher,
        epoch=epoch,
        code=product.package_code,
    )
    return cabinet.build(laid.files, epoch), about


def registry_value(value: str | int | list[str]) -> str:
    """A value as the table Registry has it: REG_SZ, REG_DWORD or REG_MULTI_SZ."""
    if isinstance(value, int):
        return f"#{value}"
    if isinstance(value, str):
        return ("#" if value.startswith("#") else "") + escaped(value)
    return "[~]" + "".join(f"{escaped(each)}[~]" for each in value)


def escaped(text: str) -> str:
    """A text as the type Formatted has it, in which brackets mean something."""
    return "".join(f"[\\{letter}]" if letter in "[]{}" else letter for letter in text)


def _properties(database: Database, values: Mapping[str, str]) -> None:
    database.add("Property", *values.items())


def _laid(database: Database, product: Product, code: str) -> Laid:
    database.add("Directory", ("TARGETDIR", "", "SourceDir"), (PROGRAM_FILES, "TARGETDIR", "."))
    laid = Laid({".": PROGRAM_FILES}, {}, {})
    inside: dict[str, list[tuple[str, bytes]]] = {}
    for path, entry in product.tree.entries():
        if not isinstance(entry, File):
            raise ValueError(f"Windows has no symbolic links: {path}")  # noqa: TRY004 -- the tree's content is wrong
        inside.setdefault(str(PurePosixPath(path).parent), []).append((PurePosixPath(path).name, entry.content))
    for number, folder in enumerate(product.tree.folders()):
        parent, key = str(PurePosixPath(folder).parent), product.names.get(folder, f"folder{number}")
        name = _named(number, PurePosixPath(folder).name, "")
        database.add("Directory", (key, laid.directories[parent], name))
        laid.directories[folder] = key
        if files := inside.get(folder):
            _component(database, laid, (code, product.conditions.get(folder, "")), folder, files)
    return laid


def _component(
    database: Database, laid: Laid, about_it: tuple[str, str], folder: str, files: list[tuple[str, bytes]]
) -> None:
    directory = laid.directories[folder]
    component = laid.components[folder] = f"in.{directory}"
    first = len(laid.files)
    code, condition = about_it
    about = (component, identifier("component", code, folder), directory, IS_64_BIT, condition)
    database.add("Component", (*about, f"file{first}"))
    database.add("FeatureComponents", (FEATURE, component))
    for number, (name, content) in enumerate(files, first):
        key = f"file{number}"
        laid.files[key] = content
        named = _named(number, name, PurePosixPath(name).suffix)
        database.add("File", (key, component, named, len(content), "", "", "", number + 1))


def forget_compiled(database: Database, laid: Laid, product: Product, tops: Iterable[str], tag: str) -> None:
    """Let go with the product what an action of it has compiled: those are no files of the package.

    Args:
        database: Where to.
        laid: Where the tree's folders are.
        product: Whose they are.
        tops: Folders of the tree below which everything is compiled.
        tag: What the interpreter puts between a module's name and `.pyc`.
    """
    modules: dict[str, list[str]] = {}
    for path, _ in product.tree.entries():
        if path.endswith(".py") and any(path.startswith(f"{top}/") for top in tops):
            modules.setdefault(str(PurePosixPath(path).parent), []).append(PurePosixPath(path).stem)
    for folder, names in modules.items():
        component, compiled = laid.components[folder], f"{laid.directories[folder]}.compiled"
        database.add("Directory", (compiled, laid.directories[folder], f"COMPILED|{COMPILED}"))
        # One row for each: the installer knows wildcards, but Wine, which the tests run it by, does not.
        rows = [f"{number:08d}.PYC|{name}.{tag}.pyc" for number, name in enumerate(names)]
        rows.append("")  # the folder itself
        for number, name in enumerate(rows):
            database.add("RemoveFile", (f"{compiled}.{number}", component, name, compiled, WHEN_REMOVED))


def _named(number: int, name: str, ending: str) -> str:
    """Short and long name. The short one is made of a number: it has to be unique in its folder."""
    kept = "".join(letter for letter in ending[1:4].upper() if letter.isascii() and letter.isalnum())
    return f"{number:08d}{'.' + kept if kept else ''}|{name}"
