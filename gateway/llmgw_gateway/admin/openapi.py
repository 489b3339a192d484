"""The Admin API as an OpenAPI 3.1 document, made from the table of its endpoints and the types that it takes."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import Struct

from llmgw_gateway.admin.asking import Nothing
from llmgw_gateway.admin.table import ROUTES

if TYPE_CHECKING:
    from llmgw_gateway.admin.asking import Route

PREFIX: Final = "#/components/schemas/{name}"
REFUSALS: Final = {
    "400": "The request cannot be used, or the caller was disabled.",
    "401": "No credential, or one that is not good.",
    "403": "The caller has no role that may do this.",
    "404": "There is no such thing, or it is not the caller's to see.",
    "405": "The path has other methods.",
    "409": "It cannot be done as things are.",
    "429": "Too many questions in a minute.",
    "431": "The head of the request is too large.",
    "503": "The store does not answer.",
}


class Refused(Struct, frozen=True):
    """Why not. `code` is one of those in api.md."""

    type: str
    message: str
    code: str


class Refusal(Struct, frozen=True):
    """Every answer that is not 200."""

    type: str
    request_id: str
    error: Refused


@cache
def document() -> bytes:
    """The document as it is served: the same bytes in every replica of a version."""
    return msgspec.json.format(msgspec.json.encode(_document(), order="sorted"), indent=2) + b"\n"


def _document() -> dict[str, Any]:
    kinds = {each for route in ROUTES for each in (route.answer, route.given) if each is not Nothing} | {Refusal}
    # In one order whatever the order of a set: names that occur twice would be told apart by it.
    _, components = msgspec.json.schema_components(sorted(kinds, key=lambda kind: kind.__name__), ref_template=PREFIX)
    queries = {route.given.__name__ for route in ROUTES if route.method != "POST"}
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, components)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "llmgw Admin API",
            "version": "1",
            "description": "What administrators see and change. Amounts are micro-USD or tokens, moments RFC 3339.",
        },
        "security": [{"bearer": []}],
        "paths": paths,
        "components": {
            "schemas": {name: schema for name, schema in components.items() if name not in queries},
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(route: Route, components: dict[str, Any]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": route.action,
        "summary": route.summary,
        "description": f"Roles: {', '.join(sorted(route.roles))}.",
        "responses": {"200": _content("Done.", route.answer)}
        | {status: _content(text, Refusal) for status, text in REFUSALS.items()},
    }
    parameters = [
        {
            "name": part[1:-1],
            "in": "path",
            "required": True,
            "schema": {"type": "string", "minLength": 1, "maxLength": 200},
        }
        for part in route.parts
        if part.startswith("{")
    ]
    if route.method == "POST":
        if route.given is not Nothing:
            operation["requestBody"] = {"required": True, "content": _json(route.given)}
        parameters.append(
            {
                "name": "Idempotency-Key",
                "in": "header",
                "required": False,
                "description": "A request that is repeated with the same key changes nothing more.",
                "schema": {"type": "string", "maxLength": 255, "pattern": "^[A-Za-z0-9_-]+$"},
            }
        )
    elif route.given is not Nothing:
        schema = components[route.given.__name__]
        required = schema.get("required", ())
        parameters += [
            {"name": name, "in": "query", "required": name in required, "schema": each}
            for name, each in schema["properties"].items()
        ]
    return operation | ({"parameters": parameters} if parameters else {})


def _content(text: str, kind: type[Struct]) -> dict[str, Any]:
    return {"description": text, "content": _json(kind)}


def _json(kind: type[Struct]) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": PREFIX.format(name=kind.__name__)}}}
