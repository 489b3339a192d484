"""The OpenAPI document: the one that is checked in, and true of the server, as schemathesis finds out."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.core.failures import FailureGroup
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

from llmgw_gateway.admin import openapi
from llmgw_gateway.admin.table import ROUTES
from tests.gateway.admin.office import Office

if TYPE_CHECKING:
    from llmgw_gateway.store.database import Database

HEAD_TOO_LARGE = 431
CHECKED_IN = Path(__file__).parents[3] / "docs" / "admin-openapi.json"
# Not that whatever fits a schema is done: a moment in the past, say, fits and is refused.
LEFT_OUT = [positive_data_acceptance]
# What is wrong with a query may be lost on the way (a parameter without a value is not sent): see test_edge.py.
LEFT_OUT_OF_QUERIES = [positive_data_acceptance, negative_data_rejection]


def test_the_document_that_is_checked_in_is_the_one_that_is_served() -> None:
    assert CHECKED_IN.read_bytes() == openapi.document(), "run: make openapi"


def test_every_endpoint_is_described_with_its_refusals() -> None:
    document = json.loads(openapi.document())
    described = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    assert described == {(route.method, route.path) for route in ROUTES}
    for methods in document["paths"].values():
        for operation in methods.values():
            assert {"200", "401", "403", "503"} <= operation["responses"].keys()
    assert document["security"] == [{"bearer": []}]


async def explored(office: Office, examples: int) -> list[str]:
    """What schemathesis finds at any endpoint, with requests that fit the document and requests that do not."""
    schema = schemathesis.openapi.from_dict(json.loads(openapi.document()))
    found: list[str] = []

    def explore(operation: Any, mode: GenerationMode) -> None:
        @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck), database=None)
        @given(case=operation.as_strategy(generation_mode=mode))
        def ask(case: Any) -> None:
            headers = {"Authorization": f"Bearer {office.token('admin')}"}
            response = case.call(base_url=office.url, headers=headers)
            if response.status_code != HEAD_TOO_LARGE:  # no refusal that a tester of schemas knows
                case.validate_response(
                    response, excluded_checks=LEFT_OUT if case.method == "POST" else LEFT_OUT_OF_QUERIES
                )

        ask()

    def everywhere() -> None:
        for result in schema.get_all_operations():
            assert isinstance(result, Ok), result
            operation = result.ok()
            for mode in GenerationMode:
                try:
                    explore(operation, mode)
                except Unsatisfiable:  # nothing can be wrong with a request that takes nothing
                    assert mode is GenerationMode.NEGATIVE
                except (Exception, FailureGroup) as error:  # noqa: BLE001 -- whatever it is, it is told with its place
                    found.append(f"{operation.label}: {error}")

    await asyncio.to_thread(everywhere)
    return found


async def test_the_server_does_what_the_document_says(database: Database, tmp_path: Path) -> None:
    office = Office(database, tmp_path)
    await office.open()
    try:
        found = await explored(office, 5)
    finally:
        await office.close()
    assert not found, "\n\n".join(found)


@pytest.mark.long
async def test_the_server_does_what_the_document_says_in_many_ways(office: Office) -> None:
    found = await explored(office, 100)
    assert not found, "\n\n".join(found)
