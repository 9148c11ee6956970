"""The circuit breaker: when it opens, whom it lets through, and that it always lets somebody through again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stratarouter_runtime.state.breaker import Breaker, BreakerPolicy

POLICY = BreakerPolicy(window_s=10, min_calls=4, failure_ratio=0.5, open_s=2, max_open_s=8, probe_s=30)


def _broken(now: float = 0.0) -> Breaker:
    breaker = Breaker(POLICY)
    for _ in range(POLICY.min_calls):
        breaker.begin(now)
        breaker.end(now, ok=False, began=now)
    return breaker


def test_it_opens_on_the_share_of_failures_and_not_before_enough_calls() -> None:
    breaker = Breaker(POLICY)
    for ok in (False, False, False):
        breaker.end(0.0, ok=ok, began=0.0)
    assert breaker.state(0.0) == "closed"
    breaker.end(0.0, ok=True, began=0.0)
    assert breaker.state(0.0) == "closed"
    breaker.end(0.0, ok=False, began=0.0)
    assert breaker.state(0.0) == "open"
    assert breaker.wait_s(0.5) == 1.5


def test_a_share_of_failures_below_the_bound_opens_nothing() -> None:
    breaker = Breaker(POLICY)
    for ok in (True, True, True, True, False, False, False):
        breaker.end(0.0, ok=ok, began=0.0)
    assert breaker.state(0.0) == "closed"
    breaker.end(0.0, ok=False, began=0.0)
    assert breaker.state(0.0) == "open"


def test_failures_of_long_ago_do_not_count() -> None:
    breaker = Breaker(POLICY)
    for _ in range(3):
        breaker.end(0.0, ok=False, began=0.0)
    breaker.end(20.0, ok=False, began=20.0)
    assert breaker.state(20.0) == "closed"


def test_failures_in_two_halves_of_the_window_count_together() -> None:
    breaker = Breaker(POLICY)
    for _ in range(3):
        breaker.end(4.9, ok=False, began=4.9)
    breaker.end(5.0, ok=False, began=5.0)
    assert breaker.state(5.0) == "open"


def test_once_it_is_well_again_it_is_as_if_it_had_never_been_ill() -> None:
    breaker = _broken()
    breaker.begin(2.0)
    breaker.end(2.0, ok=False, began=2.0)
    breaker.begin(6.0)
    breaker.end(6.0, ok=True, began=6.0)
    for _ in range(POLICY.min_calls - 1):
        breaker.end(6.0, ok=False, began=6.0)
    assert breaker.state(6.0) == "closed"
    breaker.end(6.0, ok=False, began=6.0)
    assert breaker.wait_s(6.0) == POLICY.open_s


def test_what_ends_while_it_is_open_changes_nothing() -> None:
    breaker = _broken()
    for ok in (True, False, None):
        breaker.end(1.0, ok=ok, began=0.0)
        assert (breaker.state(1.0), breaker.wait_s(1.0)) == ("open", 1.0)


@pytest.mark.parametrize("late", [True, False, None])
def test_a_call_from_before_it_opened_that_ends_beside_the_probe_says_nothing(late: bool | None) -> None:
    breaker = _broken()
    breaker.begin(2.0)
    breaker.end(2.1, ok=late, began=0.0)
    assert (breaker.state(2.1), breaker.wait_s(2.1)) == ("half_open", pytest.approx(29.9))
    breaker.end(2.2, ok=True, began=2.0)
    assert breaker.state(2.2) == "closed"


def test_half_open_lets_one_probe_through_whose_success_closes_it() -> None:
    breaker = _broken()
    assert breaker.wait_s(2.0) == 0
    assert breaker.state(2.0) == "half_open"
    breaker.begin(2.0)
    assert breaker.wait_s(2.0) == 30
    breaker.end(2.5, ok=True, began=2.0)
    assert breaker.state(2.5) == "closed"
    assert breaker.wait_s(2.5) == 0


def test_a_failed_probe_opens_it_for_longer_each_time_up_to_a_bound() -> None:
    breaker, now, waits = _broken(), 0.0, []
    for _ in range(5):
        now += breaker.wait_s(now)
        breaker.begin(now)
        breaker.end(now, ok=False, began=now)
        waits.append(breaker.wait_s(now))
    assert waits == [4, 8, 8, 8, 8]


def test_a_probe_that_never_reports_is_taken_for_lost() -> None:
    breaker = _broken()
    breaker.begin(2.0)
    assert breaker.wait_s(31.9) > 0
    assert breaker.wait_s(32.0) == 0


def test_a_probe_that_was_given_up_leaves_room_for_the_next() -> None:
    breaker = _broken()
    breaker.begin(2.0)
    breaker.end(2.1, ok=None, began=2.0)
    assert breaker.wait_s(2.1) == 0


@given(st.lists(st.tuples(st.floats(0, 20), st.sampled_from([True, False, None])), max_size=200))
def test_whatever_happens_at_most_one_probe_is_under_way_and_waiting_ends(
    steps: list[tuple[float, bool | None]],
) -> None:
    breaker, now, probes = Breaker(POLICY), 0.0, 0
    for pause, ok in steps:
        now += pause
        wait = breaker.wait_s(now)
        assert 0 <= wait <= POLICY.max_open_s + POLICY.probe_s
        if wait > 0:
            continue
        half_open = breaker.state(now) == "half_open"
        breaker.begin(now)
        if half_open:
            probes += 1
            assert breaker.wait_s(now) > 0
        breaker.end(now, ok=ok, began=now)
    assert breaker.wait_s(now + POLICY.max_open_s + POLICY.probe_s) == 0
