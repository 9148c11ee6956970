"""The system's clock, and the only place that reads it for the engine."""

from __future__ import annotations

import asyncio
import time

TIMER_S = 0.001
"""What uvloop's timers count in."""


class SystemClock:
    """Monotonic seconds, wall milliseconds, and sleep on the running loop."""

    monotonic = staticmethod(time.monotonic)
    """Seconds that never jump. The function itself: a request asks some twenty times."""

    def wall_ms(self) -> int:
        """Epoch milliseconds."""
        return time.time_ns() // 1_000_000

    async def sleep(self, seconds: float) -> None:
        """Wait ``seconds``, and no less."""
        until = time.monotonic() + seconds
        await asyncio.sleep(seconds)
        # uvloop rounds, and one in three comes early: what is held against the time would be found not to be over yet.
        left_s = until - time.monotonic()
        while left_s > 0:
            await asyncio.sleep(max(left_s, TIMER_S))
            left_s = until - time.monotonic()
