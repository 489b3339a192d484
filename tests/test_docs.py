"""What is documented exists, and what exists is documented."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from llmgw_agent.cli import main as agent_main
from llmgw_agent.settings import VARIABLES
from llmgw_gateway.main import main as gateway_main
from llmgw_gateway.settings import Settings
from llmgw_wire import headers
from llmgw_wire.errors import TABLE

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


def first_column(text: str) -> list[str]:
    """The code words of the first column of every table."""
    return re.findall(r"^\| `([^`]+)`", text, re.MULTILINE)


def settings_keys() -> set[str]:
    """Every key of the configuration as the documentation writes it."""
    keys = set()
    for section in msgspec.structs.fields(Settings):
        info = msgspec.inspect.type_info(section.type)
        struct = getattr(info, "item_type", info)
        if isinstance(struct, msgspec.inspect.StructType):
            keys |= {f"{section.name}.{field.name}" for field in msgspec.structs.fields(struct.cls)}
    return keys


def test_every_setting_is_documented_and_nothing_else() -> None:
    text = (DOCS / "gateway.md").read_text(encoding="utf-8")
    assert {key for key in first_column(text) if "." in key} == settings_keys()


def test_every_setting_of_the_agent_is_documented_with_its_variable() -> None:
    rows = re.findall(r"^\| `(\w+)` \| `(LLMGW_\w+)` ", (DOCS / "agent.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert dict(rows) == VARIABLES


def test_every_error_code_is_documented_with_its_status() -> None:
    rows = re.findall(r"^\| `([a-z_]+)` \| (\d{3}) ", (DOCS / "api.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert {code: int(status) for code, status in rows} == {code.value: wire.status for code, wire in TABLE.items()}


def test_every_header_of_ours_is_documented() -> None:
    text = (DOCS / "api.md").read_text(encoding="utf-8")
    names = (headers.REQUEST_ID, headers.LLMGW_REQUEST_ID, headers.COST, headers.BUDGET_REMAINING, headers.TARGET)
    assert all(f"`{name}`" in text for name in (*names, headers.SHOULD_RETRY))


@pytest.mark.parametrize(("command", "document"), [(agent_main, "agent.md"), (gateway_main, "gateway.md")])
def test_every_command_is_documented(command: object, document: str) -> None:
    text = (DOCS / document).read_text(encoding="utf-8")
    names = re.findall(r"^  ([a-z]+) ", CliRunner().invoke(command, ["--help"]).output, re.MULTILINE)  # type: ignore[arg-type] # click's decorators hide the group
    assert names
    for name in names:
        assert f"`llmgw {name}" in text or f"llmgw-gateway {name}" in text, name


def test_every_link_within_the_documentation_leads_somewhere() -> None:
    for page in [ROOT / "README.md", *DOCS.rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
