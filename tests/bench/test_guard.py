"""Ratios that hold on any machine, measured shortly, with bounds far below what ``make bench`` asks for.

They say that something became several times slower, not by how much: both sides of a ratio run in turns in one
process, so a busy machine slows both.
"""

from __future__ import annotations

import statistics
import time

import numpy as np
import pytest

from bench import bridge_rate, journal
from bench.cache_speed import DIMENSION, units
from bench.curves.journal import purged_and_written
from bench.parts import database, simulator
from bench.questions import made
from stratarouter_runtime.cache.guard import create_guard
from stratarouter_runtime.cache.index import BRUTE_FORCE_MAX, ScopedIndex
from stratarouter_runtime.cache.memory import MemoryCache
from stratarouter_runtime.clock import SystemClock
from stratarouter_runtime.embedded import StackAddresses
from stratarouter_runtime.port_values import CacheEntry, CacheQuery
from stratarouter_runtime.records import Answer

pytestmark = pytest.mark.stack

ROUNDS = 3
CALLS = 1000
SEARCHES = 300
ANSWER = Answer("an answer", "openai", "gpt-4o-mini")


async def test_grouped_journal_writes_stay_near_bare_inserts(addresses: StackAddresses) -> None:
    # Single rounds gave 0.19 to 0.52 where this was written.
    for result in await journal.measure(addresses, rounds=ROUNDS):
        assert result.ratio > 0.08, result


async def test_the_bridge_costs_some_bare_calls_at_most(addresses: StackAddresses) -> None:
    # By processor time: 0.16 to 0.23 where this was written, with the default collector and event loop.
    async with database(addresses) as url, simulator() as base_url, bridge_rate.calls(url, base_url) as (ours, bare):
        ratios = []
        for _ in range(ROUNDS):
            mine = await bridge_rate.per_core_second(ours, 200, CALLS)
            ratios.append(mine / await bridge_rate.per_core_second(bare, 200, CALLS))
    assert statistics.median(ratios) > 0.06, ratios


async def test_a_thousand_calls_in_flight_cost_little_more_than_fifty(addresses: StackAddresses) -> None:
    # By processor time: 0.72 to 1.04 where this was written.
    async with database(addresses) as url, simulator() as base_url, bridge_rate.calls(url, base_url) as (ours, _):
        ratios = []
        for _ in range(ROUNDS):
            many = await bridge_rate.per_core_second(ours, 1000, CALLS)
            ratios.append(many / await bridge_rate.per_core_second(ours, 50, CALLS))
    assert statistics.median(ratios) > 0.25, ratios


async def test_a_semantic_search_keeps_to_one_thread() -> None:
    # A product spread over threads takes several times the processor time that it saves in waiting: 1.9 cores before.
    index: ScopedIndex[str] = ScopedIndex()
    vectors = units(np.random.default_rng(5).standard_normal((BRUTE_FORCE_MAX, DIMENSION), dtype=np.float32))
    for number, vector in enumerate(vectors):
        index.add(str(number), "scope", vector)
    began, used = time.perf_counter(), time.process_time()
    for vector in vectors[:SEARCHES]:
        [(nearest, _)] = index.search("scope", vector, 1)
        assert nearest is not None
    assert time.process_time() - used < 1.25 * (time.perf_counter() - began)


async def test_an_exact_hit_costs_the_same_among_more_entries() -> None:
    # 1.0 to 1.5 where this was written: the least of many looks, each side in a cache of its own.
    took: dict[int, list[float]] = {count: [] for count in (500, 20_000)}
    caches = {count: MemoryCache(clock=SystemClock(), guard=create_guard()) for count in took}
    for count, cache in caches.items():
        await cache.store([CacheEntry(f"h{n}", "scope", f"h{n}", text, ANSWER) for n, text in enumerate(made(count))])
    for number in range(SEARCHES):
        for count, cache in caches.items():
            began = time.perf_counter()
            [hit] = cache.lookup_now([CacheQuery("scope", f"h{number}", "asked", None)])
            took[count].append(time.perf_counter() - began)
            assert hit.kind == "exact"
    assert min(took[20_000]) < 10 * min(took[500]), took


async def test_purging_a_row_costs_the_same_among_more_rows(addresses: StackAddresses) -> None:
    # Rows/s purged, twenty times as many kept beside them: 0.6 to 1.3 where this was written.
    async with database(addresses) as url:
        ratios = []
        for _ in range(ROUNDS):
            few, many = [(await purged_and_written(url, rows, old=2000, written=500)).purged for rows in (4000, 80_000)]
            ratios.append(many[0] / few[0])
    assert statistics.median(ratios) > 0.1, ratios
