"""What tools are told so that their model calls go through the forwarder: variables that they know by themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

LOOPBACK: Final = ("127.0.0.1", "localhost")


def variables(answer: Mapping[str, Any], environ: Mapping[str, str]) -> dict[str, str]:
    """The variables for an answer of `POST /forward`. The secret in them is good on this machine only.

    An empty value blanks a credential of the caller's environment that would otherwise be sent to us.
    """
    url, secret, dialects = answer["url"], answer["secret"], answer["dialects"]
    found: dict[str, str] = {}
    if "anthropic" in dialects:
        found |= {"ANTHROPIC_BASE_URL": url, "ANTHROPIC_AUTH_TOKEN": secret, "ANTHROPIC_API_KEY": ""}
    if "bedrock" in dialects:
        found |= {"ANTHROPIC_BEDROCK_BASE_URL": f"{url}/bedrock", "AWS_ENDPOINT_URL_BEDROCK_RUNTIME": f"{url}/bedrock"}
        found["AWS_BEARER_TOKEN_BEDROCK"] = secret
    if "openai" in dialects:
        found |= {"OPENAI_BASE_URL": f"{url}/openai/v1", "OPENAI_API_KEY": secret}
    # Some clients ask a proxy even for this machine.
    spared = [host for host in (environ.get("NO_PROXY") or environ.get("no_proxy") or "").split(",") if host]
    spared += [host for host in LOOPBACK if host not in spared]
    return found | {"NO_PROXY": ",".join(spared), "no_proxy": ",".join(spared)}
