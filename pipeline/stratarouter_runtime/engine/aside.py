"""Work that nobody waits for begins once those who wait have been answered."""

from __future__ import annotations

import asyncio

AFTER_S = 0.001
"""Enough for an answer's way back to its caller; what fills the cache meanwhile would be in its way."""


class Aside:
    """One timer for all that stands aside at a time: what comes within ``after_s`` seconds goes on together."""

    def __init__(self, after_s: float = AFTER_S) -> None:
        self._after_s = after_s
        self._turn: asyncio.Event | None = None

    async def turn(self) -> None:
        """Wait until what is ready to run has run."""
        if self._turn is None:
            self._turn = asyncio.Event()
            asyncio.get_running_loop().call_later(self._after_s, self._begin)
        await self._turn.wait()

    def _begin(self) -> None:
        turn, self._turn = self._turn, None
        if turn is not None:
            turn.set()
