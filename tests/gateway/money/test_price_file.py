"""An operator's price file: merged row by row, traceable by the version, refused whole when it is not clear."""

from __future__ import annotations

import hashlib
from datetime import date
from typing import TYPE_CHECKING

import msgspec
import pytest

from llmgw_gateway.call import Usage
from llmgw_gateway.errors import ConfigurationError
from llmgw_gateway.money import catalogues, prices

if TYPE_CHECKING:
    from pathlib import Path

    from llmgw_gateway.money.prices import Catalogue

SHIPPED = catalogues.built_in(embeddings=True)
SONNET = "claude-sonnet-4-5"
DAY = date(2026, 11, 21)
NEW = """
name = "claude-next"
display_name = "Claude Next"
vendor = "anthropic"
bedrock_id = "anthropic.claude-next"
max_output_tokens = 64_000
context_tokens = 200_000
"""


def row(start: str = "2025-09-29", geography: str = "global", rate: int = 7, **more: object) -> str:
    classes = ("input", "output", "cache_read", "cache_write_5m", "cache_write_1h")
    keys = {"from": start, "geography": f'"{geography}"'} | dict.fromkeys(classes, rate) | more
    return "[[models.prices]]\n" + "".join(f"{key} = {value}\n" for key, value in keys.items() if value is not None)


def extended(*parts: str) -> Catalogue:
    return catalogues.extended(SHIPPED, "\n".join(parts).encode(), "prices.toml")


def faults(*parts: str) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        extended(*parts)
    assert caught.value.source == "prices.toml"
    return caught.value.faults


def test_the_version_names_both_files_and_fits_into_the_ledger() -> None:
    text = f'[[models]]\nname = "{SONNET}"\n{row()}'
    version = extended(text).version
    assert version == f"{SHIPPED.version}+{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    assert len(version) <= 32
    assert extended(text + "\n").version != version


def test_without_a_file_it_is_what_ships(tmp_path: Path) -> None:
    assert catalogues.load(None) == SHIPPED
    with pytest.raises(ConfigurationError) as caught:
        catalogues.load(tmp_path / "absent.toml")
    assert caught.value.faults == ["cannot be read: No such file or directory"]


def test_a_row_for_the_same_thing_replaces_and_any_other_is_added() -> None:
    before = SHIPPED.models[SONNET].prices
    more = row("2026-11-21", rate=8)
    longer = row(geography="regional", rate=9, context_over=200_000)
    after = extended(f'[[models]]\nname = "{SONNET}"', row(), more, longer)
    assert len(after.models[SONNET].prices) == len(before) + 1
    assert after.price(SONNET, geography="global", day=date(2026, 11, 20)).input == 7
    assert after.price(SONNET, geography="global", day=DAY).input == 8
    assert after.price(SONNET, geography="regional", day=DAY, prompt_tokens=200_001).input == 9
    unchanged = {"geography": "regional", "day": DAY}
    assert after.price(SONNET, **unchanged) == SHIPPED.price(SONNET, **unchanged)  # type: ignore[arg-type] # as named
    others = {name: model for name, model in after.models.items() if name != SONNET}
    assert others == {name: model for name, model in SHIPPED.models.items() if name != SONNET}


def test_a_row_tells_where_it_comes_from() -> None:
    merged = extended(f'[[models]]\nname = "{SONNET}"', row())
    rows = merged.in_force(SONNET, DAY)
    assert [merged.source(SONNET, each) for each in rows].count(SHIPPED.version) == len(rows) - 1
    assert merged.source(SONNET, rows[0]) == merged.version.partition("+")[2]


def test_other_keys_of_a_known_model_are_replaced_by_name_only() -> None:
    merged = extended(f'[[models]]\nname = "{SONNET}"\nmax_output_tokens = 32_000\naliases = ["sonnet"]')
    model = merged.models[SONNET]
    assert (model.max_output_tokens, model.aliases) == (32_000, ("sonnet",))
    assert model.prices == SHIPPED.models[SONNET].prices
    assert model.context_tokens == SHIPPED.models[SONNET].context_tokens
    assert merged.named("sonnet") is model
    assert merged.named("nobody") is None


def test_a_new_model_is_added() -> None:
    merged = extended("[[models]]", NEW, row(geography="regional"))
    assert merged.price("claude-next", geography="global", day=DAY).cost(Usage(input=1_000_000)) == 7
    assert merged.models["claude-next"].geographies == ("regional",)


def test_a_copy_of_what_ships_changes_no_price() -> None:
    copied = catalogues.extended(SHIPPED, catalogues._shipped("bedrock.toml").encode(), "prices.toml")
    for name, model in SHIPPED.models.items():
        assert sorted(copied.models[name].prices, key=repr) == sorted(model.prices, key=repr)


FAULTS = {
    "no TOML": (["models = ["], "is not valid TOML: "),
    "a number without end": (["version = " + "9" * 5000], "is not valid TOML: "),
    "an unknown key": (["discount = 1", "[[models]]", 'name = "x"'], "Object contains unknown field `discount`"),
    "no models": (["version = '1'"], "Object missing required field `models`"),
    "a new model without prices": (["[[models]]", NEW], "claude-next: has no price"),
    "a new model without caps": (['[[models]]\nname = "x"', row()], "x: Object missing required field `display_name`"),
    "a model without name": (["[[models]]", row()], "models[0]: Object missing required field `name`"),
    "a class without price": (
        ["[[models]]", NEW, row(output=None)],
        "claude-next.prices[0]: Object missing required field `output`",
    ),
    "a fraction": (["[[models]]", NEW, row(rate=1.5)], "claude-next.prices[0].input: Expected `int`, got `float`"),  # type: ignore[arg-type] # that is the fault
    "no number": (["[[models]]", NEW, row(output='"5"')], "claude-next.prices[0].output: Expected `int`, got `str`"),
    "below nothing": (["[[models]]", NEW, row(rate=-1)], "claude-next.prices[0].input: Expected `int` >= 0"),
    "beyond reason": (["[[models]]", NEW, row(rate=10**13)], "claude-next.prices[0].input: Expected `int` <= 1000000"),
    "only long prompts": (
        ["[[models]]", NEW, row(context_over=5)],
        "claude-next: has no standard price for every prompt (context_over = 0)",
    ),
    "no output": (
        ["[[models]]", NEW.replace("64_000", "0"), row()],
        "claude-next.max_output_tokens: must be at least 1",
    ),
    "a model twice": ([f'[[models]]\nname = "{SONNET}"'] * 2, f"{SONNET}: stands there twice"),
    "a row twice": (
        [f'[[models]]\nname = "{SONNET}"', row(), row(rate=8)],
        f"{SONNET}.prices: two rows for global prompts from 2025-09-29",
    ),
    "another's name": (
        ["[[models]]", NEW + 'aliases = ["claude-opus-4-5"]', row()],
        "claude-opus-4-5: names both claude-opus-4-5 and claude-next",
    ),
}


@pytest.mark.parametrize("case", FAULTS)
def test_a_file_that_is_not_clear_is_refused_with_the_place(case: str) -> None:
    parts, sentence = FAULTS[case]
    (found,) = faults(*parts)
    assert found.startswith(sentence)


def test_all_faults_are_told_at_once() -> None:
    assert len(faults("[[models]]", NEW, row(rate=-1), '[[models]]\nname = "x"', row(), "[[models]]")) == 3


def test_what_is_no_text_is_refused() -> None:
    with pytest.raises(ConfigurationError) as caught:
        catalogues.extended(SHIPPED, b"\xff\xfe", "prices.toml")
    assert caught.value.faults == ["is not UTF-8 text"]


EMBEDDINGS = [model for model in SHIPPED.models.values() if model.kind == "embedding"]


def test_embedding_models_ship_beside_the_others_under_one_version() -> None:
    assert {model.vendor for model in EMBEDDINGS} == {"amazon", "cohere"}
    assert catalogues.parse(catalogues._shipped("embeddings.toml"), "test").version == SHIPPED.version
    assert not {model.name for model in EMBEDDINGS} & set(catalogues.built_in().models)


@pytest.mark.parametrize("model", EMBEDDINGS, ids=lambda model: model.name)
def test_an_embedding_costs_its_input_and_nothing_that_it_might_report_is_free(model: prices.CatalogueModel) -> None:
    for geography in model.geographies:
        price = SHIPPED.price(model.name, geography=geography, day=DAY)
        assert price.geography == geography
        assert price.cost(Usage(input=1_000_000)) == price.input > 0
        assert price.cost(Usage(output=1_000_000, cache_read=1_000_000)) == 2 * price.input


def test_an_embedding_model_of_your_own_may_say_that_output_is_free() -> None:
    text = NEW.replace("max_output_tokens = 64_000", 'kind = "embedding"')
    merged = extended("[[models]]", text, "[[models.prices]]\nfrom = 2026-01-01\ninput = 20_000\noutput = 0")
    (price,) = merged.models["claude-next"].prices
    assert msgspec.structs.asdict(price) | {"output": 0, "input": 20_000, "cache_read": 20_000} == (
        msgspec.structs.asdict(price)
    )


def test_a_text_model_needs_every_class_even_beside_a_known_embedding_model() -> None:
    (found,) = faults('[[models]]\nname = "titan-embed-text-v2"\nkind = "text"', row(output=None))
    assert found == "titan-embed-text-v2.prices[0]: Object missing required field `output`"
