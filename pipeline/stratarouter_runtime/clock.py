"""The system's clock, and the only place that reads it for the engine."""

from __future__ import annotations

import asyncio
import time


class SystemClock:
    """Monotonic seconds, wall milliseconds, and sleep on the running loop."""

    def monotonic(self) -> float:
        """Seconds that never jump."""
        return time.monotonic()

    def wall_ms(self) -> int:
        """Epoch milliseconds."""
        return time.time_ns() // 1_000_000

    async def sleep(self, seconds: float) -> None:
        """Wait ``seconds``."""
        await asyncio.sleep(seconds)
