"""`make openapi`: writes the document of the Admin API where it is checked in."""

from __future__ import annotations

from pathlib import Path

from llmgw_gateway.admin import openapi

if __name__ == "__main__":
    Path("docs/admin-openapi.json").write_bytes(openapi.document())
