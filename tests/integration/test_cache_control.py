"""Taking answers back: from the topic to every worker, on a real broker, PostgreSQL and Redis."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import numpy as np
import pytest
from redis.asyncio import Redis

from stratarouter_runtime import CoreRuntimeBridge, RuntimeConfig, topics
from stratarouter_runtime.bridge import ExecutionResult
from stratarouter_runtime.errors import SchemaViolationError
from stratarouter_runtime.feedback import command
from stratarouter_runtime.journal.migrations import migrate
from stratarouter_runtime.processors.cache_control import ControlWriter
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
cache = {{ tags = ["handbook"] }}

[routes.support]
targets = [{{ provider = "openai", model = "gpt-4o-mini" }}]
"""


@pytest.fixture(params=["memory", "redis"])
async def shared(config: RuntimeConfig, request: pytest.FixtureRequest) -> AsyncIterator[RuntimeConfig]:
    """The configuration on each backend, its topics made; Redis emptied, for its positions are another topic's."""
    await migrate(config.database_url)
    await topics.apply(config, partitions=2)
    redis = Redis.from_url(config.redis_url)
    await redis.flushdb()
    yield config.model_copy(update={"cache_backend": request.param})
    await redis.flushdb()
    await redis.aclose()


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with Simulator(SimulatorSettings(latency_ms=10)) as running:
        yield running


@pytest.fixture
def routes(simulator: Simulator) -> RouteTable:
    return RouteTable.from_toml(ROUTES.format(base_url=simulator.base_url))


async def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        await asyncio.sleep(0.05)


async def kept(workers: Sequence[Worker | None]) -> None:
    """Until what was answered is kept: that comes after the answer."""
    await until(lambda: not any(worker.assembly.engine._tasks for worker in workers if worker), "the cache")


def enrichers(pair: Pair) -> list[Any]:
    """The first processors of both."""
    return [worker._handlers[0] for worker in pair.workers if worker is not None]


class Pair:
    """Two workers with a cache each, asked one by one through a topic of its own for each."""

    def __init__(self, config: RuntimeConfig, routes: RouteTable, simulator: Simulator) -> None:
        self.configs = [
            config.model_copy(
                update={
                    "group_id": f"{config.group_id}{name}",
                    "requests_topic": f"requests-{name}",
                    "executions_topic": f"executions-{name}",
                    "transport": "kafka",
                }
            )
            for name in ("one", "two")
        ]
        self.routes = routes
        self.simulator = simulator
        self.workers: list[Worker | None] = [None, None]
        self.bridges: list[CoreRuntimeBridge] = []

    async def start(self, index: int) -> None:
        await topics.apply(self.configs[index], partitions=2)
        worker = Worker(self.configs[index], routes=self.routes)
        await worker.start()
        await until(lambda: worker.ready()[0], f"worker {index} to be ready")
        self.workers[index] = worker

    async def stop(self, index: int) -> None:
        worker, self.workers[index] = self.workers[index], None
        if worker is not None:
            await worker.stop()

    async def ask(self, index: int, query: str, **more: Any) -> tuple[ExecutionResult, int]:
        """The result, and how many calls it took."""
        before = len(self.simulator.paid_calls)
        route = more.pop("route", "billing")
        result = await self.bridges[index].execute(
            route, {"tenant": more.pop("tenant", "acme")}, query=query, timeout_s=DEADLINE_S, **more
        )
        await kept(self.workers)
        return result, len(self.simulator.paid_calls) - before

    async def applied(self, count: int) -> None:
        """Until both have applied ``count`` records."""
        await until(
            lambda: all(w is None or w.assembly.control.position >= count - 1 for w in self.workers), "the workers"
        )


@asynccontextmanager
async def two_workers(config: RuntimeConfig, routes: RouteTable, simulator: Simulator) -> AsyncIterator[Pair]:
    pair = Pair(config, routes, simulator)
    async with AsyncExitStack() as parts:
        for index in (0, 1):
            parts.push_async_callback(pair.stop, index)
            await pair.start(index)
            pair.bridges.append(await parts.enter_async_context(CoreRuntimeBridge(pair.configs[index])))
        yield pair


def vector(*numbers: float) -> str:
    row = np.array(numbers, dtype="<f4")
    return base64.b64encode((row / np.linalg.norm(row)).astype("<f4").tobytes()).decode()


QUERY = "Where do I find my invoice?"


async def warm(pair: Pair, query: str = QUERY, **more: Any) -> int:
    """Have the answer in reach of both; returns what it cost: once where they share a Redis, else once each."""
    paid = (await pair.ask(0, query, **more))[1]
    paid += (await pair.ask(1, query, **more))[1]
    for index in (0, 1):
        result, calls = await pair.ask(index, query, **more)
        assert (calls, result.cache.kind) == (0, "exact")
    return paid


async def test_an_invalidated_tag_is_paid_for_again_on_both_workers(
    shared: RuntimeConfig, routes: RouteTable, simulator: Simulator
) -> None:
    async with two_workers(shared, routes, simulator) as pair:
        tagged = {"cache": {"tags": ["doc-7"]}}
        paid = await warm(pair, **tagged)
        assert paid == (1 if shared.cache_backend == "redis" else 2)
        other = "How late are you open?"
        await warm(pair, other, route="support")
        await pair.bridges[0].invalidate(tag="doc-7", reason="the document changed", by="ann")
        await pair.applied(1)
        assert await warm(pair, **tagged) == paid
        await pair.bridges[1].invalidate(tag="handbook", reason="the route's own tag", by="ann")
        await pair.applied(2)
        assert await warm(pair) == paid
        assert (await pair.ask(0, other, route="support"))[1] == 0


async def test_a_corrected_answer_is_served_by_both_and_after_a_restart(
    shared: RuntimeConfig, routes: RouteTable, simulator: Simulator
) -> None:
    async with two_workers(shared, routes, simulator) as pair:
        await warm(pair)
        result, _ = await pair.ask(0, QUERY)
        await pair.bridges[0].correct(result, "Under Account, Invoices.", reason="it named the old page", by="ann")
        await pair.applied(1)
        for index in (0, 1):
            found, calls = await pair.ask(index, QUERY)
            assert (found.response, calls, found.cache.reason) == ("Under Account, Invoices.", 0, "corrected")
        await pair.stop(1)
        await pair.start(1)
        found, calls = await pair.ask(1, QUERY)
        assert (found.response, calls) == ("Under Account, Invoices.", 0)
        await pair.bridges[0].invalidate(tenant="acme", reason="start over")
        await pair.applied(2)
        found, calls = await pair.ask(1, QUERY)
        assert calls == 1
        assert "Invoices" not in found.response


@pytest.mark.parametrize("by_id", ["bridge", "record"])
async def test_an_answer_marked_wrong_is_not_given_to_the_like_question_again(
    shared: RuntimeConfig, routes: RouteTable, simulator: Simulator, by_id: str
) -> None:
    near, nearer = vector(1.0, 0.0), vector(1.0, 0.02)
    like = "Where do I find my invoices?"
    async with two_workers(shared, routes, simulator) as pair:
        await warm(pair, embedding=near)
        served, calls = await pair.ask(0, like, embedding=nearer)
        assert (served.cache.kind, calls) == ("semantic", 0)
        await until(lambda: all(not handler._tasks for handler in enrichers(pair)), "the alias")
        # Its repeat finds the alias by its words alone, and tells whose answer it is.
        entry, key = served.cache.entry_id, served.cache.key
        served, calls = await pair.ask(0, like)
        assert (served.cache.kind, served.cache.entry_id, served.cache.key, calls) == ("exact", entry, key, 0)
        assert entry != key
        if by_id == "bridge":
            # From another process: the response tells what answered it.
            async with CoreRuntimeBridge(pair.configs[1]) as stranger:
                await stranger.mark_wrong(served.request_id, reason="it is about several", by="ann")
            await pair.applied(1)
        else:
            # As a record that says no more; the workers find out what it means.
            raw = command("mark_wrong", "ann", "it is about several", request_id=served.request_id, tenant="acme")
            writer = ControlWriter(shared)
            await writer.send(raw)
            await writer.stop()
            await pair.applied(2)
        for index in (0, 1):
            again, calls = await pair.ask(index, QUERY, embedding=near, cache={"mode": "refresh"})
            assert calls == 1, "the entry itself is gone too"
        await pair.stop(1)
        await pair.start(1)
        if shared.cache_backend == "memory":
            await pair.ask(1, QUERY, embedding=near)
        else:
            worker = pair.workers[1]
            assert worker is not None
            assert worker.assembly.cache is not None
            backend: Any = worker.assembly.cache.backend
            await until(lambda: backend.indexed >= 1, "the restarted worker to scan")
        for index in (0, 1):
            again, calls = await pair.ask(index, like, embedding=nearer, cache={"mode": "read_only"})
            assert (again.cache.reason, calls) == ("guard:marked_wrong", 1)
            worker = pair.workers[index]
            assert worker is not None
            assert worker.assembly.metrics.guard_refusals_total.labels("guard:marked_wrong")._value.get() > 0


async def test_a_worker_that_was_down_does_not_serve_what_was_invalidated_meanwhile(
    shared: RuntimeConfig, routes: RouteTable, simulator: Simulator
) -> None:
    async with two_workers(shared, routes, simulator) as pair:
        await warm(pair)
        await pair.stop(0)
        await pair.stop(1)
        await pair.bridges[0].invalidate(everything=True, reason="a wrong price list", by="ann")
        await pair.start(0)
        await pair.start(1)
        assert (await pair.ask(1, QUERY))[1] == 1


async def test_an_answer_under_way_when_it_is_invalidated_is_not_kept_nor_joined(shared: RuntimeConfig) -> None:
    async with AsyncExitStack() as parts:
        simulator = await parts.enter_async_context(Simulator(SimulatorSettings(latency_ms=6000)))
        routes = RouteTable.from_toml(ROUTES.format(base_url=simulator.base_url))
        pair = await parts.enter_async_context(two_workers(shared, routes, simulator))
        slow = asyncio.create_task(pair.bridges[0].execute("billing", {"tenant": "acme"}, query=QUERY, timeout_s=60))
        worker = pair.workers[0]
        assert worker is not None
        await until(lambda: worker.assembly.engine.in_flight == 1, "the call to be under way")
        await pair.bridges[1].invalidate(tenant="acme", reason="deleted")
        await pair.applied(1)
        joined = asyncio.create_task(pair.bridges[0].execute("billing", {"tenant": "acme"}, query=QUERY, timeout_s=60))
        await slow
        late = await joined
        assert late.batch.role == "leader"
        assert len(simulator.paid_calls) == 2
        assert worker.assembly.cache is not None
        assert worker.assembly.cache.kept_out.stored == 1


async def ask_inline(bridge: CoreRuntimeBridge) -> ExecutionResult:
    result = await bridge.execute("billing", query=QUERY)
    carrier: Any = bridge._carrier
    await until(lambda: not carrier._assembly.engine._tasks, "the cache")
    return result


async def test_in_process_without_the_topic_commands_hold_for_this_process(
    shared: RuntimeConfig, routes: RouteTable, simulator: Simulator
) -> None:
    async with CoreRuntimeBridge(shared, routes) as bridge:
        first = await ask_inline(bridge)
        assert (await ask_inline(bridge)).cache.kind == "exact"
        await bridge.mark_wrong(first.request_id, reason="wrong")
        again = await ask_inline(bridge)
        assert again.cache.kind == "miss"
        assert (await ask_inline(bridge)).cache.kind == "exact"
        await bridge.invalidate(tag="handbook", reason="new edition")
        assert (await ask_inline(bridge)).cache.kind == "miss"
        await bridge.correct(again, "Here.", reason="shorter")
        assert (await ask_inline(bridge)).response == "Here."
        with pytest.raises(SchemaViolationError, match="no response"):
            await bridge.mark_wrong("nobody's", reason="wrong")
        with pytest.raises(SchemaViolationError, match="names none"):
            await bridge.invalidate(reason="what?")
        assert len(simulator.paid_calls) == 3


async def test_in_process_following_the_topic_hears_of_others(
    shared: RuntimeConfig, routes: RouteTable, simulator: Simulator
) -> None:
    followed = shared.model_copy(update={"cache_control": "everywhere"})
    async with CoreRuntimeBridge(followed, routes) as one, CoreRuntimeBridge(followed, routes) as other:
        await ask_inline(one)
        assert (await ask_inline(one)).cache.kind == "exact"
        await other.invalidate(tag="handbook", reason="new edition")
        carrier: Any = one._carrier
        await until(lambda: carrier._assembly.control.position >= 0, "the other to hear")
        assert (await ask_inline(one)).cache.kind == "miss"
