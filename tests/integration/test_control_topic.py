"""Reading the cache-control topic: what is wrong with it or on it, and what happens when it goes away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
from aiokafka import TopicPartition
from aiokafka.admin.records_to_delete import RecordsToDelete

from stratarouter_runtime import RuntimeConfig, topics
from stratarouter_runtime.cache.controlled import ControlledCache
from stratarouter_runtime.cache.guard import create_guard
from stratarouter_runtime.cache.memory import MemoryCache
from stratarouter_runtime.clock import SystemClock
from stratarouter_runtime.errors import BrokerError, OutputRefusedError, TopicContractError
from stratarouter_runtime.feedback import command
from stratarouter_runtime.port_values import CacheEntry
from stratarouter_runtime.processors import cache_control, kafka_client
from stratarouter_runtime.processors.cache_control import ControlReader, ControlWriter
from stratarouter_runtime.records import Answer, CacheCommand
from stratarouter_runtime.state.cache_control import CacheControl, Origin, label
from stratarouter_runtime.telemetry.metrics import Metrics
from stratarouter_runtime.wire_control import decode_command
from support.cluster import admin, make_anew

pytestmark = pytest.mark.stack

DEADLINE_S = 60.0


@dataclass
class Reading:
    """A process that follows the topic."""

    control: CacheControl
    cache: ControlledCache
    backend: MemoryCache
    metrics: Metrics
    reader: ControlReader


@asynccontextmanager
async def reading(config: RuntimeConfig) -> AsyncIterator[Reading]:
    clock, control, metrics = SystemClock(), CacheControl(), Metrics()
    backend = MemoryCache(clock=clock, guard=create_guard())
    cache = ControlledCache(backend, control, clock)
    reader = ControlReader(config, control=control, cache=cache, clock=clock, metrics=metrics)
    await reader.start()
    yield Reading(control, cache, backend, metrics, reader)
    await reader.stop()


@pytest.fixture
async def writer(config: RuntimeConfig) -> AsyncIterator[ControlWriter]:
    made = ControlWriter(config)
    yield made
    await made.stop()


async def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        await asyncio.sleep(0.05)


def kept(tag: str, begun: int) -> CacheEntry:
    origin = Origin(begun, (label("key", tag), label("tag", tag)))
    return CacheEntry(tag, "s", tag, tag, Answer("a", "p", "m"), origin=origin)


async def test_a_missing_topic_is_said_with_what_to_do(config: RuntimeConfig) -> None:
    with pytest.raises(BrokerError, match="does not exist") as caught:
        async with reading(config):
            raise AssertionError
    assert "topics apply" in caught.value.remedy


async def test_a_topic_of_several_partitions_is_refused(config: RuntimeConfig) -> None:
    async with admin(config) as client:
        await client.create_topics([topics._new_topic(config.topic(config.cache_control_topic), 3, -1, {})])
    with pytest.raises(TopicContractError, match="3 partitions"):
        async with reading(config):
            raise AssertionError
    assert any("with 3 partitions" in str(one) for one in await topics.apply(config))
    assert [str(one) for one in await topics.check(config) if "partitions is 3, declared is 1" in str(one)]


async def test_the_contract_s_own_number_of_partitions_holds_whatever_is_chosen(config: RuntimeConfig) -> None:
    await topics.apply(config, partitions=4)
    async with reading(config):
        assert await topics.apply(config, partitions=4) == []


async def test_a_record_that_cannot_be_read_is_passed_over_and_counted(
    config: RuntimeConfig, writer: ControlWriter
) -> None:
    await topics.apply(config)
    producer = kafka_client.producer(config)
    await producer.start()
    for value in (b"junk", b'{"action": "forget"}', None):
        await producer.send_and_wait(config.topic(config.cache_control_topic), value, key=b"k")
    await producer.stop()
    await writer.send(command("invalidate", "ann", "because", tag="t"))
    async with reading(config) as process:
        assert process.control.position == 3
        assert process.control.is_stale(kept("t", 2).origin)
        assert process.metrics.cache_control_total.labels("invalid")._value.get() == 3
        assert process.metrics.cache_control_position._value.get() == 3


async def test_a_command_too_large_for_the_topic_costs_the_next_one_nothing(
    config: RuntimeConfig, writer: ControlWriter
) -> None:
    """aiokafka never takes the number of a record back: all that a process wrote later was refused."""
    topic = config.topic(config.cache_control_topic)
    async with admin(config) as client:
        await client.create_topics([topics._new_topic(topic, 1, -1, {"max.message.bytes": "10000"})])
    assert await writer.send(command("invalidate", "ann", "because", tag="first")) == 0
    with pytest.raises(OutputRefusedError, match="MessageSizeTooLarge"):
        await writer.send(command("correct", "ann", "because", key="k" * 64, text="large " * 5_000))
    assert await writer.send(command("invalidate", "ann", "because", tag="next")) == 1


async def test_a_topic_made_anew_empties_the_cache_and_is_followed(
    config: RuntimeConfig, writer: ControlWriter
) -> None:
    await topics.apply(config)
    for number in range(5):
        await writer.send(command("invalidate", "ann", "because", tag=f"t{number}"))
    async with reading(config) as process:
        await process.cache.store([kept("fresh", 4)])
        assert process.backend.held.entries == 1
        await make_anew(config, config.topic(config.cache_control_topic))
        again = ControlWriter(config)
        assert await again.send(command("invalidate", "ann", "because", tag="other")) == 0
        await until(lambda: process.control.position == 0, "the new topic to be read")
        await until(lambda: process.backend.held.entries == 0, "the cache to be emptied")
        await process.cache.store([kept("fresh", 0)])
        await again.send(command("invalidate", "ann", "because", tag="fresh"))
        await until(lambda: process.backend.held.entries == 0, "the new topic to be followed")
        await again.stop()


async def test_what_a_transaction_leaves_behind_holds_no_reader_back(config: RuntimeConfig) -> None:
    """A marker takes an offset that no record has; another worker may have noted it as its position."""
    await topics.apply(config)
    topic = config.topic(config.cache_control_topic)
    async with reading(config) as process:
        producer = kafka_client.producer(config, transactional_id=f"{topic}-test")
        await producer.start()
        async with producer.transaction():
            await producer.send_and_wait(topic, b"junk")
        await producer.stop()
        async with reading(config) as later:
            assert later.control.position == 1
        await until(lambda: process.control.position == 1, "the marker to be passed")


async def test_a_silent_topic_is_noticed(config: RuntimeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_control, "PROBE_S", 0.1)
    await topics.apply(config)
    async with reading(config) as process:
        first = process.control._heard_at
        await until(lambda: process.control._heard_at > first, "the topic to be heard again")


async def test_a_record_that_broke_the_reader_is_read_again(
    config: RuntimeConfig, writer: ControlWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    await topics.apply(config)
    async with reading(config) as process:
        broken = [RuntimeError("a defect"), KeyError("another")]

        def breaks(value: bytes | None) -> CacheCommand:
            if broken:
                raise broken.pop()
            return decode_command(value)

        monkeypatch.setattr(cache_control, "decode_command", breaks)
        for tag in ("one", "two"):
            await writer.send(command("invalidate", "ann", "because", tag=tag))
        await until(lambda: process.control.position == 1, "both records")
        assert not broken
        assert process.control.is_stale(kept("one", -1).origin)
        assert process.control.is_stale(kept("two", -1).origin)


async def test_records_that_are_gone_make_older_answers_stale_and_no_others(
    config: RuntimeConfig, writer: ControlWriter
) -> None:
    await topics.apply(config)
    for number in range(3):
        await writer.send(command("invalidate", "ann", "because", tag=f"t{number}"))
    place = TopicPartition(config.topic(config.cache_control_topic), 0)
    async with admin(config) as client:
        await client.delete_records({place: RecordsToDelete(before_offset=3)})
    async with reading(config) as process:
        assert process.control.position == 2
        assert process.control.is_stale(kept("t1", 0).origin)
        assert not process.control.is_stale(kept("t1", 2).origin)
