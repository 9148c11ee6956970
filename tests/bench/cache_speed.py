"""Lookups: exact and semantic in memory at 10,000 entries, exact in Redis against the bare round trip; memory an entry.

Vectors are those of random directions around 200 centres, so that a search has near ones to weigh, as questions have.
"""

from __future__ import annotations

import asyncio
import random
import time
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray
from redis.asyncio import Redis

from bench.questions import made
from bench.result import Result, at_most, percentile
from stratarouter_runtime.cache.guard import create_guard
from stratarouter_runtime.cache.memory import MemoryCache
from stratarouter_runtime.cache.redis import RedisCache
from stratarouter_runtime.clock import SystemClock
from stratarouter_runtime.embedded import EmbeddedStack, StackAddresses
from stratarouter_runtime.port_values import CacheEntry, CacheHit, CacheQuery
from stratarouter_runtime.ports import Cache
from stratarouter_runtime.records import Answer

ENTRIES = 10_000
DIMENSION = 384
CENTRES = 200
LOOKUPS = 2000
ROUNDS = 5
SEED = 11
LIMIT_US = {"exact": 50.0, "semantic": 1000.0}
REDIS_MORE_US = 300.0


async def measure(addresses: StackAddresses) -> list[Result]:
    """The user's bounds: ours against the most that it may take."""
    del addresses
    entries = _entries()
    results = await _in_memory(entries)
    with TemporaryDirectory(prefix="bench-redis-") as folder:
        async with EmbeddedStack(Path(folder), kafka=False, postgres=False, redis=True) as stack:
            started = await stack.start()
            assert started.redis_url is not None
            results.append(await _in_redis(started.redis_url, entries))
    return results


def _entries() -> list[CacheEntry]:
    chance = np.random.default_rng(SEED)
    centres = units(chance.standard_normal((CENTRES, DIMENSION), dtype=np.float32))
    noise = units(chance.standard_normal((ENTRIES, DIMENSION), dtype=np.float32))
    vectors = units(centres[chance.integers(0, CENTRES, ENTRIES)] * np.float32(0.9) + noise * np.float32(0.45))
    answer = Answer("the answer " * 30, "openai", "gpt-4o-mini", cost_usd=0.0004)
    return [
        CacheEntry(f"h{number}", "scope", f"h{number}", text, answer, vector=vectors[number])
        for number, text in enumerate(made(ENTRIES))
    ]


def units(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


async def _in_memory(entries: Sequence[CacheEntry]) -> list[Result]:
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    cache = MemoryCache(clock=SystemClock(), guard=create_guard())
    await cache.store(entries)
    per_entry = (tracemalloc.get_traced_memory()[0] - before) / len(entries)
    tracemalloc.stop()
    took: dict[str, list[float]] = {"exact": [], "semantic": []}
    chance = random.Random(SEED)
    for _ in range(ROUNDS):
        for kind, times in took.items():
            asked = [hit_query(chance.choice(entries), kind) for _ in range(LOOKUPS)]
            times.append(percentile([await _time_us(cache, query) for query in asked], 0.5))
    note = (
        f"{per_entry:.0f} bytes an entry in Python's and numpy's memory; the cache counts {cache.held.bytes // ENTRIES}"
    )
    return [
        at_most(
            f"{kind} hit in memory, {ENTRIES} entries of {DIMENSION} dimensions, p50",
            times,
            LIMIT_US[kind],
            unit="us",
            note=note,
            digits=2,
        )
        for kind, times in took.items()
    ]


def hit_query(entry: CacheEntry, kind: str) -> CacheQuery:
    if kind == "exact":
        return CacheQuery(entry.scope, entry.content_hash, entry.text, entry.vector)
    # The same question with a word of politeness: another hash, nearly the same vector, a guard that has to read both.
    return CacheQuery(entry.scope, "other", f"Hello! {entry.text}", entry.vector, threshold=0.95)


async def _time_us(cache: Cache, query: CacheQuery) -> float:
    began = time.perf_counter()
    found = cache.lookup_now([query])
    [hit] = await cache.lookup([query]) if found is None else found
    took = (time.perf_counter() - began) * 1e6
    assert isinstance(hit, CacheHit), hit
    return took


async def _in_redis(url: str, entries: Sequence[CacheEntry]) -> Result:
    """What a hit takes beyond a bare GET of the same value, over a connection of the same kind."""
    cache = RedisCache(url, clock=SystemClock(), guard=create_guard())
    await cache.start()
    try:
        await cache.store(entries[:1000])
        async with Redis.from_url(url) as bare:
            names = [name async for name in bare.scan_iter("*:answer", count=1000)]
            more = []
            for number in range(ROUNDS):
                asked = [hit_query(entry, "exact") for entry in entries[:1000]]
                ours = [await _time_us(cache, query) for query in asked]
                floor = [await _get_us(bare, name) for name in names[: len(asked)]]
                del number
                more.append(percentile(ours, 0.5) - percentile(floor, 0.5))
                await asyncio.sleep(0)
    finally:
        await cache.stop()
    return at_most("exact hit in Redis beyond a bare GET, p50", more, REDIS_MORE_US, unit="us", note="one round trip")


async def _get_us(bare: Redis, name: bytes) -> float:
    began = time.perf_counter()
    assert await bare.get(name) is not None
    return (time.perf_counter() - began) * 1e6
