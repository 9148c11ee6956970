"""Decides whether and when a failed provider call is tried again. Pure: time and chance are arguments."""

from __future__ import annotations

from dataclasses import dataclass

from stratarouter_runtime.errors import ProviderError

MAX_BACKOFF_S = 8.0
"""Cap of the exponential backoff, as in the vendors' own clients."""
MAX_RETRY_AFTER_S = 60.0
"""A provider's wish to wait longer than this is answered by the next target or an error, not by waiting."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """``max_retries`` tries after the first, on each target; ``delay_s`` the first backoff, doubled each time."""

    max_retries: int = 3
    delay_s: float = 0.1

    def wait_s(
        self, error: ProviderError, tries: int, chance: float, remaining_s: float, *, at_once: bool = False
    ) -> float | None:
        """Seconds to wait before trying the same target again, or None to give it up.

        Args:
            error: how the last try ended.
            tries: calls made to this target so far (>= 1).
            chance: uniform in [0, 1): full jitter on the exponential part.
            remaining_s: seconds left until the deadline.
            at_once: what the provider asks for is of another key than the next try's.
        """
        if not error.retryable or tries > self.max_retries:
            return None
        wait = 0.0 if at_once else error.retry_after_s
        if wait is None:
            wait = min(MAX_BACKOFF_S, self.delay_s * 2 ** (tries - 1)) * chance
        elif wait > MAX_RETRY_AFTER_S:
            return None
        return wait if wait < remaining_s else None
