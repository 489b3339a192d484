"""Where a target processes prompts, as far as its name and its upstream's region tell. Pure.

Source: Amazon Bedrock user guide, "Supported Regions and models for inference profiles": an id that begins with a
geography is processed within that geography, `global.` anywhere, an id without one in the region that it is asked in.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from llmgw_gateway.call import GEOGRAPHIES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llmgw_gateway.call import Target
    from llmgw_gateway.sections.permitting import Permission

_NARROWER: Final = (
    ("us-gov-", "us-gov"),
    ("ap-northeast-1", "jp"),
    ("ap-northeast-3", "jp"),
    ("ap-southeast-2", "au"),
    ("ap-southeast-4", "au"),
    ("ap-south-", "in"),
    ("ap-", "apac"),
)
"""Geographies of regions whose names do not begin with them."""
_ARN: Final = re.compile(r"arn:[a-z-]+:bedrock:(?P<region>[a-z0-9-]*):[0-9]*:(?P<kind>[a-z-]+)/(?P<id>.+)")
OWN: Final = "bedrock"
"""What the upstream of the section `[bedrock]` is called."""


def processed_in(target: Target, regions: Mapping[str, str]) -> frozenset[str]:
    """The geographies and regions of which each holds all places where a target is processed; none: nobody can tell.

    `regions` are those of the upstreams by name, "" for the one of `[bedrock]`.
    """
    region, name = regions.get(target.upstream, ""), target.invoke_id
    arn = _ARN.fullmatch(name)
    if arn is not None:
        if arn["kind"] == "application-inference-profile":  # it may stand for any
            return frozenset()
        region, name = arn["region"] or region, arn["id"]
    prefix = name.split(".", 1)[0]
    if prefix in GEOGRAPHIES:
        return frozenset({prefix})
    if not region:
        return frozenset()
    broad = next((geography for start, geography in _NARROWER if region.startswith(start)), region.split("-", 1)[0])
    return frozenset({broad, region})


def admits(entry: Permission, target: Target, regions: Mapping[str, str]) -> bool:
    """Whether a policy allows a target."""
    if entry.upstreams and (target.upstream or OWN) not in entry.upstreams:
        return False
    return not entry.geographies or not processed_in(target, regions).isdisjoint(entry.geographies)


def bounds(entry: Permission) -> str:
    """What a policy says of targets, in words."""
    said = []
    if entry.geographies:
        said.append(f"processed in {' or '.join(entry.geographies)}")
    if entry.upstreams:
        said.append(f"asked at {' or '.join(entry.upstreams)}")
    return " and ".join(said)
