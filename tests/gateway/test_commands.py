"""`llmgw-gateway` as an operator sees it: words, columns, streams, exit statuses; never a traceback."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from llmgw_gateway.call import Usage
from llmgw_gateway.commands import tables
from llmgw_gateway.main import main
from llmgw_gateway.money.catalogues import built_in
from tests.gateway import configuration
from tests.gateway.money import accounts, history
from tests.gateway.money.history import Attempt

NOON = int(datetime(2026, 11, 20, 12, tzinfo=UTC).timestamp() * 1000)
ALL = [{"name": name} for name in built_in().models]
EVERY = [
    ["check"],
    ["models"],
    ["prices", "show"],
    ["prices", "check"],
    ["ledger", "verify"],
    ["ledger", "rerate", "--since", "2026-11-01"],
    ["usage", "--by", "user"],
]


@pytest.fixture
def config(store: Path) -> Path:
    """A good configuration beside a store with no rows."""
    return written(store)


def written(store: Path, **changed: Any) -> Path:
    document = configuration.good() | {"store": {"path": store.name}} | changed
    return configuration.write(configuration.folder(store.parent), document)


def run(words: list[str], config: Path) -> tuple[int, str, str]:
    """The command with CONFIG after its verbs, as one types it."""
    verbs = [word for word in words if not word.startswith("-")][
        : 2 if words[0] in {"prices", "ledger", "policy"} else 1
    ]
    done = CliRunner().invoke(main, [*verbs, str(config), *words[len(verbs) :]])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.stdout, done.stderr


def good(words: list[str], config: Path) -> str:
    code, out, err = run(words, config)
    assert (code, err) == (0, ""), (code, err)
    return out


def narrow(text: str) -> bool:
    return all(len(line) <= 100 and line == line.rstrip() for line in text.splitlines())


def busy(store: Path) -> None:
    """Four people with names of every kind, an estimate, a late truth, large numbers."""
    history.introduce(store, "per_ada", "Ada Lovelace", "ada@example.com")
    history.introduce(store, "per_eve", "=cmd|' /C calc'!A0", "")
    history.introduce(store, "per_esc", "\x1b[2Jmallory\nroot", "")
    many = Usage(10_000_000_000, 999_999, 99_999_999_999, 3_000_000, 4_000_000)
    attempts = [
        Attempt(NOON, "per_ada", usage=many, cost=123_456_789_012),
        Attempt(NOON, "per_ada", usage=Usage(12, 34), cost=1_234, operation="req_of_att_0000", model="claude-opus-4-5"),
        Attempt(NOON, "per_eve", usage=Usage(5, 6, 7, 8, 9), cost=None, outcome="upstream_broken", hold=70_000),
        Attempt(NOON + 86_400_000, "per_esc", usage=Usage(100_000, 99_999), late=500_000),
        Attempt(NOON + 86_400_000, "per_5b1e6f0c2a97", cost=0, outcome="released"),
    ]
    budget = (accounts.budget("organisation", 10**12),)
    history.write(store, [Attempt(**(vars(each) | {"budgets": budget})) for each in attempts])


BY_USER = """\
settled attempts (Europe/Berlin)
user                operations  attempts    input    read  write   output      cost USD  estimated
ada@example.com              1         2    10.0B  100.0B   7.0M     1.0M  123,456.7902        0 %
?[2Jmallory?root             1         1  100.0k       0      0   99,999        0.5000        0 %
=cmd|' /C calc'!A0           1         1        5       7     17        6        0.0700      100 %
per_5b1e6f0c2a97             1         1        0       0      0        0        0.0000          -
"""


def test_usage_is_a_table_of_who_used_what(store: Path, config: Path) -> None:
    busy(store)
    out = good(["usage", "--by", "user"], config)
    assert [line.split() for line in out.splitlines()[:6]] == [line.split() for line in BY_USER.splitlines()]
    assert out.splitlines()[-1].split() == [
        "total",
        "4",
        "5",
        "10.0B",
        "100.0B",
        "7.0M",
        "1.1M",
        "123,457.3602",
        "<1",
        "%",
    ]
    assert narrow(out)
    assert "\x1b" not in out


@pytest.mark.parametrize("by", ["user", "model", "day", "outcome"])
def test_every_form_of_every_grouping_says_the_same(store: Path, config: Path, by: str) -> None:
    busy(store)
    assert narrow(good(["usage", "--by", by], config))
    document = json.loads(good(["usage", "--by", by, "--format", "json"], config))
    lines = list(csv.DictReader(io.StringIO(good(["usage", "--by", by, "--format", "csv"], config))))
    assert (document["by"], document["time_zone"]) == (by, "Europe/Berlin")
    for name in ("operations", "attempts", "input_tokens", "output_tokens", "cache_write_1h_tokens"):
        assert document["total"][name] == sum(int(line[name]) for line in lines)
        assert [row[name] for row in document["rows"]] == [int(line[name]) for line in lines]
    for name, amount in (("cost", "cost_usd"), ("estimated", "estimated_usd")):
        assert [row[name] for row in document["rows"]] == [int(line[amount].replace(".", "")) for line in lines]
    ((cost,),) = accounts.rows(store, "SELECT SUM(cost) FROM ledger")
    assert document["total"]["cost"] == cost


def test_days_can_be_chosen(store: Path, config: Path) -> None:
    busy(store)
    words = ["usage", "--by", "day", "--since", "2026-11-21", "--until", "2026-11-21", "--format", "json"]
    document = json.loads(good(words, config))
    assert [row["day"] for row in document["rows"]] == ["2026-11-21"]
    assert document["total"]["cost"] == 500_000
    code, out, err = run(["usage", "--by", "day", "--since", "2026-11-21", "--until", "2026-11-20"], config)
    assert (code, out) == (2, "")
    assert "--until must not be before --since." in err


@pytest.mark.parametrize("form", ["table", "csv", "json"])
def test_nothing_used_is_no_error(config: Path, form: str) -> None:
    out = good(["usage", "--by", "user", "--format", form], config)
    assert {"table": "total", "csv": "user,operations", "json": '"rows": []'}[form] in out


def test_a_name_is_no_formula_for_a_spreadsheet(store: Path, config: Path) -> None:
    names = ["=1+1", "+1", "-1+cmd", "@SUM(A1)", " =1", 'a,"b"', "Ada-Lovelace", "O'Neil", "\t=1", "\r=1", "a\n=1"]
    for number, name in enumerate(names):
        history.introduce(store, f"per_{number}", name)
    history.write(store, [Attempt(NOON, f"per_{number}", cost=10 - number) for number in range(len(names))])
    text = good(["usage", "--by", "user", "--format", "csv"], config)
    shown = [line["name"] for line in csv.DictReader(io.StringIO(text, newline=""))]
    assert shown == [*(f"'{name}" for name in names[:5]), *names[5:8], "?=1", "?=1", "a?=1"]


@given(st.lists(st.tuples(st.text(max_size=20), st.integers(-(10**15), 10**15)), max_size=5))
def test_csv_carries_any_text_and_no_cell_begins_a_formula(rows: list[tuple[str, int]]) -> None:
    text = tables.as_csv(("name", "cost_usd"), [(name, tables.exact_usd(cost)) for name, cost in rows])
    _, *read = csv.reader(io.StringIO(text, newline=""))
    assert [int(cost.replace(".", "")) for _, cost in read] == [cost for _, cost in rows]
    for (name, _), (shown, _) in zip(rows, read, strict=True):
        assert shown in {tables.clean(name), f"'{tables.clean(name)}"}
        assert not shown.lstrip().startswith(("=", "+", "@"))


@given(st.integers(0, 10**18))
def test_a_count_keeps_its_magnitude_in_six_characters(number: int) -> None:
    shown = tables.count(number)
    assert len(shown) <= 6
    units = {"k": 10**3, "M": 10**6, "B": 10**9, "T": 10**12, "P": 10**15}
    value = float(shown.rstrip("kMBTP").replace(",", "")) * units.get(shown[-1], 1)
    assert abs(value - number) <= 0.051 * units.get(shown[-1], 0)


@given(st.integers(0, 10**12), st.integers(1, 10**12))
def test_a_share_is_none_or_all_only_when_it_is(part: int, whole: int) -> None:
    part = min(part, whole)
    shown = tables.share(part, whole)
    assert (shown == "0 %") == (part == 0)
    assert (shown == "100 %") == (part == whole)
    assert len(shown) <= len("estimated")


@given(st.lists(st.tuples(st.text(max_size=300), st.text("0123456789", max_size=12)), min_size=1, max_size=6))
def test_no_table_is_wider_than_a_terminal(rows: list[tuple[str, str]]) -> None:
    lines = tables.table(("name", "number"), rows, indent="  ")
    assert len(lines) == len(rows) + 1
    assert narrow("\n".join(lines))
    assert all(line.isprintable() for line in lines)


MODELS = """\
prices of 2026-11-21 on DAY, regional, in USD for a million tokens
model              input  output  read  write 5m  write 1h
claude-sonnet-4-5   3.30   16.50  0.33     4.125      6.60
    claude-sonnet-4-5-20250929
"""


def test_models_are_listed_with_their_names_below_each_other(config: Path) -> None:
    out = good(["models"], config)
    day = datetime.now(UTC).date().isoformat()
    assert out.startswith(MODELS.replace("DAY", day))
    assert "\n    eu.anthropic.claude-sonnet-4-5-20250929-v1:0\n" in out
    assert out.endswith("\n    eu.custom\n")


def test_a_model_at_an_upstream_of_the_anthropic_format_is_listed_by_its_price_there(store: Path) -> None:
    served = [{"name": "claude-haiku-4-5", "target": "anthropic/claude-haiku-4-5"}, {"name": "claude-opus-5"}]
    lines = good(["models"], written(store, models=served, anthropic=[{"key_file": "good.key"}])).splitlines()
    assert "regional, or direct where the target is" in lines[0]
    shown = {line.split()[0]: line.split()[1:] for line in lines if not line.startswith(" ")}
    assert shown["claude-haiku-4-5"] == ["1.00", "5.00", "0.10", "1.25", "2.00"]
    assert shown["claude-opus-5"][0] == "5.50"


@pytest.mark.parametrize("words", [["models"], ["prices", "show"], ["prices", "show", "--on", "2026-10-07"]])
def test_all_that_ships_fits_a_terminal(store: Path, words: list[str]) -> None:
    config = written(store, models=ALL)
    assert narrow(good(words, config))


SHOWN = """\
prices of 2026-11-21 on 2026-11-21, in USD for a million tokens

claude-haiku-5-5 (Claude Haiku 5.5, anthropic)
  geography  prompt     from        input  output   read  write 5m  write 1h      source
  global     any        2026-10-07   0.10    0.50   0.01     0.125      0.20  2026-11-21
  global     > 100,000  2026-10-07   0.50    2.50   0.05     0.625      1.00  2026-11-21
  regional   any        2026-10-07   0.11    0.55  0.011    0.1375      0.22  2026-11-21
  regional   > 100,000  2026-10-07   0.55    2.75  0.055    0.6875      1.10  2026-11-21
  direct     any        2026-10-07   0.10    0.50   0.01     0.125      0.20  2026-11-21
  direct     > 100,000  2026-10-07   0.50    2.50   0.05     0.625      1.00  2026-11-21
"""


@pytest.mark.parametrize("name", ["claude-haiku-5-5", "global.anthropic.claude-haiku-5-5"])
def test_prices_show_every_dimension_under_any_name(config: Path, name: str) -> None:
    assert good(["prices", "show", name, "--on", "2026-11-21"], config).replace(name, "x") == SHOWN.replace(name, "x")


def test_prices_show_the_day_that_is_asked_for(config: Path) -> None:
    before = good(["prices", "show", "claude-sonnet-5-5", "--on", "2026-10-06"], config)
    assert "2026-10-07" not in before
    assert "2026-10-07" in good(["prices", "show", "claude-sonnet-5-5", "--on", "2026-10-07"], config)
    code, out, err = run(["prices", "show", "--on", "2024-01-01"], config)
    assert (code, "no price in force" in out) == (2, True)
    assert "'claude-sonnet-4-5' has no price in force on 2024-01-01" in err


def test_prices_are_there_for_programs(config: Path) -> None:
    document = json.loads(good(["prices", "show", "--format", "json", "--on", "2026-11-21"], config))
    assert document["version"] == "2026-11-21"
    (model,) = document["models"]
    assert {row["context_over"] for row in model["prices"]} == {0, 200_000}
    assert all(isinstance(row["input"], int) for row in model["prices"])


def test_an_embedding_model_has_one_price(config: Path) -> None:
    out = good(["prices", "show", "titan-embed-text-v2"], config)
    assert out.splitlines()[-1].split()[3:8] == ["0.02", "-", "-", "-", "-"]


def test_a_model_that_nobody_knows(config: Path) -> None:
    code, out, err = run(["prices", "show", "gpt\x1b[2J"], config)
    assert (code, out) == (2, "")
    assert "no model has the name 'gpt?[2J'; known: claude-" in err


OWN = """
[[models]]
name = "claude-sonnet-4-5"

[[models.prices]]
from = 2026-11-01
geography = "regional"
input = 3
output = 15
cache_read = 1
cache_write_5m = 4
cache_write_1h = 6
"""


def test_prices_of_your_own_are_in_force_and_their_slips_are_told(store: Path) -> None:
    (store.parent / "prices.toml").write_text(OWN, encoding="utf-8")
    config = written(store, prices={"file": "prices.toml"})
    out = good(["prices", "show"], config)
    version = out.split()[2]
    shipped, _, digest = version.partition("+")
    assert shipped == "2026-11-21"
    assert [line.endswith(digest) for line in out.splitlines()[4:]].count(True) == 1
    assert narrow(out)
    checked = good(["prices", "check"], config)
    assert "warning: claude-sonnet-4-5: regional prompts from 2026-11-01: input jumps from USD 3.30 to" in checked
    assert checked.endswith(f" warnings (prices of {version})\n")
    assert version in good(["models"], config)


WIDE = """
[[models]]
name = "claude-sonnet-4-5"

[[models.prices]]
from = 2026-11-01
geography = "regional"
tier = "priority"
context_over = 1_000_000
input = 123_456_789_012
output = 1_000_000_000_000
cache_read = 1_234_567
cache_write_5m = 137_555
cache_write_1h = 999_999_999
"""


def test_no_price_is_too_long_for_a_terminal(store: Path) -> None:
    (store.parent / "prices.toml").write_text(WIDE, encoding="utf-8")
    out = good(["prices", "show"], written(store, prices={"file": "prices.toml"}))
    assert narrow(out)
    assert out.splitlines()[-1].split()[-6:-1] == ["~1e+05", "~1e+06", "~1.235", "~0.1376", "~1000"]


def test_prices_that_are_right_have_no_warning(store: Path) -> None:
    config = written(store, models=ALL)
    assert good(["prices", "check"], config) == (
        f"{config}: all {len(ALL)} models have their prices, no warnings (prices of 2026-11-21)\n"
    )
    assert "the model has its price, no warnings" in good(["prices", "check"], written(store))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [("", "bedrock.bridge_file: no such file"), ('[[betas]]\nname = "x"', "is no bridging table")],
)
def test_a_bridging_table_that_cannot_be_used_is_refused(store: Path, text: str, sentence: str) -> None:
    if text:
        (store.parent / "bridge.toml").write_text(text, encoding="utf-8")
    bedrock = configuration.good()["bedrock"] | {"bridge_file": "bridge.toml"}
    code, out, err = run(["check"], written(store, bedrock=bedrock))
    assert (code, out) == (2, "")
    assert sentence in err


UNUSABLE: dict[str, tuple[dict[str, Any], str, str]] = {
    "no price": ({"models": [{"name": "gpt-5"}]}, "", "models[0].name: 'gpt-5' has no price"),
    "a price that begins later": (
        {"models": [{"name": "claude-next"}], "prices": {"file": "prices.toml"}},
        OWN.replace("claude-sonnet-4-5", 'claude-next"\ndisplay_name = "N"\nvendor = "a"\nbedrock_id = "a.n')
        .replace("[[models.prices]]", "max_output_tokens = 9\ncontext_tokens = 9\n[[models.prices]]")
        .replace("2026", "2999"),
        "models[0].name: 'claude-next' has no price in force on 2",
    ),
    "no such price file": ({"prices": {"file": "absent.toml"}}, "", "prices.file: no such file: "),
    "a price file with a fault": (
        {"prices": {"file": "prices.toml"}},
        OWN.replace("input = 3", 'input = "3"'),
        "claude-sonnet-4-5.prices[0].input: Expected `int`, got `str`",
    ),
}


@pytest.mark.parametrize("verb", [["check"], ["models"], ["prices", "check"]])
@pytest.mark.parametrize("case", UNUSABLE)
def test_what_cannot_be_charged_is_refused_before_anything_starts(store: Path, verb: list[str], case: str) -> None:
    changed, own, sentence = UNUSABLE[case]
    (store.parent / "prices.toml").write_text(own, encoding="utf-8")
    code, out, err = run(verb, written(store, **changed))
    assert (code, out) == (2, "")
    assert sentence in err
    assert len(err.splitlines()) == 2


def test_prices_that_are_there_are_shown_beside_those_that_are_not(store: Path) -> None:
    config = written(store, models=[{"name": "gpt-5"}, {"name": "claude-sonnet-4-5"}])
    code, out, err = run(["prices", "show"], config)
    assert code == 2
    assert "claude-sonnet-4-5 (Claude Sonnet 4.5, anthropic)" in out
    assert err == f"llmgw-gateway: {config}: models[0].name: 'gpt-5' has no price\n"


def test_right_books_are_said_to_be_right_with_their_size(store: Path, config: Path) -> None:
    assert good(["ledger", "verify"], config) == "the ledger is right (0 open attempts, 0 entries, 0 counters)\n"
    busy(store)
    assert good(["ledger", "verify"], config) == "the ledger is right (0 open attempts, 6 entries, 1 counters)\n"


def test_every_fault_of_the_books_is_a_line_and_the_status_is_one(store: Path, config: Path) -> None:
    busy(store)
    with history.writing(store) as connection:
        connection.exec_driver_sql("UPDATE counters SET spent = spent + 1, held = 2")
    code, out, err = run(["ledger", "verify"], config)
    assert code == 1
    assert out.splitlines() == [
        "I2: organisation 2026-11: spent is 123457360247, but its rows sum to 123457360246",
        "I2: organisation 2026-11: held is 2, but its rows sum to 0",
    ]
    assert err == "llmgw-gateway: the ledger has 2 faults (0 open attempts, 6 entries, 1 counters)\n"


def test_rerating_reports_and_writes_nothing(store: Path) -> None:
    (store.parent / "prices.toml").write_text(OWN.replace("input = 3", "input = 4_000_000"), encoding="utf-8")
    config = written(store, prices={"file": "prices.toml"})
    target = "eu.anthropic.claude-sonnet-4-5-20250929-v1:0"
    history.write(store, [Attempt(NOON, usage=Usage(input=1_000_000), cost=6_600_000, target=target)])
    before = store.read_bytes()
    words = ["ledger", "rerate", "--since", "2026-11-01"]
    out = good(words, config)
    assert "nothing was written" in out
    assert out.splitlines()[1] == "they were charged by the prices of 2026-11-21"
    assert narrow(out)
    assert good([*words, "--dry-run"], config) == out
    document = json.loads(good([*words, "--format", "json"], config))
    assert document["total"]["attempts"] == 1
    assert document["total"]["difference"] == document["models"][0]["difference"]
    assert store.read_bytes() == before
    assert "This only reports" in CliRunner().invoke(main, ["ledger", "rerate", "--help"]).stdout
    code, _, err = run(["ledger", "rerate"], config)
    assert (code, "--since" in err) == (2, True)


@pytest.mark.parametrize("words", [words for words in EVERY if words[0] in {"ledger", "usage"}])
def test_a_store_that_is_not_there_is_one_sentence(store: Path, config: Path, words: list[str]) -> None:
    store.unlink()
    code, out, err = run(words, config)
    assert (code, out) == (3, "")
    assert err == f"llmgw-gateway: there is no store at {store}: a gateway makes it when it first starts\n"
    assert not store.exists()


@pytest.mark.parametrize("words", EVERY)
def test_a_configuration_that_is_not_there_is_one_sentence(tmp_path: Path, words: list[str]) -> None:
    code, out, err = run(words, tmp_path / "absent.toml")
    assert (code, out) == (2, "")
    assert err.splitlines()[1:] == ["  cannot be read: No such file or directory"]


@pytest.mark.parametrize(
    "words", [["usage", "--by", "shoe"], ["usage"], ["prices", "show", "--on", "yesterday"], ["x"]]
)
def test_a_command_line_that_means_nothing_is_a_usage_error(config: Path, words: list[str]) -> None:
    code, out, err = run(words, config)
    assert (code, out) == (2, "")
    assert any(line.startswith("Error: ") for line in err.splitlines())


def test_what_runs_is_read_by_another_process(store: Path, config: Path) -> None:
    busy(store)
    for words in (["ledger", "verify", config], ["usage", config, "--by", "model"], ["check", config]):
        command = [sys.executable, "-m", "llmgw_gateway.main", *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout


DOCUMENT = (Path(__file__).parents[2] / "docs" / "money.md").read_text(encoding="utf-8")


def test_the_price_file_of_the_documentation_is_good(store: Path) -> None:
    example = next(part for part in DOCUMENT.split("```") if part.startswith("toml\n# A discount"))
    (store.parent / "prices.toml").write_text(example.removeprefix("toml\n"), encoding="utf-8")
    config = written(store, prices={"file": "prices.toml"})
    assert "no warnings" in good(["prices", "check"], config)
    assert "Claude Next" in good(["prices", "show", "claude-next", "--on", "2026-11-21"], config)


def test_the_transcripts_of_the_documentation_are_what_is_printed() -> None:
    assert SHOWN in DOCUMENT
    (block,) = (part.splitlines()[2:] for part in DOCUMENT.split("```") if "$ llmgw-gateway usage" in part)
    rows = [[cell.strip() for cell in re.split(r"\s{2,}", line)] for line in block[1:] if not line.startswith("-")]
    lines = tables.table(rows[0], rows[1:])
    assert block[1:] == [*lines[:-1], "-" * max(map(len, lines)), lines[-1]]


POLICIES = [
    {"name": "all", "models": ["claude-sonnet-4-5"], "max_tokens": 1000},
    {"groups": ["g"], "models": ["claude-sonnet-4-5"]},
]


def test_policies_that_never_decide_and_models_that_nobody_may_use_are_told(store: Path) -> None:
    models = [{"name": "claude-sonnet-4-5"}, {"name": "claude-opus-4-5"}]
    config = written(store, models=models, policies=POLICIES)
    line = config.read_text(encoding="utf-8").splitlines().index("[[policies]]", 0)
    second = config.read_text(encoding="utf-8").splitlines().index("[[policies]]", line + 1) + 1
    assert good(["policy", "check"], config).splitlines() == [
        f"warning: policies[1], line {second}: never decides, because entries before it do",
        "warning: claude-opus-4-5: no policy allows it to anybody",
        f"{config}: 2 policies, 2 warnings",
    ]
    assert "no policies: everyone may use every model, no warnings" in good(["policy", "check"], written(store))
    code, _, err = run(["policy", "check"], written(store, policies=[{"teams": ["nobody"]}]))
    assert (code, "there is no team 'nobody'" in err) == (2, True)


def test_a_policy_is_explained_to_programs_too(store: Path) -> None:
    history.introduce(store, "per_ada", "Ada", "ada@example.com")
    config = written(store, policies=POLICIES)
    words = [str(config), "ada@example.com", "claude-sonnet-4-5"]
    done = CliRunner().invoke(main, ["policy", "explain", *words, "--format", "json"])
    document = json.loads(done.stdout)
    assert (document["allowed"], document["policy"], document["name"]) == (True, 0, "all")
    assert (document["max_tokens"], document["groups"], document["passed_over"]) == (1000, [], [])
    code = CliRunner().invoke(main, ["policy", "explain", str(config), "ada@example.com", "gpt"]).exit_code
    assert code == 2


def keys(config: Path, verb: str, *words: str) -> Result:
    done = CliRunner().invoke(main, ["keys", verb, str(config), *words])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--team", "nobody"], "There is no team 'nobody'."),
        (["--model", "gpt"], "'gpt' is not served here."),
        (["--days", "0"], "0 is not in the range"),
        (["--owner", "a\nb"], "owner must be printable"),
        (["--name", " "], "name must be printable"),
    ],
)
def test_a_service_key_that_could_do_nothing_is_not_made(config: Path, words: list[str], said: str) -> None:
    done = keys(config, "create", "--name", "ci", "--owner", "ada", *words)
    assert (done.exit_code, done.stdout) == (2, "")
    assert said in done.stderr


def test_a_service_key_is_made_listed_rotated_and_revoked_in_the_store_itself(config: Path) -> None:
    assert keys(config, "list").stdout.split()[:2] == ["key", "name"]
    made = keys(config, "create", "--name", "ci\u202e", "--owner", "ada", "--model", "claude-sonnet-4-5")
    assert made.exit_code == 2, "a name that turns a terminal's line around"
    made = keys(config, "create", "--name", "ci" * 50, "--owner", "ada" * 33, "--model", "claude-sonnet-4-5")
    key = made.stderr.split()[0]
    assert (made.exit_code, made.stdout[:9], len(made.stdout)) == (0, "llmgw_sk_", 53)
    rotated = keys(config, "rotate", key)
    assert rotated.stdout not in {made.stdout, ""}
    shown = keys(config, "list").stdout
    assert narrow(shown)
    assert shown.splitlines()[1].split()[0] == key
    assert shown.splitlines()[1].split()[-1] == "good"
    (document,) = json.loads(keys(config, "list", "--format", "json").stdout)["keys"]
    assert (document["models"], [each["ended"] for each in document["secrets"]]) == (["claude-sonnet-4-5"], [False] * 2)
    assert made.stdout[9:30] not in keys(config, "list", "--format", "json").stdout
    assert keys(config, "revoke", key).exit_code == 0
    assert keys(config, "list").stdout.split()[-1] == "revoked"
    for verb in ("revoke", "rotate"):
        again = keys(config, verb, key)
        assert (again.exit_code, again.stdout) == (1, "")
        assert f"there is no service key {key!r} that is not revoked yet" in again.stderr


def test_help_names_every_command() -> None:
    out = CliRunner().invoke(main, ["--help"]).stdout
    assert all(f"  {name} " in out for name in ("serve", "check", "models", "prices", "ledger", "usage"))
