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
    """One limit: when the next unit has its place.

    Attributes:
        pauses: how often a place began later than the one before it ended. Whatever was booked before is over then,
            used or not: what is given back of it would be taken from places that were booked since.
    """

    def __init__(self, per_minute: int | None) -> None:
        self.configured = per_minute
        self.per_minute = per_minute
        self.pauses = 0
        self._next = 0.0

    def wait_s(self, now: float, units: float) -> float:
        """Seconds until ``units`` would have their place; 0 where there is no limit."""
        if self.per_minute is None:
            return 0.0
        # A call larger than the whole burst would never fit: it goes when the burst is whole, and pays afterwards.
        burst_s = min(self.length_s(units), BURST_S)
        return max(0.0, self._next + burst_s - BURST_S - now)

    def length_s(self, units: float, most_minutes: float = 1) -> float:
        """How much of the schedule ``units`` take: so many minutes at most, whatever is said; 0 without a limit."""
        return 0.0 if self.per_minute is None else min(max(0.0, units) / self.per_minute, most_minutes) * MINUTE_S

    def book(self, now: float, units: float) -> _Place | None:
        """Take the place; None where there is no limit to take it of."""
        if self.per_minute is None:
            return None
        length_s = self.length_s(units)
        if now > self._next:
            self.pauses += 1
            self._next = now
        self._next += length_s
        return _Place(self, length_s)

    def move_back(self, seconds: float) -> None:
        """What was booked and not used (or, negative, used and not booked)."""
        self._next -= seconds

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


class _Place:
    """What one call took of one schedule. Given back in the schedule's time: its limit may have changed meanwhile."""

    __slots__ = ("_length_s", "_pauses", "_schedule")

    def __init__(self, schedule: _Schedule, length_s: float) -> None:
        self._schedule = schedule
        self._length_s = length_s
        self._pauses = schedule.pauses

    def release(self) -> None:
        self._give_back(self._length_s)

    def settle(self, units: float) -> None:
        self._give_back(self._length_s - self._schedule.length_s(units, MAX_DEBT_MINUTES))

    def _give_back(self, seconds: float) -> None:
        # What was used and not booked is owed, however long ago it was booked.
        if seconds < 0 or self._pauses == self._schedule.pauses:
            self._schedule.move_back(seconds)


class Booking:
    """The place of one call under the limits of its key, to be released or settled once.

    ``wait_s`` are the seconds until its turn. Of a limit that was not known it holds nothing, so there is nothing to
    give back, whatever is learnt meanwhile: what was not booked is in the server's own count, which taught the limit.
    """

    __slots__ = ("_requests", "_tokens", "wait_s")

    def __init__(self, wait_s: float, requests: _Place | None = None, tokens: _Place | None = None) -> None:
        self.wait_s = wait_s
        self._requests = requests
        self._tokens = tokens

    def release(self) -> None:
        """The place is not used."""
        if self._requests is not None:
            self._requests.release()
        if self._tokens is not None:
            self._tokens.release()

    def settle(self, tokens: int) -> None:
        """The call took so many tokens: an hour's of the limit at most, whatever its server claims."""
        if self._tokens is not None:
            self._tokens.settle(tokens)


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
        """Whether a limit on tokens is known: before it, how many a call may take makes no difference."""
        return self._tokens.per_minute is not None

    def wait_s(self, now: float, tokens: int) -> float:
        """Seconds until a call of about ``tokens`` may leave. Takes nothing."""
        opens = max(now, self._closed_until)
        if self._requests.per_minute is None and self._tokens.per_minute is None:
            return opens - now
        return opens - now + max(self._requests.wait_s(opens, 1), self._tokens.wait_s(opens, tokens))

    def reserve(self, now: float, tokens: int) -> Booking:
        """Book the next place for a call of about ``tokens``.

        While the key is closed places begin where it opens: what has gathered until then leaves as after any pause, a
        burst at once and the others in their turn.
        """
        opens = max(now, self._closed_until)
        return Booking(self.wait_s(now, tokens), self._requests.book(opens, 1), self._tokens.book(opens, tokens))

    def is_closed(self, now: float) -> bool:
        """Whether the provider has asked to be left alone for longer than until ``now``."""
        return self._closed_until > now

    def learn(self, now: float, hint: RateHint) -> None:
        """Take up what a reply's headers say."""
        self._requests.learn(now, hint.requests)
        self._tokens.learn(now, hint.tokens)

    def penalise(self, now: float, wait_s: float) -> None:
        """The provider has refused a call: nothing leaves before ``wait_s`` seconds (at most two minutes)."""
        self._closed_until = max(self._closed_until, now + min(max(0.0, wait_s), MAX_RESET_S))
