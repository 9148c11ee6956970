"""Who goes when a cache is full. Pure: told of every entry and every use, asked for the next to go."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)

UNKNOWN_WORTH = 1e-4
"""US dollars that an answer of unknown price is taken to save: about 200 tokens of a small model."""
LEAST_WORTH = 1e-9
"""Of an answer that cost nothing: among those the smaller and more used ones stay."""


class CostAware(Generic[Key]):
    """Whoever saves least money for its size goes: GreedyDual-Size with Frequency (Cherkasova, HP Labs 1998).

    An entry's priority is ``age + uses * worth / size``; ``age`` is the priority of the last one that went, so what is
    not used grows old against what comes new, however dear it was.
    """

    def __init__(self) -> None:
        self._age = 0.0
        self._entries: dict[Key, tuple[float, int, float]] = {}
        self._heap: list[tuple[float, int, Key]] = []
        self._numbers = itertools.count()

    def add(self, key: Key, worth_usd: float | None, size_bytes: int) -> None:
        """Used once: by the one who paid for it."""
        worth = UNKNOWN_WORTH if worth_usd is None else max(worth_usd, LEAST_WORTH)
        self._place(key, 1, worth / max(1, size_bytes))

    def use(self, key: Key) -> None:
        """Worth that much more."""
        entry = self._entries.get(key)
        if entry is not None:
            self._place(key, entry[1] + 1, entry[2])

    def remove(self, key: Key) -> None:
        """Forget it; what the heap still says of it counts no more."""
        self._entries.pop(key, None)
        self._sweep()

    def victim(self) -> Key:
        """The one of the least priority. Raises LookupError where there is none."""
        while self._heap:
            priority, _, key = self._heap[0]
            entry = self._entries.get(key)
            if entry is not None and entry[0] == priority:
                self._age = priority
                return key
            heapq.heappop(self._heap)
        raise LookupError("the cache is empty")

    def _place(self, key: Key, uses: int, worth_per_byte: float) -> None:
        priority = self._age + uses * worth_per_byte
        self._entries[key] = (priority, uses, worth_per_byte)
        heapq.heappush(self._heap, (priority, next(self._numbers), key))
        self._sweep()

    def _sweep(self) -> None:
        """Every use leaves an old line in the heap; away with them when they are the most."""
        if len(self._heap) > 4 * len(self._entries) + 64:
            self._heap = [(entry[0], next(self._numbers), key) for key, entry in self._entries.items()]
            heapq.heapify(self._heap)
