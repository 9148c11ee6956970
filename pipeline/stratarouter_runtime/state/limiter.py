"""Rate limits of one key: requests and tokens a minute, configured or learnt. Pure: time is an argument.

Each limit is a virtual schedule (the generic cell rate algorithm): a call books its place, and waits for it. What the
provider's headers say, and its refusals, move the schedule back.
"""

from __future__ import annotations

from stratarouter_runtime.plain import dataclass

MINUTE_S = 60.0
BURST_S = 2.0
"""How much of a limit may be used at once after a pause, in seconds of it."""
MAX_DEBT_MINUTES = 60
"""For how long one call may close a key by what it took."""
MAX_RESET_S = 120.0
"""A header that asks to wait longer is not believed: limits a minute are whole again after one."""
LOW_SHARE = 0.05
"""Below this share of a limit left, calls are spread over the time until it is whole again."""


@dataclass(frozen=True, slots=True)
class RateWindow:
    """One limit as a provider tells it: its size, what is left, seconds until it is whole again. None: not said."""

    limit: int | None = None
    remaining: int | None = None
    reset_s: float | None = None

    @property
    def says_something(self) -> bool:
        """Whether there is anything to learn: a time alone teaches nothing."""
        return self.limit is not None or self.remaining is not None


@dataclass(frozen=True, slots=True)
class RateHint:
    """The limits on requests and on tokens as the provider counted them after a call."""

    requests: RateWindow
    tokens: RateWindow


class _Schedule:
    """One limit: when the next unit has its place."""

    def __init__(self, per_minute: int | None) -> None:
        self.configured = per_minute
        self.per_minute = per_minute
        self._next = 0.0

    def wait_s(self, now: float, units: float) -> float:
        """Seconds until ``units`` would have their place; 0 where there is no limit."""
        if self.per_minute is None:
            return 0.0
        # A call larger than the whole burst would never fit: it goes when the burst is whole, and pays afterwards.
        burst = min(units * MINUTE_S / self.per_minute, BURST_S)
        return max(0.0, self._next + burst - BURST_S - now)

    def book(self, now: float, units: float) -> None:
        """Take the place."""
        if self.per_minute is not None:
            self._next = max(self._next, now) + units * MINUTE_S / self.per_minute

    def bounded(self, units: float, minutes: float = 1) -> float:
        """What a call of ``units`` books: so many minutes of the limit at most, whatever it says that it may take."""
        return units if self.per_minute is None else min(max(0, units), minutes * self.per_minute)

    def give_back(self, units: float) -> None:
        """What was booked and not used (or, negative, used and not booked)."""
        if self.per_minute is not None:
            self._next -= units * MINUTE_S / self.per_minute

    def learn(self, now: float, window: RateWindow) -> None:
        """Take the provider's own count up; a configured limit is never exceeded for it."""
        if window.limit is not None and window.limit > 0:
            known = self.configured
            self.per_minute = window.limit if known is None else min(known, window.limit)
        if window.remaining is None or window.remaining < 0 or not window.limit or window.limit <= 0:
            return
        if window.remaining <= window.limit * LOW_SHARE and window.reset_s is not None and window.reset_s >= 0:
            wait = min(window.reset_s, MAX_RESET_S)
            self._next = max(self._next, now + wait / (window.remaining + 1))


class RateLimiter:
    """The limits of one key in this process.

    Args:
        requests_per_minute: configured; None: only what is learnt.
        tokens_per_minute: input and output together.
    """

    def __init__(self, requests_per_minute: int | None = None, tokens_per_minute: int | None = None) -> None:
        self._requests = _Schedule(requests_per_minute)
        self._tokens = _Schedule(tokens_per_minute)
        self._closed_until = 0.0

    @property
    def counts_tokens(self) -> bool:
        """Whether a limit on tokens is known: a call before it books none, and has none to settle."""
        return self._tokens.per_minute is not None

    def wait_s(self, now: float, tokens: int) -> float:
        """Seconds until a call of about ``tokens`` may leave. Takes nothing."""
        if self._requests.per_minute is None and self._tokens.per_minute is None:
            return max(0.0, self._closed_until - now)
        waits = (self._requests.wait_s(now, 1), self._tokens.wait_s(now, tokens), self._closed_until - now)
        return max(0.0, *waits)

    def reserve(self, now: float, tokens: int) -> float:
        """Book the next place for a call of about ``tokens``; returns the seconds until it."""
        wait = self.wait_s(now, tokens)
        self._requests.book(now, 1)
        self._tokens.book(now, self._tokens.bounded(tokens))
        return wait

    def release(self, tokens: int) -> None:
        """A place that was booked is not used."""
        self._requests.give_back(1)
        self._tokens.give_back(self._tokens.bounded(tokens))

    def settle(self, reserved: int, used: int) -> None:
        """A call booked with ``reserved`` tokens took ``used``: an hour's at most, whatever its server claims."""
        self._tokens.give_back(self._tokens.bounded(reserved) - self._tokens.bounded(used, MAX_DEBT_MINUTES))

    def learn(self, now: float, hint: RateHint) -> None:
        """Take up what a reply's headers say."""
        self._requests.learn(now, hint.requests)
        self._tokens.learn(now, hint.tokens)

    def penalise(self, now: float, wait_s: float) -> None:
        """The provider has refused a call: nothing leaves before ``wait_s`` seconds (at most two minutes)."""
        self._closed_until = max(self._closed_until, now + min(max(0.0, wait_s), MAX_RESET_S))
