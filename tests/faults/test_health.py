"""Readiness and liveness tell the truth: what a worker cannot do without, it says, and says when it is back."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from typing import Any

import httpx
import pytest

from faults.conftest import Bench
from stratarouter_runtime.testing.simulator import FaultRule
from support.containers import Stack
from support.fleet import Watch, WorkerProcess, produce, request

pytestmark = pytest.mark.stack

SAID_WITHIN_S = 30.0


async def _ask(worker: WorkerProcess, path: str, timeout_s: float = 10.0) -> httpx.Response:
    async with httpx.AsyncClient(timeout=timeout_s) as client:
        return await client.get(f"http://127.0.0.1:{worker.port}{path}")


async def _not_ready(worker: WorkerProcess) -> dict[str, Any]:
    """The reasons, once it says that it is not ready; it is alive all the while."""
    deadline = time.monotonic() + SAID_WITHIN_S
    while (reply := await _ask(worker, "/readyz")).status_code == httpx.codes.OK:
        assert time.monotonic() < deadline, reply.text
        await asyncio.sleep(0.2)
    assert (await _ask(worker, "/healthz")).status_code == httpx.codes.OK
    reasons: dict[str, Any] = reply.json()["reasons"]
    return reasons


async def test_an_idle_worker_says_that_its_broker_is_gone(bench: Bench, stack: Stack) -> None:
    worker = await bench.worker()
    stack.kafka.kill()
    try:
        reasons = await _not_ready(worker)
        assert "brokers do not answer" in " ".join(reasons.values()), reasons
    finally:
        await stack.kafka.start()
    await worker.wait_ready(90)


async def test_a_worker_says_that_its_journal_is_gone_and_counts_it(bench: Bench, stack: Stack) -> None:
    worker = await bench.worker()
    enrich = bench.new_worker()
    enrich.processors = "enrich"
    await enrich.start()
    # The partitions move between the two; a lane that opens is a reason too.
    await worker.wait_ready()
    stack.postgres.kill()
    try:
        assert "journal" in await _not_ready(worker)
        # What the alert JournalUnavailable counts.
        lines = (await _ask(worker, "/metrics")).text.splitlines()
        failures = [line for line in lines if line.startswith("stratarouter_journal_failures_total{")]
        assert sum(float(line.rsplit(" ", 1)[1]) for line in failures) > 0
        # enrich writes nothing to it: hits are answered on.
        assert (await _ask(enrich, "/readyz")).status_code == httpx.codes.OK
    finally:
        await stack.postgres.start()
    await worker.wait_ready(60)
    async with Watch(bench.config) as watch:
        await produce(bench.config, [request("after", "what came after")])
        await watch.until(1, 60)
    bench.check(watch, 1)


async def test_a_blocked_event_loop_answers_neither(bench: Bench) -> None:
    worker = await bench.worker()
    assert worker.process is not None
    os.kill(worker.process.pid, signal.SIGSTOP)
    try:
        for path in ("/healthz", "/readyz"):
            with pytest.raises(httpx.TimeoutException):
                await _ask(worker, path, timeout_s=1.0)
    finally:
        os.kill(worker.process.pid, signal.SIGCONT)
    await worker.wait_ready(60)


async def test_lag_is_known_while_partitions_are_paused(bench: Bench) -> None:
    """A worker that is full fetches nothing, and is all the further behind."""
    bench.simulator.set_faults([FaultRule("slow", slow_ms=15_000)])
    worker = await bench.worker(STRATAROUTER_MAX_IN_FLIGHT="50")
    for first, last in ((0, 200), (200, 2000)):
        await produce(bench.config, [request(f"r{n}", f"question {n} of {n * 3}") for n in range(first, last)])
        async with asyncio.timeout(14):
            while await _lag(worker) < last - 50:
                await asyncio.sleep(0.2)


async def _lag(worker: WorkerProcess) -> float:
    lines = (await _ask(worker, "/metrics")).text.splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith("stratarouter_lag_records{"))
