"""Claude Code's managed settings and our agent's, as an organisation wants them on one platform. Pure: no files."""

from __future__ import annotations

import json
import shlex
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Final

from llmgw_mdm import pin
from llmgw_mdm.presets import PRESETS, merged

if TYPE_CHECKING:
    from llmgw_mdm.organization import Organization

POLICY_HELPER: Final = "llmgw-policy"
HELPER_MS: Final = 10_000
"""Claude Code does not start if the helper takes longer; it answers within three seconds."""
REFRESH_MS: Final = 300_000
QUIET = {"CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1"}


def claude_code(org: Organization, platform: str) -> dict[str, Any]:
    """The managed settings of Claude Code: the same in every shape in which they are delivered."""
    wanted = org.claude
    found: dict[str, Any] = {
        "apiKeyHelper": helper_command(org.helpers[platform], platform),
        "allowedProviders": pin.ALLOWED_PROVIDERS,
        "requiredMinimumVersion": wanted.minimum_version,
        "env": _variables(org, platform),
    }
    if wanted.models:
        found |= {"availableModels": list(wanted.models), "enforceAvailableModels": True}
    if wanted.has_live_models and platform != "windows":
        helper = str(PurePosixPath(org.helpers[platform]).with_name(POLICY_HELPER))
        found["policyHelper"] = {"path": helper, "timeoutMs": HELPER_MS, "refreshIntervalMs": REFRESH_MS}
    if wanted.announcements:
        found["companyAnnouncements"] = list(wanted.announcements)
    for name in wanted.presets:
        found = merged(found, PRESETS[name][1])
    return merged(found, wanted.extra)


def agent(org: Organization, platform: str) -> dict[str, Any]:
    """What the company manages of our agent: `settings.py` of the agent says what each key means."""
    found: dict[str, Any] = {"gateway_url": org.gateway_url, "project_redirects": org.agent.project_redirects}
    if org.ca_files[platform]:
        found["ca_file"] = org.ca_files[platform]
    if org.agent.sign_in_methods:
        found["sign_in_methods"] = list(org.agent.sign_in_methods)
    if org.agent.forward_port is not None:
        found["forward_port"] = org.agent.forward_port
    return found


def claude_desktop(org: Organization, platform: str) -> dict[str, str]:
    """The managed settings of the desktop app: text only, as its vendor's reference of keys demands; lists are JSON.

    The helper is a path there, not a command: it is started without a shell.
    """
    found = {
        "inferenceProvider": "gateway",
        "inferenceGatewayBaseUrl": org.gateway_url,
        "inferenceGatewayAuthScheme": "bearer",
        "inferenceCredentialKind": "helper-script",
        "inferenceCredentialHelper": org.helpers[platform],
        "inferenceCredentialHelperTtlSec": str(org.claude.life_seconds),
    }
    if org.desktop is not None and org.desktop.models:
        found["inferenceModels"] = json.dumps(org.desktop.models)
    return found


def helper_command(path: str, platform: str) -> str:
    """The helper as the shell that runs it wants it: `/bin/sh -c`, or `cmd /d /s /c`, which splits at spaces."""
    return f'"{path}"' if platform == "windows" else shlex.quote(path)


def _variables(org: Organization, platform: str) -> dict[str, str]:
    wanted = org.claude
    found = pin.variables(
        wanted.dialect,
        org.gateway_url,
        ca_file=org.ca_files[platform],
        proxy=wanted.proxy,
        spared=",".join(["127.0.0.1", "localhost", *wanted.spared]),
        life_seconds=wanted.life_seconds,
    )
    if wanted.dialect == "bedrock":
        found["AWS_REGION"] = wanted.region
    if wanted.is_quiet:
        found |= QUIET
    if org.telemetry is not None:
        found |= {
            "CLAUDE_CODE_ENABLE_TELEMETRY": "1",
            "OTEL_METRICS_EXPORTER": "otlp",
            "OTEL_LOGS_EXPORTER": "otlp",
            "OTEL_EXPORTER_OTLP_ENDPOINT": org.telemetry.endpoint,
            "OTEL_EXPORTER_OTLP_PROTOCOL": org.telemetry.protocol,
            # What people ask and what tools return stays on the laptop, whatever a shell says.
            "OTEL_LOG_USER_PROMPTS": "0",
            "OTEL_LOG_TOOL_DETAILS": "0",
            "OTEL_LOG_RAW_API_BODIES": "0",
        }
    return dict(sorted(found.items()))
