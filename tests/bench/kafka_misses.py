"""Misses over Kafka, one worker process: each is a call. Against the provider's limit and other ways to do it."""

from __future__ import annotations

import asyncio
import time
import uuid

import orjson

from bench import peers
from bench.parts import database, simulator
from bench.result import Result, compare
from bench.stream import rate, record, scripted, started
from stratarouter_runtime.embedded import StackAddresses
from stratarouter_runtime.ports import HttpCall
from stratarouter_runtime.providers import create_transport

ROUNDS = 3
LATENCY_MS, AT_ONCE = 30, 200
RECORDS = {"ours": 10_000, "client": 10_000, "gather": 10_000, "faust": 2000, "quix": 100}
"""As many as each does in a few seconds."""
SLOW_LATENCY_MS = 1000
SLOW_RECORDS = {"ours": 10_000, "loop": 4}
CROWD = 5000
"""In flight in one worker."""
WARM = 40
ROOM = {"max_in_flight": CROWD, "lane_max_in_flight": CROWD, "provider_concurrency": 10_000}


async def measure(addresses: StackAddresses) -> list[Result]:
    """A quick provider that takes 200 at once, then a slow one that takes what comes."""
    python = await peers.python()
    async with database(addresses) as url:
        quick = await _quick(addresses, url, python)
        slow = await _slow(addresses, url)
    limit = AT_ONCE / (LATENCY_MS / 1000)
    floor = [min(limit, one) for one in quick["client"]]
    unit, title = "requests/s", f"Kafka misses, provider {LATENCY_MS} ms with {AT_ONCE} at once, against"
    ours = quick["ours"]
    return [
        compare(
            f"{title} the limit",
            ours,
            floor,
            unit=unit,
            at_least=0.95,
            note=f"the provider's {limit:.0f}/s, or what the HTTP client alone reaches where that is less",
        ),
        compare(f"{title} gathered aiohttp calls, no journal", ours, quick["gather"], unit=unit, at_least=0.5),
        compare(f"{title} a Faust agent, concurrency 100", ours, quick["faust"], unit=unit, at_least=2.0),
        compare(f"{title} Quix Streams' apply", ours, quick["quix"], unit=unit, at_least=50.0),
        compare(
            f"Kafka misses, provider {SLOW_LATENCY_MS} ms, {CROWD} in flight, against a loop that awaits each",
            slow["ours"],
            slow["loop"],
            unit=unit,
            at_least=1000.0,
        ),
    ]


async def _quick(addresses: StackAddresses, url: str, python: str) -> dict[str, list[float]]:
    rates: dict[str, list[float]] = {name: [] for name in RECORDS}
    async with simulator("--latency-ms", str(LATENCY_MS), "--max-concurrency", str(AT_ONCE)) as base_url:
        contenders = {
            "ours": started(addresses, url, base_url, **ROOM),
            "gather": scripted(addresses, "aiohttp_calls.py", base_url, "1000"),
            "faust": scripted(addresses, "faust_calls.py", base_url, "100", python=python),
            "quix": scripted(addresses, "quix_calls.py", base_url, python=python),
        }
        for number in range(ROUNDS):
            for name in list(RECORDS) if number % 2 == 0 else reversed(RECORDS):
                if name == "client":
                    rates[name].append(await _client(base_url, RECORDS[name]))
                else:
                    warm, values = _requests(WARM), _requests(RECORDS[name])
                    rates[name].append(await rate(contenders[name], warm, values, committed=name != "faust"))
    return rates


async def _slow(addresses: StackAddresses, url: str) -> dict[str, list[float]]:
    rates: dict[str, list[float]] = {name: [] for name in SLOW_RECORDS}
    async with simulator("--latency-ms", str(SLOW_LATENCY_MS)) as base_url:
        contenders = {
            "ours": started(addresses, url, base_url, **ROOM),
            "loop": scripted(addresses, "aiohttp_calls.py", base_url, "1"),
        }
        for number in range(ROUNDS):
            for name in list(SLOW_RECORDS) if number % 2 == 0 else reversed(SLOW_RECORDS):
                rates[name].append(await rate(contenders[name], _requests(1), _requests(SLOW_RECORDS[name])))
    return rates


def _requests(count: int) -> list[bytes]:
    """No two alike."""
    return [record(f"{uuid.uuid4()} what does parcel {number} cost", number) for number in range(count)]


async def _client(base_url: str, calls: int) -> float:
    """Calls/s of the product's HTTP client with nothing around it."""
    transport = create_transport()
    await transport.start()
    numbers = iter(range(calls))

    async def loop() -> None:
        for number in numbers:
            messages = [{"role": "user", "content": f"{uuid.uuid4()} question {number}"}]
            body = orjson.dumps({"model": "gpt-4o-mini", "messages": messages})
            headers = {"content-type": "application/json"}
            reply = await transport.send(HttpCall("POST", f"{base_url}/chat/completions", headers, body, 30.0))
            assert reply.status == 200

    try:
        began = time.perf_counter()
        await asyncio.gather(*(loop() for _ in range(AT_ONCE)))
        return calls / (time.perf_counter() - began)
    finally:
        await transport.stop()
