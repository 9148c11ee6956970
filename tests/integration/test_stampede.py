"""One fill for each entry across processes that share a Redis: a stampede is paid for once; a dead filler is missed."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from stratarouter_runtime import CoreRuntimeBridge, RuntimeConfig
from stratarouter_runtime.bridge import ExecutionResult, RequestFailedError
from stratarouter_runtime.cache import create_cache
from stratarouter_runtime.cache.leases import LEASE_S
from stratarouter_runtime.clock import SystemClock
from stratarouter_runtime.journal.migrations import migrate
from stratarouter_runtime.routes import RouteTable
from stratarouter_runtime.testing.simulator import FaultRule, Simulator, SimulatorSettings

pytestmark = pytest.mark.stack

PROCESSES = 3
EACH = 10


@asynccontextmanager
async def _bridges(config: RuntimeConfig, simulator: Simulator) -> AsyncIterator[list[CoreRuntimeBridge]]:
    """As many as there would be processes: nothing is shared but Redis and PostgreSQL."""
    await migrate(config.database_url)
    table = RouteTable.from_dict(
        {
            "providers": {"sim": {"kind": "simulator", "base_url": simulator.base_url}},
            "prices": {"sim/gpt-4o-mini": {"input": 1.0, "output": 2.0}},
            "routes": {"chat": {"targets": [{"provider": "sim", "model": "gpt-4o-mini"}]}},
        }
    )
    shared = config.model_copy(update={"cache_backend": "redis", "max_retries": 0})
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(CoreRuntimeBridge(shared, table)) for _ in range(PROCESSES)]


async def _stampede(bridges: list[CoreRuntimeBridge], query: str) -> list[ExecutionResult | BaseException]:
    asked = (bridge.execute("chat", query=query) for bridge in bridges for _ in range(EACH))
    return await asyncio.gather(*asked, return_exceptions=True)


async def test_a_stampede_on_several_processes_is_paid_for_once(config: RuntimeConfig) -> None:
    async with (
        Simulator(SimulatorSettings(latency_ms=500)) as simulator,
        _bridges(config, simulator) as bridges,
    ):
        results = await _stampede(bridges, f"all at once {config.group_id}")
        assert len(simulator.paid_calls) == 1
        answered = [result for result in results if isinstance(result, ExecutionResult)]
        assert len(answered) == PROCESSES * EACH
        assert len({result.response for result in answered}) == 1
        kinds = [result.cache.kind if result.batch.role == "none" else result.batch.role for result in answered]
        assert kinds.count("leader") == 1
        assert kinds.count("exact") >= PROCESSES - 1
        assert sum(result.cost_usd or 0.0 for result in answered) == pytest.approx(
            next(result.cost_usd for result in answered if result.batch.role == "leader")
        )


async def test_a_fill_that_fails_lets_the_next_one_go_at_once(config: RuntimeConfig) -> None:
    settings = SimulatorSettings(latency_ms=300, faults=(FaultRule("status", status=400, first=1),))
    async with Simulator(settings) as simulator, _bridges(config, simulator) as bridges:
        began = time.monotonic()
        query = f"fails first {config.group_id}"
        results = await asyncio.gather(
            *(bridge.execute("chat", query=query) for bridge in bridges), return_exceptions=True
        )
        assert time.monotonic() - began < LEASE_S
        failed = [result for result in results if isinstance(result, RequestFailedError)]
        assert len(failed) == 1
        assert len(simulator.paid_calls) == 1


async def test_a_dead_filler_is_missed_after_its_lease(config: RuntimeConfig) -> None:
    query = f"the filler dies {config.group_id}"
    async with Simulator() as simulator, _bridges(config, simulator) as bridges:
        answer = await bridges[0].execute("chat", query=f"another {query}")
        assert answer.cache.key is not None
        # Another process claims the entry of the query that is asked next, and is never heard of again.
        [scope_and_hash] = await _claimed_by_a_dead_process(config, bridges[0], query)
        began = time.monotonic()
        result = await bridges[1].execute("chat", query=query)
        waited = time.monotonic() - began
        assert scope_and_hash[1] == result.cache.key
        assert result.cost_usd
        assert 0.5 < waited < LEASE_S + 30


async def _claimed_by_a_dead_process(
    config: RuntimeConfig, bridge: CoreRuntimeBridge, query: str
) -> list[tuple[str, str]]:
    """The place of ``query``, leased to a process that does not refresh its lease."""
    assembly = bridge._carrier._assembly  # type: ignore[union-attr]
    execution = assembly.acceptor.accept(
        assembly.acceptor.decode(
            b'{"request_id":"x","decision":{"route_id":"chat"},"query":"%s"}' % query.encode(), (), None
        ),
        None,
    )
    place = (execution.scope, execution.content_hash)
    dead = create_cache(config.model_copy(update={"cache_backend": "redis"}), clock=SystemClock())
    await dead.start()
    assert await dead.claim(place)
    leases = dead._leases  # type: ignore[attr-defined]
    leases._refreshing.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await leases._refreshing
    leases._refreshing = None
    leases._held.clear()
    await dead.stop()
    return [place]
