"""A bound on wrong hits from end to end: over Kafka and in-process, on both backends; the provider counts its calls."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from redis.asyncio import Redis

from stratarouter_runtime import CoreRuntimeBridge, RuntimeConfig, topics, usage_deltas
from stratarouter_runtime.assembly import Assembly
from stratarouter_runtime.bridge import ExecutionResult
from stratarouter_runtime.journal.migrations import migrate
from stratarouter_runtime.processors.tail import Tail
from stratarouter_runtime.routes import RouteTable
from stratarouter_runtime.testing.simulator import Simulator, SimulatorSettings
from stratarouter_runtime.tools.cache_look import count
from stratarouter_runtime.worker import Worker

pytestmark = pytest.mark.stack

DEADLINE_S = 60.0
BOUND = 0.5
"""Met after eight right answers."""
ROUTES = """
[providers.openai]
kind = "simulator"
base_url = "{base_url}"

[routes.billing]
targets = [{{ provider = "openai", model = "gpt-4o-mini" }}]
cache = {{ max_error_rate = 0.5 }}

[routes.free]
targets = [{{ provider = "openai", model = "gpt-4o-mini" }}]
"""
GREETINGS = ("Hello!", "Hi!", "Greetings,", "Please,", "Hey,", "Excuse me,", "Dear team,")
THANKS = ("Thanks!", "Thank you.", "Thank you very much.")
WORDS = "where do I find my invoice?"


def wordings(words: str = WORDS) -> list[str]:
    """The same question, more or less politely: the guard lets all of them through."""
    return [f"{hello} {words} {thanks}" for thanks in THANKS for hello in GREETINGS]


@dataclass
class Client:
    """A bridge, and the provider's own count of calls."""

    bridge: CoreRuntimeBridge
    simulator: Simulator
    config: RuntimeConfig
    worker: Worker | None

    @property
    def assembly(self) -> Assembly:
        carrier: Any = self.bridge._carrier
        found: Assembly = carrier._assembly if self.worker is None else self.worker.assembly
        return found

    async def ask(self, query: str, route: str = "billing") -> ExecutionResult:
        vector = np.array([1.0, 0.1 + len(query) / 500])
        result = await self.bridge.execute(route, {"tenant": "acme"}, query=query, embedding=vector)
        await self.settled()
        return result

    async def settled(self) -> None:
        """What was answered is kept and compared: both come after the answer."""
        engine = self.assembly.engine
        await until(lambda: not engine._tasks, "the engine")

    def counted(self, source: str, verdict: str) -> float:
        return float(self.assembly.metrics.cache_evidence_total.labels(source, verdict)._value.get())


async def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        await asyncio.sleep(0.02)


@pytest.fixture(params=["inline-memory", "inline-redis", "kafka-memory", "kafka-redis"])
async def client(config: RuntimeConfig, request: pytest.FixtureRequest) -> AsyncIterator[Client]:
    transport, backend = request.param.split("-")
    await migrate(config.database_url)
    redis = Redis.from_url(config.redis_url)
    await redis.flushdb()
    settings = {"transport": transport, "cache_backend": backend, "cache_shadow_share": 1.0}
    chosen = config.model_copy(update=settings | {"cache_comparer": "support.judging:ByTopic"})
    async with Simulator(SimulatorSettings(latency_ms=5)) as simulator:
        routes = RouteTable.from_toml(ROUTES.format(base_url=simulator.base_url))
        worker = None
        if transport == "kafka":
            await topics.apply(config, partitions=2)
            worker = Worker(chosen, routes=routes)
            await worker.start()
            await until(lambda: worker.ready()[0], "the worker")
        async with CoreRuntimeBridge(chosen, None if worker else routes) as bridge:
            yield Client(bridge, simulator, chosen, worker)
        if worker is not None:
            await worker.stop()
    await redis.flushdb()
    await redis.aclose()


async def proven(client: Client) -> list[ExecutionResult]:
    """Ask until hits are served; returns what was answered before, by a call each."""
    before = [await client.ask(WORDS)]
    state = client.assembly.trials.state
    for wording in wordings():
        known = client.counted("held_back", "right")
        before.append(await client.ask(wording))
        if before[-1].cache.kind == "semantic":
            return before
        await until(lambda: client.counted("held_back", "right") > known, "the comparison")  # noqa: B023
        await until(lambda: sum(s.seen.sum() for s in state._scopes.values()) > known, "the evidence")  # noqa: B023
    raise AssertionError("nothing was ever served")


async def test_hits_are_held_back_until_proven_then_served_and_checked(client: Client) -> None:
    *before, hit = await proven(client)
    assert {result.cache.kind for result in before} == {"miss"}
    assert {result.cache.reason for result in before[1:]} == {"unproven"}
    assert 8 <= len(before) <= 16
    assert hit.cost_usd == 0.0
    assert hit.response in {result.response for result in before}
    # The hit is answered without a call; its check is one more.
    await until(lambda: client.counted("checked", "right") == 1, "the check")
    assert len(client.simulator.paid_calls) == len(before) + 1
    assert client.assembly.metrics.cache_shadow_cost_usd_total._value.get() > 0
    await until(lambda: client.assembly.trials.state.measured().checked == 1, "the rate")
    assert client.assembly.metrics.cache_wrong_hit_rate.labels("estimate")._value.get() == 0.0


async def test_a_route_without_a_bound_serves_at_once_and_checks_nothing(client: Client) -> None:
    await client.ask(WORDS, route="free")
    hit = await client.ask(wordings()[0], route="free")
    assert hit.cache.kind == "semantic"
    assert len(client.simulator.paid_calls) == 1


async def test_hits_go_once_their_answers_turn_out_wrong(client: Client) -> None:
    """The judge's world changes: what is asked now is about refunds, in words that look the same to the embedder."""
    await proven(client)
    served = 0
    for wording in wordings("where do I find my refund?")[:12]:
        result = await client.ask(wording)
        served += result.cache.kind == "semantic" and "refund" not in result.response
    assert served <= 2


async def test_over_kafka_a_check_is_no_response_and_in_the_accounts(client: Client) -> None:
    if client.worker is None:
        pytest.skip("in-process there are no topics")
    *before, hit = await proven(client)
    await until(lambda: client.counted("checked", "right") == 1, "the check")
    # What comes later stands behind it on the topics.
    last = await client.ask("Something else entirely, far from all others", route="free")
    asked = [*(result.request_id for result in before), hit.request_id, last.request_id]
    config = client.config
    answered, receipts = [], []
    async with Tail(config, config.topic(config.responses_topic), from_beginning=True) as tail:
        while len(answered) < len(asked):
            answered += [record.key.decode() for record in await tail.poll(0.2)]
    async with Tail(config, config.topic(config.usage_deltas_topic), from_beginning=True) as tail:
        while not any(one.request_id == last.request_id for one in receipts):
            for record in await tail.poll(0.2):
                receipts += usage_deltas.decode(record.value).receipts
    assert sorted(answered) == sorted(asked)
    [check] = [one for one in receipts if one.request_id not in asked]
    assert check.request_id.startswith("shadow-")
    assert (check.kind, check.nano_usd is not None and check.nano_usd > 0) == ("paid", True)


async def test_what_was_learnt_in_redis_outlives_the_workers_and_is_shown(client: Client) -> None:
    if client.config.cache_backend != "redis":
        pytest.skip("in memory it goes with the process")
    await proven(client)
    await until(lambda: client.assembly.trials.state.measured().checked == 1, "the check")
    routes = RouteTable.from_toml(ROUTES.format(base_url=client.simulator.base_url))
    inline = client.config.model_copy(update={"transport": "inline"})
    async with CoreRuntimeBridge(inline, routes) as another:
        carrier: Any = another._carrier
        state = carrier._assembly.trials.state
        await until(lambda: len(state) == 1, "the evidence")
        [scope] = state._scopes
        await until(lambda: state.floor(scope, BOUND) < 1, "the threshold")
    shown = await count(client.config)
    assert shown["bound"]["compared"] >= 8
    assert shown["bound"]["scopes"] == 1
    assert shown["bound"]["rate"] == 0.0
