"""Copies of the answers that this process fetched from Redis, so that a repeated one costs no round trip.

Redis itself says when one is no longer what it holds (``cache/watch.py``): written again, deleted, evicted, expired.
While nobody listens to that, nothing is copied. Pure: ``now`` is an argument.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from stratarouter_runtime.cache.shelf import Place
from stratarouter_runtime.cache.values import Found
from stratarouter_runtime.plain import dataclass
from stratarouter_runtime.state.cache_control import Origin

OVERHEAD_BYTES = 1_000
"""What a copy costs beside its value's length: the objects it is read into, the place, the name."""
MAX_LATEST = 1_000
"""Of the latest changes how many are known by name. What was asked for before the oldest of them is not copied."""
PER_BYTE = 2
"""Bytes that a value's byte takes once it is read: its texts, and its tags and numbers as objects."""


@dataclass(frozen=True, slots=True)
class _Copy:
    found: Found
    expires_at: float
    size_bytes: int
    name: bytes


class Copies:
    """At most ``max_bytes`` of answers; the least recently used go.

    Attributes:
        bytes: what they take now.
        changes: how often something was said to have changed.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._copies: OrderedDict[Place, _Copy] = OrderedDict()
        self._places: dict[bytes, Place] = {}
        self._latest: OrderedDict[bytes, int] = OrderedDict()
        self._unknown = 0
        self.bytes = 0
        self.changes = 0

    def __len__(self) -> int:
        return len(self._copies)

    def get(self, place: Place, now: float) -> Found | None:
        """The answer at ``place``, if it is here and its time is not over."""
        copy = self._copies.get(place)
        if copy is None:
            return None
        if copy.expires_at <= now:
            self._drop(place)
            return None
        self._copies.move_to_end(place)
        return copy.found

    def put(self, place: Place, name: bytes, found: Found, size_bytes: int, expires_at: float, *, since: int) -> None:
        """Keep what ``name`` held in Redis, a value of ``size_bytes``, until ``expires_at`` by the monotonic clock.

        Not where it changed since it was asked for, when ``changes`` was ``since``: that may be what was on its way.
        """
        size = OVERHEAD_BYTES + PER_BYTE * size_bytes
        if since < self._unknown or self._latest.get(name, 0) > since or size > self._max_bytes:
            return
        self._drop(place)
        self._copies[place] = _Copy(found, expires_at, size, name)
        self._places[name] = place
        self.bytes += size
        while self.bytes > self._max_bytes:
            self._drop(next(iter(self._copies)))

    def changed(self, name: bytes) -> None:
        """``name`` in Redis is not what it was."""
        self.changes += 1
        self._latest[name] = self.changes
        self._latest.move_to_end(name)
        if len(self._latest) > MAX_LATEST:
            _, self._unknown = self._latest.popitem(last=False)
        place = self._places.get(name)
        if place is not None:
            self._drop(place)

    def drop(self, is_stale: Callable[[Origin], bool]) -> None:
        """Take out what ``is_stale`` names."""
        for place in [place for place, copy in self._copies.items() if is_stale(copy.found.origin)]:
            self._drop(place)

    def clear(self) -> None:
        """Nothing that is here holds any more."""
        self.changes += 1
        self._unknown = self.changes
        for part in (self._copies, self._places, self._latest):
            part.clear()
        self.bytes = 0

    def _drop(self, place: Place) -> None:
        copy = self._copies.pop(place, None)
        if copy is not None:
            self.bytes -= copy.size_bytes
            del self._places[copy.name]
