"""What every package of one release bears."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from llmgw_agent import __version__

MAINTAINER: Final = "The llmgw authors <llmgw@localhost>"
"""Whoever publishes packages names themselves (`--maintainer`): their users turn to them."""


@dataclass(frozen=True, slots=True)
class Release:
    """Version, time and responsible of a build."""

    epoch: int
    """The time that files bear: seconds since 1970 (SOURCE_DATE_EPOCH)."""
    version: str = __version__
    maintainer: str = MAINTAINER
    """Name and address, as in a mail's From."""
