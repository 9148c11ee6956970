"""Writes a lane's outputs and its input offset: in one Kafka transaction, or one after the other."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.structs import OffsetAndMetadata

from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.processors import admin_client, kafka_client
from stratarouter_runtime.processors.batches import send_all
from stratarouter_runtime.processors.closing import closed
from stratarouter_runtime.processors.kafka_client import CLIENT_ERRORS, mapped, mapped_write
from stratarouter_runtime.records import Outbound
from stratarouter_runtime.state.offsets import OffsetMap, decode

log = logging.getLogger("stratarouter.publisher")

OPEN_TIMEOUT_S = 30.0
"""A transactional start hangs for ever where the transaction topic cannot be created; bound it."""
READ_TIMEOUT_S = 15.0
CLOSE_TIMEOUT_S = 5.0
NO_OFFSET = -1


class KafkaPublisher:
    """What both guarantees share: a producer, and reading the group's committed map of one partition."""

    def __init__(self, config: RuntimeConfig, group: str, partition: TopicPartition) -> None:
        self._config = config
        self._group = group
        self._partition = partition
        self._producer: AIOKafkaProducer | None = None
        self._timeout_s = config.transaction_timeout_ms / 1000

    async def open(self) -> OffsetMap:
        """A new producer (which fences older ones), then the committed map: in this order, so that nothing an
        older owner still commits can come after what is read.
        """
        await self.close()
        try:
            async with asyncio.timeout(OPEN_TIMEOUT_S):
                self._producer = self._new_producer()
                await self._producer.start()
                return await self.read_committed()
        except BaseException as exc:
            # Also where it is broken off: nobody else knows of the producer yet.
            await self.close()
            if isinstance(exc, CLIENT_ERRORS):
                raise mapped(exc, f"opening {self._partition}") from exc
            raise

    async def close(self) -> None:
        """Stop the producer; a broker that is away does not hold this up."""
        producer, self._producer = self._producer, None
        if producer is not None:
            await closed(producer.stop(), CLOSE_TIMEOUT_S, partition=str(self._partition))

    def _new_producer(self) -> AIOKafkaProducer:
        return kafka_client.producer(self._config)

    async def read_committed(self) -> OffsetMap:
        """The group's committed map of the partition. Raises BrokerError, OffsetMetadataError."""
        partition = self._partition
        doing = f"reading what is committed of {partition}"
        async with admin_client.connected(self._config, doing, READ_TIMEOUT_S, partition=str(partition)) as client:
            found = await admin_client.committed_offsets(client, self._group, [partition])
        committed = found.get(partition)
        if committed is None or committed.offset < 0:
            return OffsetMap(NO_OFFSET, NO_OFFSET)
        return decode(committed.offset, committed.metadata or "")


class TransactionalPublisher(KafkaPublisher):
    """exactly_once: outputs and offset in one transaction, under one stable id for each group and partition."""

    def _new_producer(self) -> AIOKafkaProducer:
        partition = self._partition
        name = f"{self._group}.{partition.topic}.{partition.partition}"
        return kafka_client.producer(self._config, transactional_id=name)

    async def publish(self, outbounds: Sequence[Outbound], offset: int, metadata: str) -> None:
        """One transaction. After any error its outcome is unknown until ``open``."""
        producer = self._producer
        assert producer is not None
        try:
            async with asyncio.timeout(self._timeout_s):
                # 1. Begin; the partitions join the transaction with their first record.
                await producer.begin_transaction()
                # 2. The outputs, the input offset and its map, side by side: they are one round trip less to wait for,
                #    and where one of them fails there is no commit.
                offsets = {self._partition: OffsetAndMetadata(offset, metadata)}
                await send_all(producer, outbounds, lambda: producer.send_offsets_to_transaction(offsets, self._group))
                # 3. All or nothing.
                await producer.commit_transaction()
        except CLIENT_ERRORS as exc:
            raise mapped_write(exc, f"committing {self._partition} at {offset}") from exc


class PlainPublisher(KafkaPublisher):
    """at_least_once: outputs first, then the offset; a crash between them repeats the outputs."""

    def __init__(
        self, config: RuntimeConfig, group: str, partition: TopicPartition, consumer: AIOKafkaConsumer
    ) -> None:
        super().__init__(config, group, partition)
        self._consumer = consumer

    async def publish(self, outbounds: Sequence[Outbound], offset: int, metadata: str) -> None:
        """Outputs, then the offset under the group's generation."""
        producer = self._producer
        assert producer is not None
        try:
            async with asyncio.timeout(self._timeout_s):
                await send_all(producer, outbounds)
                await self._consumer.commit({self._partition: OffsetAndMetadata(offset, metadata)})
        except CLIENT_ERRORS as exc:
            raise mapped_write(exc, f"committing {self._partition} at {offset}") from exc
