"""A provider's bulkhead: how many calls it takes at once, and who is let near before one of them is free."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Self

from stratarouter_runtime.room import Room

SMOOTHING = 32
"""Over about so many calls the two times are averaged that say how many are let near."""
BUNCHES = 2
"""See ``Places``."""


class Places:
    """``places`` calls at once. A request whose row is not begun needs a turn before it; hedges and fallbacks none.

    There are more turns than places by twice as many as are begun in the journal while a call lasts: no place is to be
    empty while the next row is written, and no row is to be written much earlier than its call can be made, as it is
    one of unknown outcome where the process dies. Twice, as rows are written in bunches and calls end in bunches: of
    200 places with calls of 200 ms, 1.0 kept 95.0 % busy, 2.0 95.9 %; none, and the place kept until the answer is in
    the journal, 89.8 %. With calls of a second whose rows take 10 ms they are 4, and never more than the places.
    """

    def __init__(self, places: int) -> None:
        self.calls = Room(places)
        self.turns = Room(places)
        self._begin_s = 0.0
        self._call_s = 0.0

    @property
    def has_room(self) -> bool:
        """Whether a call could be made now that nobody waits to make."""
        return self.turns.taken < self.calls.places and not self.calls.is_full

    def learn(self, begin_s: float, call_s: float) -> None:
        """A row took ``begin_s`` seconds to be begun, and its call, with all its tries, ``call_s``."""
        self._begin_s += (begin_s - self._begin_s) / SMOOTHING
        self._call_s += (call_s - self._call_s) / SMOOTHING
        share = min(1.0, BUNCHES * self._begin_s / self._call_s) if self._call_s > 0 else 0.0
        turns = self.calls.places + round(self.calls.places * share)
        if turns != self.turns.places:
            self.turns.resize(turns)


class Hold:
    """What one request has of a provider: a turn, then a place; both are given up at the end.

    A generator as a context manager would cost each call 2 us.
    """

    def __init__(self, places_of: Callable[[str], Places], provider: str) -> None:
        self._places_of = places_of
        self._provider = provider
        self._turn: Room | None = None
        self._call: Room | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    async def turn(self) -> None:
        """Wait until a place is near."""
        turns = self._places_of(self._provider).turns
        if not turns.take_now():
            await turns.take()
        self._turn = turns

    def place_now(self) -> bool:
        """Take a place if there is one or it has one already; False where ``place`` would wait."""
        if self._call is not None:
            return True
        calls = self._places_of(self._provider).calls
        if not calls.take_now():
            return False
        self._call = calls
        return True

    async def place(self) -> None:
        """Wait for a place, unless it has one. Who waits has a turn, so not many are before it."""
        if self._call is None:
            calls = self._places_of(self._provider).calls
            await calls.take()
            self._call = calls

    async def move(self, provider: str, within_s: float) -> None:
        """Go over to a place at ``provider``: the old one is given up first, so that two never wait for each other's.

        Raises TimeoutError where there is no place within ``within_s`` seconds.
        """
        if provider == self._provider and self._call is not None:
            return
        self.release()
        self._provider = provider
        async with asyncio.timeout(within_s):
            await self.place()

    def learn(self, begin_s: float, call_s: float) -> None:
        """As ``Places.learn``, of the provider where it is now."""
        self._places_of(self._provider).learn(begin_s, call_s)

    def release(self) -> None:
        """Give all of it up: the call is over. Idempotent."""
        call, self._call = self._call, None
        if call is not None:
            call.give_back()
        turn, self._turn = self._turn, None
        if turn is not None:
            turn.give_back()
