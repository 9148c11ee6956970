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


class _Tick:
    """The waits that end at one time."""

    __slots__ = ("futures", "timer")

    def __init__(self, timer: asyncio.TimerHandle) -> None:
        self.timer = timer
        self.futures: set[asyncio.Future[Any]] = set()


class Deadlines:
    """Lets futures fail with TimeoutError when their time is over. Belongs to the loop that it is first used on."""

    def __init__(self) -> None:
        self._ticks: dict[int, _Tick] = {}
        self._newest = 0
        """The one that the next wait is likely to end with: it stays though nobody waits for it now."""

    async def wait(self, future: asyncio.Future[T], within_s: float) -> T:
        """``future``'s result, which nobody else waits for. Raises TimeoutError after ``within_s`` seconds."""
        if within_s < EXACT_BELOW_S:
            async with asyncio.timeout(within_s):
                return await future
        loop = future.get_loop()
        number = int((loop.time() + within_s) / TICK_S) + 1
        tick = self._ticks.get(number)
        if tick is None:
            tick = self._begin(loop, number)
        tick.futures.add(future)
        try:
            return await future
        finally:
            tick.futures.discard(future)
            if not tick.futures and number != self._newest:
                self._forget(number)

    def _begin(self, loop: asyncio.AbstractEventLoop, number: int) -> _Tick:
        before, self._newest = self._newest, number
        last = self._ticks.get(before)
        if last is not None and not last.futures:
            self._forget(before)
        # Not in the context of the first wait, which would be kept until then, with all of its request.
        timer = loop.call_at(number * TICK_S, self._end, number, context=contextvars.Context())
        tick = self._ticks[number] = _Tick(timer)
        return tick

    def _forget(self, number: int) -> None:
        """Nobody waits: whose time is days off would else be kept for days."""
        tick = self._ticks.pop(number, None)
        if tick is not None:
            tick.timer.cancel()

    def _end(self, number: int) -> None:
        for future in self._ticks.pop(number).futures:
            if not future.done():
                future.set_exception(TimeoutError())
