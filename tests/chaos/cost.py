"""What exactly_once costs: the same load under both guarantees in the same run, rounds alternating."""

from __future__ import annotations

import statistics
import time
import uuid
from pathlib import Path
from typing import Any

from stratarouter_runtime import topics
from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.journal.migrations import migrate
from stratarouter_runtime.processors.tail import Tail
from support.fleet import WorkerProcess, produce, request, simulator, write_routes

GUARANTEES = ("exactly_once", "at_least_once")
ROUNDS = 3
REQUESTS = 6000
SKIPPED = 0.1
"""Share of the first answers not timed: the worker is still taking its lanes."""
PARTITIONS = 4
LATENCY_MS = 30
ROUND_TIMEOUT_S = 180.0


async def measure(config: RuntimeConfig, folder: Path, *, rounds: int = ROUNDS) -> dict[str, Any]:
    """Requests a second of one worker under each guarantee, and the median ratio exactly_once / at_least_once."""
    rates: dict[str, list[float]] = {name: [] for name in GUARANTEES}
    async with simulator("--latency-ms", str(LATENCY_MS)) as base_url:
        routes = write_routes(folder / "routes-cost.toml", base_url)
        for number in range(rounds):
            # The order turns, so that a machine that grows slower harms both alike.
            for name in GUARANTEES if number % 2 == 0 else GUARANTEES[::-1]:
                rates[name].append(await _round(config, routes, folder / f"cost-{name}-{number}.log", name))
    ratios = [exact / least for exact, least in zip(*(rates[name] for name in GUARANTEES), strict=True)]
    return {
        "exactly_once_per_s": round(statistics.median(rates["exactly_once"])),
        "at_least_once_per_s": round(statistics.median(rates["at_least_once"])),
        "ratio": round(statistics.median(ratios), 3),
        "rounds": rounds,
    }


async def _round(config: RuntimeConfig, routes: Path, log: Path, guarantee: str) -> float:
    run = uuid.uuid4().hex[:8]
    config = config.model_copy(update={"topic_prefix": f"c{run}.", "group_id": f"c{run}"})
    await topics.apply(config, partitions=PARTITIONS)
    await migrate(config.database_url)
    values = [request(f"{run}-{n}", f"question {n} of order {n * 3}", tenant=f"t{n % 40}") for n in range(REQUESTS)]
    await produce(config, values)
    worker = WorkerProcess(config, routes, log, {"STRATAROUTER_PROCESSING_GUARANTEE": guarantee})
    async with Tail(config, config.topic(config.responses_topic), from_beginning=True) as tail:
        await worker.start(ready=False)
        times: list[float] = []
        deadline = time.monotonic() + ROUND_TIMEOUT_S
        while len(times) < REQUESTS:
            if time.monotonic() > deadline:
                raise AssertionError(f"{len(times)} of {REQUESTS} answers in {ROUND_TIMEOUT_S:.0f} s under {guarantee}")
            times += [time.monotonic()] * len(await tail.poll(0.2))
    await worker.stop()
    first = int(REQUESTS * SKIPPED)
    return (REQUESTS - first) / (times[-1] - times[first])
