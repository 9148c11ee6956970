"""Deadlines of many waits by few timers: most waits end long before theirs, and a timer each is not for nothing."""

from __future__ import annotations

import asyncio
import contextvars
from typing import Any, TypeVar

T = TypeVar("T")

TICK_S = 0.05
"""Waits that end within one tick share a timer; a deadline is noticed so much late at most."""
EXACT_BELOW_S = 1.0
"""A shorter wait has a timer of its own: a tick would be much of it."""


class Deadlines:
    """Lets futures fail with TimeoutError when their time is over. Belongs to the loop that it is first used on."""

    def __init__(self) -> None:
        self._waits: dict[int, set[asyncio.Future[Any]]] = {}

    async def wait(self, future: asyncio.Future[T], within_s: float) -> T:
        """``future``'s result, which nobody else waits for. Raises TimeoutError after ``within_s`` seconds."""
        if within_s < EXACT_BELOW_S:
            async with asyncio.timeout(within_s):
                return await future
        waits = self._ending(future.get_loop(), within_s)
        waits.add(future)
        try:
            return await future
        finally:
            waits.discard(future)

    def _ending(self, loop: asyncio.AbstractEventLoop, within_s: float) -> set[asyncio.Future[Any]]:
        tick = int((loop.time() + within_s) / TICK_S) + 1
        waits = self._waits.get(tick)
        if waits is None:
            waits = self._waits[tick] = set()
            # Not in the context of the first wait, which would be kept until then, with all of its request.
            loop.call_at(tick * TICK_S, self._end, tick, context=contextvars.Context())
        return waits

    def _end(self, tick: int) -> None:
        for future in self._waits.pop(tick):
            if not future.done():
                future.set_exception(TimeoutError())
