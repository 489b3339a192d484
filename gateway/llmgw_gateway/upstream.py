"""The sections `[bedrock]`, `[streams]` and `[[models]]` of the configuration."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated

from msgspec import Meta

from llmgw_gateway import faults
from llmgw_gateway.sections import Section

if TYPE_CHECKING:
    from pathlib import Path

Text = Annotated[str, Meta(min_length=1, max_length=2048)]
Seconds = Annotated[int, Meta(ge=1, le=86_400)]
_REGION = re.compile(r"[a-z]{2}(-[a-z]+)+-[0-9]")


class Bedrock(Section, frozen=True, kw_only=True):
    """The AWS account behind the gateway. Credentials come from the AWS default chain, never from this file."""

    region: Text
    endpoint: str = ""
    """Base URL of a Bedrock-compatible endpoint (VPC endpoint, test double); empty: AWS's own for the region."""
    bridge_file: str = ""
    """Rows for the table of what each model takes (`anthropic-beta` values, body fields); empty: as it ships."""
    connect_seconds: Seconds = 10
    first_byte_seconds: Seconds = 240
    """From the first dispatch to the head of an answer, fallbacks included: clients give up after 300."""
    first_content_seconds: Seconds = 300
    """From a dispatch to the first event of its stream."""
    idle_seconds: Seconds = 290
    """Silence in the middle of an answer. Clients that cannot be sent pings give up after 300."""
    idle_with_pings_seconds: Seconds = 600
    """The same for streams whose client is sent pings meanwhile."""
    total_seconds: Annotated[int, Meta(ge=1, le=3600)] = 3600
    """Well within the two hours for which the ledger waits for the truth about an attempt that it had to estimate."""

    def faults(self, base: Path) -> list[str]:
        """A region that is none, an endpoint that is not safe, a file that is not there."""
        found = faults.url_faults("endpoint", self.endpoint) if self.endpoint else []
        if not _REGION.fullmatch(self.region):
            found.append(f"region: {self.region!r} is not an AWS region such as us-east-1")
        if self.bridge_file:
            found += faults.path_faults("bridge_file", base / self.bridge_file)
        return found


class Streams(Section, frozen=True, kw_only=True):
    """How streamed answers are relayed."""

    gate_seconds: Seconds = 15
    """How long after dispatch the status line waits for the first event: until then a failure is still a status."""
    ping_seconds: Seconds = 15
    """Silence after which a client is sent a ping, where its dialect has one."""
    stall_seconds: Seconds = 60
    """A client that takes no byte for so long is gone."""
    drain_seconds: Seconds = 300
    """How long an answer whose client is gone is read on for its usage."""
    most_drains: Annotated[int, Meta(ge=0, le=100_000)] = 256
    """Answers that are read on at a time; more are charged as unknown."""


class Model(Section, frozen=True, kw_only=True):
    """A model that the gateway serves, by its name in the price catalogue."""

    name: Text
    target: str = ""
    """The Bedrock id, profile id or ARN that is invoked; empty: what the client named, or the region's profile."""
    fallbacks: tuple[Text, ...] = ()
    """Ids of the same model that are tried in this order when one refuses before it has begun to answer."""

    @property
    def identity(self) -> str:
        """No two models may have the same name."""
        return self.name
