"""One fill for each entry, whichever process asks: who finds another one at it waits for what that one brings."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from stratarouter_runtime.engine import lookup
from stratarouter_runtime.errors import ShuttingDownError
from stratarouter_runtime.port_values import CacheHit, CacheMiss
from stratarouter_runtime.ports import Cache, Clock
from stratarouter_runtime.records import Execution

Judged = Callable[[Execution, CacheHit | CacheMiss], tuple[CacheHit | None, CacheHit | CacheMiss]]

POLL_S = 0.05
"""Between two looks at what another process brings."""


class Fills:
    """Asks the cache who may fill. ``cache`` None: nobody has to ask. ``judged``: what may be served (``Trials``)."""

    def __init__(self, cache: Cache | None, clock: Clock, judged: Judged = lambda _, found: (None, found)) -> None:
        self._cache = cache
        self._judged = judged
        self._clock = clock
        self._held: set[tuple[str, str]] = set()
        self._watched: dict[tuple[str, str], asyncio.Future[bool]] = {}
        """By place: whether an answer was brought, once who looks for all of this process has ended."""

    def concern(self, execution: Execution) -> bool:
        """Whether another process could be at the same: over Kafka a scope's requests meet in one worker already."""
        others = execution.source is None and self._cache is not None and self._cache.shared
        return others and not execution.shadow and lookup.may_read(execution) and lookup.may_write(execution)

    async def wait(
        self,
        execution: Execution,
        text: str,
        *,
        due: float,
        somebody_leads: Callable[[], bool],
        closing: Callable[[], bool],
    ) -> CacheHit | None:
        """What another process has brought; None: this one leads now, or somebody in it does already.

        Waits as long as the other one lives and is at it, and until ``due`` (monotonic seconds) at most: from then on
        nobody waits for the answer, and this one goes on to say so. Raises ShuttingDownError.

        Of all who wait for one place one looks, now and then; when it has found something or left, the others do.
        """
        place = (execution.scope, execution.content_hash)
        while (watch := self._watched.get(place)) is not None:
            await asyncio.wait([watch], timeout=max(0.0, due - self._clock.monotonic()))
            if self._is_over(due, somebody_leads, closing):
                return None
            if watch.done() and watch.result():
                found = await self._look(execution, text)
                if found is not None:
                    return found
        watch = self._watched[place] = asyncio.get_running_loop().create_future()
        found = None
        try:
            found = await self._watch(execution, text, due, somebody_leads, closing)
        finally:
            del self._watched[place]
            watch.set_result(found is not None)
        return found

    async def _watch(
        self,
        execution: Execution,
        text: str,
        due: float,
        somebody_leads: Callable[[], bool],
        closing: Callable[[], bool],
    ) -> CacheHit | None:
        assert self._cache is not None
        place = (execution.scope, execution.content_hash)
        while not await self._cache.claim(place):
            if self._is_over(due, somebody_leads, closing):
                return None
            await self._clock.sleep(POLL_S)
            found = await self._look(execution, text)
            if found is not None:
                return found
        self._held.add(place)
        # The one before may have brought it between this one's look into the cache and its claim.
        found = None
        try:
            found = await self._look(execution, text)
        except BaseException:
            await self.done(execution)
            raise
        if found is not None:
            await self.done(execution)
        return found

    def _is_over(self, due: float, somebody_leads: Callable[[], bool], closing: Callable[[], bool]) -> bool:
        """Whether to wait no longer. Raises ShuttingDownError."""
        if somebody_leads() or self._clock.monotonic() >= due:
            return True
        if closing():
            raise ShuttingDownError("the engine is closing")
        return False

    async def _look(self, execution: Execution, text: str) -> CacheHit | None:
        assert self._cache is not None
        [found] = await self._cache.lookup([lookup.query(execution, text)])
        _, found = self._judged(execution, found)
        return found if isinstance(found, CacheHit) else None

    def holds(self, execution: Execution) -> bool:
        """Whether this process was told to fill it and has not ended. Who passes the cache by fills nothing, and gives
        back no lease of one with the same words.
        """
        return self.concern(execution) and (execution.scope, execution.content_hash) in self._held

    def ends_with(self, execution: Execution, leading: Execution) -> bool:
        """Whether the fill of ``execution`` is over when the call of ``leading`` is, and not before."""
        same = (execution.scope, execution.content_hash) == (leading.scope, leading.content_hash)
        return same and self.concern(leading)

    async def done(self, execution: Execution) -> None:
        """The fill of ``execution`` is over, whatever came of it."""
        place = (execution.scope, execution.content_hash)
        self._held.discard(place)
        if self._cache is not None:
            await self._cache.release(place)
