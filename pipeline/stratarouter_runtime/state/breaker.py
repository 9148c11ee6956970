"""A circuit breaker for one target. Pure: time is an argument, in monotonic seconds.

Closed, it counts calls over a sliding window. Once enough of them failed it opens: no call for a while, longer after
each opening in a row. Then it is half-open: one probe at a time, whose success closes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

BreakerState = Literal["closed", "open", "half_open"]


@dataclass(frozen=True, slots=True)
class BreakerPolicy:
    """When to open and for how long.

    Attributes:
        window_s: how far back calls count.
        min_calls: fewer calls within the window say nothing.
        failure_ratio: share of failures at which it opens.
        open_s: for the first time; doubled for each opening in a row, up to ``max_open_s``.
        probe_s: a probe that has not reported by then is taken for lost, and another one may go.
    """

    window_s: float = 30.0
    min_calls: int = 10
    failure_ratio: float = 0.5
    open_s: float = 2.0
    max_open_s: float = 60.0
    probe_s: float = 120.0


class Breaker:
    """One target's breaker. Its memory is two counters for each half of the window."""

    def __init__(self, policy: BreakerPolicy | None = None) -> None:
        self._policy = policy or BreakerPolicy()
        self._half = self._policy.window_s / 2
        self._period = -1
        self._calls = [0, 0]
        self._failures = [0, 0]
        self._open_until: float | None = None
        self._openings = 0
        self._probe_since: float | None = None

    def state(self, now: float) -> BreakerState:
        """As of ``now``."""
        if self._open_until is None:
            return "closed"
        return "open" if now < self._open_until else "half_open"

    def wait_s(self, now: float) -> float:
        """Seconds until a call may be made; 0 for now. Takes nothing."""
        if self._open_until is None:
            return 0.0
        if now < self._open_until:
            return self._open_until - now
        if self._probe_since is None:
            return 0.0
        return max(0.0, self._probe_since + self._policy.probe_s - now)

    def begin(self, now: float) -> None:
        """A call begins (``wait_s`` was 0). Half-open, it is the probe."""
        if self.state(now) == "half_open":
            self._probe_since = now

    def end(self, now: float, *, ok: bool | None, began: float) -> None:
        """A call that began at ``began`` has ended.

        ``ok`` None: it says nothing about the target (refused by itself, or given up by the caller).
        """
        if self._open_until is not None:
            self._end_probe(now, ok=ok, began=began)
        elif ok is not None:
            self._count(now, ok=ok)

    def _end_probe(self, now: float, *, ok: bool | None, began: float) -> None:
        if self._open_until is None or began < self._open_until:
            # Begun before it opened: late news, whenever they come. A probe that has to wait is not to suffer for them.
            return
        self._probe_since = None
        if ok is True:
            self._open_until = None
            self._openings = 0
            self._calls, self._failures = [0, 0], [0, 0]
        elif ok is False:
            self._open(now)

    def _count(self, now: float, *, ok: bool) -> None:
        period = int(now // self._half)
        if period != self._period:
            # The half before stays in view for as long as this one lasts.
            last = (self._calls[1], self._failures[1]) if period == self._period + 1 else (0, 0)
            self._calls, self._failures = [last[0], 0], [last[1], 0]
            self._period = period
        self._calls[1] += 1
        self._failures[1] += not ok
        calls, failures = sum(self._calls), sum(self._failures)
        if not ok and calls >= self._policy.min_calls and failures >= calls * self._policy.failure_ratio:
            self._open(now)

    def _open(self, now: float) -> None:
        # 2 ** openings is bounded before it is computed.
        doublings = min(self._openings, 30)
        self._open_until = now + min(self._policy.max_open_s, self._policy.open_s * 2**doublings)
        self._openings += 1
        self._probe_since = None
