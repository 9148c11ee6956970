"""Many calls in flight in one process: requests/s at 1,000 against 50 at once, and latency at 5,000 against 50."""

from __future__ import annotations

import asyncio
import time
import uuid

from bench.parts import bridge, database, routes, simulator
from bench.result import Result, compare, percentile
from stratarouter_runtime.bridge import CoreRuntimeBridge
from stratarouter_runtime.embedded import StackAddresses

ROUNDS = 3
CALLS = 6000
MANY, FEW = 1000, 50
SLOW_MS = 10_000
CROWD, HANDFUL = 5000, 50
STEADY_S = 8.0
"""Arrivals are timed for so long once as many are in flight as are asked for."""


async def measure(addresses: StackAddresses) -> list[Result]:
    """Throughput with a quick provider, latency with a slow one."""
    async with database(addresses) as url:
        async with simulator("--latency-ms", "5") as base_url, bridge(url, routes(base_url)) as running:
            await throughput(running, FEW, 1000)
            rates: dict[int, list[float]] = {MANY: [], FEW: []}
            for number in range(ROUNDS):
                for at_once in (MANY, FEW) if number % 2 == 0 else (FEW, MANY):
                    rates[at_once].append(await throughput(running, at_once, CALLS))
        async with simulator("--latency-ms", str(SLOW_MS)) as base_url, bridge(url, routes(base_url)) as running:
            medians: dict[int, list[float]] = {CROWD: [], HANDFUL: []}
            for at_once in (HANDFUL, CROWD):
                medians[at_once].append(percentile(await _arrivals(running, at_once), 0.5))
    return [
        compare(
            f"bridge.execute at {MANY} in flight against {FEW}",
            rates[MANY],
            rates[FEW],
            unit="requests/s",
            at_least=0.7,
        ),
        compare(
            f"median latency with {CROWD} calls of {SLOW_MS} ms in flight against {HANDFUL}",
            medians[CROWD],
            medians[HANDFUL],
            unit="ms",
            at_least=0.9,
            lower_is_better=True,
            note=f"arrivals on a clock, {CROWD * 1000 // SLOW_MS}/s and {HANDFUL * 1000 // SLOW_MS}/s; one round",
        ),
    ]


async def throughput(running: CoreRuntimeBridge, at_once: int, calls: int) -> float:
    numbers = iter(range(calls))
    began = time.perf_counter()

    async def loop() -> None:
        for number in numbers:
            await running.execute("bench", query=f"{uuid.uuid4()} question {number}")

    await asyncio.gather(*(loop() for _ in range(at_once)))
    return calls / (time.perf_counter() - began)


async def _arrivals(running: CoreRuntimeBridge, in_flight: int) -> list[float]:
    """Latencies in ms, at the rate that keeps ``in_flight`` calls under way."""
    rate_per_s = in_flight * 1000 / SLOW_MS
    filled_s = SLOW_MS / 1000
    latencies: list[float] = []
    start = time.perf_counter()

    async def one(number: int) -> None:
        began = time.perf_counter()
        await running.execute("bench", query=f"{uuid.uuid4()} question {number}")
        if began - start >= filled_s:
            latencies.append((time.perf_counter() - began) * 1000)

    async with asyncio.TaskGroup() as group:
        for number in range(int((filled_s + STEADY_S) * rate_per_s)):
            await asyncio.sleep(max(0.0, start + number / rate_per_s - time.perf_counter()))
            group.create_task(one(number))
    return latencies
