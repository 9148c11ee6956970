"""A cache under control: nothing that was invalidated is served or kept, whatever the backend holds.

Stands before any backend and gives both the same contract. What was said on the cache-control topic lives in
``CacheControl``; here it is held against every answer that goes in or out.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from stratarouter_runtime.cache.shelf import Held
from stratarouter_runtime.errors import CacheUnavailableError
from stratarouter_runtime.port_values import CacheEntry, CacheHit, CacheMiss, CacheQuery
from stratarouter_runtime.ports import Cache, Clock
from stratarouter_runtime.records import Answer, CacheCommand
from stratarouter_runtime.state.cache_control import BEFORE_ALL, CacheControl, Correction, Origin, label, labels_of
from stratarouter_runtime.telemetry.logs import event

log = logging.getLogger("stratarouter.cache")

CORRECTED = "corrected"
INVALIDATED = "invalidated"
OUT_OF_REACH = CacheMiss("control", bypassed=True)
"""The cache-control topic has been silent for too long: what is kept may have been invalidated."""

STORES_TIMEOUT_S = 10.0
"""How long a command waits for answers that are on their way into the backend: several times as long as round trips to
a Redis in trouble take."""
LAPSED_WAIT_S = 0.1
"""How long a lookup waits for what has lapsed to be gone. A walk over a large Redis takes seconds."""
LAPSED_RETRY_S = 1.0
"""Pause where the backend fails, or refuses: a walk for each lookup would keep it busy."""

Place = tuple[str, str]
"""An entry's key: scope and content hash."""


class ControllableCache(Cache, Protocol):
    """A backend that can take entries out."""

    @property
    def held(self) -> Held:
        """What this process keeps."""

    async def discard(self, places: Sequence[Place]) -> None:
        """Take single entries out; failures are counted, not raised."""

    async def drop(self, is_stale: Callable[[Origin], bool], turn: str | None) -> int:
        """Take out everything that ``is_stale`` names; of workers that share a cache, one does it for each ``turn``,
        and whoever is asked to where it is None.

        Returns how many entries. Raises CacheUnavailableError where some may be left.
        """


@dataclass(slots=True)
class Kept:
    """What control kept out.

    Attributes:
        served: answers found and not served because they were invalidated.
        stored: answers not kept because they were invalidated while they were under way.
        dropped: entries taken out of the backend.
    """

    served: int = 0
    stored: int = 0
    dropped: int = 0


class ControlledCache:
    """``backend`` under ``control``.

    Args:
        backend: where the answers are.
        control: what is known of the cache-control topic; whoever reads the topic calls ``drop_stale`` after it.
        clock: monotonic seconds for the topic's silence, epoch milliseconds for corrections.

    Attributes:
        kept_out: what was held back.
    """

    def __init__(self, backend: ControllableCache, control: CacheControl, clock: Clock) -> None:
        self.backend = backend
        self._control = control
        self._clock = clock
        self._storing: set[asyncio.Future[None]] = set()
        self.kept_out = Kept()
        self._lapsed: set[str] = set()
        """Labels of corrections that are over, where nobody reads the topic: what they stood in front of must go."""
        self._dropping: asyncio.Task[None] | None = None

    @property
    def shared(self) -> bool:
        """As the backend."""
        return self.backend.shared

    async def start(self) -> None:
        """Start the backend."""
        await self.backend.start()

    async def stop(self) -> None:
        """Stop the backend."""
        task, self._dropping = self._dropping, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await self.backend.stop()

    def lookup_now(self, queries: Sequence[CacheQuery]) -> list[CacheHit | CacheMiss] | None:
        """As the backend's."""
        if not self._control.is_current(self._clock.monotonic()):
            return [OUT_OF_REACH] * len(queries)
        found = self.backend.lookup_now(self._with_vetoes(queries))
        if found is None:
            return None
        judged, stale, held_back = self._judged(queries, found)
        if stale or self._lapsed:
            return None  # it is taken out on the way, which has to be waited for
        self.kept_out.served += held_back
        return judged

    async def lookup(self, queries: Sequence[CacheQuery]) -> list[CacheHit | CacheMiss]:
        """As the backend's; what turns out to be invalidated is taken out on the way."""
        if not self._control.is_current(self._clock.monotonic()):
            return [OUT_OF_REACH] * len(queries)
        found = await self.backend.lookup(self._with_vetoes(queries))
        judged, stale, held_back = self._judged(queries, found)
        self.kept_out.served += held_back
        if stale:
            await self.backend.discard(stale)
        is_there = not any(isinstance(result, CacheMiss) and result.bypassed for result in found)
        if self._lapsed and is_there and self._dropping is None:
            # Of its own: a request that ends would break it off, and with it each that begins it anew.
            self._dropping = asyncio.create_task(self._drop_lapsed(), name="drop lapsed")
            await asyncio.wait([self._dropping], timeout=LAPSED_WAIT_S)
        return judged

    async def store(self, entries: Sequence[CacheEntry]) -> None:
        """Keep what was not invalidated while it was under way."""
        # Ahead is what was asked for before the topic was made anew: its position is one of the old topic's, and
        # commands before that of the new one would not cover it.
        control = self._control
        fresh = [entry for entry in entries if not (control.is_stale(entry.origin) or control.is_ahead(entry.origin))]
        self.kept_out.stored += len(entries) - len(fresh)
        if not control.followed:
            # A position of this process's own means nothing to others who share the backend.
            fresh = [
                entry
                if entry.origin.begun == BEFORE_ALL
                else replace(entry, origin=replace(entry.origin, begun=BEFORE_ALL))
                for entry in fresh
            ]
        if not fresh:
            return
        # No wait stands between the judgement and this: whoever is not in here is judged by the next command.
        ended = asyncio.get_running_loop().create_future()
        self._storing.add(ended)
        try:
            await self.backend.store(fresh)
        finally:
            self._storing.discard(ended)
            ended.set_result(None)

    async def claim(self, place: Place) -> bool:
        """As the backend's."""
        return await self.backend.claim(place)

    async def release(self, place: Place) -> None:
        """As the backend's."""
        await self.backend.release(place)

    async def drop_stale(self) -> int:
        """Take what was invalidated out of the backend; returns how many entries. Where that is away, what is left is
        judged when it is found.
        """
        try:
            gone = await self.backend.drop(self._control.is_stale, str(self._control.position))
        except CacheUnavailableError:
            return 0
        self.kept_out.dropped += gone
        return gone

    async def drop_covered(self, command: CacheCommand) -> int:
        """As ``drop_stale`` where nobody reads the topic: all that is kept is older than ``command``.

        Raises CacheUnavailableError where some may be left: nobody would keep that from being served.
        """
        if command.action == "correct":
            return 0  # it stands in front of what is kept
        labels = frozenset(labels_of(command))
        await self._stored()
        gone = await self.backend.drop(lambda origin: command.everything or not labels.isdisjoint(origin.labels), None)
        self.kept_out.dropped += gone
        return gone

    async def drop_everything(self) -> int:
        """Empty the backend: the topic was made anew, so positions in it mean nothing any more.

        Raises CacheUnavailableError where some may be left.
        """
        await self._stored()
        gone = await self.backend.drop(lambda _: True, None)
        self.kept_out.dropped += gone
        event(log, logging.WARNING, "cache emptied", entries=gone)
        return gone

    async def _stored(self) -> None:
        """Wait for what was judged before now and is on its way in: it would arrive behind whoever looks for it.

        Raises CacheUnavailableError where it takes too long.
        """
        if not self._storing:
            return
        _, left = await asyncio.wait(self._storing, timeout=STORES_TIMEOUT_S)
        if left:
            raise CacheUnavailableError(
                f"answers were still on their way into the cache after {STORES_TIMEOUT_S} s",
                remedy="check the cache's backend, then try again",
            )

    async def _drop_lapsed(self) -> None:
        """Where the backend fails, again with a later lookup; until then nothing of it is served."""
        labels = frozenset(self._lapsed)
        try:
            await self._stored()
            gone = await self.backend.drop(lambda origin: not labels.isdisjoint(origin.labels), None)
        except CacheUnavailableError:
            await self._clock.sleep(LAPSED_RETRY_S)
        else:
            self.kept_out.dropped += gone
            self._lapsed -= labels
        finally:
            self._dropping = None

    def _with_vetoes(self, queries: Sequence[CacheQuery]) -> Sequence[CacheQuery]:
        control = self._control
        if not control.counter_examples:
            return queries
        return [
            replace(query, vetoed=vetoed) if (vetoed := control.vetoed(query.content_hash)) else query
            for query in queries
        ]

    def _judged(
        self, queries: Sequence[CacheQuery], found: Sequence[CacheHit | CacheMiss]
    ) -> tuple[list[CacheHit | CacheMiss], list[Place], int]:
        """What is served in place of ``found``, the entries that were invalidated, and how many hits these would have
        been.
        """
        control, now_ms = self._control, 0
        if control.corrects:
            now_ms = self._clock.wall_ms()
            self._lapsed.update([label("key", key) for key in control.lapse(now_ms)])
        judged, stale, held_back = [], [], 0
        for query, result in zip(queries, found, strict=True):
            verdict = self._judge(query, result, now_ms)
            if isinstance(result, CacheHit) and isinstance(verdict, CacheMiss) and verdict.reason == INVALIDATED:
                held_back += 1
                stale += [(query.scope, key) for key in result.origin.keys[:1]]
            judged.append(verdict)
        return judged, stale, held_back

    def _has_lapsed(self, origin: Origin) -> bool:
        return bool(self._lapsed) and not self._lapsed.isdisjoint(origin.labels)

    def _judge(self, query: CacheQuery, result: CacheHit | CacheMiss, now_ms: int) -> CacheHit | CacheMiss:
        control = self._control
        # 1. Corrected under this very key: that stands, whatever is kept.
        if control.corrects:
            own = control.correction((query.content_hash,), now_ms)
            if own is not None:
                return CacheHit("exact", 1.0, query.content_hash, _corrected(own, result), own.origin, CORRECTED)
        if isinstance(result, CacheMiss):
            return result
        # 2. Invalidated after it was asked for.
        if control.is_stale(result.origin) if control.followed else self._has_lapsed(result.origin):
            return CacheMiss(INVALIDATED, result.similarity, result.entry_id)
        if control.is_ahead(result.origin):
            return CacheMiss("ahead", result.similarity, result.entry_id)
        # 3. The entry that answers was corrected.
        if control.corrects:
            other = control.correction(result.origin.keys, now_ms)
            if other is not None:
                return replace(result, answer=_corrected(other, result), reason=CORRECTED)
        return result


def _corrected(correction: Correction, result: CacheHit | CacheMiss) -> Answer:
    """The corrected text, with what is known of the answer that it replaces."""
    if isinstance(result, CacheHit):
        return replace(result.answer, text=correction.text, finish_reason="stop", tool_calls=())
    return Answer(correction.text, provider="cache-control", model="correction")
