"""The system's clock, and the only place that reads it for the engine."""

from __future__ import annotations

import asyncio
import time


class SystemClock:
    """Monotonic seconds, wall milliseconds, and sleep on the running loop."""

    monotonic = staticmethod(time.monotonic)
    """Seconds that never jump. The function itself: a request asks some twenty times."""

    def wall_ms(self) -> int:
        """Epoch milliseconds."""
        return time.time_ns() // 1_000_000

    async def sleep(self, seconds: float) -> None:
        """Wait ``seconds``."""
        await asyncio.sleep(seconds)


def milliseconds(seconds: float) -> float:
    """As responses, attempts and spans carry durations: to the microsecond."""
    return round(seconds * 1_000_000) / 1000  # round() to a number of decimals takes four times as long
