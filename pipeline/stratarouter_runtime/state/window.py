"""Which prompts leave together in one call, and when. Pure: the caller tells the time and what has ended."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Item = TypeVar("Item")


class Windows(Generic[Key, Item]):
    """What waits for one destination, by what may share a call.

    An item leaves at once while no call of its key is under way: company would cost it time and buy it nothing. Else it
    waits until ``max_size`` are together, until the oldest has waited ``window_s``, or until the last call of its key
    has come back, whichever is first; and beyond all of that while ``max_calls`` are under way.

    Args:
        window_s: the longest wait for company, in seconds.
        max_size: items in one call.
        max_calls: calls under way at once; may be changed at any time.
    """

    def __init__(self, window_s: float, max_size: int, max_calls: int) -> None:
        self._window_s = window_s
        self._max_size = max_size
        self.max_calls = max_calls
        self._waiting: dict[Key, deque[tuple[float, Item]]] = {}
        self._calls: dict[Key, int] = {}
        self._under_way = 0

    def __len__(self) -> int:
        """Items that wait."""
        return sum(len(items) for items in self._waiting.values())

    @property
    def under_way(self) -> int:
        """Calls that have left and not come back."""
        return self._under_way

    def add(self, now: float, key: Key, item: Item) -> None:
        """``item`` came at ``now`` (monotonic seconds)."""
        self._waiting.setdefault(key, deque()).append((now, item))

    def discard(self, key: Key, item: Item) -> None:
        """Nobody waits for ``item`` any more; nothing happens where it has left."""
        items = self._waiting.get(key)
        if items is None:
            return
        kept = deque(pair for pair in items if pair[1] is not item)
        if kept:
            self._waiting[key] = kept
        else:
            del self._waiting[key]

    def clear(self) -> list[Item]:
        """Nothing waits any more; what did."""
        left = [item for items in self._waiting.values() for _, item in items]
        self._waiting.clear()
        return left

    def take(self, now: float) -> list[tuple[Key, list[Item]]]:
        """The calls that leave at ``now``, the one whose first item came first before the others."""
        leaving = []
        while self._under_way < self.max_calls:
            ready = [(items[0][0], key) for key, items in self._waiting.items() if self._is_ready(now, key, items)]
            if not ready:
                break
            key = min(ready, key=lambda pair: pair[0])[1]
            leaving.append((key, self._leave(key)))
        return leaving

    def ended(self, key: Key) -> None:
        """A call of ``key`` has come back."""
        self._under_way -= 1
        left = self._calls[key] - 1
        if left:
            self._calls[key] = left
        else:
            del self._calls[key]

    def due_at(self) -> float | None:
        """When the next window ends (monotonic seconds); None where nothing waits for the time alone."""
        if self._under_way >= self.max_calls or not self._waiting:
            return None
        return min(items[0][0] for items in self._waiting.values()) + self._window_s

    def _is_ready(self, now: float, key: Key, items: deque[tuple[float, Item]]) -> bool:
        alone = key not in self._calls
        return alone or len(items) >= self._max_size or now >= items[0][0] + self._window_s

    def _leave(self, key: Key) -> list[Item]:
        items = self._waiting[key]
        taken = [items.popleft()[1] for _ in range(min(self._max_size, len(items)))]
        if not items:
            del self._waiting[key]
        self._under_way += 1
        self._calls[key] = self._calls.get(key, 0) + 1
        return taken
