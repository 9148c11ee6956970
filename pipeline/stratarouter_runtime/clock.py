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
