"""What the gateway can do, as clients ask for it (RFC 7643 sections 5 to 7). Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from llmgw_gateway.scim.attributes import KINDS, Kind, definition

if TYPE_CHECKING:
    from collections.abc import Sequence

SCHEMAS: Final = "urn:ietf:params:scim:schemas:core:2.0:"
LIST: Final = "urn:ietf:params:scim:api:messages:2.0:ListResponse"
MOST_RESULTS: Final = 200
"""Resources in one answer."""


def configuration(base: str) -> dict[str, Any]:
    """ServiceProviderConfig. `base`: the address under which SCIM is served."""
    return {
        "schemas": [f"{SCHEMAS}ServiceProviderConfig"],
        "patch": {"supported": True},
        "bulk": {"supported": False, "maxOperations": 0, "maxPayloadSize": 0},
        "filter": {"supported": True, "maxResults": MOST_RESULTS},
        "changePassword": {"supported": False},
        "sort": {"supported": False},
        "etag": {"supported": True},
        "authenticationSchemes": [
            {
                "type": "oauthbearertoken",
                "name": "Bearer token",
                "description": "A service key that was made with --scim, as `Authorization: Bearer`.",
                "specUri": "https://www.rfc-editor.org/rfc/rfc6750",
                "primary": True,
            }
        ],
        "meta": _meta("ServiceProviderConfig", f"{base}/ServiceProviderConfig"),
    }


def resource_types(base: str) -> list[dict[str, Any]]:
    """ResourceTypes."""
    return [
        {
            "schemas": [f"{SCHEMAS}ResourceType"],
            "id": kind.name,
            "name": kind.name,
            "description": kind.description,
            "endpoint": f"/{kind.endpoint}",
            "schema": kind.schema,
            "meta": _meta("ResourceType", f"{base}/ResourceTypes/{kind.name}"),
        }
        for kind in KINDS
    ]


def schemas(base: str) -> list[dict[str, Any]]:
    """Schemas: exactly the attributes that are kept."""
    return [_schema(base, kind) for kind in KINDS]


def _schema(base: str, kind: Kind) -> dict[str, Any]:
    return {
        "schemas": [f"{SCHEMAS}Schema"],
        "id": kind.schema,
        "name": kind.name,
        "description": kind.description,
        "attributes": [definition(each) for each in kind.attributes],
        "meta": _meta("Schema", f"{base}/Schemas/{kind.schema}"),
    }


def listed(resources: Sequence[dict[str, Any]], total: int, start: int = 1) -> dict[str, Any]:
    """A ListResponse: also for one resource, and for none (RFC 7644 section 3.4.2)."""
    return {
        "schemas": [LIST],
        "totalResults": total,
        "startIndex": start,
        "itemsPerPage": len(resources),
        "Resources": list(resources),
    }


def _meta(kind: str, location: str) -> dict[str, str]:
    return {"resourceType": kind, "location": location}
