from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from llmgw_agent.cache import (
    RENEWAL_PAUSE,
    REPEAT_WITHIN,
    USABLE_SECONDS,
    CachedToken,
    Key,
    Repeats,
    TokenCache,
)
from llmgw_wire.secret import Secret

TIMES = st.floats(min_value=0, max_value=4e9)
LIVES = st.integers(min_value=1, max_value=86400)
TOKEN = CachedToken(Secret("canary"), 1000.0, 1600.0)


@given(born=TIMES, life=LIVES, now=TIMES)
def test_a_fresh_token_has_half_of_its_life_left(born: float, life: int, now: float) -> None:
    token = CachedToken(Secret("t"), born, born + life)
    if token.is_fresh(now):
        assert token.expires_at - now >= (token.expires_at - token.obtained_at) / 2
        assert now >= born - 1


@given(born=TIMES, life=LIVES, now=TIMES)
def test_what_is_handed_out_always_lives(born: float, life: int, now: float) -> None:
    cache, key = TokenCache(), Key("s", "a")
    cache.put(key, CachedToken(Secret("t"), born, born + life))
    usable = cache.usable(key, now)
    assert usable is None or usable.expires_at - now >= USABLE_SECONDS
    fresh = cache.fresh(key, now)
    assert fresh is None or fresh.expires_at > now


@given(keys=st.lists(st.tuples(st.text(), st.text()), unique=True, max_size=8))
def test_tokens_of_different_keys_never_mix(keys: list[tuple[str, str]]) -> None:
    cache = TokenCache()
    tokens = {Key(*key): CachedToken(Secret(str(number)), 0.0, 600.0) for number, key in enumerate(keys)}
    for key, token in tokens.items():
        cache.put(key, token)
    assert all(cache.newest(key) is token for key, token in tokens.items())


def test_a_token_of_600_s_is_renewed_after_300_s() -> None:
    assert TOKEN.is_fresh(1300.0)
    assert not TOKEN.is_fresh(1300.1)
    assert TOKEN.is_usable(1570.0)
    assert not TOKEN.is_usable(1570.1)


def test_a_clock_that_was_set_back_makes_a_token_worthless() -> None:
    assert TOKEN.seconds_left(900.0) == 0.0


def test_the_second_call_of_a_program_means_that_its_token_was_refused() -> None:
    repeats = Repeats()
    assert not repeats.suggest_renewal("claude", TOKEN, 1000.0)
    repeats.handed_out("claude", TOKEN, 1000.0)
    assert not repeats.suggest_renewal("codex", TOKEN, 1001.0)
    assert repeats.suggest_renewal("claude", TOKEN, 1001.0)


def test_callers_side_by_side_and_late_ones_are_no_repeats() -> None:
    repeats = Repeats()
    repeats.handed_out("make", TOKEN, 1000.0)
    assert not repeats.suggest_renewal("make", TOKEN, 1000.1)
    assert not repeats.suggest_renewal("make", TOKEN, 1000.1 + REPEAT_WITHIN)


def test_another_token_since_is_no_repeat() -> None:
    repeats = Repeats()
    repeats.handed_out("claude", TOKEN, 1000.0)
    newer = CachedToken(Secret("newer"), 1000.0, 1600.0)
    assert not repeats.suggest_renewal("claude", newer, 1001.0)


@given(gaps=st.lists(st.floats(min_value=0.0, max_value=20.0), max_size=200))
def test_a_loop_cannot_hammer(gaps: list[float]) -> None:
    repeats, now, renewals = Repeats(), 0.0, []
    for gap in gaps:
        now += gap
        if repeats.suggest_renewal("loop", TOKEN, now):
            renewals.append(now)
        repeats.handed_out("loop", TOKEN, now)
    pauses = [later - earlier for earlier, later in pairwise(renewals)]
    assert all(pause >= RENEWAL_PAUSE for pause in pauses)


def test_nothing_here_prints_a_token() -> None:
    assert "canary" not in repr(TOKEN)
