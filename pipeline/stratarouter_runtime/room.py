"""A number of places, first come, first served: asyncio's semaphore at a quarter of its price where there is room."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque


class Room:
    """``places`` of them. Each that is taken is given back once."""

    def __init__(self, places: int) -> None:
        self.free = places
        self.places = places
        self._queue: deque[asyncio.Future[None]] = deque()

    @property
    def taken(self) -> int:
        """Places that somebody has."""
        return self.places - self.free

    @property
    def is_full(self) -> bool:
        """Whether a newcomer has to wait."""
        return self.free <= 0 or bool(self._queue)

    def take_now(self) -> bool:
        """Take a place if there is one; False where ``take`` would wait."""
        if self.free <= 0 or self._queue:
            return False
        self.free -= 1
        return True

    def take_more(self) -> None:
        """Take a place even where there is none: nobody else gets one until there are again."""
        self.free -= 1

    def resize(self, places: int) -> None:
        """There are ``places`` from now on. Who waits comes in where there are more; nobody is put out."""
        more, self.places = places - self.places, places
        for _ in range(more):
            self.give_back()
        if more < 0:
            self.free += more

    async def take(self) -> None:
        """Wait for a place, in order of coming."""
        if self.take_now():
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                # ``give_back`` may have met it in the very turn of its cancellation.
                with contextlib.suppress(ValueError):
                    self._queue.remove(turn)
            else:
                self.give_back()
            raise

    def give_back(self) -> None:
        """The place goes to the first that waits; one that was cancelled meanwhile passes it on."""
        if self.free < 0:
            self.free += 1
            return
        while self._queue:
            turn = self._queue.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self.free += 1
