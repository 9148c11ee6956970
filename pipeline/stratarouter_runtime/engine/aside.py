"""Work that nobody waits for begins once those who wait have been answered."""

from __future__ import annotations

import asyncio


class Aside:
    """One timer for all that stands aside at a time: what comes within ``after_s`` seconds goes on together."""

    def __init__(self, after_s: float) -> None:
        self._after_s = after_s
        self._turn: asyncio.Event | None = None

    async def turn(self) -> None:
        """Wait until what is ready to run has run."""
        await self._armed().wait()

    def _armed(self) -> asyncio.Event:
        if self._turn is None:
            self._turn = asyncio.Event()
            asyncio.get_running_loop().call_later(self._after_s, self._begin)
        return self._turn

    def _begin(self) -> None:
        turn, self._turn = self._turn, None
        if turn is not None:
            turn.set()
