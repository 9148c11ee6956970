"""Lanes at their bounds: held back by a map or a number, then started anew; topics with holes; one slow record."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections import Counter
from typing import Any

import orjson
import pytest
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from faults.conftest import ONE_PARTITION, Bench
from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.processors import kafka_client
from stratarouter_runtime.testing.simulator import FaultRule
from support.cluster import admin, committed, until_caught_up
from support.fleet import Watch, ambiguous_calls, produce, request

pytestmark = pytest.mark.stack

SLOW_WORDS = "take your time"
TIMEOUT_S = 60.0
MAP_CHARS = 256


def _quick(count: int, name: str = "r") -> list[bytes | None]:
    return [request(f"{name}{n}", f"question {n} of {name} order {n * 3}") for n in range(count)]


def _slow(count: int) -> list[bytes | None]:
    return [request(f"slow{n}", f"{SLOW_WORDS} with {n}") for n in range(count)]


async def _longest_map(config: RuntimeConfig) -> int:
    return max((len(entry.metadata) for entry in (await committed(config, "execute")).values()), default=0)


async def _until_answered_stands_still(watch: Watch, *, least: int) -> int:
    """Until ``least`` are answered and two seconds have brought no more: the lane is held back."""
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        before = len(watch.seen.by_id)
        await watch.settle(2)
        if least <= before == len(watch.seen.by_id):
            return before
        assert time.monotonic() < deadline, before


@pytest.mark.row(16)
@ONE_PARTITION
async def test_a_lane_held_back_by_its_map_reads_on_after_a_crash(bench: Bench) -> None:
    bench.simulator.set_faults([FaultRule("slow", slow_ms=120_000, prompt=SLOW_WORDS)])
    settings = {
        "STRATAROUTER_OFFSET_METADATA_MAX_BYTES": str(MAP_CHARS),
        "STRATAROUTER_PROVIDER_CONCURRENCY": "2000",
    }
    worker = await bench.worker(**settings)
    lengths: list[int] = []
    async with Watch(bench.config) as watch:
        await produce(bench.config, [*_slow(150), *_quick(2000)])
        answered = await _until_answered_stands_still(watch, least=100)
        assert answered < 2000
        lengths.append(await _longest_map(bench.config))
        worker.kill()
        # The slow ones hold the second worker back as well, for a while.
        bench.simulator.set_faults([FaultRule("slow", slow_ms=3000, prompt=SLOW_WORDS)])
        await bench.worker(**settings)
        deadline = time.monotonic() + TIMEOUT_S
        while len(watch.seen.by_id) < 2150 and time.monotonic() < deadline:
            await watch.settle(0.2)
            lengths.append(await _longest_map(bench.config))
        await watch.settle(2)
    bench.check(watch, 2150)
    assert len("srt1") < max(lengths) <= MAP_CHARS
    assert len(bench.simulator.paid_calls) <= 2150 + await ambiguous_calls(bench.config)


@pytest.mark.row(16)
@ONE_PARTITION
async def test_more_unfinished_than_leave_room_for_a_poll_are_read_again_after_a_crash(bench: Bench) -> None:
    bench.simulator.set_faults([FaultRule("slow", slow_ms=60_000, prompt=SLOW_WORDS)])
    settings = {"STRATAROUTER_LANE_MAX_IN_FLIGHT": "600", "STRATAROUTER_PROVIDER_CONCURRENCY": "2000"}
    worker = await bench.worker(**settings)
    async with Watch(bench.config) as watch:
        await produce(bench.config, [*_slow(400), *_quick(50)])
        await watch.until(50, timeout_s=TIMEOUT_S)
        # What was taken and not finished is in the committed map.
        place, entry = max((await committed(bench.config, "execute")).items(), key=lambda item: len(item[1].metadata))
        assert len(entry.metadata) > len("srt1"), place
        worker.kill()
        bench.simulator.set_faults([])
        await bench.worker(**settings)
        await watch.until(450, timeout_s=TIMEOUT_S)
        await watch.settle(2)
    bench.check(watch, 450)
    assert len(bench.simulator.paid_calls) <= 450 + await ambiguous_calls(bench.config)


@pytest.mark.row(16)
@ONE_PARTITION
async def test_a_lane_whose_bound_is_below_a_polls_size_answers_everything(bench: Bench) -> None:
    await bench.worker(STRATAROUTER_LANE_MAX_IN_FLIGHT="20")
    async with Watch(bench.config) as watch:
        await produce(bench.config, _quick(200))
        at_once, deadline = [0], time.monotonic() + TIMEOUT_S
        while len(watch.seen.by_id) < 200 and time.monotonic() < deadline:
            at_once.append(bench.simulator.active)
            await watch.poll()
        await watch.settle(1)
    bench.check(watch, 200)
    # Never more calls at once than the lane may hold.
    assert 0 < max(at_once) <= 20
    assert len(bench.simulator.paid_calls) == 200


async def _values(config: RuntimeConfig, topic: str) -> list[Any]:
    """Every record of ``topic`` that a read_committed consumer sees now."""
    consumer = kafka_client.consumer(config, topic, group=None)
    await consumer.start()
    try:
        places = kafka_client.places_of(consumer, topic)
        ends = await consumer.end_offsets(places)
        found: list[Any] = []
        deadline = time.monotonic() + TIMEOUT_S
        while [place for place in places if await consumer.position(place) < ends[place]]:
            assert time.monotonic() < deadline
            polled = await consumer.getmany(timeout_ms=200)
            found += [record for records in polled.values() for record in records]
        return found
    finally:
        await consumer.stop()


async def _compact_at_once(config: RuntimeConfig, topic: str) -> None:
    wanted = {
        "cleanup.policy": "compact",
        "segment.ms": "200",
        "min.cleanable.dirty.ratio": "0.001",
        "min.compaction.lag.ms": "0",
        "max.compaction.lag.ms": "500",
    }
    async with admin(config) as client:
        await client.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, configs=wanted)])


@pytest.mark.slow
@pytest.mark.row(34)
async def test_a_compacted_topic_is_answered_to_its_end_and_not_again(bench: Bench) -> None:
    config = bench.config
    topic = config.topic(config.requests_topic)
    await _compact_at_once(config, topic)
    # Keys are numbers from 0 in each batch: a later batch replaces the records of the earlier ones.
    for batch in range(4):
        await produce(config, _quick(100, name=f"b{batch}-"))
        await asyncio.sleep(0.5)
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        # A segment is rolled by the next record; only what lies in older segments is compacted.
        await produce(config, _quick(100, name="last"))
        left = [orjson.loads(record.value)["request_id"] for record in await _values(config, topic)]
        if not any(name.startswith("b") for name in left):
            break
        assert time.monotonic() < deadline, len(left)
        await asyncio.sleep(1)
    async with Watch(config) as watch:
        first = await bench.worker()
        await watch.until(len(set(left)), timeout_s=TIMEOUT_S)
        await until_caught_up(config, "enrich", topic)
        assert await first.stop() == 0
        await bench.worker()
        await produce(config, _quick(20, name="after"))
        await watch.settle(4)
    left += [f"after{n}" for n in range(20)]
    answered = [response.request_id for response in watch.seen.responses]
    # An id may stand at several offsets, of which compaction goes on to take all but the last.
    assert set(answered) == set(left)
    assert Counter(answered) <= Counter(left)
    assert len({response.source for response in watch.seen.responses}) == len(answered)
    assert watch.seen.dead_letters == []
    assert len(bench.simulator.paid_calls) == len(set(left))


def _latencies_ms(asked: list[Any], answered: list[Any], prefix: str) -> list[int]:
    """From the request's time to its response's, both as Kafka's clients stamped them."""
    sent = {orjson.loads(record.value)["request_id"]: record.timestamp for record in asked}
    got = {orjson.loads(record.value)["request_id"]: record.timestamp for record in answered}
    return [got[name] - sent[name] for name in sent if name.startswith(prefix)]


@pytest.mark.row(36)
async def test_the_median_of_the_others_is_unharmed_beside_a_slow_record(bench: Bench) -> None:
    config = bench.config
    bench.simulator.set_faults([FaultRule("slow", slow_ms=12_000, prompt=SLOW_WORDS)])
    await bench.worker()
    async with Watch(config) as watch:
        await produce(config, _quick(50, name="warm"), rate_per_s=50)
        await produce(config, _quick(250, name="before"), rate_per_s=50)
        await watch.until(300, timeout_s=TIMEOUT_S)
        await produce(config, _slow(1))
        await produce(config, _quick(250, name="beside"), rate_per_s=50)
        await watch.until(550, timeout_s=TIMEOUT_S)
        assert "slow0" not in watch.seen.by_id
        await watch.until(551, timeout_s=TIMEOUT_S)
        await watch.settle(1)
    bench.check(watch, 551)
    assert len(bench.simulator.paid_calls) == 551
    asked = await _values(config, config.topic(config.requests_topic))
    answered = await _values(config, config.topic(config.responses_topic))
    before, beside = (statistics.median(_latencies_ms(asked, answered, name)) for name in ("before", "beside"))
    # Far below the 12 s that waiting for the slow one would cost, and above what a machine does that grows busier.
    assert beside <= 2 * before + 1000, (before, beside)
