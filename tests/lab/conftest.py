from __future__ import annotations

from tests.lab.fixtures import canaille, glewlwyd, ministack, oidc_provider, recorder, scripted, system

__all__ = ["canaille", "glewlwyd", "ministack", "oidc_provider", "recorder", "scripted", "system"]
