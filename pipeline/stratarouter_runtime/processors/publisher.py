"""Writes a lane's outputs and its input offset: in one Kafka transaction, or one after the other."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.structs import OffsetAndMetadata

from stratarouter_runtime import topics
from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.errors import BrokerError, OutputRefusedError
from stratarouter_runtime.processors import admin_client, kafka_client
from stratarouter_runtime.processors.batches import send_all
from stratarouter_runtime.processors.closing import closed
from stratarouter_runtime.processors.kafka_client import CLIENT_ERRORS, mapped, mapped_write
from stratarouter_runtime.records import Outbound
from stratarouter_runtime.state.offsets import OffsetMap, decode
from stratarouter_runtime.telemetry.logs import event

log = logging.getLogger("stratarouter.publisher")

OPEN_TIMEOUT_S = 30.0
"""A transactional start hangs for ever where the transaction topic cannot be created; bound it."""
READ_TIMEOUT_S = 15.0
CLOSE_TIMEOUT_S = 5.0
LOOK_AFTER_S = 2.0
"""A commit that writes to topics of the clients' choice and takes longer may wait for one that is gone, for 15 s and
more, and everything behind it."""
LOOK_TIMEOUT_S = 5.0
NO_OFFSET = -1
CREATE_TOPIC = "create the topic that reply_to names, and leave it until its answers have come"


class KafkaPublisher:
    """What both guarantees share: a producer, and reading the group's committed map of one partition."""

    def __init__(self, config: RuntimeConfig, group: str, partition: TopicPartition) -> None:
        self._config = config
        self._group = group
        self._partition = partition
        self._producer: AIOKafkaProducer | None = None
        self._timeout_s = config.transaction_timeout_ms / 1000
        fields = (name for name in type(config).model_fields if name.endswith("_topic"))
        self._own = frozenset(config.topic(getattr(config, name)) for name in fields)
        self._gone: frozenset[str] = frozenset()

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

    async def _commit(self, writing: Coroutine[Any, Any, None], outbounds: Sequence[Outbound], offset: int) -> None:
        """``writing`` of ``outbounds``. After any error its outcome is unknown until ``open``.

        Raises BrokerError; OutputRefusedError where the broker will never take one of them, as of a reply topic that
        was deleted.
        """
        chosen = frozenset(outbound.topic for outbound in outbounds) - self._own
        doing = f"committing {self._partition} at {offset}"
        try:
            await (self._watched(writing, chosen, doing) if chosen else writing)
        except CLIENT_ERRORS as exc:
            raise mapped_write(exc, doing, chosen=bool(chosen)) from exc

    async def _watched(self, write: Coroutine[Any, Any, None], chosen: frozenset[str], doing: str) -> None:
        """``write``, which waits for no topic that is gone."""
        writing = asyncio.create_task(write)
        try:
            if chosen & self._gone:
                await self._refuse_gone(chosen & self._gone, doing)
            if not (await asyncio.wait([writing], timeout=LOOK_AFTER_S))[0]:
                await self._refuse_gone(chosen, doing)
            await writing
        except CLIENT_ERRORS:
            await self._refuse_gone(chosen, doing)
            raise
        finally:
            writing.cancel()
            await asyncio.wait([writing])

    async def _refuse_gone(self, chosen: Iterable[str], doing: str) -> None:
        """Raise OutputRefusedError where one of the topics ``chosen`` by clients is not there."""
        try:
            known = await topics.names(self._config, f"looking for topics while {doing}", LOOK_TIMEOUT_S)
        except BrokerError as exc:
            event(log, logging.WARNING, "topics unknown", cause=str(exc))
            return
        # A broker that does not name what this very lane reads does not know them all yet.
        self._gone = frozenset(chosen) - known if self._partition.topic in known else frozenset()
        if self._gone:
            said = ", ".join(map(repr, sorted(self._gone)))
            raise OutputRefusedError(f"no topic {said} while {doing}", remedy=CREATE_TOPIC, topics=self._gone)

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
        """One transaction. Errors as ``_commit``'s."""
        await self._commit(self._write(outbounds, offset, metadata), outbounds, offset)

    async def _write(self, outbounds: Sequence[Outbound], offset: int, metadata: str) -> None:
        producer = self._producer
        assert producer is not None
        async with asyncio.timeout(self._timeout_s):
            # 1. Begin; the partitions join the transaction with their first record.
            await producer.begin_transaction()
            # 2. The outputs, the input offset and its map, side by side: they are one round trip less to wait for,
            #    and where one of them fails there is no commit.
            offsets = {self._partition: OffsetAndMetadata(offset, metadata)}
            await send_all(producer, outbounds, lambda: producer.send_offsets_to_transaction(offsets, self._group))
            # 3. All or nothing.
            await producer.commit_transaction()


class PlainPublisher(KafkaPublisher):
    """at_least_once: outputs first, then the offset; a crash between them repeats the outputs."""

    def __init__(
        self, config: RuntimeConfig, group: str, partition: TopicPartition, consumer: AIOKafkaConsumer
    ) -> None:
        super().__init__(config, group, partition)
        self._consumer = consumer

    async def publish(self, outbounds: Sequence[Outbound], offset: int, metadata: str) -> None:
        """Outputs, then the offset under the group's generation. Errors as ``_commit``'s."""
        await self._commit(self._write(outbounds, offset, metadata), outbounds, offset)

    async def _write(self, outbounds: Sequence[Outbound], offset: int, metadata: str) -> None:
        producer = self._producer
        assert producer is not None
        async with asyncio.timeout(self._timeout_s):
            await send_all(producer, outbounds)
            await self._consumer.commit({self._partition: OffsetAndMetadata(offset, metadata)})
