"""What the agent is told: the company over the environment over the user's file over defaults.

Every fault is reported at once, with where it stands.

Settings are read once, when the daemon starts, and never change afterwards. There is no setting that weakens a
check: no "insecure", no plaintext store, no way to skip verification.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import platformdirs

from llmgw_agent import managed, system
from llmgw_agent.errors import ConfigurationError
from llmgw_agent.token_stub import profile_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

NAME: Final = "llmgw"
VARIABLES: Final = {
    "gateway_url": "LLMGW_GATEWAY_URL",
    "ca_file": "LLMGW_CA_FILE",
    "sign_in_methods": "LLMGW_SIGN_IN_METHODS",
    "forward_port": "LLMGW_FORWARD_PORT",
}
"""Key in the file -> environment variable that overrides it. A list is separated by commas there."""
FOR_COMPANIES: Final = {"project_redirects": ("refuse", "log")}
"""Keys that stand in a file of the company or nowhere, and their words, the default first."""
KINDS: Final[dict[str, tuple[type, str]]] = {
    "sign_in_methods": (list, "a list of strings"),
    "forward_port": (int, "a whole number"),
}
"""What the file holds for a key, and its name; for every other key a string."""
PORTS: Final = 65536
METHODS: Final = ("browser", "paste", "device")
"""Ways to sign in. Codes for other devices are how people are phished: that way is off unless a company wants it."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where everything lies. With LLMGW_HOME all of it is in that folder, without it where the OS wants it."""

    profile: str
    """Its name; empty for the first one."""
    home: Path
    """Holds the vault and its lock; its path names the profile in the keyring."""
    config: Path
    vault: Path
    lock: Path
    log: Path
    socket: Path
    relay: Path
    """The forwarder's unix socket."""
    door: Path
    """What the forwarder remembers of its port."""
    folders: tuple[Path, ...]
    """Where its sockets lie, on systems that have them."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The whole configuration of one daemon."""

    gateway_url: str
    """Scheme, host and port, perhaps a path; no slash at the end. https, or http on loopback."""
    ca_file: Path | None
    """PEM file of authorities trusted besides those of the operating system."""
    sign_in_methods: tuple[str, ...]
    """The ways to sign in that are allowed, of `METHODS`."""
    forward_port: int | None
    """Where the forwarder listens on 127.0.0.1; None: at a free port, once it is asked for; 0: nowhere."""
    project_redirects: str
    """What happens to Claude Code in a project that redirects its token: `refuse`, or `log` and no more."""
    places: Places
    sources: Mapping[str, str]
    """Where each setting that is not its default comes from: a file or a variable."""


@dataclass(frozen=True, slots=True)
class Layer:
    """What one place says about a setting."""

    value: str
    source: str
    """A file or a variable."""
    kind: str
    """`user`, `variable` or `company`."""


DEFAULTS: Final = {
    "gateway_url": "",
    "ca_file": "",
    "sign_in_methods": "browser,paste",
    "forward_port": "",
    "project_redirects": FOR_COMPANIES["project_redirects"][0],
}


def places(environ: Mapping[str, str]) -> Places:
    """Find the files of this user and profile. Nothing is created.

    ConfigurationError if LLMGW_HOME is relative, or LLMGW_PROFILE no name.
    """
    try:
        profile, socket = profile_of(dict(environ)), system.address(environ)
    except ValueError as error:
        raise ConfigurationError(str(error), "Run: llmgw profile list") from None
    below = Path("profiles", profile) if profile else Path()
    chosen = environ.get("LLMGW_HOME", "").rstrip("/")
    if chosen:
        home = Path(chosen) / below
        if not home.is_absolute():
            raise ConfigurationError(f"LLMGW_HOME is {chosen!r}", "Give it as an absolute path")
        config, log = home, home
    else:
        home = platformdirs.user_data_path(NAME, appauthor=False) / below
        config = platformdirs.user_config_path(NAME, appauthor=False) / below
        log = platformdirs.user_log_path(NAME, appauthor=False) / below
    return Places(
        profile=profile,
        home=home,
        config=config / "config.toml",
        vault=home / "vault.bin",
        lock=home / "agent.lock",
        log=log / "agent.log",
        socket=socket,
        relay=socket.with_name("relay.sock"),
        door=home / "forward.json",
        folders=(socket.parent,) if system.HAS_SOCKETS else (),
    )


def load(
    environ: Mapping[str, str], company: Sequence[Path] | None = None, company_owner: int = managed.ROOT
) -> Settings:
    """Read, check and merge. One ConfigurationError names every fault there is, with where it stands.

    Args:
        environ: The environment.
        company: Files that the company manages, the weakest first; by default those of this operating system.
        company_owner: Who alone may be able to write those.
    """
    where = places(environ)
    faults: list[str] = []
    found = _layers(where, environ, faults, company, company_owner)
    given = {key: layers[-1].value for key, layers in found.items()}
    sources = {key: layers[-1].source for key, layers in found.items()}
    gateway_url = given.get("gateway_url", "").rstrip("/")
    if not gateway_url:
        faults.append(f"no gateway is set (gateway_url in {where.config}, or LLMGW_GATEWAY_URL)")
    elif fault := url_fault(gateway_url):
        faults.append(f"{sources['gateway_url']}: gateway_url {fault}")
    ca_file = Path(given["ca_file"]).expanduser() if given.get("ca_file") else None
    if ca_file is not None and not (ca_file.is_absolute() and ca_file.is_file()):
        faults.append(f"{sources['ca_file']}: ca_file {str(ca_file)!r} is not the absolute path of a file")
    methods = tuple(word.strip() for word in given.get("sign_in_methods", DEFAULTS["sign_in_methods"]).split(","))
    faults += [
        f"{sources['sign_in_methods']}: sign_in_methods names {word!r} (there are: {', '.join(METHODS)})"
        for word in methods
        if word not in METHODS
    ]
    port = given.get("forward_port")
    if port is not None and not (port.isdecimal() and int(port) < PORTS):
        faults.append(f"{sources['forward_port']}: forward_port is not a port below {PORTS}, or 0 for none")
    for key, words in FOR_COMPANIES.items():
        if given.setdefault(key, words[0]) not in words:
            faults.append(f"{sources[key]}: {key} is {given[key]!r} (there are: {', '.join(words)})")
    if faults:
        raise ConfigurationError("; ".join(faults), "Correct this and repeat the command")
    return Settings(
        gateway_url=gateway_url,
        ca_file=ca_file,
        sign_in_methods=methods,
        forward_port=int(port) if port else None,
        project_redirects=given["project_redirects"],
        places=where,
        sources=sources,
    )


def explain(
    environ: Mapping[str, str], company: Sequence[Path] | None = None, company_owner: int = managed.ROOT
) -> tuple[dict[str, list[Layer]], list[str]]:
    """For every setting all that was said about it, the weakest first (none: its default), and the faults found."""
    faults: list[str] = []
    found = _layers(places(environ), environ, faults, company, company_owner)
    return {key: found.get(key, []) for key in (*VARIABLES, *FOR_COMPANIES)}, faults


def document_faults(path: Path, document: dict[str, Any]) -> list[str]:
    """What is wrong with settings that a company is about to manage. What they name need not be on this machine."""
    faults: list[str] = []
    known = _known(path, document, faults, is_company=True)
    if fault := url_fault(known.get("gateway_url", "https://unset")):
        faults.append(f"{path}: gateway_url {fault}")
    return faults


def _layers(
    where: Places, environ: Mapping[str, str], faults: list[str], company: Sequence[Path] | None, company_owner: int
) -> dict[str, list[Layer]]:
    """What each place says: the user's file, the environment, the company.

    The file of a named profile beats variables: a shell that names a gateway means that of the first profile, and the
    token of one gateway must never go to another.
    """
    found: dict[str, list[Layer]] = {}
    file = [(key, Layer(value, str(where.config), "user")) for key, value in _read_file(where.config, faults).items()]
    shell = [(key, Layer(environ[name], name, "variable")) for key, name in VARIABLES.items() if environ.get(name)]
    for key, layer in [*shell, *file] if where.profile else [*file, *shell]:
        found.setdefault(key, []).append(layer)
    for path, document in managed.read(managed.paths() if company is None else company, faults, company_owner):
        for key, value in _known(path, document, faults, is_company=True).items():
            found.setdefault(key, []).append(Layer(value, str(path), "company"))
    return found


def _read_file(path: Path, faults: list[str]) -> dict[str, str]:
    """The settings of the user's file."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        faults.append(f"{path} cannot be read ({error})")
        return {}
    return _known(path, document, faults)


def _known(path: Path, document: dict[str, Any], faults: list[str], *, is_company: bool = False) -> dict[str, str]:
    """The settings of a document, each as its variable would say it.

    Unknown ones are faults: a misspelt setting must not be ignored.
    """
    found = {}
    for key, value in document.items():
        kind, name = KINDS.get(key, (str, "a string"))
        if key in FOR_COMPANIES and not is_company:
            faults.append(f"{path}: {key} is for your company to set")
        elif key not in VARIABLES and key not in FOR_COMPANIES:
            faults.append(f"{path}: {key!r} is not a setting (there are: {', '.join(sorted(VARIABLES))})")
        elif isinstance(value, list) and kind is list and all(isinstance(word, str) for word in value):
            found[key] = ",".join(value)
        elif kind is not list and type(value) is kind:
            found[key] = str(value)
        else:
            faults.append(f"{path}: {key} is not {name}")
    return found


def is_loopback(host: str | None) -> bool:
    """Whether a URL's host is this machine by its spelling alone; no name is looked up."""
    if host == "localhost":
        return True
    try:
        return ip_address(host or "").is_loopback
    except ValueError:
        return False


def url_fault(url: str) -> str:
    """Why a token must not travel to this URL; empty if it may."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return "is not a URL"
    if not parts.hostname:
        return "has no host"
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(parts.hostname)):
        return "must begin with https:// (http:// is for this machine only)"
    if parts.username or parts.password:
        return "must not hold a user name or password"
    if parts.query or parts.fragment:
        return "must not have a query or fragment"
    return ""
