"""A commit's records reach the broker whole, in batches, where their keys belong."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiokafka import AIOKafkaProducer, ConsumerRecord
from aiokafka.admin import NewTopic
from aiokafka.errors import MessageSizeTooLargeError

from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.processors import kafka_client
from stratarouter_runtime.processors.batches import send_all
from stratarouter_runtime.processors.kafka_client import places_of
from stratarouter_runtime.processors.partitioner import partitions_of
from stratarouter_runtime.records import Outbound

pytestmark = pytest.mark.stack
PARTITIONS = 3
Read = list["ConsumerRecord[bytes, bytes]"]


async def _topics(config: RuntimeConfig, *names: str, **settings: str) -> list[str]:
    topics = [config.topic(name) for name in names]
    client = kafka_client.admin(config)
    await client.start()
    await client.create_topics([NewTopic(topic, PARTITIONS, 1, topic_configs=settings) for topic in topics])
    await client.close()
    return topics


@asynccontextmanager
async def _producer(config: RuntimeConfig) -> AsyncIterator[AIOKafkaProducer]:
    producer = kafka_client.producer(config, transactional_id=config.topic("batches"))
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


async def _read(config: RuntimeConfig, topic: str, count: int) -> Read:
    consumer = kafka_client.consumer(config, topic, group=None)
    await consumer.start()
    try:
        assert len(places_of(consumer, topic)) == PARTITIONS
        found: Read = []
        while len(found) < count:
            for records in (await consumer.getmany(timeout_ms=5000)).values():
                found += records
        return found
    finally:
        await consumer.stop()


async def test_more_than_one_batch_of_each_partition_arrives_in_order(config: RuntimeConfig) -> None:
    first, second = await _topics(config, "first", "second")
    small = [Outbound(first, b"k%d" % n, b"%d" % n, (("traceparent", b"t%d" % n),)) for n in range(500)]
    large = [Outbound(second, b"k%d" % n, b"%06d" % n + bytes(60_000)) for n in range(60)]
    async with _producer(config) as producer, producer.transaction():
        await send_all(producer, [*small, *large])
    read = await _read(config, first, len(small))
    assert {(r.key, r.value, r.headers) for r in read} == {(o.key, o.value, o.headers) for o in small}
    for record in read:
        assert [record.partition] == partitions_of([record.key or b""], PARTITIONS)
    chunks = await _read(config, second, len(large))
    assert sorted(r.value for r in chunks) == [o.value for o in large]
    for partition in range(PARTITIONS):
        here = [r.value for r in chunks if r.partition == partition]
        assert here == sorted(here)


async def test_a_record_larger_than_a_batch_goes_alone_among_small_ones(config: RuntimeConfig) -> None:
    [topic] = await _topics(config, "large", **{"max.message.bytes": "2000000"})
    values = [b"a", bytes(1_500_000), b"b", bytes(1_400_000)]
    async with _producer(config) as producer, producer.transaction():
        await send_all(producer, [Outbound(topic, b"one key", value) for value in values])
    assert [r.value for r in await _read(config, topic, len(values))] == values


async def test_records_without_a_key_arrive_too(config: RuntimeConfig) -> None:
    [topic] = await _topics(config, "keyless")
    async with _producer(config) as producer, producer.transaction():
        await send_all(
            producer, [Outbound(topic, None, b"x"), Outbound(topic, b"k", b"y"), Outbound(topic, None, b"z")]
        )
    assert sorted(r.value for r in await _read(config, topic, 3)) == [b"x", b"y", b"z"]


async def test_what_a_topic_refuses_fails_all_that_were_sent_with_it(config: RuntimeConfig) -> None:
    [topic] = await _topics(config, "small", **{"max.message.bytes": "10000"})
    async with _producer(config) as producer:
        await producer.begin_transaction()
        with pytest.raises(MessageSizeTooLargeError):
            await send_all(producer, [Outbound(topic, b"k%d" % n, bytes(n)) for n in (10, 20_000, 30)])
        await producer.abort_transaction()


async def test_a_record_beyond_what_is_ever_written_is_refused_before_it_is_sent(config: RuntimeConfig) -> None:
    [topic] = await _topics(config, "huge")
    async with _producer(config) as producer:
        await producer.begin_transaction()
        with pytest.raises(MessageSizeTooLargeError):
            await send_all(producer, [Outbound(topic, b"k", bytes(kafka_client.MAX_PRODUCE_BYTES + 1))])
        await producer.abort_transaction()
