"""The platforms that packages are made for."""

from __future__ import annotations

from typing import Final

from llmgw_packaging.wheels import Target

PYTHONS: Final = ("3.11", "3.12", "3.13", "3.14")
"""The distribution's Python is used on Linux; a package brings what is compiled for each of these."""


def _linux(name: str, machine: str) -> Target:
    # glibc 2.17 to 2.28: Debian 10, Ubuntu 20.04 and RHEL 8 are newer than each of these.
    tags = tuple(f"{each}_{machine}" for each in ("manylinux_2_28", "manylinux_2_17", "manylinux2014"))
    return Target(name, "linux", machine, tags, PYTHONS)


LINUX: Final = {"amd64": _linux("linux-amd64", "x86_64"), "arm64": _linux("linux-arm64", "aarch64")}
"""By Debian's name of the architecture."""
