"""What the bound on wrong hits learns, step by step; ``test_error_bound_simulated.py`` says what comes of it."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stratarouter_runtime.state.error_bound import KEPT, PROBATION, STALE, ErrorBound, Observation, wilson

BOUND = 0.05
ENOUGH = 120
"""Right answers after which a bound of 0.05 is met."""


def taught(state: ErrorBound, *, right: int = ENOUGH, scope: str = "s", likeness: float = 0.95) -> ErrorBound:
    for _ in range(right):
        state.observe(Observation(scope, likeness, right=True, served=False, bound=BOUND))
    return state


def wrong(state: ErrorBound, times: int = 1, *, served: bool, likeness: float = 0.95) -> None:
    for _ in range(times):
        state.observe(Observation("s", likeness, right=False, served=served, bound=BOUND))


def test_nothing_is_trusted_without_evidence() -> None:
    state = ErrorBound()
    assert not state.trusts("s", 1.0, BOUND)
    assert state.floor("s", BOUND) == math.inf
    assert state.measured().rate is None


def test_a_stricter_bound_asks_for_more_evidence() -> None:
    needed = {}
    for bound in (0.01, 0.02, 0.05):
        state, seen = ErrorBound(), 0
        while not state.trusts("s", 0.95, bound):
            state.observe(Observation("s", 0.95, right=True, served=False, bound=bound))
            seen += 1
        needed[bound] = seen
    assert 400 <= needed[0.01] <= 470
    assert 190 <= needed[0.02] <= 240
    assert 70 <= needed[0.05] <= 100


@pytest.mark.parametrize(("before", "after", "trusts"), [(0.1, 0.01, False), (0.01, 0.1, True)])
def test_a_changed_bound_holds_from_its_first_comparison_on(before: float, after: float, trusts: bool) -> None:
    """The first one took the bound over and kept the threshold that was learnt for the other."""
    state = ErrorBound()
    for number in range(180):
        state.observe(Observation("s", 0.95, right=number % 30 != 0, served=False, bound=before))
    trusted = [state.trusts("s", 0.95, after)]
    for _ in range(2 * STALE):
        state.observe(Observation("s", 0.95, right=True, served=False, bound=after))
        trusted.append(state.trusts("s", 0.95, after))
    assert set(trusted) == {trusts}


def test_what_lies_below_the_evidence_is_not_trusted() -> None:
    state = taught(ErrorBound())
    assert state.trusts("s", 0.95, BOUND)
    assert state.trusts("s", 0.99, BOUND)
    assert not state.trusts("s", 0.94, BOUND)
    assert state.floor("s", BOUND) == pytest.approx(0.95)


def test_good_hits_above_do_not_pay_for_bad_ones_below() -> None:
    state = taught(ErrorBound(), right=300, likeness=0.98)
    for right in [False] * 6 + [True] * 4:
        state.observe(Observation("s", 0.85, right=right, served=False, bound=BOUND))
    assert state.floor("s", BOUND) == pytest.approx(0.98)


def test_after_a_wrong_hit_some_are_held_back_before_it_goes_on() -> None:
    state = taught(ErrorBound(), right=350)
    wrong(state, served=True)
    assert not state.trusts("s", 0.99, BOUND)
    taught(state, right=round(PROBATION / BOUND))
    assert state.trusts("s", 0.99, BOUND)


def test_a_wrong_one_that_was_held_back_hurt_nobody() -> None:
    state = taught(ErrorBound(), right=350)
    wrong(state, served=False)
    assert state.trusts("s", 0.99, BOUND)


def test_several_wrong_hits_in_a_row_make_it_learn_anew() -> None:
    state = taught(ErrorBound(), right=390)
    wrong(state, 5, served=True)
    taught(state, right=round(PROBATION / BOUND))
    assert not state.trusts("s", 0.99, BOUND)
    taught(state, right=390)
    assert state.trusts("s", 0.99, BOUND)


def test_another_scopes_evidence_counts_for_a_part_and_not_for_all() -> None:
    state = taught(ErrorBound(), right=300, scope="other")
    alone, helped = 0, 0
    while not state.trusts("s", 0.95, BOUND):
        taught(state, right=1)
        helped += 1
    alone_state = ErrorBound()
    while not alone_state.trusts("s", 0.95, BOUND):
        taught(alone_state, right=1)
        alone += 1
    assert 15 <= helped < 0.6 * alone


def test_what_was_learnt_long_ago_gives_way() -> None:
    state = taught(ErrorBound(), right=10_000)
    assert state._scopes["s"].seen.sum() <= KEPT / BOUND


def test_scopes_beyond_the_limit_are_forgotten_and_their_evidence_with_them() -> None:
    state = ErrorBound(max_scopes=3)
    for name in "abcd":
        taught(state, scope=name)
    assert len(state) == 3
    assert not state.trusts("a", 0.95, BOUND)
    assert state._pool_seen.sum() == 3 * ENOUGH


def test_the_published_rate_speaks_of_served_answers_alone() -> None:
    state = taught(ErrorBound(), right=200)
    for number in range(100):
        state.observe(Observation("s", 0.97, right=number >= 2, served=True, bound=BOUND))
    measured = state.measured()
    assert (measured.checked, measured.wrong, measured.rate) == (100, 2, 0.02)
    assert measured.low is not None
    assert measured.high is not None
    assert measured.low < 0.02 < measured.high


def test_the_interval_is_wilsons() -> None:
    # Published values: 0 of 10, and 5 of 100.
    assert wilson(0, 10) == pytest.approx((0.0, 0.0, 0.2775), abs=1e-4)
    assert wilson(5, 100) == pytest.approx((0.05, 0.0215, 0.1118), abs=1e-4)


OBSERVATIONS = st.lists(
    st.builds(
        Observation,
        st.sampled_from("abcde"),
        st.floats(-1, 1.01),
        st.booleans(),
        st.booleans(),
        st.sampled_from([0.01, 0.05, 0.5]),
    ),
    max_size=200,
)


@settings(max_examples=50, deadline=None)
@given(OBSERVATIONS)
def test_the_pool_is_the_sum_of_the_scopes_whatever_comes(seen: list[Observation]) -> None:
    state = ErrorBound(max_scopes=3)
    for one in seen:
        state.observe(one)
        state.trusts(one.scope, one.likeness, one.bound)
    scopes = state._scopes.values()
    assert len(scopes) <= 3
    assert state._pool_seen == pytest.approx(sum(scope.seen for scope in scopes), abs=1e-6)
    assert state._pool_wrong == pytest.approx(sum(scope.wrong for scope in scopes), abs=1e-6)
    assert all((scope.wrong <= scope.seen).all() for scope in scopes)


@settings(max_examples=50, deadline=None)
@given(OBSERVATIONS)
def test_the_same_evidence_in_the_same_order_gives_the_same_state(seen: list[Observation]) -> None:
    """So every worker that reads the stream comes to the same thresholds."""
    one, other = ErrorBound(), ErrorBound()
    for observation in seen:
        one.observe(observation)
    for observation in seen:
        other.observe(observation)
        other.measured()
    assert one.measured() == other.measured()
    for name in "abcde":
        for bound in (0.01, 0.05, 0.5):
            assert one.floor(name, bound) == other.floor(name, bound)
