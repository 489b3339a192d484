"""The sections that say where models are asked, and how answers are relayed: `[bedrock]`, `[[models]]` and others."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Literal

from msgspec import Meta

from llmgw_gateway.sections import faults
from llmgw_gateway.sections.reading import Section, Text

if TYPE_CHECKING:
    from pathlib import Path

Seconds = Annotated[int, Meta(ge=1, le=86_400)]
_NAME = re.compile(r"[a-z][a-z0-9-]{0,31}")
_REGION = re.compile(r"[a-z]{2}(-[a-z]+)+-[0-9]")


class Bedrock(Section, frozen=True, kw_only=True):
    """The AWS account behind the gateway. Credentials come from the AWS default chain, never from this file.

    Without a region there is none: then every model needs targets of `[[regions]]` or `[[anthropic]]`.
    """

    region: str = ""
    """Empty: every model is asked elsewhere. The times and the table below hold for all upstreams."""
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
        if self.region and not _REGION.fullmatch(self.region):
            found.append(f"region: {self.region!r} is not an AWS region such as us-east-1")
        if self.endpoint and not self.region:
            found.append("region: is needed with an endpoint, because requests are signed for it")
        if self.bridge_file:
            found += faults.path_faults("bridge_file", base / self.bridge_file)
        return found


def _name_faults(name: str) -> list[str]:
    """A name of an upstream stands before a slash in a target: no ARN begins like one."""
    if _NAME.fullmatch(name):
        return []
    return [f"name: {name!r} has to be small letters, digits and hyphens, a letter first, at most 32"]


class Region(Section, frozen=True, kw_only=True):
    """Bedrock in another region, or of another account: what targets name as `name/id`. Its times are `[bedrock]`'s."""

    name: Text
    region: Text
    endpoint: str = ""
    """As in `[bedrock]`."""
    profile: str = ""
    """The profile of AWS's configuration files whose credentials are used, such as one with a role of its own; empty:
    the same as for `[bedrock]`."""

    @property
    def identity(self) -> str:
        """No two upstreams of a kind may have the same name."""
        return self.name

    def faults(self, base: Path) -> list[str]:  # noqa: ARG002 -- of a section
        """A name that no target could say, a region that is none, an endpoint that is not safe."""
        found = _name_faults(self.name) + (faults.url_faults("endpoint", self.endpoint) if self.endpoint else [])
        if not _REGION.fullmatch(self.region):
            found.append(f"region: {self.region!r} is not an AWS region such as us-west-2")
        return found


class Anthropic(Section, frozen=True, kw_only=True):
    """Anthropic's own API, or another that speaks its format: what targets name as `name/id`."""

    name: Text = "anthropic"
    endpoint: Text = "https://api.anthropic.com"
    """Base URL, without `/v1`."""
    key_file: Text
    """The API key, open to its owner only. Read again every minute, so that it can be changed."""
    credential: Literal["x-api-key", "bearer"] = "x-api-key"
    """The header in which the key is sent: Anthropic's own, or `Authorization: Bearer`."""
    cancel_stops_billing: bool = False
    """Whether an answer is billed only as far as it was read: then nothing is read for a client that has left."""

    @property
    def identity(self) -> str:
        """No two upstreams of a kind may have the same name."""
        return self.name

    def faults(self, base: Path) -> list[str]:
        """A name that no target could say, an endpoint that is not safe, a key that is missing or open to others."""
        found = _name_faults(self.name) + faults.url_faults("endpoint", self.endpoint)
        if self.endpoint.rstrip("/").endswith("/v1"):
            found.append("endpoint: must not end in /v1, which is added")
        key, wrong = faults.secret_file("key_file", base / self.key_file, "the API key")
        if key is not None and not faults.is_header_value(key):
            wrong.append("key_file: holds no API key: one line of printable characters without spaces is needed")
        return found + wrong


class Fallbacks(Section, frozen=True, kw_only=True):
    """How long a target that refused or failed is left alone while there is another."""

    rest_seconds: Annotated[int, Meta(ge=0, le=600)] = 5
    """After the first failure; each further one in a row doubles it. 0: targets are always asked in their order."""
    most_rest_seconds: Annotated[int, Meta(ge=1, le=3600)] = 60
    """What the doubling and a provider's `retry-after` end at."""


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
    """The Bedrock id, profile id or ARN that is invoked; empty: what the client named, or the region's profile.

    `name/id` is asked at the upstream of that name in `[[regions]]` or `[[anthropic]]`."""
    fallbacks: tuple[Text, ...] = ()
    """Targets of the same model that are tried in this order when one refuses before it has begun to answer."""

    @property
    def identity(self) -> str:
        """No two models may have the same name."""
        return self.name
