"""Settings: every fault at once, each with its place, and never anything but a `ConfigurationError`."""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llmgw_gateway import settings
from llmgw_gateway.bootstrap import bootstrap
from llmgw_gateway.errors import ConfigurationError
from llmgw_gateway.sections import budgeting, exchanging, organizing, serving, storing, upstream
from llmgw_gateway.sections.faults import listen_address
from llmgw_gateway.settings import Settings
from llmgw_wire.messages import ACCESS_TOKEN_TYPE
from tests.gateway import configuration

if TYPE_CHECKING:
    from tests.gateway.configuration import Document


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return configuration.folder(tmp_path)


def changed(place: str, value: object) -> Document:
    """The good document with one value replaced, or removed by None. A place is "section.key" or "list.0.key"."""
    document = configuration.good()
    *way, last = place.split(".")
    inner: Any = document
    for step in way:
        inner = inner[int(step)] if isinstance(inner, list) else inner.setdefault(step, {})
    if value is None:
        del inner[last]
    else:
        inner[last] = value
    return document


def faults(path: Path, document: Document | str) -> list[str]:
    if isinstance(document, str):
        path.write_text(document, encoding="utf-8")
    else:
        configuration.write(path, document)
    with pytest.raises(ConfigurationError) as caught:
        settings.load(path)
    assert caught.value.source == str(path)
    assert caught.value.faults
    return caught.value.faults


def test_agents_are_told_what_the_file_says_of_a_provider(path: Path) -> None:
    document = changed("issuers.1.resource", "https://api.example/llmgw")
    document["issuers"][1] |= {"subject_token": "access_token", "audience": "https://api.example/llmgw"}
    document["issuers"][1] |= {"published_client_secret": "everybody-knows"}
    offered = bootstrap(settings.load(configuration.write(path, document))).issuers[1]
    assert offered.client_secret == "everybody-knows"
    assert (offered.resource, offered.subject_token_type) == ("https://api.example/llmgw", ACCESS_TOKEN_TYPE)


def test_a_good_document_is_read(path: Path) -> None:
    read = settings.load(configuration.write(path, configuration.good()))
    assert read.budgets[0].limit == 25_500_000
    assert read.budgets[0].overshoot == 5_000_000
    assert read.issuers[0].expected_audience == "client"
    assert read.path("gateway.db") == (path.parent / "gateway.db").resolve()
    assert len(read.cluster_secrets()[0]) == 64


@pytest.mark.parametrize("section", ["organisation", "budgets"])
def test_a_section_with_defaults_may_be_left_out(path: Path, section: str) -> None:
    document = configuration.good()
    del document[section]
    assert isinstance(settings.load(configuration.write(path, document)), Settings)


DIRECT = {"name": "claude-sonnet-5-5", "target": "anthropic/claude-sonnet-5-5"}


@pytest.mark.parametrize("times", [None, {"idle_seconds": 5}])
def test_a_gateway_that_asks_nothing_of_bedrock_needs_no_region(path: Path, times: dict[str, Any] | None) -> None:
    key = path.parent / "anthropic.key"
    key.touch(mode=0o600)
    key.write_text("sk-ant-x", encoding="ascii")
    document = configuration.good() | {"models": [DIRECT], "anthropic": [{"key_file": str(key)}], "policies": []}
    document.pop("bedrock")
    document |= {"bedrock": times} if times else {}
    assert settings.load(configuration.write(path, document)).bedrock.region == ""
    for asked in ({"name": "claude-haiku-4-5"}, DIRECT | {"fallbacks": ["us.anthropic.claude-sonnet-5-5"]}):
        (said,) = faults(path, document | {"models": [asked]})
        assert said.startswith(f"bedrock.region: is needed, because models[0] ({asked['name']}) is asked there")
    document["bedrock"] = {"endpoint": "https://vpce.example"}
    assert faults(path, document) == ["bedrock.region: is needed with an endpoint, because requests are signed for it"]


def test_all_faults_are_said_at_once_each_with_its_place(path: Path) -> None:
    document = configuration.good()
    document["server"]["public_url"] = "http://gateway.example/"
    document["server"]["lisen"] = "127.0.0.1:80"
    document["organisation"]["time_zone"] = "Europe/Atlantis"
    del document["store"]["path"]
    document["tokens"]["life_seconds"] = 10_000
    document["bedrock"]["region"] = "Frankfurt"
    document["issuers"][1]["client_id"] = 5
    document["issuers"][0]["kind"] = "saml"
    document["budgets"][0]["limit_usd"] = -1
    document["modells"] = [{"name": "x"}]
    said = faults(path, document)
    places = [
        "server.lisen: unknown key",
        "organisation.time_zone: unknown time zone 'Europe/Atlantis'",
        "store.path: exactly one of path, url and url_file is needed, not none",
        "tokens.life_seconds:",
        "bedrock.region: 'Frankfurt' is not an AWS region",
        "issuers[1].client_id:",
        "issuers[0].kind:",
        "budgets[0].limit_usd: must be between 0",
        "modells: unknown key",
    ]
    for place in places:
        assert any(each.startswith(place) for each in said), place
    assert len(said) == len(places)


DEFAULTS_FAULTS: dict[str, tuple[object, str]] = {
    "a default of nothing": ({"name": "x"}, "defaults[0].model: one of model, max_tokens"),
    "a substitute without a model": ({"max_tokens": 9, "substitute": True}, "defaults[0].substitute: needs a model"),
    "a default that is not served": ({"model": "gpt"}, "defaults[0].model: 'gpt' is not served here"),
    "a default for no team": ({"max_tokens": 9, "teams": ["x"]}, "defaults[0].teams: there is no team 'x'"),
    "no room after the thinking": (
        {"max_tokens": 2000, "thinking_tokens": 2000}, "defaults[0].thinking_tokens: must be less",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", list(DEFAULTS_FAULTS))
def test_a_default_that_could_not_count_is_a_fault(path: Path, case: str) -> None:
    entry, fault = DEFAULTS_FAULTS[case]
    (said,) = faults(path, changed("defaults", [entry]))
    assert said.startswith(fault)


GUARDRAIL = {"name": "pii", "id": "gr1", "version": "1"}
FAULTS: dict[str, tuple[str, object, str]] = {
    "a guardrail that nobody has": (
        "organisation.guardrail",
        "pii",
        "organisation.guardrail: there is no guardrail 'pii'",
    ),
    "a policy's guardrail that nobody has": (
        "policies",
        [{"guardrail": "pii"}],
        "policies[0].guardrail: there is no guardrail 'pii'",
    ),
    "a guardrail for what is refused": (
        "policies",
        [{"action": "refuse", "guardrail": "none"}],
        "policies[0].guardrail: does not go with action",
    ),
    "a guardrail at another upstream": (
        "guardrails",
        [GUARDRAIL | {"upstream": "west"}],
        "guardrails[0].upstream: 'west' is neither",
    ),
    "two guardrails of one name": ("guardrails", [GUARDRAIL] * 2, "guardrails: 'pii at bedrock' stands there twice"),
    "a guardrail called as none is": ("guardrails", [GUARDRAIL | {"name": "none"}], "guardrails[0].name: 'none' has"),
    "an id with a line end": ("guardrails", [GUARDRAIL | {"id": "gr1\r\nx: y"}], "guardrails[0].id: 'gr1"),
    "no version of a guardrail": ("guardrails", [GUARDRAIL | {"version": "latest"}], "guardrails[0].version: 'latest'"),
    "a guardrail dearer than any": (
        "guardrails",
        [GUARDRAIL | {"usd_per_thousand_units": 11}],
        "guardrails[0].usd_per_thousand_units: must be",
    ),
    "an answer longer than the ledger waits for its truth": ("bedrock.total_seconds", 3601, "bedrock.total_seconds:"),
    "access tokens for any API": ("issuers.1.subject_token", "access_token", "issuers[1].audience: subject_token ="),
    "a limit below one micro-USD": ("budgets.0.limit_usd", 0.0000009, "budgets[0].limit_usd: 9E-7 has more than six"),
    "a limit between two micro-USD": ("budgets.0.limit_usd", 1.0000005, "budgets[0].limit_usd: 1.0000005 has more"),
    "a bound below one micro-USD": ("budgets.0.overshoot_usd", 0.0000001, "budgets[0].overshoot_usd: 1E-7 has"),
    "a key misspelt": ("server.lisen", "x", "server.lisen: unknown key"),
    "a key of another section": ("store.region", "x", "store.region: unknown key"),
    "the name we keep for ourselves": ("base", {"x": 1}, "base: unknown key"),
    "a required key missing": ("server.public_url", None, "server.public_url: missing"),
    "a required section missing": ("tokens", None, "tokens: missing"),
    "a section that is a list": ("server", [{"listen": "x"}], "server: must be a table"),
    "a list that is a section": ("issuers", {"issuer": "x"}, "issuers: must be one or more tables"),
    "a number as text": ("server.drain_seconds", "60", "server.drain_seconds:"),
    "a fraction of a second": ("server.drain_seconds", 1.5, "server.drain_seconds:"),
    "true as a number": ("server.drain_seconds", True, "server.drain_seconds:"),
    "zero seconds": ("server.drain_seconds", 0, "server.drain_seconds:"),
    "an empty text": ("store.path", "", "store.path:"),
    "no port": ("server.listen", "127.0.0.1", "server.listen:"),
    "a port too high": ("server.listen", "127.0.0.1:65536", "server.listen:"),
    "a slash at the end": ("server.public_url", "https://gateway.example/", "server.public_url: must not end"),
    "a user in the URL": ("server.public_url", "https://me@gateway.example", "server.public_url: must have no user"),
    "a password in the URL": ("server.public_url", "https://:pw@gateway.example", "server.public_url: must have no"),
    "a query in the URL": ("server.public_url", "https://gateway.example?a=b", "server.public_url: must have no user"),
    "an empty query": ("server.public_url", "https://gateway.example?", "server.public_url:"),
    "an empty fragment": ("server.public_url", "https://gateway.example#", "server.public_url:"),
    "no host": ("server.public_url", "https://", "server.public_url:"),
    "another scheme": ("server.public_url", "ftp://gateway.example", "server.public_url:"),
    "a broken URL": ("server.public_url", "http://[::1", "server.public_url:"),
    "http to the outside": ("issuers.1.issuer", "http://idp.example", "issuers[1].issuer: plain http"),
    "http to a private address": ("bedrock.endpoint", "http://10.0.0.1", "bedrock.endpoint: plain http"),
    "http to what only looks local": (
        "bedrock.endpoint",
        "http://127.0.0.1.evil.example",
        "bedrock.endpoint: plain http",
    ),
    "http to localhost's neighbour": ("bedrock.endpoint", "http://localhost.example", "bedrock.endpoint: plain http"),
    "an unknown algorithm": ("issuers.0.algorithms", ["HS256"], "issuers[0].algorithms"),
    "no algorithm": ("issuers.0.algorithms", ["none"], "issuers[0].algorithms"),
    "GitHub of all the world": (
        "issuers.1.issuer",
        "https://token.actions.githubusercontent.com",
        "issuers[1].required: anybody can get a token of https://token.actions.githubusercontent.com: say",
    ),
    "Google of all the world": ("issuers.1.issuer", "https://accounts.google.com", "issuers[1].required: anybody"),
    "any machine of an issuer": ("issuers.1.kind", "workload", 'issuers[1].required: kind = "workload" needs it'),
    "a claim that may say nothing": ("issuers.1.required", {"amr": []}, "issuers[1].required.amr: names no value"),
    "a claim that is no list": ("issuers.1.required", {"amr": "mfa"}, "issuers[1].required: "),
    "an issuer twice": ("issuers.1.issuer", "https://login.example/tenant/v2.0", "issuers: 'https://login"),
    "a model twice": ("models", [{"name": "a"}, {"name": "a"}], "models: 'a' stands there twice"),
    "a budget twice": ("budgets", [{"level": "user", "limit_usd": 1}] * 2, "budgets: 'user"),
    "no models": ("models", [], "models:"),
    "a budget without a limit": ("budgets.0.limit_usd", None, "budgets[0].limit_usd: give exactly one of"),
    "a budget with two limits": ("budgets.0.limit_tokens", 10, "budgets[0].limit_usd: give exactly one of"),
    "an overshoot of another unit": ("budgets.0.overshoot_tokens", 1, "budgets[0].overshoot_tokens: does not go"),
    "thresholds in disorder": ("budgets.0.thresholds", [80, 50], "budgets[0].thresholds: must ascend"),
    "a threshold beyond all": ("budgets.0.thresholds", [101], "budgets[0].thresholds"),
    "a budget as text": ("budgets.0.limit_usd", "25", "budgets[0].limit_usd:"),
    "a budget beyond reason": ("budgets.0.limit_usd", 10**12, "budgets[0].limit_usd: must be between"),
    "an overshoot below zero": ("budgets.0.overshoot_usd", -0.01, "budgets[0].overshoot_usd: must be between"),
    "an unknown level": ("budgets.0.level", "planet", "budgets[0].level:"),
    "a certificate that is not there": ("issuers.0.ca_file", "none.pem", "issuers[0].ca_file: no such file"),
    "a folder that is not there": ("store.path", "nowhere/gateway.db", "store.path: no such folder"),
    "an audit folder that is not there": ("audit.path", "nowhere/audit", "audit.path: no such folder"),
    "a NUL in a path": ("store.path", "gate\0way.db", "store.path:"),
    "a NUL in the secret's path": ("tokens.cluster_secret_file", "a\0b", "tokens.cluster_secret_file:"),
    "a path too long for any disk": ("store.path", "x" * 300 + "/gateway.db", "store.path:"),
    "a NUL in a time zone": ("organisation.time_zone", "Europe\0", "organisation.time_zone:"),
    "a certificate that is none": ("issuers.0.ca_file", "cluster.secret", "issuers[0].ca_file: "),
    "a time zone outside its folder": ("organisation.time_zone", "../passwd", "organisation.time_zone:"),
    "a region that is none": ("regions", [{"name": "west", "region": "west"}], "regions[0].region:"),
    "a name that no target can say": ("regions", [{"name": "W", "region": "us-west-2"}], "regions[0].name:"),
    "two regions of one name": (
        "regions",
        [{"name": "w", "region": "us-west-2"}] * 2,
        "regions: 'w' stands there twice",
    ),
    "a key that is not there": ("anthropic", [{"key_file": "none"}], "anthropic[0].key_file:"),
    "a key with a line break": ("anthropic", [{"key_file": "bad.key"}], "anthropic[0].key_file: holds no API key"),
    "an upstream in clear": (
        "anthropic",
        [{"key_file": "good.key", "endpoint": "http://api.example"}],
        "anthropic[0].endpoint: plain http",
    ),
    "an endpoint that ends in /v1": (
        "anthropic",
        [{"key_file": "good.key", "endpoint": "https://api.example/v1/"}],
        "anthropic[0].endpoint: must not end in /v1",
    ),
    "an upstream that nobody knows": (
        "models.0.target",
        "west/us.x",
        "models[0].target: 'west/us.x' names no upstream",
    ),
    "a fallback that nobody knows": (
        "models.0.fallbacks",
        ["west/x"],
        "models[0].fallbacks: 'west/x' names no upstream",
    ),
    "a time zone that is a folder": ("organisation.time_zone", "Europe", "organisation.time_zone:"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_a_fault_is_said_with_its_place(path: Path, case: str) -> None:
    place, value, says = FAULTS[case]
    said = faults(path, changed(place, value))
    assert [each for each in said if not each.startswith(says)] == []


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:80", "http://127.8.8.8", "http://[::1]:80", "http://localhost:4566", "https://x.example"]
)
def test_plain_http_is_for_this_machine_only(path: Path, url: str) -> None:
    assert settings.load(configuration.write(path, changed("bedrock.endpoint", url))).bedrock.endpoint == url


@pytest.mark.parametrize(
    ("mode", "good"), [(0o600, True), (0o400, True), (0o640, False), (0o604, False), (0o610, False)]
)
def test_the_cluster_secret_is_for_its_owner_only(path: Path, mode: int, good: bool) -> None:  # noqa: FBT001 -- a table
    configuration.write(path, configuration.good())
    (path.parent / "cluster.secret").chmod(mode)
    if good:
        assert settings.load(path).cluster_secrets()
    else:
        (said,) = faults(path, configuration.good())
        assert said.startswith("tokens.cluster_secret_file:")
        assert "chmod 600" in said


SECRETS = [(b"x" * 32, True), (b"x" * 31, False), (b"x" * 31 + b"\n", False), (b"", False)]


@pytest.mark.parametrize(("secret", "good"), SECRETS)
def test_a_cluster_secret_that_is_too_short_is_refused_and_never_shown(
    path: Path,
    secret: bytes,
    good: bool,  # noqa: FBT001 -- a table
) -> None:
    (path.parent / "cluster.secret").write_bytes(secret)
    if good:
        assert settings.load(configuration.write(path, configuration.good())).cluster_secrets() == (secret,)
    else:
        (said,) = faults(path, configuration.good())
        assert f"holds {len(secret.strip())} bytes" in said
        assert "xxx" not in said


def test_a_cluster_secret_that_is_not_there_is_missed(path: Path) -> None:
    (path.parent / "cluster.secret").unlink()
    (said,) = faults(path, configuration.good())
    assert "No such file" in said


TEXTS = {
    "nothing": "",
    "no TOML": "server = [",
    "a table twice": "[server]\n[server]\n",
    "a key twice": "[server]\nlisten = 'a'\nlisten = 'b'\n",
    "a date for a table": "server = 2026-11-21\n",
    "a deep list": "server = " + "[" * 5_000,
    "a deep table": "server = " + "{a=" * 5_000,
    "a limit that is no number": "[[budgets]]\nlevel = 'user'\nlimit_usd = nan\n",
    "a limit without end": "[[budgets]]\nlevel = 'user'\nlimit_usd = inf\n",
    "an overshoot that is no number": "[[budgets]]\nlevel = 'user'\nlimit_usd = 1\novershoot_usd = nan\n",
    "a number of 5,000 digits": "[server]\ndrain_seconds = " + "9" * 5_000,
}


@pytest.mark.parametrize("case", TEXTS)
def test_a_text_that_is_no_configuration_is_refused(path: Path, case: str) -> None:
    assert faults(path, TEXTS[case])


def test_a_file_that_cannot_be_read_is_refused(path: Path) -> None:
    for where, says in ((path, "No such file"), (path.parent, "Is a directory")):
        with pytest.raises(ConfigurationError) as caught:
            settings.load(where)
        assert says in caught.value.faults[0]
    path.write_bytes(b"[server]\nlisten = '\xff'\n")
    with pytest.raises(ConfigurationError) as caught:
        settings.load(path)
    assert caught.value.faults == ["is not UTF-8 text"]


def tables(document: Document) -> list[tuple[str, dict[str, Any]]]:
    """Every table of a document with its place."""
    found: list[tuple[str, dict[str, Any]]] = [("", document)]
    for name, value in document.items():
        found += [(name, value)] if isinstance(value, dict) else []
        found += [(f"{name}.{number}", each) for number, each in enumerate(value)] if isinstance(value, list) else []
    return found


REQUIRED = {
    "": ["server", "store", "audit", "tokens", "issuers", "models"],
    "server": ["public_url"],
    "store": [],
    "audit": ["path"],
    "tokens": ["cluster_secret_file"],
    "bedrock": [],
    "issuers.0": ["issuer", "client_id"],
    "issuers.1": ["issuer", "client_id"],
    "models.0": ["name"],
    "budgets.0": ["level"],
}
KEYS = [(place, key) for place, table in tables(configuration.good()) for key in table if place]
toml_values = st.one_of(
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x7f"), max_size=20),
    st.lists(st.integers(), max_size=3),
)


def load(document: Document) -> ConfigurationError | None:
    """Load a document from a folder of its own; None when it is good, and no other exception than ours."""
    with tempfile.TemporaryDirectory() as folder:
        path = configuration.write(configuration.folder(Path(folder)), document)
        # Python's JSON writes these three in capitals, TOML in small letters.
        text = path.read_text(encoding="utf-8")
        for name, written in (("-Infinity", "-inf"), ("Infinity", "inf"), ("NaN", "nan")):
            text = text.replace(f"= {name}\n", f"= {written}\n")
        path.write_text(text, encoding="utf-8")
        found = None
        try:
            settings.load(path)
        except ConfigurationError as error:
            found = error
        assert found is None or found.faults
        return found


@given(st.sampled_from([(place, key) for place, keys in REQUIRED.items() for key in keys]))
def test_a_document_without_a_required_key_is_refused(where: tuple[str, str]) -> None:
    document = changed(".".join(filter(None, where)), None)
    error = load(document)
    assert error is not None
    assert any(fault.endswith(f"{where[1]}: missing") for fault in error.faults)


@given(st.sampled_from(sorted(REQUIRED)), st.from_regex(r"\A[a-z_]{1,12}\Z"), st.integers())
def test_a_document_with_an_unknown_key_is_refused(place: str, key: str, value: int) -> None:
    document = configuration.good()
    table = dict(tables(document))[place]
    if key in table or key in {*Settings.__struct_fields__, *SECTION_KEYS}:
        return
    table[key] = value if place else {"key": value}
    error = load(document)
    assert error is not None
    assert any(fault.endswith(f"{key}: unknown key") for fault in error.faults)


SECTION_KEYS = {
    name
    for section in (
        *(serving.Server, organizing.Organisation, storing.Store, storing.Audit, exchanging.Tokens),
        *(exchanging.Issuer, upstream.Bedrock, upstream.Streams, upstream.Model, budgeting.Budget),
    )
    for name in section.__struct_fields__
}


@given(st.sampled_from(KEYS), toml_values)
@example(("store", "path"), "a\0b")
@example(("tokens", "cluster_secret_file"), "\0")
@example(("issuers.0", "ca_file"), "\0")
@example(("budgets.0", "limit_usd"), float("nan"))
@example(("organisation", "time_zone"), "x" * 300)
def test_a_value_of_any_kind_is_taken_or_refused_and_nothing_worse(where: tuple[str, str], value: object) -> None:
    place, key = where
    document = configuration.good()
    dict(tables(document))[place][key] = value
    error = load(copy.deepcopy(document))
    if error is not None:
        head = place.replace(".0", "[0]").replace(".1", "[1]").partition("[")[0]
        assert all(fault.startswith(head) for fault in error.faults)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:8080", ("127.0.0.1", 8080)),
        ("[::1]:0", ("::1", 0)),
        ("gateway:65535", ("gateway", 65535)),
        (":8080", None),
        ("8080", None),
        ("host:", None),
        ("host:-1", None),
        ("host:+1", None),
        ("host: 1", None),
        ("host:65536", None),
        ("host:" + "9" * 5000, None),
    ],
)
def test_an_address_is_host_and_port(text: str, address: tuple[str, int] | None) -> None:
    if address is not None:
        assert listen_address(text) == address
    else:
        with pytest.raises(ValueError, match=r"."):
            listen_address(text)


ALLOWANCES: dict[str, tuple[dict[str, object], str]] = {
    "without an amount": ({"when_store_away": "allowance"}, "budgets[0].allowance_usd: goes with when_store_away"),
    "an amount alone": ({"allowance_usd": 1}, "budgets[0].allowance_usd: goes with when_store_away"),
    "more than the limit": (
        {"when_store_away": "allowance", "allowance_usd": 26},
        "budgets[0].allowance_usd: must be more than 0 and at most limit_usd",
    ),
    "nothing": (
        {"when_store_away": "allowance", "allowance_usd": 0},
        "budgets[0].allowance_usd: must be more than 0 and at most limit_usd",
    ),
    "of tokens": (
        {
            "limit_usd": None,
            "limit_tokens": 5,
            "overshoot_usd": None,
            "when_store_away": "allowance",
            "allowance_usd": 1,
        },
        "budgets[0].allowance_usd: goes with limit_usd",
    ),
    "no journal": ({"when_store_away": "allowance", "allowance_usd": 1}, "store.journal: is needed"),
}


@pytest.mark.parametrize(("changed", "said"), ALLOWANCES.values(), ids=ALLOWANCES.keys())
def test_an_allowance_that_means_nothing_is_a_fault(path: Path, changed: dict[str, object], said: str) -> None:
    document = configuration.good()
    budget = document["budgets"][0] | changed
    document["budgets"] = [{key: value for key, value in budget.items() if value is not None}]
    (fault,) = faults(path, document)
    assert fault.startswith(said)


def test_an_allowance_and_its_journal_are_read(path: Path) -> None:
    document = configuration.good()
    document["budgets"][0] |= {"when_store_away": "allowance", "allowance_usd": 25.5}
    document["store"]["journal"] = "journal"
    assert settings.load(configuration.write(path, document)).budgets[0].allowance == 25_500_000
    document["store"]["journal"] = "nowhere/journal"
    (fault,) = faults(path, document)
    assert fault.startswith("store.journal: no such folder")


@pytest.mark.parametrize(
    ("sections", "names"),
    [
        ({}, False),
        ({"teams": [{"name": "research", "groups": ["g"]}]}, False),
        ({"teams": [{"name": "research", "members": ["ada@example.com"]}]}, True),
        ({"budgets": [{"level": "user", "limit_usd": 1, "of": "ada@example.com"}]}, True),
        ({"limits": [{"level": "user", "requests_per_minute": 1, "of": "ada@example.com"}]}, True),
        ({"policies": [{"members": ["ada@example.com"]}]}, True),
        ({"policies": [{"groups": ["g"]}]}, False),
        ({"limits": [{"level": "key", "requests_per_minute": 1, "of": "key_1"}]}, False),
    ],
)
def test_it_is_known_whether_people_are_named_by_e_mail(
    tmp_path: Path, sections: dict[str, Any], *, names: bool
) -> None:
    document = configuration.good() | sections
    loaded = settings.load(configuration.write(configuration.folder(tmp_path), document))
    assert loaded.names_people is names


POLICIES: dict[str, tuple[dict[str, Any], str]] = {
    "a team that is not there": ({"teams": ["nobody"]}, "policies[0].teams: there is no team 'nobody'"),
    "a model that is not served": ({"models": ["claude-opus-4-5"]}, "policies[0].models: 'claude-opus-4-5' is not"),
    "a misspelt key": ({"max_token": 5}, "policies[0].max_token: unknown key"),
    "a cap on what is refused": ({"action": "refuse", "max_tokens": 5}, "policies[0].max_tokens: does not go with"),
    "a thinking budget below the least": ({"thinking_tokens": 5}, "policies[0].thinking_tokens: "),
    "no room for an answer": (
        {"thinking_tokens": 5000, "max_tokens": 5000},
        "policies[0].thinking_tokens: must be less than max_tokens",
    ),
    "no output": ({"max_tokens": 0}, "policies[0].max_tokens: "),
    "no such place": ({"geographies": ["europe"]}, "policies[0].geographies: 'europe' is none of global, us"),
    "no such upstream": ({"upstreams": ["oregon"]}, "policies[0].upstreams: there is no upstream 'oregon'"),
    "places of what is refused": ({"action": "refuse", "geographies": ["eu"]}, "policies[0].geographies: does not go"),
    "a name on two lines": ({"name": "a\nb"}, "policies[0].name: must be printable"),
}


@pytest.mark.parametrize(("policy", "said"), POLICIES.values(), ids=POLICIES.keys())
def test_a_policy_that_means_nothing_is_a_fault(path: Path, policy: dict[str, Any], said: str) -> None:
    (fault,) = faults(path, configuration.good() | {"policies": [policy]})
    assert fault.startswith(said)


def test_two_policies_of_one_name_are_a_fault(path: Path) -> None:
    (fault,) = faults(path, configuration.good() | {"policies": [{"name": "a"}, {"name": "a"}, {}, {}]})
    assert fault == "policies: 'a' stands there twice"
