"""The gateway: packages for Linux with a systemd unit, and what its container image is built from.

The layout is the agent's, in /opt/llmgw-gateway. The image's files are an archive that `docker build -` and
`buildah bud -` take: nothing is downloaded while they build, so what was locked is what runs.
"""

from __future__ import annotations

import gzip
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from llmgw_packaging import compiled, deb, rpm
from llmgw_packaging.agent import Agent, libraries, sources
from llmgw_packaging.documents import FOLDER, REPOSITORY, for_debian, for_rpm, manuals
from llmgw_packaging.linux import RPM_ARCHITECTURES, RPM_SCRIPTS, above, rpm_python, rpm_summary
from llmgw_packaging.scripts import script
from llmgw_packaging.tree import RUNNABLE, Tree, archive
from llmgw_packaging.wheels import Target, fetch

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from llmgw_packaging.compiled import Compiled
    from llmgw_packaging.release import Release

HOME: Final = "opt/llmgw-gateway"
ANY: Final = f"{HOME}/lib/any"
ETC: Final = "etc/llmgw-gateway"
CONFIGURATION: Final = {f"{ETC}/gateway.toml": "gateway.toml", "etc/default/llmgw-gateway": "default"}
"""What an administrator edits, and which file of packaging/linux/gateway each begins as."""
LOCK: Final = REPOSITORY / "packaging" / "gateway.lock"
PACKAGES: Final = ("gateway/llmgw_gateway", "gateway/llmgw_wire")
IMAGE_PYTHON: Final = "3.13"
"""Of the base image that the Dockerfile names."""
COMMAND: Final = """\
#!/opt/llmgw-gateway/bin/python3 -I
from llmgw_gateway.main import main

if __name__ == "__main__":
    main()
"""
SUMMARY: Final = "language models of the company's cloud account, within budgets"
DESCRIPTION: Final = """\
The gateway trades sign-ins at the company's identity provider for tokens of
its own, and lets their bearers ask language models: each call is attributed,
held against budgets, signed, metered and settled.

It keeps its books in a file, or in PostgreSQL for several replicas.
"""


def build(
    target: Target,
    store: Path,
    release: Release,
    python: str = "/usr/bin/python3",
    modules: Sequence[Compiled] = (),
) -> Agent:
    """The gateway's files around the interpreter at `python`, with those compiled `modules` that this target loads.

    CompiledError if they were compiled from other source.
    """
    chosen = compiled.fitting(modules, target)
    tree = own()
    compiled.check(chosen, tree, ANY)
    compiled.add(tree, ANY, chosen)
    folder = python.rpartition("/")[0]
    tree.put(f"{HOME}/pyvenv.cfg", f"home = {folder}\ninclude-system-site-packages = false\n")
    tree.link(f"{HOME}/bin/python3", python)
    tree.put(f"{HOME}/bin/llmgw-gateway", COMMAND, RUNNABLE)
    about = f"Metadata-Version: 2.4\nName: llmgw\nVersion: {release.version}\nLicense-Expression: Apache-2.0\n"
    tree.put(f"{ANY}/llmgw-{release.version}.dist-info/METADATA", about)
    wheels = libraries(tree, HOME, {python: fetch(target, python, LOCK, store) for python in target.pythons})
    return Agent(tree, wheels, release, chosen)


def own() -> Tree:
    """Our source, where packages have it."""
    tree = Tree()
    sources(tree, ANY, PACKAGES)
    return tree


def debian(gateway: Agent, target: Target, architecture: str) -> deb.Package:
    """The Debian package. Its unit is not started: an administrator does that once the configuration is right."""
    oldest, newest = target.pythons[0], target.pythons[-1]
    overrides = ("gateway-overrides", "compiled-overrides")[: 2 if gateway.compiled else 1]
    glibc = ".".join(map(str, compiled.glibc(gateway.compiled)))
    return deb.Package(
        name="llmgw-gateway",
        release=gateway.release,
        architecture=architecture,
        summary=SUMMARY,
        description=DESCRIPTION,
        tree=for_debian(_served(gateway), "llmgw-gateway", gateway.release, *overrides),
        relations={
            "Depends": f"libc6 (>= {glibc}), python3 (>= {oldest}), python3 (<< {above(newest)}~), systemd",
        },
        scripts={name: script(f"deb/gateway.{name}") for name in ("postinst", "prerm", "postrm")},
        conffiles=tuple(f"/{path}" for path in CONFIGURATION),
        section="net",
    )


def redhat(gateway: Agent, target: Target, architecture: str) -> rpm.Package:
    """The RPM package. Its unit is not started either."""
    glibc = compiled.glibc(gateway.compiled)
    newer = (f"Requires: glibc >= {glibc[0]}.{glibc[1]}",) if glibc > compiled.OLDEST_GLIBC else ()
    return rpm.Package(
        name="llmgw-gateway",
        release=gateway.release,
        architecture=RPM_ARCHITECTURES[architecture],
        summary=rpm_summary(SUMMARY),
        description=DESCRIPTION,
        tree=for_rpm(_served(gateway), "llmgw-gateway"),
        relations=(
            rpm_python(target),
            *newer,
            "Requires: systemd",
            "Requires(post): /usr/bin/find",
            "Requires(post): systemd",
        ),
        scripts={name: script(f"rpm/gateway.{name}") for name in RPM_SCRIPTS},
        ghosts=frozenset({f"{HOME}/bin/python3"}),
        configuration=frozenset(CONFIGURATION),
    )


def _served(gateway: Agent) -> Tree:
    """With what a service of the system has around it: unit, user, configuration, manual."""
    tree = Tree()
    tree.merge(gateway.tree)
    tree.link("usr/bin/llmgw-gateway", f"/{HOME}/bin/llmgw-gateway")
    parts = FOLDER / "gateway"
    tree.put("usr/lib/systemd/system/llmgw-gateway.service", (parts / "llmgw-gateway.service").read_bytes())
    tree.put("usr/lib/sysusers.d/llmgw-gateway.conf", (parts / "sysusers.conf").read_bytes())
    for path, name in CONFIGURATION.items():
        tree.put(path, (parts / name).read_bytes())
    manuals(tree, ["llmgw-gateway"], gateway.release.version)
    return tree


def image(
    target: Target, store: Path, release: Release, python: str = IMAGE_PYTHON, modules: Sequence[Compiled] = ()
) -> tuple[bytes, Agent]:
    """What the image is built from, as a compressed archive, for a base with this Python; and what is in it."""
    target = replace(target, pythons=(python,))
    gateway = build(target, store, release, python="/usr/local/bin/python3", modules=modules)
    context = Tree()
    context.put("Dockerfile", (REPOSITORY / "packaging" / "container" / "Dockerfile").read_bytes())
    context.put("state/.keep", b"")
    context.put("root/opt/llmgw-gateway/LICENSE", (REPOSITORY / "LICENSE").read_bytes())
    for path, entry in gateway.tree.entries():
        context.add(f"root/{path}", entry)
    return gzip.compress(archive(context, release.epoch, prefix=""), compresslevel=6, mtime=0), gateway
