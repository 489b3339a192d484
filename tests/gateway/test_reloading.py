"""A changed configuration is taken into use whole or not at all, and whoever operates the gateway is told which."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from llmgw_gateway.commands.configuration import ConfigurationFile
from llmgw_gateway.errors import ConfigurationError
from llmgw_gateway.observe.metrics import Metrics
from llmgw_gateway.reloading import RESTART, Reloader, merge
from tests.gateway import configuration
from tests.gateway.test_commands import OWN

if TYPE_CHECKING:
    from llmgw_gateway.money.prices import Catalogue
    from llmgw_gateway.settings import Settings
    from tests.gateway.configuration import Document


DOCS = Path(__file__).parents[2] / "docs"
FOUR_BORDERS = 5
"""Cells of a line of a table with three columns, split at its borders."""


@dataclass
class Running:
    """A process that has read its file, and what it has taken into use since."""

    path: Path
    metrics: Metrics = field(default_factory=Metrics)
    taken: list[tuple[Settings, Catalogue]] = field(default_factory=list)
    refuses: bool = False

    def __post_init__(self) -> None:
        source = ConfigurationFile(self.path)
        self.reloader = Reloader(source, *source.read(), self.take, self.metrics)

    def take(self, settings: Settings, catalogue: Catalogue) -> None:
        if self.refuses:
            raise ConfigurationError("models", ["models[0].name: cannot be served"])
        self.taken.append((settings, catalogue))

    async def write(self, document: Document | str) -> str:
        """Change the file, have it looked at, and return what an operator is told."""
        if isinstance(document, str):
            self.path.write_text(document, encoding="utf-8")
        else:
            configuration.write(self.path, document)
        await self.reloader.reload(asked=True)
        return "\n".join(self.reloader.standing.lines())

    def metric(self, line: str) -> bool:
        return line in self.metrics.text().decode().splitlines()


@pytest.fixture
def running(tmp_path: Path) -> Running:
    return Running(configuration.write(configuration.folder(tmp_path), configuration.good()))


async def test_a_good_file_is_taken_into_use_and_an_unchanged_one_is_not(running: Running) -> None:
    told = await running.write(configuration.good())
    assert running.taken == []
    assert told.startswith("configuration: in force since ")
    document = configuration.good() | {"policies": [{"max_tokens": 5}], "limits": [{"level": "user", "concurrent": 3}]}
    told = await running.write(document)
    ((settings, _),) = running.taken
    assert (settings.policies[0].max_tokens, settings.limits[0].concurrent) == (5, 3)
    assert len(told.splitlines()) == 1
    assert running.metric('llmgw_configuration_reloads_total{result="applied"} 1.0')
    await running.write(document)
    assert len(running.taken) == 1


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ("[[policies", "is not valid TOML"),
        ({"policies": [{"max_tokens": 5}, {"models": ["gpt"]}]}, "policies[1].models: 'gpt' is not served here"),
        ({"models": [{"name": "gpt-5"}]}, "models[0].name: 'gpt-5' has no price"),
        ({"budgets": [{"level": "user", "limit_usd": 1}, {"level": "user"}]}, "budgets[1].limit_usd: give exactly one"),
        ({"prices": {"file": "absent.toml"}}, "prices.file: no such file"),
    ],
)
async def test_a_bad_file_is_refused_whole_and_the_last_one_stays(
    running: Running, caplog: pytest.LogCaptureFixture, bad: Any, said: str
) -> None:
    caplog.set_level(logging.INFO)
    told = await running.write(bad if isinstance(bad, str) else configuration.good() | bad)
    assert running.taken == []
    for place in (told, caplog.text):
        assert said in place
    assert "the last one stays" in told
    assert running.metric("llmgw_configuration_refused 1.0")
    assert running.metric('llmgw_configuration_reloads_total{result="refused"} 1.0')
    assert said not in await running.write(configuration.good())
    assert running.metric("llmgw_configuration_refused 0.0")
    assert running.taken == [], "nothing has changed in the end"


async def test_what_cannot_be_taken_into_use_leaves_everything_as_it_was(running: Running) -> None:
    running.refuses = True
    changed = configuration.good() | {"policies": [{"max_tokens": 5}]}
    assert "models[0].name: cannot be served" in await running.write(changed)
    running.refuses = False
    await running.write(changed)
    assert len(running.taken) == 1, "it is still seen as a change"


async def test_what_needs_a_restart_is_named_and_the_rest_is_taken(running: Running) -> None:
    document = configuration.good() | {"policies": [{"max_tokens": 5}]}
    document["server"] |= {"idle_seconds": 5, "body_seconds": 7}
    document["audit"]["path"] = "elsewhere.jsonl"
    document["tokens"] |= {"audience": "others", "life_seconds": 60}
    document["fallbacks"] = {"rest_seconds": 1}
    document["valkey"] = {"url": "redis://127.0.0.1:1/0"}
    document["organisation"] |= {"time_zone": "UTC", "contact": "#new"}
    told = await running.write(document)
    waiting = "server.idle_seconds, audit.path, tokens.audience, valkey, organisation.time_zone"
    assert f"waits for a restart: {waiting}" in told
    ((settings, _),) = running.taken
    assert (settings.server.idle_seconds, settings.organisation.time_zone) == (75, "Europe/Berlin")
    assert (settings.server.body_seconds, settings.tokens.life_seconds, settings.tokens.audience) == (7, 60, "llmgw")
    assert (settings.fallbacks.rest_seconds, settings.valkey.url) == (1, "")
    assert (settings.organisation.contact, len(settings.policies)) == ("#new", 1)


async def test_what_does_not_go_with_what_has_to_stay_is_refused(running: Running) -> None:
    # The journal would only be there after a restart: until then nothing could be set aside.
    document = configuration.good()
    document["store"]["journal"] = "journal"
    document["budgets"][0] |= {"when_store_away": "allowance", "allowance_usd": 5}
    assert "store.journal: is needed" in await running.write(document)
    assert running.taken == []


async def test_prices_are_part_of_it_and_a_model_that_is_gone_can_still_be_charged(running: Running) -> None:
    own = running.path.with_name("prices.toml")
    own.write_text(OWN.replace("claude-sonnet-4-5", NEXT), encoding="utf-8")
    document = configuration.good() | {"prices": {"file": own.name}}
    await running.write(document)
    own.write_text(OWN, encoding="utf-8")
    await running.write(document)
    (_, before), (_, after) = running.taken
    assert before.version != after.version
    assert "claude-next" in before.models
    assert "claude-next" in after.models


NEXT = """claude-next"
display_name = "N"
vendor = "a"
bedrock_id = "a.n"
max_output_tokens = 9
context_tokens = 9
kind = "text"""


async def test_a_file_is_read_when_it_has_come_to_rest(running: Running) -> None:
    reloader = running.reloader
    await reloader._look(asked=False)
    await reloader._look(asked=False)
    running.path.write_text("[[policies", encoding="utf-8")  # an editor in the middle of writing
    await reloader._look(asked=False)
    configuration.write(running.path, configuration.good() | {"policies": [{"max_tokens": 5}]})
    await reloader._look(asked=False)
    assert (running.taken, reloader.standing.faults) == ([], ())
    await reloader._look(asked=False)
    assert len(running.taken) == 1
    running.path.unlink()
    for _ in range(3):
        await reloader._look(asked=False)
    assert "cannot be read" in reloader.standing.faults[0]
    assert running.metric('llmgw_configuration_reloads_total{result="refused"} 1.0'), "said once, not every two seconds"


def test_every_section_is_either_taken_or_named(running: Running) -> None:
    settings, _ = ConfigurationFile(running.path).read()
    merged, waiting = merge(settings, settings)
    assert (merged, waiting) == (settings, [])
    for section, keys in RESTART.items():
        assert keys is None or keys <= {*getattr(settings, section).__struct_fields__}


def test_the_documentation_says_of_every_section_what_follows_a_reload(running: Running) -> None:
    settings, _ = ConfigurationFile(running.path).read()
    said = {
        cells[1].strip(" `"): (cells[2].strip(), set(re.findall(r"`(\w+)`", cells[3])))
        for line in (DOCS / "gateway.md").read_text(encoding="utf-8").splitlines()
        if len(cells := line.split("|")) == FOUR_BORDERS and cells[1].strip(" `") in settings.__struct_fields__
    }
    wanted = {name: ("yes", set[str]()) for name in settings.__struct_fields__ if name != "base"}
    wanted |= {name: ("all but", {*keys}) if keys else ("no", set()) for name, keys in RESTART.items()}
    assert said == wanted
