"""The cache that workers share: answers in Redis with their time to live, and in each worker what finds them.

A lookup is one round trip for all its queries, with a short deadline; none for what this process has fetched before and
Redis has not called changed since. Whatever goes wrong with Redis is a bypass: the request goes on as if there were no
cache. Needs Redis 6.2 or anything that speaks its protocol; no modules.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeGuard

from redis.asyncio import Redis
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from stratarouter_runtime.cache import sweep
from stratarouter_runtime.cache.connect import close, connect
from stratarouter_runtime.cache.copies import Copies
from stratarouter_runtime.cache.follow import READ_TIMEOUT_S, Follower
from stratarouter_runtime.cache.index import unit
from stratarouter_runtime.cache.keys import Keys
from stratarouter_runtime.cache.leases import Leases
from stratarouter_runtime.cache.shelf import Held, Item, Near, Place, Shelf, size_of
from stratarouter_runtime.cache.trips import AT_ONCE, MAX_WAIT, Trips
from stratarouter_runtime.cache.values import (
    Found,
    GarbageError,
    UnstorableError,
    decode_answer,
    encode_answer,
    encode_findable,
)
from stratarouter_runtime.cache.votes import UNSAID, said
from stratarouter_runtime.cache.watch import Watch
from stratarouter_runtime.port_values import CacheEntry, CacheHit, CacheMiss, CacheQuery
from stratarouter_runtime.ports import Clock, Guard
from stratarouter_runtime.records import Vector
from stratarouter_runtime.state.cache_control import Origin
from stratarouter_runtime.telemetry.logs import event, event_of

log = logging.getLogger("stratarouter.cache")

TIMEOUT_S = 0.15
"""Deadline of a lookup or a store. A round trip takes about 1 ms; a call saved takes a second, so waiting longer than
this for a server in trouble buys nothing."""

FIRST_RETRY_AFTER_S = 0.1
RETRY_AFTER_S = 1.0
"""How long a server that failed is left alone: at first, and at most. Every request that comes meanwhile is paid for,
so a short trouble must not become a long one."""

STREAM_LENGTH = 10_000
"""Stream entries kept (about 1 MB). A worker further behind than this scans Redis anew."""

COPIES_SHARE = 4
"""The part of ``local_bytes``, one in so many, that copies of answers may take."""

LOCAL_ENTRIES = 50_000
LOCAL_BYTES = 256 * 1024 * 1024
"""Bounds of what one worker holds for finding by likeness; entries beyond are found by their exact words only."""

READING = frozenset({"GET", "PTTL", "SCAN"})
"""What is asked; anything else is written."""

STORE_CHUNK = 100
"""Entries written in one round trip: 100 of 20 kB take 2 MB and a few milliseconds."""


@dataclass(slots=True)
class Counters:
    """What went by or wrong since the start.

    Attributes:
        bypassed: lookups not asked or not answered.
        failures: round trips that failed, or in which Redis refused to be read.
        garbage: values that could not be read; they were deleted.
        unstorable: entries that JSON cannot hold.
        lost_stores: entries not kept because Redis was away or refused them.
        vanished: entries found by likeness whose answer was gone, or another's.
        copied: hits without a round trip.
    """

    bypassed: int = 0
    failures: int = 0
    garbage: int = 0
    unstorable: int = 0
    lost_stores: int = 0
    vanished: int = 0
    copied: int = 0


@dataclass(slots=True)
class _Fetched:
    """Values of one lookup, decoded; garbage is listed and counts as absent."""

    answers: dict[Place, Found] = field(default_factory=dict)
    garbage: list[Place] = field(default_factory=list)


class RedisCache:
    """Answers in Redis, found by exact words or by likeness.

    Args:
        url: redis://, rediss:// or unix:// address; may hold a password.
        clock: monotonic and wall time.
        guard: judges semantic candidates.
        prefix: begins every key; workers share a cache where they share it.
        timeout_s: deadline of a round trip, in seconds.
        local_entries: entries this worker can find by likeness, at most.
        local_bytes: their bytes, at most; and once more a quarter of it for copies of answers.

    Attributes:
        counters: what went by or wrong.
    """

    def __init__(
        self,
        url: str,
        *,
        clock: Clock,
        guard: Guard,
        prefix: str = "stratarouter:cache",
        timeout_s: float = TIMEOUT_S,
        local_entries: int = LOCAL_ENTRIES,
        local_bytes: int = LOCAL_BYTES,
    ) -> None:
        self._url = url
        self._clock = clock
        self._guard = guard
        self._keys = Keys(prefix)
        self._timeout_s = timeout_s
        self._worker = uuid.uuid4().hex
        self._shelf = Shelf(max_entries=local_entries, max_bytes=local_bytes)
        self._client: Redis | None = None
        self._trips: Trips | None = None
        self._copies = Copies(local_bytes // COPIES_SHARE)
        self._watch: Watch | None = None
        self._pause_s = 0.0
        self._follower: Follower | None = None
        self._follower_client: Redis | None = None
        self._away_until = float("-inf")
        self._failure = "unavailable"
        self.counters = Counters()
        self._leases = Leases(self._ask, self._keys, clock)

    @property
    def shared(self) -> bool:
        """By all who have the same prefix."""
        return True

    @property
    def follower(self) -> Follower | None:
        """What keeps this worker in step with the others; None while stopped."""
        return self._follower

    @property
    def indexed(self) -> int:
        """Entries this worker can find by likeness now."""
        return self._shelf.indexed

    @property
    def held(self) -> Held:
        """What this worker keeps to find and to copy, and what had to go."""
        kept = self._shelf.bytes + self._copies.bytes
        return Held(len(self._shelf), kept, self._shelf.evicted, self.counters.copied)

    async def start(self) -> None:
        """Begin to follow the other workers. Opens connections when they are needed, so Redis may be away."""
        if self._client is not None:
            return
        self._client = connect(self._url, MAX_WAIT * self._timeout_s, AT_ONCE, bounded=False)
        self._watch = Watch(self._client, self._copies)
        self._trips = Trips(
            self._client,
            self._timeout_s,
            self._failed,
            listener=self._listener,
            refused=self._watch.refused,
            lost=self._watch.lost,
        )
        self._watch.start(self._trips.beat)
        self._leases.start()
        self._follower_client = connect(self._url, READ_TIMEOUT_S, 1)
        self._follower = Follower(self._follower_client, self._keys, self._shelf, self._clock, self._worker)
        self._follower.start()

    async def stop(self) -> None:
        """Join the follower and close the connections. Idempotent."""
        await self._leases.stop()
        trips, watch, self._trips, self._watch = self._trips, self._watch, None, None
        if watch is not None:
            await watch.stop()
        if trips is not None:
            await trips.stop()
        clients, follower = (self._client, self._follower_client), self._follower
        self._client = self._follower_client = self._follower = None
        if follower is not None:
            await follower.stop()
        for client in clients:
            if client is not None:
                await close(client)

    def lookup_now(self, queries: Sequence[CacheQuery]) -> list[CacheHit | CacheMiss] | None:
        """What needs no round trip: the same words, where this process has copies of all their answers; a bypass where
        it has none and Redis is left alone. Else None.
        """
        if not len(self._copies):
            return self._bypass(queries) if self._is_away() else None
        now = self._clock.monotonic()
        found: list[CacheHit | CacheMiss] = []
        for query in queries:
            same = self._same(query, now)
            if same is None:
                return None
            found.append(same)
        self.counters.copied += len(found)
        return found

    async def lookup(self, queries: Sequence[CacheQuery]) -> list[CacheHit | CacheMiss]:
        """Look up many at once, in one round trip at most: exact first, then by likeness."""
        if not queries:
            return []
        if not len(self._copies) and self._is_away():
            return self._bypass(queries)
        now = self._clock.monotonic()
        here = [self._here(query, now) for query in queries]
        asked = [(query, one) for query, one in zip(queries, here, strict=True) if not isinstance(one, CacheHit)]
        self.counters.copied += len(here) - len(asked)
        there = iter(await self._there(asked) if asked else ())
        return [one if isinstance(one, CacheHit) else next(there) for one in here]

    async def store(self, entries: Sequence[CacheEntry]) -> None:
        """Keep answers; failures are counted, not raised."""
        for start in range(0, len(entries), STORE_CHUNK):
            await self._store([entry for entry in entries[start : start + STORE_CHUNK] if entry.ttl > 0])

    async def claim(self, place: Place) -> bool:
        """As the port says; a round trip."""
        return self._is_away() or await self._leases.claim(place)

    async def release(self, place: Place) -> None:
        """As the port says."""
        await self._leases.release(place)

    async def discard(self, places: Sequence[Place]) -> None:
        """Take single entries out, here and in Redis; failures are counted, not raised."""
        for place in places:
            self._shelf.remove(place)
            self._changed(place)
        await self._ask(sweep.removals(self._keys, places))

    async def drop(self, is_stale: Callable[[Origin], bool], turn: str | None) -> int:
        """As ``sweep.drop``. Asks Redis even while it is left alone: nobody is answered later for it.

        Where nobody else does it, all that this worker wrote before is seen. What this worker finds by likeness loses
        them when they are found and their answer is gone.
        """
        self._copies.drop(is_stale)
        if turn is None and self._trips is not None and not await self._trips.settle():
            raise sweep.no_answer()
        return await sweep.drop(self._ask, self._keys, is_stale, turn, self._changed)

    async def kept(self) -> AsyncIterator[sweep.Kept]:
        """Every entry in Redis, for people to look at; one may come twice. Raises CacheUnavailableError."""
        async for some in sweep.walk(self._ask, self._keys):
            for one in some:
                yield one

    # -- looking up ---------------------------------------------------------------------------------------------

    def _bypass(self, queries: Sequence[CacheQuery], reason: str = "breaker_open") -> list[CacheHit | CacheMiss]:
        """``reason``: what befell the round trip; ``breaker_open`` while Redis is left alone and none is made."""
        self.counters.bypassed += len(queries)
        return [CacheMiss(reason, bypassed=True) for _ in queries]

    def _same(self, query: CacheQuery, now: float) -> CacheHit | None:
        """A hit by the same words, where there is a copy of their answer."""
        found = self._copies.get((query.scope, query.content_hash), now)
        if found is None:
            return None
        self._shelf.exact(query, now)  # counts as use
        return _exact(found)

    def _here(self, query: CacheQuery, now: float) -> CacheHit | Near | CacheMiss:
        """A hit, where there is a copy of its answer; else what was found by likeness, guard and all, and why not."""
        same = self._same(query, now)
        if same is not None:
            return same
        # The same words are known here: the search (0.2 ms of this process's time) would be for nothing.
        item = self._shelf.exact(query, now)
        if item is not None:
            return Near(item, 1.0)
        near = self._shelf.nearest(query, self._guard, now)
        if isinstance(near, CacheMiss):
            return near
        # Their own answer may lie in Redis without a vector, as an alias does: what is alike is as good.
        found = self._copies.get(near.item.place, now)
        return _alike(found, near.similarity) if _is_of(found, near) else near

    async def _there(self, asked: Sequence[tuple[CacheQuery, Near | CacheMiss]]) -> list[CacheHit | CacheMiss]:
        """The answers of both kinds, in one round trip: what Redis no longer holds is never served."""
        queries = [query for query, _ in asked]
        if self._is_away():
            return self._bypass(queries)
        places = {(query.scope, query.content_hash) for query in queries}
        places |= {near.item.place for _, near in asked if isinstance(near, Near)}
        fetched = await self._fetch(list(places))
        if fetched is None:
            return self._bypass(queries, self._failure)
        found = [self._decide(query, near, fetched) for query, near in asked]
        # Away with what nobody can read.
        await self._delete(fetched.garbage)
        return found

    def _decide(self, query: CacheQuery, near: Near | CacheMiss, fetched: _Fetched) -> CacheHit | CacheMiss:
        place = (query.scope, query.content_hash)
        same = fetched.answers.get(place)
        if same is not None:
            return _exact(same)
        if place in fetched.garbage and (isinstance(near, CacheMiss) or near.item.place not in fetched.answers):
            return CacheMiss("garbage", bypassed=True)
        if isinstance(near, CacheMiss):
            return near
        like = fetched.answers.get(near.item.place)
        if _is_of(like, near):
            return _alike(like, near.similarity)
        self._shelf.remove(near.item.place)
        self.counters.vanished += 1
        return CacheMiss("vanished", near.similarity, near.item.entry_id)

    async def _fetch(self, places: list[Place]) -> _Fetched | None:
        """The answers at ``places``; None where Redis did not give them."""
        names = [self._keys.answer(place) for place in places]
        listener, changes = self._listener(), self._copies.changes
        replies = await self._ask([("GET", name) for name in names])
        if replies is None:
            return None
        # Copied is only what the server says it will tell of: while the same connection listens as when it was asked.
        is_told = listener is not None and listener == self._listener()
        fetched = _Fetched()
        for place, name, reply in zip(places, names, replies, strict=True):
            if reply is None:
                continue
            try:
                found = fetched.answers[place] = _read(reply, place)
            except GarbageError:
                fetched.garbage.append(place)
                continue
            if is_told and found.expires_ms:
                expires_at = self._clock.monotonic() + (found.expires_ms - self._clock.wall_ms()) / 1000
                self._copies.put(place, name.encode(), found, len(reply), expires_at, since=changes)
        return fetched

    def _listener(self) -> int | None:
        return None if self._watch is None else self._watch.listener

    async def _delete(self, places: Sequence[Place]) -> None:
        if not places:
            return
        self.counters.garbage += len(places)
        event(log, logging.WARNING, "unreadable cache entries deleted", count=len(places))
        for place in places:
            self._shelf.remove(place)
        names = [name for place in places for name in (self._keys.answer(place), self._keys.findable(place))]
        await self._ask([("UNLINK", name) for name in names])

    # -- storing ------------------------------------------------------------------------------------------------

    async def _store(self, entries: Sequence[CacheEntry]) -> None:
        vectors = [None if entry.vector is None else unit(entry.vector) for entry in entries]
        writes, kept = self._writes(entries, vectors)
        if not kept:
            return
        if self._is_away() or not _all_done(await self._ask(writes)):
            self.counters.lost_stores += len(kept)
            return
        for entry, _ in kept:
            self._changed((entry.scope, entry.content_hash))
        # Named on the stream only once they are there: a reader must find what it hears of.
        likely = [(entry, vector) for entry, vector in kept if vector is not None]
        await self._ask([self._news(entry) for entry, _ in likely])
        now = self._clock.monotonic()
        for entry, vector in kept:
            self._keep(entry, vector, now)

    def _writes(
        self, entries: Sequence[CacheEntry], vectors: Sequence[Vector | None]
    ) -> tuple[list[tuple[Any, ...]], list[tuple[CacheEntry, Vector | None]]]:
        """The commands that write ``entries``, and the entries that can be written."""
        writes: list[tuple[Any, ...]] = []
        kept = []
        wall_ms = self._clock.wall_ms()
        for entry, vector in zip(entries, vectors, strict=True):
            try:
                writes += self._write(entry, vector, wall_ms)
            except UnstorableError:
                self.counters.unstorable += 1
            else:
                kept.append((entry, vector))
        return writes, kept

    def _write(self, entry: CacheEntry, vector: Vector | None, wall_ms: int) -> list[tuple[Any, ...]]:
        place, ttl_ms = (entry.scope, entry.content_hash), entry.ttl * 1000
        expires_ms = wall_ms + ttl_ms
        answer = ("SET", self._keys.answer(place), encode_answer(entry, expires_ms), "PX", ttl_ms)
        if vector is None:
            return [answer, ("UNLINK", self._keys.findable(place))]
        findable = encode_findable(entry, vector, expires_ms)
        return [answer, ("SET", self._keys.findable(place), findable, "PX", ttl_ms)]

    def _news(self, entry: CacheEntry) -> tuple[Any, ...]:
        name = self._keys.findable((entry.scope, entry.content_hash))
        limits = ("MAXLEN", "~", STREAM_LENGTH)
        return ("XADD", self._keys.stream, *limits, "*", "key", name, "worker", self._worker)

    def _changed(self, place: Place) -> None:
        self._copies.changed(self._keys.answer(place).encode())

    def _keep(self, entry: CacheEntry, vector: Vector | None, now: float) -> None:
        size = size_of(entry.text, vector)
        says = UNSAID if vector is None else said(entry.answer)
        item = Item(entry.entry_id, entry.scope, entry.content_hash, entry.text, now + entry.ttl, size, says=says)
        self._shelf.put(item, vector, now)

    # -- asking Redis -------------------------------------------------------------------------------------------

    def _is_away(self) -> bool:
        return self._client is None or self._clock.monotonic() < self._away_until

    async def _ask(self, commands: Sequence[tuple[Any, ...]]) -> list[Any] | None:
        """One round trip, shared with others; None where it failed or something was refused. Redis is left alone for a
        while then, unless all that it refused was to be written.
        """
        trips = self._trips
        replies = None if trips is None else await trips.ask(commands)
        if replies is None:
            return None
        pairs = zip(commands, replies, strict=True)
        refused = {one[0] in READING: reply for one, reply in pairs if _is_refusal(reply)}
        if True in refused:
            self._failed(refused[True])
        elif refused:
            # A server that is full, or a replica: what it holds it gives out as before.
            event_of(log, logging.WARNING, "cache writes refused", cause=_cause(refused[False]))
        else:
            self._pause_s = 0.0
        return None if refused else replies

    def _failed(self, exc: Exception) -> None:
        self.counters.failures += 1
        self._failure = "timeout" if isinstance(exc, TimeoutError | RedisTimeoutError) else "unavailable"
        if self._is_away():
            return  # one of several that were under way together: the same trouble
        self._pause_s = min(RETRY_AFTER_S, max(FIRST_RETRY_AFTER_S, 2 * self._pause_s))
        self._away_until = self._clock.monotonic() + self._pause_s
        event(log, logging.WARNING, "cache bypassed", cause=type(exc).__name__, for_s=self._pause_s)


def _exact(found: Found) -> CacheHit:
    return CacheHit("exact", 1.0, found.entry_id, found.answer, found.origin, likeness=found.likeness)


def _alike(found: Found, similarity: float) -> CacheHit:
    return CacheHit("semantic", similarity, found.entry_id, found.answer, found.origin, likeness=similarity)


def _is_of(found: Found | None, near: Near) -> TypeGuard[Found]:
    """Whether ``found``, where ``near`` lay, is its answer: an alias may have come there since, whose answer belongs to
    another question.
    """
    return found is not None and found.entry_id == near.item.entry_id


def _read(reply: Any, place: Place) -> Found:
    if not isinstance(reply, bytes):
        raise GarbageError("a key of another type")
    return decode_answer(reply, place)


def _all_done(replies: list[Any] | None) -> bool:
    return replies is not None and not any(isinstance(reply, Exception) for reply in replies)


def _is_refusal(reply: Any) -> bool:
    """Whether it is an error that is not about one key."""
    return isinstance(reply, Exception) and not (
        isinstance(reply, ResponseError) and str(reply).startswith("WRONGTYPE")
    )


def _cause(refusal: Exception) -> str:
    """Its code where redis-py left it there, else its kind. The rest may quote what was to be written."""
    code = str(refusal).partition(" ")[0]
    return code if code.isupper() else type(refusal).__name__
