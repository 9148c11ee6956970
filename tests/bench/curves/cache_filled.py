"""A process that fills a cache with so many entries, in scopes of so many, and says what lookups in it take."""

from __future__ import annotations

import asyncio
import gc
import random
import statistics
import sys
import time
from collections.abc import Iterator

import numpy as np
import orjson

from bench.cache_speed import CENTRES, DIMENSION, SEED, hit_query, units
from bench.curves.process import resident_bytes
from bench.questions import made
from stratarouter_runtime import collector
from stratarouter_runtime.cache.guard import create_guard
from stratarouter_runtime.cache.memory import MemoryCache
from stratarouter_runtime.clock import SystemClock
from stratarouter_runtime.port_values import CacheEntry
from stratarouter_runtime.records import Answer

CHUNK = 1000
ROUNDS, LOOKUPS = 3, 300


def main(size: int, scope_entries: int) -> dict[str, list[float]]:
    """Fill a cache and look up in it; microseconds and bytes."""
    collector.settle()
    cache = MemoryCache(clock=SystemClock(), guard=create_guard(), max_entries=size, max_bytes=2**40)
    before = resident_bytes()
    kept: list[CacheEntry] = []
    chance = random.Random(SEED)
    store_s = 0.0
    for entries in _chunks(size, scope_entries):
        began = time.perf_counter()
        asyncio.run(cache.store(entries))
        store_s += time.perf_counter() - began
        kept += chance.sample(entries, max(1, len(entries) * LOOKUPS // size))
    del entries
    gc.collect()
    per_entry = (resident_bytes() - before) / size
    asked = {kind: [hit_query(entry, kind) for entry in kept] for kind in ("exact", "semantic")}
    found: dict[str, list[float]] = {"bytes": [per_entry], "store": [store_s / size * 1e6]}
    for kind, queries in asked.items():
        found[kind] = []
        for _ in range(ROUNDS):
            took = []
            for query in queries:
                began = time.perf_counter()
                [hit] = cache.lookup_now([query])
                took.append((time.perf_counter() - began) * 1e6)
                assert hit.kind == kind, hit
            found[kind].append(statistics.median(took))
    return found


def _chunks(size: int, scope_entries: int) -> Iterator[list[CacheEntry]]:
    chance = np.random.default_rng(SEED)
    centres = units(chance.standard_normal((CENTRES, DIMENSION), dtype=np.float32))
    texts = made(size)
    for start in range(0, size, CHUNK):
        noise = units(chance.standard_normal((CHUNK, DIMENSION), dtype=np.float32))
        near = centres[chance.integers(0, CENTRES, CHUNK)]
        vectors = units(near * np.float32(0.9) + noise * np.float32(0.45))
        yield [
            CacheEntry(
                f"h{number}", f"scope {number // scope_entries}", f"h{number}", text,
                Answer("the answer to it " * 20 + str(number), "openai", "gpt-4o-mini", cost_usd=0.0004),
                vector=vector,
            )
            for number, text, vector in zip(range(start, start + CHUNK), texts, vectors, strict=False)
        ]  # fmt: skip


if __name__ == "__main__":
    sys.stdout.write(orjson.dumps(main(int(sys.argv[1]), int(sys.argv[2]))).decode())
