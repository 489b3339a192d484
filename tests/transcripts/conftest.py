from __future__ import annotations

from tests.lab.fixtures import canaille, ministack, oidc_provider, scripted, system

__all__ = ["canaille", "ministack", "oidc_provider", "scripted", "system"]
