"""What one request asks of the cache holds from end to end: in-process and over Kafka, on both backends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from redis.asyncio import Redis

from stratarouter_runtime import CoreRuntimeBridge, RuntimeConfig, topics
from stratarouter_runtime.bridge import ExecutionResult
from stratarouter_runtime.journal.migrations import migrate
from stratarouter_runtime.routes import RouteTable
from stratarouter_runtime.testing.simulator import Simulator, SimulatorSettings
from stratarouter_runtime.worker import Worker

pytestmark = pytest.mark.stack

DEADLINE_S = 60.0
ROUTES = """
[providers.openai]
kind = "simulator"
base_url = "{base_url}"

[routes.billing]
targets = [{{ provider = "openai", model = "gpt-4o-mini" }}]

[routes.never]
targets = [{{ provider = "openai", model = "gpt-4o-mini" }}]
cache = {{ enabled = false }}
"""
QUERY = "Where do I find my invoice?"
NEAR, NEARER = np.array([1.0, 0.0]), np.array([1.0, 0.1])
"""Of cosine 0.995."""


@dataclass
class Client:
    """A bridge, and the provider's own count of calls."""

    bridge: CoreRuntimeBridge
    simulator: Simulator
    worker: Worker | None

    async def ask(self, query: str = QUERY, route: str = "billing", **more: Any) -> tuple[ExecutionResult, int]:
        before = len(self.simulator.paid_calls)
        result = await self.bridge.execute(route, {"tenant": "acme"}, query=query, timeout_s=DEADLINE_S, **more)
        # The answer is given before it is kept.
        carrier: Any = self.bridge._carrier
        engine = (carrier._assembly if self.worker is None else self.worker.assembly).engine
        async with asyncio.timeout(DEADLINE_S):
            while engine._tasks:
                await asyncio.sleep(0.01)
        return result, len(self.simulator.paid_calls) - before

    async def said(self, **more: Any) -> tuple[str, str | None, int]:
        """The verdict, its reason and the calls made."""
        result, calls = await self.ask(**more)
        return result.cache.kind, result.cache.reason, calls


@pytest.fixture(params=["inline-memory", "inline-redis", "kafka-memory", "kafka-redis"])
async def client(config: RuntimeConfig, request: pytest.FixtureRequest) -> AsyncIterator[Client]:
    transport, backend = request.param.split("-")
    await migrate(config.database_url)
    redis = Redis.from_url(config.redis_url)
    await redis.flushdb()
    chosen = config.model_copy(update={"transport": transport, "cache_backend": backend})
    async with Simulator(SimulatorSettings(latency_ms=5)) as simulator:
        routes = RouteTable.from_toml(ROUTES.format(base_url=simulator.base_url))
        worker = None
        if transport == "kafka":
            await topics.apply(config, partitions=2)
            worker = Worker(chosen, routes=routes)
            await worker.start()
            async with asyncio.timeout(DEADLINE_S):
                while not worker.ready()[0]:
                    await asyncio.sleep(0.05)
        async with CoreRuntimeBridge(chosen, None if worker else routes) as bridge:
            yield Client(bridge, simulator, worker)
        if worker is not None:
            await worker.stop()
    await redis.flushdb()
    await redis.aclose()


async def test_default_reads_and_keeps(client: Client) -> None:
    assert await client.said() == ("miss", None, 1)
    assert await client.said() == ("exact", None, 0)


async def test_who_followed_the_same_words_leaves_the_answer_as_it_is_kept(client: Client) -> None:
    await asyncio.gather(*(client.ask(embedding=NEAR) for _ in range(3)))
    assert len(client.simulator.paid_calls) == 1
    assert await client.said(query=f"Please, {QUERY.lower()}", embedding=NEAR) == ("semantic", None, 0)


async def test_bypass_neither_reads_nor_keeps(client: Client) -> None:
    bypass = {"cache": {"mode": "bypass"}}
    assert (await client.said(**bypass))[::2] == ("bypass", 1)
    assert (await client.said())[::2] == ("miss", 1)
    assert (await client.said(**bypass))[::2] == ("bypass", 1)
    assert (await client.said())[::2] == ("exact", 0)


async def test_refresh_does_not_read_and_replaces_what_is_kept(client: Client) -> None:
    assert (await client.said(cache={"mode": "refresh", "tags": ["old"]}))[::2] == ("bypass", 1)
    assert (await client.said())[::2] == ("exact", 0)
    assert (await client.said(cache={"mode": "refresh", "tags": ["new"]}))[::2] == ("bypass", 1)
    # Told apart by its tag: taking the old one away takes nothing any more.
    await client.bridge.invalidate(tag="old", reason="test")
    assert (await client.said())[::2] == ("exact", 0)
    await client.bridge.invalidate(tag="new", reason="test")
    await _until_miss(client)


async def test_read_only_reads_and_keeps_nothing(client: Client) -> None:
    read_only: dict[str, Any] = {"cache": {"mode": "read_only"}}
    assert (await client.said(**read_only))[::2] == ("miss", 1)
    assert (await client.said(embedding=NEAR))[::2] == ("miss", 1)
    assert (await client.said(**read_only))[::2] == ("exact", 0)
    like = "Where do I find my invoices?"
    for _ in range(2):
        result, calls = await client.ask(like, embedding=NEARER, **read_only)
        assert (result.cache.kind, calls) == ("semantic", 0), "no alias is left"


async def test_the_time_to_live_of_a_request_is_its_answers(client: Client) -> None:
    assert (await client.said(cache={"ttl": 1}))[2] == 1
    await _until_miss(client)
    assert (await client.said(cache={"mode": "refresh", "ttl": 600}))[2] == 1
    await asyncio.sleep(1.5)
    assert (await client.said())[::2] == ("exact", 0)


async def test_the_threshold_of_a_request_decides_what_is_alike(client: Client) -> None:
    await client.ask(embedding=NEAR)
    like, read_only = "Where do I find my invoices?", {"mode": "read_only"}
    strict, calls = await client.ask(like, embedding=NEARER, cache=read_only | {"threshold": 0.999})
    assert (strict.cache.kind, strict.cache.reason, calls) == ("miss", "below_threshold", 1)
    lax, calls = await client.ask(like, embedding=NEARER, cache=read_only | {"threshold": 0.99})
    assert (lax.cache.kind, calls) == ("semantic", 0)


async def test_a_route_without_a_cache_says_so_whatever_is_asked(client: Client) -> None:
    for _ in range(2):
        assert (await client.said(route="never"))[::2] == ("bypass", 1)
    if client.worker is not None:
        counted = client.worker.assembly.metrics.cache_bypass_total.labels("disabled")._value.get()
        assert counted == 2


async def _until_miss(client: Client) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while (await client.said(cache={"mode": "read_only"}))[0] != "miss":
        assert time.monotonic() < deadline
        await asyncio.sleep(0.1)
