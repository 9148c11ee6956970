"""``bridge.execute`` with nothing in the cache, by core: against LiteLLM's Router and bare aiohttp calls."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable

import aiohttp
import orjson

from bench import peers
from bench.parts import bridge, database, routes, simulator
from bench.result import Result, compare
from bench.stream import SCRIPTS
from stratarouter_runtime.embedded import StackAddresses

ROUNDS = 3
AT_ONCE = (200, 1000)
LATENCIES_MS = (0, 30)
CALLS, LITELLM_CALLS = 6000, 1000
LITELLM_TIMEOUT_S = 300.0


async def measure(addresses: StackAddresses) -> list[Result]:
    """Calls for each second of this process's processor time; the provider and the database have their own."""
    python = await peers.python()
    results: list[Result] = []
    async with database(addresses) as url:
        for latency_ms in LATENCIES_MS:
            async with simulator("--latency-ms", str(latency_ms)) as base_url:
                for at_once in AT_ONCE:
                    rates = await _rounds(url, base_url, at_once, python)
                    where = f"{at_once} at once, provider {latency_ms} ms, against"
                    results += [
                        compare(
                            f"bridge.execute, {where} {peer}",
                            rates["ours"],
                            rates[name],
                            unit="calls per core second",
                            at_least=at_least,
                        )
                        for name, peer, at_least in (
                            ("litellm", "LiteLLM's Router", 25.0),
                            ("aiohttp", "bare aiohttp", 0.6),
                        )
                    ]
    return results


async def _rounds(url: str, base_url: str, at_once: int, python: str) -> dict[str, list[float]]:
    rates: dict[str, list[float]] = {"ours": [], "aiohttp": [], "litellm": []}
    async with bridge(url, routes(base_url)) as running, aiohttp.ClientSession(connector=_unbounded()) as session:

        async def ours(number: int) -> None:
            await running.execute("bench", query=f"{uuid.uuid4()} question {number}")

        async def bare(number: int) -> None:
            messages = [{"role": "user", "content": f"{uuid.uuid4()} question {number}"}]
            body = orjson.dumps({"model": "gpt-4o-mini", "messages": messages})
            headers = {"content-type": "application/json"}
            async with session.post(f"{base_url}/chat/completions", data=body, headers=headers) as reply:
                reply.raise_for_status()
                assert orjson.loads(await reply.read())["choices"]

        for call in (ours, bare):
            await _per_core_second(call, at_once, at_once)
        for number in range(ROUNDS):
            order = list(rates) if number % 2 == 0 else reversed(rates)
            for name in order:
                if name == "litellm":
                    rates[name].append(await _litellm(python, base_url, at_once))
                else:
                    rates[name].append(await _per_core_second(ours if name == "ours" else bare, at_once, CALLS))
    return rates


def _unbounded() -> aiohttp.TCPConnector:
    return aiohttp.TCPConnector(limit=0)


async def _per_core_second(call: Callable[[int], Awaitable[None]], at_once: int, calls: int) -> float:
    numbers = iter(range(calls))

    async def loop() -> None:
        for number in numbers:
            await call(number)

    began = time.process_time()
    await asyncio.gather(*(loop() for _ in range(at_once)))
    return calls / (time.process_time() - began)


async def _litellm(python: str, base_url: str, at_once: int) -> float:
    """The same in its own environment: the script says what it measured."""
    process = await asyncio.create_subprocess_exec(
        *(python, str(SCRIPTS / "litellm_router.py"), base_url, str(at_once), str(LITELLM_CALLS)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(LITELLM_TIMEOUT_S):
            said, complaint = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, complaint.decode()[-2000:]
    return float(orjson.loads(said.splitlines()[-1])["calls_per_core_second"])
