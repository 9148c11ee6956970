"""``bridge.execute`` with nothing in the cache, by core: against LiteLLM's Router and bare aiohttp calls."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

import aiohttp
import orjson

from bench import peers
from bench.parts import bridge, database, routes, simulator
from bench.result import Outcome
from bench.rounds import Measure, Rounds, alternate
from stratarouter_runtime.embedded import StackAddresses

ROUNDS = 7
"""Of a second or so each, and LiteLLM's of some: the machine's pace changes from minute to minute."""
AT_ONCE = (200, 1000)
LATENCIES_MS = (0, 30)
CALLS, LITELLM_CALLS = 4000, 600
LITELLM_TIMEOUT_S = 120.0

JOURNALS = {"journal in PostgreSQL": {}, "journal in memory": {"state_backend": "memory"}}
"""The default, durable before each call and after it; and none of that."""
PEERS = {"litellm": ("LiteLLM's Router", 25.0), "aiohttp": ("bare aiohttp", 0.6)}


async def measure(addresses: StackAddresses) -> list[Outcome]:
    """Calls for each second of this process's processor time; the provider and the database have their own."""
    pythons, missing = await peers.installed(peers.LITELLM)
    outcomes: list[Outcome] = []
    async with database(addresses) as url:
        for latency_ms in LATENCIES_MS:
            async with simulator("--latency-ms", str(latency_ms)) as base_url:
                for at_once in AT_ONCE:
                    rounds = await _rounds(url, base_url, at_once, pythons.get("litellm"), missing)
                    outcomes += [
                        rounds.against(
                            peer,
                            f"bridge.execute, {journal}, {at_once} at once, provider {latency_ms} ms, against {title}",
                            ours=journal,
                            unit="calls per core second",
                            at_least=at_least,
                        )
                        for journal in JOURNALS
                        for peer, (title, at_least) in PEERS.items()
                    ]
    return outcomes


Call = Callable[[int], Awaitable[None]]


@asynccontextmanager
async def calls(url: str, base_url: str, **settings: Any) -> AsyncIterator[tuple[Call, Call]]:
    """The bridge's call and the bare one, both to the same server."""
    async with (
        bridge(url, routes(base_url), **settings) as running,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session,
    ):

        async def ours(number: int) -> None:
            await running.execute("bench", query=f"{uuid.uuid4()} question {number}")

        async def bare(number: int) -> None:
            messages = [{"role": "user", "content": f"{uuid.uuid4()} question {number}"}]
            body = orjson.dumps({"model": "gpt-4o-mini", "messages": messages})
            headers = {"content-type": "application/json"}
            async with session.post(f"{base_url}/chat/completions", data=body, headers=headers) as reply:
                reply.raise_for_status()
                assert orjson.loads(await reply.read())["choices"]

        yield ours, bare


async def _rounds(url: str, base_url: str, at_once: int, python: str | None, missing: dict[str, str]) -> Rounds:
    async with AsyncExitStack() as ends:
        sides: dict[str, Call] = {}
        for journal, settings in JOURNALS.items():
            sides[journal], bare = await ends.enter_async_context(calls(url, base_url, **settings))
        sides["aiohttp"] = bare
        contenders: dict[str, Measure] = {
            name: partial(per_core_second, call, at_once, CALLS) for name, call in sides.items()
        }
        if python is not None:
            command = (python, str(peers.SCRIPTS / "litellm_router.py"), base_url, str(at_once))
            ask = await ends.enter_async_context(peers.asked(*command, timeout_s=LITELLM_TIMEOUT_S))
            contenders["litellm"] = partial(_litellm, ask, max(LITELLM_CALLS, at_once))
        return await alternate(contenders, ROUNDS, missing)


async def per_core_second(call: Call, at_once: int, count: int) -> float:
    """Calls for each second of this process's processor time, with ``at_once`` under way.

    As many go before and are not timed: they open the connections, which nobody keeps while the others are measured.
    """
    await _calls(call, at_once, at_once)
    began = time.process_time()
    await _calls(call, at_once, count)
    return count / (time.process_time() - began)


async def _calls(call: Call, at_once: int, count: int) -> None:
    numbers = iter(range(count))

    async def loop() -> None:
        for number in numbers:
            await call(number)

    await asyncio.gather(*(loop() for _ in range(at_once)))


async def _litellm(ask: Callable[[str], Awaitable[str]], count: int) -> float:
    """The same in its own environment, with as many before: the script says what it measured."""
    return float(orjson.loads(await ask(str(count)))["calls_per_core_second"])
