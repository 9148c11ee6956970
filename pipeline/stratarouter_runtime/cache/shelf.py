"""Keeps entries within bounds of number, bytes and age, and finds the one that answers a query.

Who goes when room is short is the least recently used, or what ``state/eviction.py`` says.

Pure: ``now`` is an argument. Both backends stand on it: for ``memory`` it is the cache, for ``redis`` the local copy
of what can be found.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict

from stratarouter_runtime.cache.index import ScopedIndex
from stratarouter_runtime.cache.votes import DISPUTED, MARGIN, UNSAID, Sayings
from stratarouter_runtime.plain import dataclass
from stratarouter_runtime.port_values import CacheMiss, CacheQuery
from stratarouter_runtime.ports import Guard
from stratarouter_runtime.records import Answer, Vector
from stratarouter_runtime.state.cache_control import UNKNOWN, Origin
from stratarouter_runtime.state.eviction import CostAware

CANDIDATES = 5
"""How many of the nearest entries the guard is asked about: beyond the fifth a right one is rare, and each costs up
to 0.1 ms."""

OVERHEAD_BYTES = 2_000
"""What one entry costs beside its texts and vector: dictionaries, the heap, the guard's features."""

GRAPH_BYTES = 480
"""A vector's neighbours in the graph."""

NUMBER_BYTES = 6
"""A vector's number: float32 in a matrix that may have a fifth of its rows to spare (``index.FILLED``), and a byte in
the graph."""

MARKED_WRONG = "guard:marked_wrong"
"""The reason where somebody said that this entry's answer was wrong for this question."""

Place = tuple[str, str]
"""An entry's key: scope and content hash."""


@dataclass(frozen=True, slots=True)
class Item:
    """An entry on the shelf. ``expires_at`` in monotonic seconds; ``answer`` is None where it lies elsewhere; ``says``
    is ``votes.said`` of it.
    """

    entry_id: str
    scope: str
    content_hash: str
    text: str
    expires_at: float
    size_bytes: int
    answer: Answer | None = None
    origin: Origin = UNKNOWN
    likeness: float = 1.0
    says: int = UNSAID

    @property
    def place(self) -> Place:
        """Scope and content hash."""
        return self.scope, self.content_hash


@dataclass(frozen=True, slots=True)
class Near:
    """An entry that the guard lets through, and its cosine similarity."""

    item: Item
    similarity: float


@dataclass(frozen=True, slots=True)
class Held:
    """What a process keeps of the cache.

    Attributes:
        entries, bytes: now; of a shared cache what this process can find by likeness, and its copies of answers.
        evicted: entries that went for want of room.
        copied: hits of a shared cache that needed no round trip.
    """

    entries: int
    bytes: int
    evicted: int
    copied: int = 0


def size_of(text: str, vector: Vector | None) -> int:
    """Bytes an entry takes at most: the text, the vector, and OVERHEAD_BYTES."""
    return OVERHEAD_BYTES + 2 * len(text) + (0 if vector is None else GRAPH_BYTES + NUMBER_BYTES * vector.size)


class Shelf:
    """Entries by key and by vector.

    Args:
        max_entries: how many entries at most.
        max_bytes: how many bytes at most, by ``size_of``.
        eviction: chooses who goes when room is short; None: the least recently used.

    Attributes:
        bytes: what the entries take now.
        evicted: how many went for want of room.
        expired: how many went for their age.
    """

    def __init__(
        self,
        *,
        max_entries: int,
        max_bytes: int,
        index: ScopedIndex[Place] | None = None,
        eviction: CostAware[Place] | None = None,
    ) -> None:
        self._eviction = eviction
        self._items: OrderedDict[Place, Item] = OrderedDict()
        self._index: ScopedIndex[Place] = index or ScopedIndex()
        self._expiries: list[tuple[float, Place]] = []
        self._sayings = Sayings()
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self.bytes = 0
        self.evicted = 0
        self.expired = 0

    def __len__(self) -> int:
        return len(self._items)

    @property
    def indexed(self) -> int:
        """How many entries can be found by their vector."""
        return len(self._index)

    def put(self, item: Item, vector: Vector | None, now: float) -> bool:
        """Keep ``item`` in place of an older one of its key.

        False where it is too large, its time is over, or it is worth less than all that is here.
        """
        self.expire(now)
        place = item.place
        self.remove(place)
        if item.size_bytes > self._max_bytes or item.expires_at <= now or self._max_entries < 1:
            return False
        self._items[place] = item
        self.bytes += item.size_bytes
        if self._eviction is not None:
            self._eviction.add(place, None if item.answer is None else item.answer.cost_usd, item.size_bytes)
        if vector is not None and self._index.add(place, item.scope, vector):
            self._sayings.add(item.scope, item.says)
        heapq.heappush(self._expiries, (item.expires_at, place))
        self._make_room()
        return place in self._items

    def remove(self, place: Place) -> None:
        """Take an entry out, if it is in."""
        item = self._items.pop(place, None)
        if item is not None:
            self.bytes -= item.size_bytes
            if place in self._index:
                self._index.remove(place)
                self._sayings.remove(item.scope, item.says)
            if self._eviction is not None:
                self._eviction.remove(place)

    def expire(self, now: float) -> None:
        """Take out everything whose time is over."""
        while self._expiries and self._expiries[0][0] <= now:
            _, place = heapq.heappop(self._expiries)
            item = self._items.get(place)
            # Another time to live: the entry was stored again since.
            if item is not None and item.expires_at <= now:
                self.remove(place)
                self.expired += 1

    def items(self) -> list[Item]:
        """Everything on the shelf, the least recently used first."""
        return list(self._items.values())

    def has(self, item: Item) -> bool:
        """Whether this very item is here. Does not count as use."""
        return self._items.get(item.place) is item

    def exact(self, query: CacheQuery, now: float) -> Item | None:
        """The entry of the same words, if it is here."""
        self.expire(now)
        return self._used((query.scope, query.content_hash))

    def holds(self, place: Place, entry_id: str) -> bool:
        """Whether this very entry is here with a vector. Does not count as use."""
        item = self._items.get(place)
        return item is not None and item.entry_id == entry_id and place in self._index

    def nearest(self, query: CacheQuery, guard: Guard, now: float) -> Near | CacheMiss:
        """The nearest entry above the threshold that the guard lets through, or why there is none."""
        self.expire(now)
        if query.vector is None:
            return CacheMiss()
        found = self._index.search(query.scope, query.vector, CANDIDATES)
        candidates = [(self._items[place], similarity) for place, similarity in found]
        near = choose(candidates, query, guard)
        if isinstance(near, Near) and _is_disputed(near.item, candidates, query, guard, self._sayings):
            return CacheMiss(DISPUTED, near.similarity, near.item.entry_id)
        if isinstance(near, Near):
            self._used(near.item.place)
        return near

    def _used(self, place: Place) -> Item | None:
        item = self._items.get(place)
        if item is not None:
            self._items.move_to_end(place)
            if self._eviction is not None:
                self._eviction.use(place)
        return item

    def _make_room(self) -> None:
        while len(self._items) > self._max_entries or self.bytes > self._max_bytes:
            self.remove(next(iter(self._items)) if self._eviction is None else self._eviction.victim())
            self.evicted += 1
        # What was evicted or stored again leaves its old expiry behind; sweep when those are the most.
        if len(self._expiries) > 2 * len(self._items) + 16:
            self._expiries = [(item.expires_at, place) for place, item in self._items.items()]
            heapq.heapify(self._expiries)


def choose(candidates: list[tuple[Item, float]], query: CacheQuery, guard: Guard) -> Near | CacheMiss:
    """Decide among ``candidates``, nearest first. A miss tells of the nearest one and why it was refused."""
    miss = CacheMiss()
    for item, similarity in candidates:
        above = similarity >= query.threshold
        reason = guard.differs(query.text, item.text, similarity) if above else "below_threshold"
        if above and item.content_hash in query.vetoed:
            reason = MARKED_WRONG
        if reason is None:
            return Near(item, similarity)
        if miss.reason is None:
            miss = CacheMiss(reason, similarity, item.entry_id)
        if not above:
            break
    return miss


def _is_disputed(
    hit: Item, candidates: list[tuple[Item, float]], query: CacheQuery, guard: Guard, sayings: Sayings
) -> bool:
    """Whether other near entries that would nearly answer as well say something else than ``hit`` does."""
    others = [
        (item, similarity)
        for item, similarity in candidates
        if item is not hit and similarity >= query.threshold and item.content_hash not in query.vetoed
    ]
    # Nearly always nobody differs, and the guard need not be asked again.
    if not sayings.contradict(hit.scope, hit.says, [item.says for item, _ in others]):
        return False
    votes = [
        item.says
        for item, similarity in others
        if guard.differs(query.text, item.text, min(1.0, similarity + MARGIN)) is None
    ]
    return sayings.outvoted(hit.scope, hit.says, votes)
