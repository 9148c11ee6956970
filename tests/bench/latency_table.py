"""The published table of latencies, in-process at 200 requests/s with a provider of a fixed 45 ms: each line's p99.

The cache holds the vectors of real questions, and what is asked lies between two of them: random vectors have no
neighbours, and a graph of such is searched three times as long as any that a cache holds.

Three times: with the cache in memory, with the cache in Redis as it is by default, and with ids, whose rows are durable
before the call and before the answer.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from bench import peers
from bench.parts import bridge, database, routes, simulator
from bench.questions import COUNT, Questions, questions
from bench.result import NotRun, Outcome, Result, at_most, percentile
from stratarouter_runtime.bridge import CoreRuntimeBridge, ExecutionResult
from stratarouter_runtime.embedded import EmbeddedStack, StackAddresses

T = TypeVar("T")

RATE_PER_S = 200
ROUND_S = 6.0
WARM_UP_S = 1.0
ROUNDS = 3
LATENCY_MS = 45
FILLERS = 1000
LIMITS_MS = {
    "bridge": 0.5,
    "exact lookup": 0.5,
    "semantic lookup": 1.5,
    "post-processing": 1.3,
    "total": 50.0,
    "hit": 4.0,
}
"""p99 of each line."""
FIXED = range(2400)
"""What the machine is asked beside: to add up their squares takes about as long as the bridge does of a call."""


@dataclass(slots=True)
class Lines:
    """Milliseconds of every request by line of the table."""

    found: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in LIMITS_MS})

    def miss(self, took_ms: float, result: ExecutionResult, *, semantic: bool) -> None:
        """Take a request to pieces by its own timings; what no step claims is the bridge's."""
        steps = result.timings_ms
        before = sum(steps.get(name, 0.0) for name in ("lookup", "slot", "journal_begin", "provider"))
        post = max(0.0, steps["execute"] - before)
        waits = steps.get("slot", 0.0) + steps.get("journal_begin", 0.0)
        self.found["bridge"].append(took_ms - steps["execute"] + waits)
        self.found["semantic lookup" if semantic else "exact lookup"].append(steps["lookup"])
        self.found["post-processing"].append(post)
        self.found["total"].append(took_ms)


@dataclass(frozen=True, slots=True)
class Case:
    """One way to run the table."""

    said: str
    settings: dict[str, Any]
    has_ids: bool = False
    lines: tuple[str, ...] = tuple(LIMITS_MS)


@dataclass(slots=True)
class Asking:
    """A bridge of one case, asked; with an id each where the case has them."""

    bridge: CoreRuntimeBridge
    case: Case

    async def __call__(self, query: str, vector: Any) -> tuple[float, ExecutionResult]:
        """Milliseconds, and the result. Nothing is added to the cache: its size stays what the table says."""
        request_id = uuid.uuid4().hex if self.case.has_ids else None
        began = time.perf_counter()
        result = await self.bridge.execute(
            "bench", query=query, embedding=vector, cache={"mode": "read_only"}, request_id=request_id
        )
        return (time.perf_counter() - began) * 1000, result


async def measure(addresses: StackAddresses) -> list[Outcome]:
    """Each case in turn: misses without and with a vector among 10,000 entries, then hits of both kinds."""
    try:
        given = await questions()
    except peers.PeerError as exc:
        return [NotRun("the table of latencies", str(exc))]
    async with redis() as redis_url:
        # A worker's patience with Redis; the fill asks it 1,000 things at once.
        shared = {"cache_backend": "redis", "redis_url": redis_url, "cache_timeout_ms": 5000}
        cases = [
            Case("", {}),
            Case(", cache in Redis", shared),
            Case(", with ids", {}, has_ids=True, lines=("total", "hit")),
        ]
        found: list[Outcome] = []
        for case in cases:
            found += await _table(addresses, given, case)
    return found


@asynccontextmanager
async def redis() -> AsyncIterator[str]:
    """A Redis of this benchmark's own."""
    with tempfile.TemporaryDirectory(prefix="bench-redis-") as folder:
        async with EmbeddedStack(Path(folder), kafka=False, postgres=False, redis=True) as stack:
            started = await stack.start()
            assert started.redis_url is not None
            yield started.redis_url


async def _table(addresses: StackAddresses, given: Questions, case: Case) -> list[Outcome]:
    rounds: list[Lines] = []
    fixed: list[list[float]] = []
    async with (
        database(addresses) as url,
        simulator("--latency-ms", str(LATENCY_MS)) as base_url,
        bridge(url, routes(base_url), **case.settings) as running,
    ):
        entries = await _filled(running, given)
        ask = Asking(running, case)
        for _ in range(ROUNDS):
            lines = Lines()
            await _misses(ask, lines, given, semantic=False)
            await _misses(ask, lines, given, semantic=True)
            await _hits(ask, lines, entries)
            rounds.append(lines)
            fixed.append(await _paced(_fixed))
    found: list[Outcome] = [
        _result(f"{name}{case.said}", [lines.found[name] for lines in rounds], LIMITS_MS[name], f"{COUNT} entries")
        for name in case.lines
    ]
    said = "what the machine gives in this hour"
    scale = _result(f"nothing but a fixed piece of work{case.said}", fixed, LIMITS_MS["bridge"], said)
    return [*found, replace(scale, at_least=None)]


def _result(name: str, rounds: list[list[float]], limit_ms: float, said: str) -> Result:
    p50 = statistics.median(percentile(one, 0.5) for one in rounds)
    return at_most(
        f"in-process at {RATE_PER_S}/s, provider {LATENCY_MS} ms: {name}, p99",
        [percentile(one, 0.99) for one in rounds],
        limit_ms,
        unit="ms",
        note=f"p50 {p50:.3f} ms; {said}",
    )


async def _fixed(_: int) -> float:
    began = time.perf_counter()
    sum(value * value for value in FIXED)
    return (time.perf_counter() - began) * 1000


def _between(given: Questions, count: int) -> Any:
    """Vectors that each lie in the middle of two others: of questions that are like none that was asked."""
    chance = np.random.default_rng(uuid.uuid4().int % 2**32)
    one, other = (given.vectors[chance.integers(0, COUNT, count)] for _ in range(2))
    return (one + other) / np.linalg.norm(one + other, axis=1, keepdims=True)


async def _filled(running: CoreRuntimeBridge, given: Questions) -> list[tuple[str, Any]]:
    entries = [(f"how do I return parcel {uuid.uuid4().hex}", vector) for vector in given.vectors]
    left = iter(entries)

    async def fill() -> None:
        for query, vector in left:
            await running.execute("bench", query=query, embedding=vector)

    await asyncio.gather(*(fill() for _ in range(FILLERS)))
    return entries


async def _misses(ask: Asking, lines: Lines, given: Questions, *, semantic: bool) -> None:
    vectors = _between(given, int(RATE_PER_S * (ROUND_S + WARM_UP_S)))

    async def one(number: int) -> tuple[float, ExecutionResult]:
        return await ask(f"{uuid.uuid4()} question {number}", vectors[number] if semantic else None)

    for took_ms, result in await _paced(one):
        assert result.cache.kind == "miss", result.cache
        lines.miss(took_ms, result, semantic=semantic)


async def _hits(ask: Asking, lines: Lines, entries: list[tuple[str, Any]]) -> None:
    """Exact and semantic hits in turn."""

    async def one(number: int) -> tuple[float, ExecutionResult]:
        query, vector = entries[number % len(entries)]
        if number % 2:
            query, vector = f"please, {query}", vector + _noise(number)
        return await ask(query, vector)

    found = await _paced(one)
    kinds = Counter(result.cache.kind for _, result in found)
    # Some of the questions differ by a digit and hardly by their vectors: one in twenty-five, by chance.
    assert kinds["exact"] == len(found) // 2, kinds
    assert kinds["semantic"] >= 0.9 * (len(found) // 2), kinds
    lines.found["hit"] += [took_ms for took_ms, result in found if result.cache.kind != "miss"]


def _noise(number: int) -> Any:
    return np.random.default_rng(number).standard_normal(384).astype(np.float32) * np.float32(0.0005)


async def _paced(one: Callable[[int], Coroutine[Any, Any, T]]) -> list[T]:
    """Arrivals on a clock, whether earlier ones are answered or not; those of the warm-up are left out."""
    began = time.perf_counter()
    tasks = []
    async with asyncio.TaskGroup() as group:
        for number in range(int((ROUND_S + WARM_UP_S) * RATE_PER_S)):
            await asyncio.sleep(max(0.0, began + number / RATE_PER_S - time.perf_counter()))
            tasks.append(group.create_task(one(number)))
    return [task.result() for task in tasks[int(WARM_UP_S * RATE_PER_S) :]]
