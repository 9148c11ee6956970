"""Words that are kept, or that somebody is asking just now, cost no vector: an embedder is slow, or is paid for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any, cast

import orjson
import pytest

from stratarouter_runtime.bridge import CoreRuntimeBridge
from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.embedders.hashing import HashingEmbedder
from stratarouter_runtime.errors import DeadlineExceededError
from stratarouter_runtime.inline import InlineCarrier
from stratarouter_runtime.processors.lane import Lane
from stratarouter_runtime.records import Outbound, Vector
from stratarouter_runtime.routes import RouteTable
from stratarouter_runtime.testing.simulator import Simulator, SimulatorSettings
from unit.enrich_bench import enrich_of, records

CONFIG = RuntimeConfig(
    state_backend="memory",
    cache_backend="memory",
    cache_similarity_threshold=0.85,
    usage_enabled=False,
    cache_control="off",
)


class Counting(HashingEmbedder):
    """Remembers what it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    async def embed(self, texts: Sequence[str]) -> list[Vector]:
        self.asked += texts
        return await super().embed(texts)


def routes(simulator: Simulator) -> RouteTable:
    return RouteTable.from_dict(
        {
            "providers": {"sim": {"kind": "simulator", "base_url": simulator.base_url}},
            "routes": {"chat": {"targets": [{"provider": "sim", "model": "gpt-4o-mini"}]}},
        }
    )


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with Simulator(SimulatorSettings(latency_ms=50)) as running:
        yield running


@pytest.fixture
async def bridge(simulator: Simulator) -> AsyncIterator[CoreRuntimeBridge]:
    async with CoreRuntimeBridge(CONFIG, routes(simulator)) as running:
        yield running


@pytest.fixture
def embedder(bridge: CoreRuntimeBridge) -> Counting:
    counting = Counting()
    cast("InlineCarrier", bridge._carrier)._assembly.embedder = counting
    return counting


async def test_the_bridge_embeds_a_question_once(bridge: CoreRuntimeBridge, embedder: Counting) -> None:
    results = [await bridge.execute("chat", query="where is my invoice") for _ in range(3)]
    assert embedder.asked == ["where is my invoice"]
    assert [result.cache.kind for result in results] == ["miss", "exact", "exact"]
    other = await bridge.execute("chat", query="Hi, where is my invoice")
    assert (len(embedder.asked), other.cache.kind) == (2, "semantic")


async def test_who_follows_the_same_words_needs_no_vector(
    bridge: CoreRuntimeBridge, embedder: Counting, simulator: Simulator
) -> None:
    first = asyncio.create_task(bridge.execute("chat", query="where is my invoice"))
    while not embedder.asked:
        await asyncio.sleep(0.001)
    await asyncio.sleep(0.01)
    again = await bridge.execute("chat", query="where is my invoice")
    assert again.batch.leader_id == (await first).request_id
    assert len(simulator.paid_calls) == 1
    assert embedder.asked == ["where is my invoice"]


async def test_who_may_not_be_answered_by_others_has_a_vector(bridge: CoreRuntimeBridge, embedder: Counting) -> None:
    for mode in ("default", "bypass", "refresh"):
        await bridge.execute("chat", query="where is my invoice", cache={"mode": mode})
    assert embedder.asked == ["where is my invoice"] * 3


class Finished:
    """A lane that keeps what is finished."""

    name = "requests-0"
    backlog_end = 0

    def __init__(self) -> None:
        self.values: dict[int, bytes] = {}

    def finish(self, offset: int, outbounds: Sequence[Outbound], _instead: object = None) -> None:
        self.values[offset] = outbounds[0].value


async def test_enrich_embeds_what_the_same_words_do_not_answer(bridge: CoreRuntimeBridge, embedder: Counting) -> None:
    await bridge.execute("chat", query="where is my invoice")
    enrich = enrich_of(cast("InlineCarrier", bridge._carrier)._assembly, embedder)
    embedder.asked.clear()
    lane = Finished()
    asked: list[dict[str, Any]] = [
        {"query": "where is my invoice"},
        {"query": "how do I pay"},
        {"query": "where is my invoice", "cache": {"mode": "bypass"}},
        {"query": "Hi, where is my invoice"},
        {"query": "how do I pay"},
    ]
    values = [orjson.dumps({"request_id": f"r-{n}", "decision": "chat"} | fields) for n, fields in enumerate(asked)]
    enrich.handle(cast("Lane", lane), records(values))
    async with asyncio.timeout(10):
        while len(lane.values) < len(asked):
            await asyncio.sleep(0.001)
    assert embedder.asked == ["how do I pay", "where is my invoice", "Hi, where is my invoice"]
    written = [orjson.loads(lane.values[offset]) for offset in range(len(asked))]
    assert [one["cache"]["kind"] if "cache" in one else "passed on" for one in written] == [
        "exact",
        "passed on",
        "passed on",
        "semantic",
        "passed on",
    ]
    assert all(one["request"]["embedding"] for one in written if "request" in one)


async def test_who_follows_in_its_own_task_waits_no_longer_than_it_may(
    bridge: CoreRuntimeBridge, simulator: Simulator
) -> None:
    first = asyncio.create_task(bridge.execute("chat", query="where is my invoice"))
    await asyncio.sleep(0.02)
    with pytest.raises(DeadlineExceededError):
        await bridge.execute("chat", query="where is my invoice", timeout_s=0.005)
    patient = await bridge.execute("chat", query="where is my invoice")
    assert patient.response == (await first).response
    assert len(simulator.paid_calls) == 1
