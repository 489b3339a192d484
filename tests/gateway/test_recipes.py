"""What docs/identity-providers.md tells operators to write is a configuration that the gateway takes."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from llmgw_gateway import settings
from tests.gateway import configuration

DOCUMENT = Path(__file__).parents[2] / "docs" / "identity-providers.md"
PROVIDERS = ("Entra ID", "Okta", "Google", "Keycloak", "PingFederate", "GitHub Actions", "GitLab CI")


def test_the_recipe_of_each_provider_is_taken(tmp_path: Path) -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    chapters = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL))
    document = configuration.good()
    document["issuers"] = []
    for provider in PROVIDERS:
        (recipe,) = re.findall(r"^```toml\n(.*?)^```", chapters[provider], re.MULTILINE | re.DOTALL)
        document["issuers"] += tomllib.loads(recipe)["issuers"]
    taken = settings.load(configuration.write(configuration.folder(tmp_path), document)).issuers
    assert [each.issuer for each in taken] == [each["issuer"] for each in document["issuers"]]
    assert len(taken) == len(PROVIDERS)
