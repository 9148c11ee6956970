"""A reply topic is the client's own: one that is gone, or takes nothing, costs its own answers and nobody else's."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiokafka import TopicPartition
from aiokafka.admin import NewTopic

from stratarouter_runtime import topics
from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.errors import OutputRefusedError
from stratarouter_runtime.journal.migrations import migrate
from stratarouter_runtime.processors.lane import Lane
from stratarouter_runtime.processors.publisher import TransactionalPublisher
from stratarouter_runtime.records import Outbound
from stratarouter_runtime.state.offsets import OffsetMap
from stratarouter_runtime.telemetry.metrics import Metrics
from stratarouter_runtime.testing.simulator import Simulator, SimulatorSettings
from support.cluster import admin
from support.fleet import Watch, WorkerProcess, produce, request, write_routes
from support.waits import until

pytestmark = pytest.mark.stack

LATE = "2020-01-01T00:00:00Z"
"""A deadline that is over: such a request is answered without being executed."""
SOON_S = 12.0
"""Well below the 15 s after which a client gives a topic up that is not there."""


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with Simulator(SimulatorSettings(latency_ms=10)) as running:
        yield running


@pytest.fixture
async def running(config: RuntimeConfig, simulator: Simulator, tmp_path: Path) -> AsyncIterator[RuntimeConfig]:
    """A worker on topics of one partition, so that every request stands behind the one before."""
    await topics.apply(config, partitions=1)
    await migrate(config.database_url)
    worker = WorkerProcess(config, write_routes(tmp_path / "routes.toml", simulator.base_url), tmp_path / "worker.log")
    await worker.start()
    async with Watch(config) as watch:
        await produce(config, [request("first", "is anybody there")])
        await watch.until(1, timeout_s=20)
    yield config
    assert await worker.stop() == 0


async def _make(config: RuntimeConfig, name: str, **settings: Any) -> str:
    topic = f"{config.topic_prefix}responses.{name}"
    async with admin(config) as client:
        await client.create_topics([NewTopic(topic, 1, 1, topic_configs=settings)])
    return topic


async def _told(config: RuntimeConfig, *sent: bytes) -> dict[str, str]:
    """What became of each id: ``ok``, the code of its error, or ``letter`` and the code of its dead letter."""
    ids = {orjson.loads(value)["request_id"] for value in sent}
    told: dict[str, str] = {}
    ends = time.monotonic() + SOON_S
    async with Watch(config) as watch:
        await produce(config, list(sent))
        while not ids <= told.keys() and time.monotonic() < ends:
            await watch.poll()
            told = {one.request_id: one.status if one.error is None else one.error.code for one in watch.seen.responses}
            told |= {str(letter.request_id): f"letter {letter.code}" for letter in watch.seen.dead_letters}
    return {name: found for name, found in told.items() if name in ids}


async def test_a_refused_request_that_names_no_topic_that_there_is_stops_nobody(running: RuntimeConfig) -> None:
    nowhere = f"{running.topic_prefix}responses.nobody"
    told = await _told(running, request("late", "x", reply_to=nowhere, deadline=LATE), request("after", "and now"))
    assert told == {"late": "letter reply_topic_not_allowed", "after": "ok"}


async def test_a_refused_request_whose_topic_takes_no_answer_is_answered_on_the_responses_topic(
    running: RuntimeConfig,
) -> None:
    small = await _make(running, "small", **{"max.message.bytes": "200"})
    told = await _told(running, request("late", "x", reply_to=small, deadline=LATE), request("after", "and now"))
    assert told == {"late": "response_too_large", "after": "ok"}


async def test_an_answer_larger_than_a_segment_of_its_topic_holds_up_nobody(config: RuntimeConfig) -> None:
    """A broker refuses such with an error of its own (RECORD_LIST_TOO_LARGE), whatever ``max.message.bytes`` says."""
    await topics.apply(config, partitions=1)
    odd = await _make(config, "odd", **{"segment.bytes": str(2**20), "max.message.bytes": str(4 * 2**20)})
    place = TopicPartition(config.topic(config.requests_topic), 0)
    lane = Lane(
        "lane", TransactionalPublisher(config, "segments", place), processor="execute", max_in_flight=100,
        metadata_max_chars=4096, metrics=Metrics(), on_change=lambda: None,
    )  # fmt: skip

    async def resume(_: OffsetMap) -> OffsetMap:
        return OffsetMap(0, 0)

    await lane.open(resume)
    refusals: list[OutputRefusedError] = []

    def instead(refusal: OutputRefusedError) -> tuple[Outbound, ...]:
        refusals.append(refusal)
        return (Outbound(config.topic(config.responses_topic), b"k", b"too large"),)

    for offset in range(3):
        assert lane.take(offset)
    lane.finish(0, (Outbound(odd, b"k", b"x" * 1_500_000),), (instead,))
    for offset in (1, 2):
        lane.finish(offset, (Outbound(config.topic(config.responses_topic), b"k", b"neighbour"),))
    async with asyncio.timeout(SOON_S):
        await lane.drained()
    assert (lane.state, lane.committed.watermark) == ("running", 3)
    assert [refusal.too_large for refusal in refusals] == [True]
    await lane.close(1.0)


async def test_a_reply_topic_that_was_deleted_holds_up_nobody(running: RuntimeConfig) -> None:
    gone = await _make(running, "gone")
    async with Watch(running, gone) as watch:
        await produce(running, [request("before", "hello", reply_to=gone)])
        await watch.until(1, timeout_s=SOON_S)
    await _delete(running, gone)
    sent = [request(f"late{n}", f"question {n}", reply_to=gone) for n in range(5)]
    told = await _told(running, *sent, request("after", "and now"))
    assert len(told) == 6
    assert told.pop("after") == "ok"
    assert set(told.values()) == {"reply_topic_not_allowed"}


async def _delete(config: RuntimeConfig, topic: str) -> None:
    async with admin(config) as client:
        await client.delete_topics([topic])

        async def is_gone() -> bool:
            return topic not in await client.list_topics()

        await until(is_gone, f"the end of {topic}")
