"""When a failed call is tried again: never for nothing, never too soon, and never past what somebody waits for."""

from __future__ import annotations

import pytest

from stratarouter_runtime.errors import ProviderRateLimitedError, ProviderRejectedError, ProviderUnavailableError
from stratarouter_runtime.state.retry import MAX_BACKOFF_S, MAX_RETRY_AFTER_S, RetryPolicy

DOWN = ProviderUnavailableError("503")


def test_each_wait_is_twice_the_one_before_up_to_a_bound() -> None:
    policy = RetryPolicy(max_retries=10, delay_s=0.1)
    waits = [policy.wait_s(DOWN, tries, 1.0, 1e9) for tries in range(1, 11)]
    assert waits == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, *[MAX_BACKOFF_S] * 3])


def test_chance_spreads_the_whole_of_a_wait() -> None:
    policy = RetryPolicy(max_retries=10, delay_s=0.1)
    assert policy.wait_s(DOWN, 3, 0.0, 60.0) == 0.0
    assert policy.wait_s(DOWN, 3, 0.25, 60.0) == pytest.approx(0.1)


def test_what_the_provider_asks_for_is_waited_exactly_and_a_minute_at_most() -> None:
    policy = RetryPolicy(max_retries=10, delay_s=0.1)
    for asked, waits in ((0.0, 0.0), (7.0, 7.0), (MAX_RETRY_AFTER_S, MAX_RETRY_AFTER_S), (MAX_RETRY_AFTER_S + 1, None)):
        assert policy.wait_s(ProviderRateLimitedError("429", retry_after_s=asked), 1, 0.5, 1e9) == waits


def test_a_try_that_nobody_would_wait_for_is_not_waited_for() -> None:
    policy = RetryPolicy(max_retries=10, delay_s=0.1)
    slow_down = ProviderRateLimitedError("429", retry_after_s=7.0)
    assert policy.wait_s(slow_down, 1, 0.5, 7.1) == 7.0
    assert policy.wait_s(slow_down, 1, 0.5, 7.0) is None


def test_so_many_tries_follow_the_first_and_none_what_was_refused() -> None:
    policy = RetryPolicy(max_retries=2, delay_s=0.1)
    assert [policy.wait_s(DOWN, tries, 0.0, 60.0) for tries in (1, 2, 3)] == [0.0, 0.0, None]
    assert policy.wait_s(ProviderRejectedError("400"), 1, 0.0, 60.0) is None
