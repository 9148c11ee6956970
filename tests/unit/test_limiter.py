"""Rate limits: never more than the limit and one burst, what headers teach, and what nonsense they may say."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stratarouter_runtime.state.limiter import BURST_S, MAX_RESET_S, Booking, RateHint, RateLimiter, RateWindow

NOTHING = RateWindow()


def test_without_limits_nothing_waits() -> None:
    limiter = RateLimiter()
    assert [limiter.reserve(0.0, 10_000).wait_s for _ in range(1000)] == [0.0] * 1000


def test_requests_are_spread_after_the_burst() -> None:
    limiter = RateLimiter(requests_per_minute=60)
    assert [limiter.reserve(0.0, 1).wait_s for _ in range(5)] == [0.0, 0.0, 1.0, 2.0, 3.0]


def test_tokens_count_too_and_are_settled_by_what_was_used() -> None:
    limiter = RateLimiter(tokens_per_minute=6000)
    bookings = [limiter.reserve(0.0, 200) for _ in range(2)]
    assert [booking.wait_s for booking in bookings] == [0.0, 2.0]
    for booking in bookings:
        booking.settle(0)
    assert limiter.wait_s(0.0, 200) == 0.0


def test_a_call_larger_than_the_limit_still_goes_and_is_paid_for_afterwards() -> None:
    limiter = RateLimiter(tokens_per_minute=600)
    booking = limiter.reserve(0.0, 6000)
    assert booking.wait_s == 0.0
    booking.settle(6000)
    assert limiter.wait_s(0.0, 10) > 500


def test_a_call_that_may_take_more_than_a_minute_of_the_limit_books_one() -> None:
    limiter = RateLimiter(tokens_per_minute=600)
    booking = limiter.reserve(0.0, 2_000_000_000)
    assert booking.wait_s == 0.0
    assert limiter.wait_s(0.0, 10) < 61
    booking.settle(0)
    assert limiter.wait_s(0.0, 10) == 0.0


def test_a_refusal_closes_the_key_for_a_bounded_time() -> None:
    limiter = RateLimiter()
    limiter.penalise(0.0, 5.0)
    assert limiter.wait_s(1.0, 1) == 4.0
    limiter.penalise(0.0, 1e9)
    assert limiter.wait_s(0.0, 1) == MAX_RESET_S


def test_what_gathers_while_a_key_is_closed_leaves_as_after_any_pause() -> None:
    limiter = RateLimiter(requests_per_minute=60)
    limiter.penalise(0.0, 30.0)
    assert [limiter.reserve(now, 1).wait_s + now for now in (0.0, 10.0, 20.0, 29.0)] == [30.0, 30.0, 31.0, 32.0]
    assert limiter.is_closed(29.0)
    assert not limiter.is_closed(30.0)


def test_headers_teach_a_limit_and_never_widen_the_configured_one() -> None:
    learnt, configured = RateLimiter(), RateLimiter(requests_per_minute=30)
    for limiter in (learnt, configured):
        limiter.learn(0.0, RateHint(RateWindow(limit=60), NOTHING))
        for _ in range(2):
            limiter.reserve(0.0, 1)
    assert learnt.wait_s(0.0, 1) == 1.0
    assert configured.wait_s(0.0, 1) == 4.0


def test_what_is_nearly_used_up_is_spread_until_it_is_whole_again() -> None:
    limiter = RateLimiter()
    limiter.learn(0.0, RateHint(RateWindow(limit=1000, remaining=0, reset_s=30), NOTHING))
    assert limiter.wait_s(0.0, 1) == pytest.approx(30 - BURST_S, abs=0.1)


@given(
    st.integers(1, 600),
    st.lists(st.tuples(st.floats(0, 3), st.integers(1, 50)), min_size=1, max_size=100),
)
def test_no_minute_holds_more_than_the_limit_and_one_burst(limit: int, arrivals: list[tuple[float, int]]) -> None:
    limiter, now, leaving = RateLimiter(requests_per_minute=limit), 0.0, []
    for pause, calls in arrivals:
        now += pause
        leaving += [now + limiter.reserve(now, 1).wait_s for _ in range(calls)]
    leaving.sort()
    allowed = limit + limit * BURST_S / 60 + 1
    for first in range(0, len(leaving), 7):
        assert sum(leaving[first] <= at < leaving[first] + 60 for at in leaving) <= allowed + 1e-6


@given(
    st.builds(
        RateHint,
        st.builds(RateWindow, st.none() | st.integers(), st.none() | st.integers(), st.none() | st.floats(0, 1e12)),
        st.builds(RateWindow, st.none() | st.integers(), st.none() | st.integers(), st.none() | st.floats(0, 1e12)),
    )
)
def test_nonsense_in_headers_never_closes_a_key_for_longer_than_the_bound(hint: RateHint) -> None:
    limiter = RateLimiter()
    limiter.learn(0.0, hint)
    assert 0 <= limiter.wait_s(0.0, 1) <= MAX_RESET_S


def test_what_one_reply_claims_to_have_used_closes_no_key_for_days() -> None:
    limiter = RateLimiter(tokens_per_minute=600)
    limiter.reserve(0.0, 10).settle(2_000_000_000)
    assert 3500 < limiter.wait_s(0.0, 10) < 3700


def test_a_place_that_is_not_used_goes_to_the_next() -> None:
    limiter = RateLimiter(requests_per_minute=60, tokens_per_minute=6000)
    bookings = [limiter.reserve(0.0, 200) for _ in range(3)]
    assert [booking.wait_s for booking in bookings] == [0.0, 2.0, 4.0]
    bookings.pop().release()
    assert limiter.wait_s(0.0, 200) == 4.0
    for booking in bookings:
        booking.release()
    *_, last = bookings = [limiter.reserve(0.0, 1) for _ in range(4)]
    assert [booking.wait_s for booking in bookings] == [0.0, 0.0, 1.0, 2.0]
    last.release()
    assert limiter.wait_s(0.0, 1) == 2.0


@given(
    st.lists(st.tuples(st.floats(0, 20), st.integers(1, 6000), st.floats(0, 1)), min_size=1, max_size=20),
    st.floats(0, 120),
    st.lists(st.tuples(st.floats(0, 3), st.integers(1, 40), st.integers(0, 3)), min_size=1, max_size=60),
)
def test_what_calls_from_before_a_pause_have_not_used_lets_no_more_leave_after_it(
    early: list[tuple[float, int, float]], idle_s: float, late: list[tuple[float, int, int]]
) -> None:
    """Early calls that booked much, took little and lasted long gave back time that was over."""
    limit, tokens, now = 6000, 100, 0.0
    limiter, under_way, leaving = RateLimiter(tokens_per_minute=limit), deque[tuple[Booking, int]](), list[float]()
    for pause, booked, share in early:
        now += pause
        under_way.append((limiter.reserve(now, booked), int(booked * share)))
    # Until all that was booked is over.
    now += limiter.wait_s(now, limit) + BURST_S + idle_s
    for pause, calls, ended in late:
        now += pause
        for _ in range(calls):
            booking = limiter.reserve(now, tokens)
            leaving.append(now + booking.wait_s)
            booking.settle(tokens)
        for _ in range(min(ended, len(under_way))):
            booking, used = under_way.popleft()
            booking.settle(used)
    leaving.sort()
    allowed = limit + limit * BURST_S / 60 + tokens
    for first in leaving[::7]:
        assert tokens * sum(first <= at < first + 60 for at in leaving) <= allowed + 1e-6


@pytest.mark.parametrize("closed", [False, True], ids=["after a pause", "behind a closed key"])
@pytest.mark.parametrize(("used", "waits"), [(0, 10.0), (400, 10.0), (700, 13.0)])
def test_a_place_whose_time_is_over_gives_nothing_back_and_still_pays_its_debt(
    closed: bool, used: int, waits: float
) -> None:
    limiter = RateLimiter(tokens_per_minute=6000)
    early, now = limiter.reserve(0.0, 400), 5.0
    if closed:
        limiter.penalise(3.0, 2.0)
        now = 3.0
    late = [limiter.reserve(now, 400) for _ in range(3)]
    early.settle(used)
    assert limiter.wait_s(5.0, 200) == pytest.approx(waits + 2.0)
    # Those that came after it give back what they have not used.
    for booking in late:
        booking.settle(200)
    assert limiter.wait_s(5.0, 200) == pytest.approx(waits + 2.0 - 3 * 2.0)


def test_calls_are_held_back_only_where_next_to_nothing_is_left() -> None:
    for remaining, waits in ((5, 120 / 6 + 0.6 - BURST_S), (6, 0.0)):
        limiter = RateLimiter()
        limiter.learn(0.0, RateHint(RateWindow(limit=100, remaining=remaining, reset_s=120), NOTHING))
        assert limiter.wait_s(0.0, 1) == pytest.approx(waits)


def test_headers_teach_the_limit_on_tokens_too() -> None:
    limiter = RateLimiter()
    limiter.learn(0.0, RateHint(NOTHING, RateWindow(limit=6000)))
    assert [limiter.reserve(0.0, 200).wait_s for _ in range(2)] == [0.0, 2.0]


@pytest.mark.parametrize("wait_s", [0.0, -5.0])
def test_a_refusal_that_asks_for_no_wait_closes_nothing(wait_s: float) -> None:
    limiter = RateLimiter()
    limiter.penalise(10.0, wait_s)
    assert limiter.wait_s(10.0, 1) == 0.0


def test_what_is_left_of_a_limit_is_never_less_than_nothing() -> None:
    limiter = RateLimiter()
    limiter.learn(0.0, RateHint(RateWindow(limit=100, remaining=-1, reset_s=30), NOTHING))
    assert limiter.wait_s(0.0, 1) == 0.0


def test_a_place_is_given_back_as_it_was_taken_whatever_the_limit_is_by_then() -> None:
    limiter = RateLimiter()
    limiter.learn(0.0, RateHint(RateWindow(limit=600), NOTHING))
    bookings = [limiter.reserve(0.0, 1) for _ in range(60)]
    limiter.learn(0.0, RateHint(RateWindow(limit=30), NOTHING))
    for booking in bookings[:10]:
        booking.release()
    assert limiter.wait_s(0.0, 1) == pytest.approx(60 * 0.1 - 10 * 0.1)


def test_what_was_booked_under_no_limit_is_not_given_back_under_one_learnt_since() -> None:
    limiter = RateLimiter()
    early = [limiter.reserve(0.0, 3000) for _ in range(20)]
    limiter.learn(0.0, RateHint(RateWindow(limit=60), RateWindow(limit=6000)))
    now = [limiter.reserve(0.0, 200) for _ in range(2)]
    for booking in early[:10]:
        booking.settle(100)
    for booking in early[10:]:
        booking.release()
    assert limiter.wait_s(0.0, 200) == 4.0
    now[0].settle(100)
    assert limiter.wait_s(0.0, 200) == 3.0
