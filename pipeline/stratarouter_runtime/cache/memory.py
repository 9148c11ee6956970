"""The cache in this process: bounded by entries and bytes, gone with the process. Knows no client."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Literal

from stratarouter_runtime.cache.shelf import Held, Item, Near, Place, Shelf, size_of
from stratarouter_runtime.cache.votes import UNSAID, said
from stratarouter_runtime.json_bytes import json_bytes
from stratarouter_runtime.port_values import CacheEntry, CacheHit, CacheMiss, CacheQuery
from stratarouter_runtime.ports import Clock, Guard
from stratarouter_runtime.records import Answer
from stratarouter_runtime.state.cache_control import Origin
from stratarouter_runtime.state.eviction import CostAware

MAX_ENTRIES = 50_000
"""At 384 dimensions and short answers about 250 MB, which MAX_BYTES then holds."""

MAX_BYTES = 256 * 1024 * 1024
"""Room for entries: a small share of a worker's memory."""

DROP_CHUNK = 1_000
"""Entries judged in one go when something was invalidated: 2 ms."""


class MemoryCache:
    """Answers in this process's memory; every lookup is answered without waiting.

    Args:
        clock: gives monotonic seconds for the time to live.
        guard: judges semantic candidates.
        max_entries: entries kept at most.
        max_bytes: bytes kept at most; a larger entry is not kept at all.
        eviction: who goes first when room is short: ``lru``, the least recently used, or ``cost``, who saves least
            money for its size.

    Attributes:
        refused: entries not kept because of their size or time to live.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        guard: Guard,
        max_entries: int = MAX_ENTRIES,
        max_bytes: int = MAX_BYTES,
        eviction: Literal["lru", "cost"] = "lru",
    ) -> None:
        self._clock = clock
        self._guard = guard
        self._shelf = Shelf(
            max_entries=max_entries, max_bytes=max_bytes, eviction=CostAware() if eviction == "cost" else None
        )
        self.refused = 0

    @property
    def shared(self) -> bool:
        """This process's own."""
        return False

    @property
    def held(self) -> Held:
        """What is kept, and what had to go; some may have outlived their time until the next lookup."""
        return Held(len(self._shelf), self._shelf.bytes, self._shelf.evicted)

    async def start(self) -> None:
        """Nothing to connect."""

    async def stop(self) -> None:
        """Nothing to disconnect; the entries stay for another start."""

    def lookup_now(self, queries: Sequence[CacheQuery]) -> list[CacheHit | CacheMiss]:
        """Look up without waiting: exact first, then semantic."""
        now = self._clock.monotonic()
        return [self._find(query, now) for query in queries]

    async def lookup(self, queries: Sequence[CacheQuery]) -> list[CacheHit | CacheMiss]:
        """As ``lookup_now``."""
        return self.lookup_now(queries)

    async def store(self, entries: Sequence[CacheEntry]) -> None:
        """Keep answers, each in place of an older one for the same words."""
        now = self._clock.monotonic()
        for entry in entries:
            kept = self._shelf.put(_item(entry, now), entry.vector, now)
            self.refused += not kept

    async def claim(self, place: Place) -> bool:  # noqa: ARG002 - as all backends
        """Nobody shares it."""
        return True

    async def release(self, place: Place) -> None:
        """Nobody waits."""

    async def discard(self, places: Sequence[Place]) -> None:
        """Take single entries out."""
        for place in places:
            self._shelf.remove(place)

    async def drop(self, is_stale: Callable[[Origin], bool], turn: str | None) -> int:  # noqa: ARG002 - nobody shares it
        """Take out what ``is_stale`` names; returns how many entries. Gives way to lookups in between."""
        gone, items = 0, self._shelf.items()
        for start in range(0, len(items), DROP_CHUNK):
            for item in items[start : start + DROP_CHUNK]:
                # One that was stored again since is another item.
                if is_stale(item.origin) and self._shelf.has(item):
                    self._shelf.remove(item.place)
                    gone += 1
            await asyncio.sleep(0)
        return gone

    def _find(self, query: CacheQuery, now: float) -> CacheHit | CacheMiss:
        same = self._shelf.exact(query, now)
        if same is not None and same.answer is not None:
            return CacheHit("exact", 1.0, same.entry_id, same.answer, same.origin, likeness=same.likeness)
        near = self._shelf.nearest(query, self._guard, now)
        if isinstance(near, Near):
            item, like = near.item, near.similarity
            assert item.answer is not None
            return CacheHit("semantic", like, item.entry_id, item.answer, item.origin, likeness=like)
        return near


def _item(entry: CacheEntry, now: float) -> Item:
    size = size_of(entry.text, entry.vector) + _answer_bytes(entry.answer) + sum(map(len, entry.origin.labels))
    return Item(
        entry.entry_id,
        entry.scope,
        entry.content_hash,
        entry.text,
        now + entry.ttl,
        size,
        answer=entry.answer,
        origin=entry.origin,
        likeness=entry.likeness,
        says=UNSAID if entry.vector is None else said(entry.answer),
    )


def _answer_bytes(answer: Answer) -> int:
    calls = sum([len(json_bytes(call, default=str)) for call in answer.tool_calls])
    return 2 * len(answer.text) + 2 * calls
