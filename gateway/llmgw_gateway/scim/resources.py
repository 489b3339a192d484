"""Rows of the store as clients read them. Pure."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from llmgw_gateway.scim.attributes import GROUPS, USERS, Kind

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


def user_document(row: Any) -> dict[str, Any]:  # noqa: ANN401 -- a row
    """What a client may change of a person."""
    document: dict[str, Any] = json.loads(row.attributes)
    return document | {"active": row.inactive_at is None}


def directory_id(row: Any) -> str:  # noqa: ANN401 -- a row
    """By which id the directory knows a person."""
    return str(row.directory_id or row.person_id)


def user(row: Any, teams: Iterable[tuple[str, str]], base: str) -> dict[str, Any]:  # noqa: ANN401 -- a row
    """A person with their teams (id and name)."""
    groups = [{"value": each, "$ref": f"{base}/Groups/{each}", "display": name} for each, name in teams]
    shown = {"schemas": [USERS.schema], "id": directory_id(row)} | user_document(row)
    shown |= {"groups": groups} if groups else {}
    return shown | {"meta": _meta(USERS, base, directory_id(row), row.first_seen, row.changed_at)}


def group_document(row: Any, members: Iterable[str]) -> dict[str, Any]:  # noqa: ANN401 -- a row
    """What a client may change of a team."""
    document: dict[str, Any] = {"displayName": row.name}
    document |= {"externalId": row.external_id} if row.external_id else {}
    found = [{"value": each} for each in sorted(members)]
    return document | ({"members": found} if found else {})


def group(row: Any, members: Iterable[tuple[str, str]] | None, base: str) -> dict[str, Any]:  # noqa: ANN401 -- a row
    """A team with its members (id and name); None: they were not asked for."""
    shown = {"schemas": [GROUPS.schema], "id": row.team_id} | group_document(row, ())
    if members is not None:
        shown["members"] = [
            {"value": each, "$ref": f"{base}/Users/{each}", "type": "User"} | ({"display": name} if name else {})
            for each, name in members
        ]
    return shown | {"meta": _meta(GROUPS, base, row.team_id, row.made_at, row.changed_at)}


def version(changed_at: int) -> str:
    """The entity tag of a resource: it never has the same time of change twice."""
    return f'W/"{changed_at}"'


def chosen(resource: dict[str, Any], only: Sequence[str], without: Sequence[str]) -> dict[str, Any]:
    """What was asked for (RFC 7644 section 3.9). What it is and what it is called are always there."""
    if only:
        wanted = {name.lower().rpartition(":")[2].partition(".")[0] for name in only} | {"schemas", "id", "meta"}
        return {name: value for name, value in resource.items() if name.lower() in wanted}
    left_out = {name.lower().rpartition(":")[2] for name in without} - {"schemas", "id"}
    return {name: value for name, value in resource.items() if name.lower() not in left_out}


def _meta(kind: Kind, base: str, name: str, made_at: int, changed_at: int) -> dict[str, str]:
    return {
        "resourceType": kind.name,
        "created": _time(made_at),
        "lastModified": _time(max(made_at, changed_at)),
        "location": f"{base}/{kind.endpoint}/{name}",
        "version": version(changed_at),
    }


def _time(milliseconds: int) -> str:
    at = datetime.fromtimestamp(milliseconds / 1000, UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
