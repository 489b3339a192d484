"""Who may use which model: the first entry that concerns both decides, and what is unknown never opens anything."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmgw_gateway.call import NO_MEMBERSHIPS, Account, Caller, Memberships
from llmgw_gateway.errors import GatewayError
from llmgw_gateway.policy.accounts import Accounts
from llmgw_gateway.policy.models import Policy, ServedModel
from llmgw_gateway.policy.permissions import Permissions
from llmgw_gateway.sections.organizing import Team
from llmgw_gateway.sections.permitting import Permission
from llmgw_wire.errors import ErrorCode

MODELS = ("haiku", "sonnet", "opus")
ADA = Account("per_ada", "ada@example.com", "research", groups=frozenset({"opus-users"}))
EVE = Account("per_eve", "eve@example.com")
OVERAGE = Account("per_over", "over@example.com", groups=None)

SONNET_BY_DEFAULT = (
    Permission(name="contractors", groups=("contractors",), models=("haiku",)),
    Permission(groups=("contractors",), action="refuse"),
    Permission(name="opus", groups=("opus-users",), members=("bob@example.com",), models=("opus",), max_tokens=32_000),
    Permission(models=("sonnet", "haiku")),
)


def allowed(account: Account, entries: tuple[Permission, ...] = SONNET_BY_DEFAULT) -> tuple[str, ...]:
    return Permissions(entries, MODELS).allowed(account)


def test_without_policies_everyone_may_use_everything() -> None:
    assert allowed(EVE, ()) == allowed(OVERAGE, ()) == MODELS


@pytest.mark.parametrize(
    ("account", "models"),
    [
        (ADA, ("haiku", "sonnet", "opus")),
        (EVE, ("haiku", "sonnet")),
        (Account("per_bob", "bob@example.com"), ("haiku", "sonnet", "opus")),
        (Account("per_con", groups=frozenset({"contractors"})), ("haiku",)),
        # In both: the entry further up decides, and closes the rest.
        (Account("per_two", groups=frozenset({"contractors", "opus-users"})), ("haiku",)),
        (Account("key_1", models=frozenset({"haiku", "opus"})), ("haiku",)),
    ],
)
def test_sonnet_by_default_and_opus_for_these(account: Account, models: tuple[str, ...]) -> None:
    assert allowed(account) == models


def test_what_no_entry_allows_is_refused() -> None:
    verdict = Permissions(SONNET_BY_DEFAULT, MODELS).decide(EVE, "opus")
    assert (verdict.allowed, verdict.why, verdict.title) == (False, "no_entry", "")


def test_the_entry_that_decided_is_named() -> None:
    permissions = Permissions(SONNET_BY_DEFAULT, MODELS)
    assert permissions.decide(ADA, "opus").title == "policies[2] (opus)"
    assert permissions.decide(ADA, "sonnet").title == "policies[3]"
    assert [step.number for step in permissions.steps(ADA, "opus")] == [0, 1, 2]


def test_a_team_is_meant_by_its_name() -> None:
    entries = (Permission(teams=("research",), models=("opus",)), Permission(models=("sonnet",)))
    assert allowed(ADA, entries) == ("sonnet", "opus")
    assert allowed(EVE, entries) == ("sonnet",)


def test_unknown_groups_are_never_no_groups() -> None:
    assert allowed(OVERAGE) == ()
    verdict = Permissions(SONNET_BY_DEFAULT, MODELS).decide(OVERAGE, "sonnet")
    assert (verdict.why, verdict.number) == ("groups_unknown", 1)
    # What stands above every entry about groups is decided without them.
    assert allowed(OVERAGE, (Permission(models=("haiku",)), *SONNET_BY_DEFAULT)) == ("haiku",)
    by_name = Permission(members=("over@example.com",), models=("opus",))
    assert allowed(OVERAGE, (by_name, *SONNET_BY_DEFAULT)) == ("opus",)


names = st.sampled_from(("a", "b", "c"))
who = st.lists(names, max_size=2, unique=True).map(tuple)
entries = st.builds(
    Permission,
    action=st.sampled_from(("allow", "refuse")),
    models=st.lists(st.sampled_from(MODELS), max_size=2, unique=True).map(tuple),
    groups=who,
    teams=who,
    members=who,
)
accounts = st.builds(
    Account,
    person_id=st.just("per_1"),
    email=st.sampled_from(("", "a", "b")),
    team=st.sampled_from(("", "a", "b")),
    groups=st.none() | st.frozensets(names),
)


def by_the_book(file: tuple[Permission, ...], account: Account, model: str) -> bool:
    """The rule, said once more and otherwise: with groups known."""
    for entry in file:
        mine = {account.email} & set(entry.members) | {account.team} & set(entry.teams)
        mine |= (account.groups or frozenset()) & set(entry.groups)
        about_me = bool(mine - {""}) or not (entry.members or entry.teams or entry.groups)
        if about_me and model in (entry.models or MODELS):
            return entry.action == "allow"
    return not file


@given(st.lists(entries, max_size=5).map(tuple), accounts, st.sampled_from(MODELS))
def test_every_file_decides_by_its_first_fitting_entry(
    file: tuple[Permission, ...], account: Account, model: str
) -> None:
    permissions = Permissions(file, MODELS)
    decided = permissions.decide(account, model).allowed
    if account.groups is not None:
        assert decided == by_the_book(file, account, model)
    elif decided:
        # Whatever the groups are: what is allowed without knowing them is allowed with any.
        for some in (frozenset(), frozenset({"a"}), frozenset({"a", "b", "c"})):
            known = Account("per_1", account.email, account.team, groups=some)
            assert by_the_book(file, known, model)


@given(st.lists(entries, max_size=5).map(tuple), accounts, st.sampled_from(MODELS))
def test_an_entry_that_is_called_unreachable_never_decides(
    file: tuple[Permission, ...], account: Account, model: str
) -> None:
    permissions = Permissions(file, MODELS)
    assert permissions.decide(account, model).number not in permissions.unreachable()


def test_unreachable_entries_and_unusable_models_are_found() -> None:
    file = (
        Permission(models=("sonnet",)),
        Permission(groups=("g",), models=("sonnet",), max_tokens=5),
        Permission(groups=("g", "h"), models=("haiku",)),
        Permission(groups=("g",), models=("haiku", "sonnet")),
    )
    permissions = Permissions(file, MODELS)
    assert permissions.unreachable() == [1, 3]
    assert permissions.unusable() == ["opus"]


def served(name: str) -> ServedModel:
    return ServedModel(name, name.title(), "anthropic", (name,), f"anthropic.{name}", (), 64_000, "")


POLICY = Policy([served(name) for name in MODELS], "us-east-1", "#llm-help", SONNET_BY_DEFAULT)


@pytest.mark.parametrize(
    ("account", "model", "words"),
    [
        (EVE, "opus", ["not allowed to use the model opus.", "You may use: haiku, sonnet.", "Ask #llm-help"]),
        (Account("c", groups=frozenset({"contractors"})), "opus", ["by policies[1].", "You may use: haiku."]),
        (OVERAGE, "opus", ["policies[1]", "did not say which", "You may use no model for this."]),
        (EVE, "gpt", ["'gpt' is not served here", "You may use: haiku, sonnet."]),
        (Account("key", models=frozenset({"haiku"})), "sonnet", ["This service key is not for", "You may use: haiku."]),
    ],
)
def test_a_refusal_says_why_and_names_what_is_allowed(account: Account, model: str, words: list[str]) -> None:
    with pytest.raises(GatewayError) as caught:
        POLICY.authorize(account, model, 1)
    assert caught.value.code is ErrorCode.MODEL_NOT_ALLOWED
    for each in words:
        assert each in caught.value.message


def test_only_what_may_be_used_is_shown() -> None:
    assert [each.name for each in POLICY.seen_by(EVE).models] == ["haiku", "sonnet"]
    assert POLICY.seen_by(EVE).named("opus") is None
    assert POLICY.seen_by(ADA).models == POLICY.models
    (cap,) = POLICY.caps(ADA)
    assert (cap.model, cap.max_tokens, cap.thinking_tokens) == ("opus", 32_000, None)


def resolved(
    policies: tuple[Permission, ...], groups: frozenset[str] | None, stored: Memberships = NO_MEMBERSHIPS
) -> Account:
    caller = Caller("per_1", "ses_1", "key_1", "tok_1", 0)
    accounts = Accounts((Team(name="research", groups=("r",)), Team(name="science")), (), policies)
    return accounts.resolve(caller, "", groups, "", stored)


def test_an_account_carries_the_groups_that_decide_and_no_others() -> None:
    account = resolved(SONNET_BY_DEFAULT, frozenset({"r", "opus-users", "everybody"}))
    assert (account.team, account.groups) == ("research", frozenset({"opus-users"}))
    assert resolved(SONNET_BY_DEFAULT, None).groups is None
    assert resolved((Permission(models=("sonnet",)),), None).groups == frozenset()
    assert resolved((Permission(teams=("research",)),), None).groups is None


@pytest.mark.parametrize(
    ("teams", "groups", "token", "team", "deciding"),
    [
        ((), (), {"opus-users"}, "", set()),  # the directory knows the group, and the caller is not in it
        (("opus-users",), ("opus-users", "g-1"), set(), "opus-users", {"opus-users"}),
        (("science", "a"), ("science", "a"), set(), "science", set()),  # the order of the file
        (("science",), ("science",), {"r"}, "research", set()),
        (("b", "a"), ("b", "a"), set(), "a", set()),  # else the first by name
        ((), (), {"other", "r"}, "research", set()),  # of groups that it does not know the token speaks
    ],
)
def test_a_directory_s_word_on_its_own_groups_counts_more_than_a_token_s(
    teams: tuple[str, ...], groups: tuple[str, ...], token: set[str], team: str, deciding: set[str]
) -> None:
    known = frozenset({"opus-users", "g-1", "science", "a", "b"})
    stored = Memberships(teams, frozenset(groups), known, known)
    account = resolved(SONNET_BY_DEFAULT, frozenset(token), stored)
    assert (account.team, account.groups) == (team, frozenset(deciding))


def test_groups_that_a_token_cannot_tell_are_known_where_the_directory_has_all_that_decide() -> None:
    policy = (Permission(groups=("opus-users",)),)
    some = Memberships(known_groups=frozenset({"opus-users"}))
    assert resolved(policy, None, some).groups is None  # `r` decides about the team
    every = Memberships((), frozenset({"opus-users"}), frozenset(), frozenset({"opus-users", "r"}))
    assert resolved(policy, None, every).groups == frozenset({"opus-users"})


def test_a_key_may_belong_to_a_team_of_the_directory() -> None:
    caller = Caller("key_1", "sec_1", "key_1", "sec_1", 0, service=True, team="payments")
    stored = Memberships(known_teams=frozenset({"payments"}))
    assert Accounts((), ()).resolve(caller, "", frozenset(), "", stored).team == "payments"
    with pytest.raises(GatewayError):
        Accounts((), ()).resolve(caller, "", frozenset(), "")
