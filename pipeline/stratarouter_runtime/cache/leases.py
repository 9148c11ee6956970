"""Who fills an entry: of all processes that share a Redis one at a time, so that a stampede is paid for once.

A lease is a key with a short time to live that its holder keeps alive. A holder that dies holds nobody up for longer
than LEASE_S; a Redis that is away leases to everybody.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from stratarouter_runtime.cache.keys import Keys
from stratarouter_runtime.cache.shelf import Place
from stratarouter_runtime.ports import Clock

LEASE_S = 3.0
"""How long the others wait for a holder that died."""
REFRESH_S = LEASE_S / 4
"""Some refreshes may be late."""

Ask = Callable[[Sequence[tuple[Any, ...]]], Awaitable[list[Any] | None]]
"""One round trip; None where it failed."""


class Leases:
    """The leases of one process."""

    def __init__(self, ask: Ask, keys: Keys, clock: Clock) -> None:
        self._ask = ask
        self._keys = keys
        self._clock = clock
        self._owner = uuid.uuid4().hex
        self._held: dict[Place, int] = {}
        self._refreshing: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        """Leases held."""
        return len(self._held)

    async def claim(self, place: Place) -> bool:
        """Whether this process may fill ``place`` now; where it may not, another one is at it."""
        if place in self._held:
            return False
        name = self._keys.lease(place)
        replies = await self._ask([("SET", name, self._owner, "NX", "PX", int(LEASE_S * 1000))])
        if replies is not None and replies[0] is None:
            return False
        self._held[place] = self._held.get(place, 0) + 1
        if self._refreshing is None:
            self._refreshing = asyncio.create_task(self._refresh(), name="cache leases")
        return True

    async def release(self, place: Place) -> None:
        """Let the next one fill ``place``, if this process held it."""
        if self._held.pop(place, None) is None:
            return
        name = self._keys.lease(place)
        replies = await self._ask([("GET", name)])
        # One that ran out may be another's by now.
        if replies is not None and replies[0] == self._owner.encode():
            await self._ask([("UNLINK", name)])

    async def stop(self) -> None:
        """Give all back. Idempotent."""
        task, self._refreshing = self._refreshing, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        for place in list(self._held):
            await self.release(place)

    async def _refresh(self) -> None:
        while True:
            await self._clock.sleep(REFRESH_S)
            if self._held:
                ttl_ms = int(LEASE_S * 1000)
                await self._ask([("PEXPIRE", self._keys.lease(place), ttl_ms) for place in self._held])
