"""A worker's first response after its start, and a group's recovery after one of its workers was killed."""

from __future__ import annotations

import asyncio
import tempfile
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from bench.parts import database, simulator
from bench.result import Result, at_most
from bench.stream import PARTITIONS, STOP_TIMEOUT_S, Answers, Pipe, configured, record, routes_file, send
from stratarouter_runtime import topics
from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.embedded import StackAddresses
from stratarouter_runtime.processors import kafka_client
from support.fleet import WorkerProcess

ROUNDS = 3
START_LIMIT_S = 2.0
SESSION_TIMEOUT_MS = 6000
RECOVERY_MARGIN_S = 5.0
LATENCY_MS = 300
RATE_PER_S = 50
REQUESTS = 300
KILL_AFTER = 150
"""The worker dies among calls in flight, while more requests come."""


async def measure(addresses: StackAddresses) -> list[Result]:
    """Absolute times against the most they may be."""
    starts, recoveries = [], []
    async with database(addresses) as url, simulator("--latency-ms", str(LATENCY_MS)) as base_url:
        for _ in range(ROUNDS):
            starts.append(await _start(addresses, url, base_url))
            recoveries.append(await _recovery(addresses, url, base_url))
    recovery_limit_s = SESSION_TIMEOUT_MS / 1000 + RECOVERY_MARGIN_S
    return [
        at_most(
            "start of a worker to its first response",
            starts,
            START_LIMIT_S,
            unit="s",
            note=f"of it {LATENCY_MS} ms the call",
        ),
        at_most(
            "SIGKILL of one of two workers until every request is answered",
            recoveries,
            recovery_limit_s,
            unit="s",
            note=f"session timeout {SESSION_TIMEOUT_MS / 1000:g} s; {RATE_PER_S} requests/s going on meanwhile",
        ),
    ]


@asynccontextmanager
async def _prepared(addresses: StackAddresses, url: str) -> AsyncIterator[tuple[Pipe, Answers, Path]]:
    config = configured(addresses, url, session_timeout_ms=SESSION_TIMEOUT_MS)
    await topics.apply(config, partitions=PARTITIONS)
    pipe = Pipe(config, config.topic(config.requests_topic), config.topic(config.responses_topic))
    with tempfile.TemporaryDirectory(prefix="bench-life-") as folder:
        async with Answers(pipe) as answers:
            yield pipe, answers, Path(folder)


def _worker(config: RuntimeConfig, folder: Path, base_url: str, name: str) -> WorkerProcess:
    return WorkerProcess(config, routes_file(folder / "routes.toml", base_url), folder / f"{name}.log")


async def _start(addresses: StackAddresses, url: str, base_url: str) -> float:
    async with _prepared(addresses, url) as (pipe, answers, folder):
        await send(pipe, [record(f"{uuid.uuid4()} where is my parcel", 0)])
        worker = _worker(pipe.config, folder, base_url, "worker")
        began_ms = time.time() * 1000
        await worker.start(ready=False)
        try:
            [appended_ms] = await answers.take(1)
        finally:
            await worker.stop(STOP_TIMEOUT_S)
    return (appended_ms - began_ms) / 1000


async def _recovery(addresses: StackAddresses, url: str, base_url: str) -> float:
    async with _prepared(addresses, url) as (pipe, answers, folder):
        workers = [_worker(pipe.config, folder, base_url, name) for name in ("first", "second")]
        producer = kafka_client.producer(pipe.config)
        await producer.start()
        try:
            for worker in workers:
                await worker.start()
            began, killed_ms = time.perf_counter(), 0.0
            for number in range(REQUESTS):
                await asyncio.sleep(max(0.0, began + number / RATE_PER_S - time.perf_counter()))
                if number == KILL_AFTER:
                    killed_ms = time.time() * 1000
                    workers[0].kill()
                value = record(f"{uuid.uuid4()} where is parcel {number}", number)
                await producer.send(pipe.source, value, key=b"%d" % number)
            appended = await answers.take(REQUESTS)
        finally:
            await producer.stop()
            await asyncio.gather(*(worker.stop(STOP_TIMEOUT_S) for worker in workers if worker.process is not None))
    return (max(appended) - killed_ms) / 1000
