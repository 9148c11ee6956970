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

# A lease that ran out may be another's by now, so it is looked at and changed in one step, on one key.
UNLINK = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('UNLINK', KEYS[1]) end return 0"
PEXPIRE = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('PEXPIRE', KEYS[1], ARGV[2]) end return 0"

Ask = Callable[[Sequence[tuple[Any, ...]]], Awaitable[list[Any] | None]]
"""One round trip; None where it failed."""


class Leases:
    """The leases of one process."""

    def __init__(self, ask: Ask, keys: Keys, clock: Clock) -> None:
        self._ask = ask
        self._keys = keys
        self._clock = clock
        self._owner = uuid.uuid4().hex
        self._held: set[Place] = set()
        self._refreshing: asyncio.Task[None] | None = None
        self._stopped = False

    def __len__(self) -> int:
        """Leases held."""
        return len(self._held)

    def start(self) -> None:
        """Again after ``stop``; a first start needs none."""
        self._stopped = False

    async def claim(self, place: Place) -> bool:
        """Whether this process may fill ``place`` now; where it may not, another one is at it."""
        if self._stopped:
            return True
        if place in self._held:
            return False
        name = self._keys.lease(place)
        replies = await self._ask([("SET", name, self._owner, "NX", "PX", int(LEASE_S * 1000))])
        if replies is not None and replies[0] is None:
            return False
        if self._stopped:
            # Meanwhile: nobody would renew it, nor give it back.
            await self._ask([self._if_ours(UNLINK, place)])
            return True
        self._held.add(place)
        if self._refreshing is None:
            self._refreshing = asyncio.create_task(self._refresh(), name="cache leases")
        return True

    async def release(self, place: Place) -> None:
        """Let the next one fill ``place``, if this process held it."""
        if place in self._held:
            self._held.remove(place)
            await self._ask([self._if_ours(UNLINK, place)])

    async def stop(self) -> None:
        """Give all back, in one round trip; claims from now on are granted and not kept. Idempotent."""
        self._stopped = True
        task, self._refreshing = self._refreshing, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        held, self._held = self._held, set()
        await self._ask([self._if_ours(UNLINK, place) for place in held])

    async def _refresh(self) -> None:
        while True:
            await self._clock.sleep(REFRESH_S)
            if self._held:
                await self._ask([self._if_ours(PEXPIRE, place, int(LEASE_S * 1000)) for place in self._held])

    def _if_ours(self, script: str, place: Place, *arguments: int) -> tuple[Any, ...]:
        return ("EVAL", script, 1, self._keys.lease(place), self._owner, *arguments)
