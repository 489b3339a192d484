"""What the demo is asked for, by environment variables; every contradiction is said before anything starts."""

from __future__ import annotations

import os
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_BUDGET = Decimal(20)
DEFAULT_REGION = "us-east-1"
# What the gateway needs to reach the real AWS from this machine; to everything else of the demo these never go.
AWS_NEEDS = ("HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy", "AWS_CA_BUNDLE")


class WishError(ValueError):
    """The demo cannot do what it was asked for."""


@dataclass(frozen=True)
class Wishes:
    """A checked order."""

    upstream: Literal["emulator", "aws", "endpoint"]
    endpoint: str
    region: str
    credentials: dict[str, str]
    """The gateway's alone. Empty: made per run."""
    budget_usd: Decimal
    once: bool
    folder: Path
    """Everything of the run lies here; emptied at the start."""
    has_display: bool


def read(environ: Mapping[str, str], *, folder: Path, macos: bool) -> Wishes:
    """Read DEMO_UPSTREAM, DEMO_BUDGET_USD, DEMO_FOLDER and ONCE; WishError says what is missing."""
    upstream = environ.get("DEMO_UPSTREAM", "")
    kind: Literal["emulator", "aws", "endpoint"] = (
        "aws" if upstream == "aws" else "endpoint" if upstream else "emulator"
    )
    if kind == "endpoint" and (urlsplit(upstream).scheme not in {"http", "https"} or not urlsplit(upstream).hostname):
        raise WishError(f"DEMO_UPSTREAM is {upstream!r}: say aws, or the URL of a Bedrock-compatible endpoint")
    if kind == "aws" and not environ.get("DEMO_BUDGET_USD"):
        raise WishError("DEMO_UPSTREAM=aws spends real money: say how much at most, such as DEMO_BUDGET_USD=1")
    credentials = {} if kind == "emulator" else _aws_variables(environ)
    if kind == "aws" and not credentials:
        raise WishError("DEMO_UPSTREAM=aws needs AWS credentials here: AWS_ACCESS_KEY_ID and the rest, or AWS_PROFILE")
    return Wishes(
        upstream=kind,
        endpoint=upstream.rstrip("/") if kind == "endpoint" else "",
        region=environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION") or DEFAULT_REGION,
        credentials=credentials,
        budget_usd=_budget(environ.get("DEMO_BUDGET_USD", "")),
        folder=Path(environ["DEMO_FOLDER"]).resolve() if environ.get("DEMO_FOLDER") else folder,
        once=environ.get("ONCE", "") not in {"", "0"},
        has_display=macos or bool(environ.get("DISPLAY") or environ.get("WAYLAND_DISPLAY")),
    )


def _budget(text: str) -> Decimal:
    try:
        budget = Decimal(text) if text else DEFAULT_BUDGET
    except InvalidOperation:
        budget = Decimal("NaN")
    if not budget.is_finite() or budget <= 0:
        raise WishError(f"DEMO_BUDGET_USD is {text!r}: say an amount above zero, such as 5 or 0.50")
    return budget


def _aws_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """The caller's AWS identity for the gateway process, and the way out to AWS."""
    if not environ.get("AWS_ACCESS_KEY_ID") and not environ.get("AWS_PROFILE"):
        return {}
    found = {name: value for name, value in environ.items() if name.startswith("AWS_") or name in AWS_NEEDS}
    files = {"AWS_CONFIG_FILE": "config", "AWS_SHARED_CREDENTIALS_FILE": "credentials"}
    home = Path(environ.get("HOME", os.curdir)).resolve()
    # The gateway has a HOME of its own here, so a profile is named by its files.
    return {name: str(home / ".aws" / file) for name, file in files.items()} | found
