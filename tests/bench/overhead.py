"""What the bridge adds to a bare call: open arrivals at 200 requests/s, provider at 30 ms, journal in PostgreSQL."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable

import orjson

from bench.parts import bridge, database, routes, simulator
from bench.result import Result, at_most, percentile
from stratarouter_runtime.embedded import StackAddresses
from stratarouter_runtime.port_values import HttpCall
from stratarouter_runtime.providers import create_transport

RATE_PER_S = 200
ROUND_S = 8.0
WARM_UP_S = 2.0
ROUNDS = 5
LATENCY_MS = 30
LIMITS_MS = {"p50": 0.5, "p99": 5.0}
SHARES = {"p50": 0.50, "p99": 0.99}


async def measure(addresses: StackAddresses) -> list[Result]:
    """Per round the bare calls, then the bridge's, or the other way round; the difference of their percentiles."""
    async with simulator("--latency-ms", str(LATENCY_MS)) as base_url, database(addresses) as url:
        transport = create_transport()
        await transport.start()

        async def bare(number: int) -> None:
            body = orjson.dumps({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": _question(number)}]})
            headers = {"content-type": "application/json"}
            reply = await transport.send(HttpCall("POST", f"{base_url}/chat/completions", headers, body, 30.0))
            assert reply.status == 200

        async with bridge(url, routes(base_url)) as running:

            async def ours(number: int) -> None:
                await running.execute("bench", query=_question(number))

            overhead: dict[str, list[float]] = {name: [] for name in SHARES}
            for number in range(ROUNDS):
                order = (bare, ours) if number % 2 == 0 else (ours, bare)
                latencies = {call.__name__: await _arrivals(call) for call in order}
                for name, share in SHARES.items():
                    overhead[name].append(percentile(latencies["ours"], share) - percentile(latencies["bare"], share))
        await transport.stop()
    return [
        at_most(
            f"bridge.execute over a bare call, {name} at {RATE_PER_S}/s, provider {LATENCY_MS} ms",
            values,
            LIMITS_MS[name],
            unit="ms",
            note="journal in PostgreSQL, synchronous commit",
        )
        for name, values in overhead.items()
    ]


def _question(number: int) -> str:
    """One that was never asked before."""
    return f"{uuid.uuid4()} question {number}"


async def _arrivals(call: Callable[[int], Awaitable[None]]) -> list[float]:
    """Latencies in ms of calls that arrive on a clock, whether earlier ones are answered or not."""
    latencies: list[float] = []
    began = time.perf_counter()

    async def one(number: int) -> None:
        sent = time.perf_counter()
        await call(number)
        if sent - began >= WARM_UP_S:
            latencies.append((time.perf_counter() - sent) * 1000)

    async with asyncio.TaskGroup() as group:
        for number in range(int((WARM_UP_S + ROUND_S) * RATE_PER_S)):
            await asyncio.sleep(max(0.0, began + number / RATE_PER_S - time.perf_counter()))
            group.create_task(one(number))
    return latencies
