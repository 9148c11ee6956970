"""Where a lane resumes: at the group's committed offset, else at the last checkpoint, else at the topic's beginning.

A topic that was deleted and made anew has the old one's name and none of its records. Kafka drops its offsets, our
checkpoint stays; so a checkpoint names a record that was read (its witness), and counts only where that is still there.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Awaitable
from typing import Any, Protocol

from aiokafka import AIOKafkaConsumer, TopicPartition

from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.errors import BrokerError
from stratarouter_runtime.port_values import Checkpoint
from stratarouter_runtime.processors import kafka_client
from stratarouter_runtime.processors.closing import closed
from stratarouter_runtime.processors.kafka_client import CLIENT_ERRORS, Record, mapped
from stratarouter_runtime.state.offsets import OffsetMap, decode
from stratarouter_runtime.telemetry.logs import event

log = logging.getLogger("stratarouter.placement")

METADATA_TIMEOUT_S = 15.0
WITNESS_TIMEOUT_S = 15.0
"""To connect and read one record back; half of it is for the record."""
CLOSE_TIMEOUT_S = 5.0
END_TRIES = 3
END_RETRY_S = 1.0
"""A new leader may know the partition's end a moment late."""


class Checkpoints(Protocol):
    """The part of the journal that keeps progress."""

    def load_checkpoint(self, group: str, topic: str, partition: int) -> Awaitable[Checkpoint | None]:
        """Read one."""

    def drop_checkpoint(self, group: str, topic: str, partition: int) -> Awaitable[None]:
        """Forget one."""


def witness(record: Record) -> tuple[int, str]:
    """The offset of ``record`` and a digest of its key, value and time."""
    digest = hashlib.blake2b(digest_size=16)
    for part in (record.key, record.value, str(record.timestamp).encode()):
        digest.update(b"\0" if part is None else b"\1" + len(part).to_bytes(8, "big") + part)
    return record.offset, digest.hexdigest()


class Placement:
    """Decides where the lanes of one group begin.

    Args:
        config: how to reach the broker.
        group: the consumer group.
        checkpoints: the last known progress of each partition.
    """

    def __init__(self, config: RuntimeConfig, group: str, checkpoints: Checkpoints) -> None:
        self._config = config
        self._group = group
        self._checkpoints = checkpoints

    async def decide(
        self, consumer: AIOKafkaConsumer, partition: TopicPartition, stored: OffsetMap
    ) -> tuple[OffsetMap, int]:
        """The map to resume from, and the partition's end as of now.

        ``stored`` is the group's committed map; a negative watermark says that there is none. Raises BrokerError,
        JournalUnavailableError, OffsetMetadataError.
        """
        if stored.watermark >= 0:
            beginning, end = await self._bounds(consumer, partition, stored.watermark)
            if stored.watermark > end:
                return await self._anew(partition, beginning, f"the committed offset {stored.watermark} > {end}"), end
            if stored.watermark < beginning:
                event(
                    log,
                    logging.ERROR,
                    "records were deleted before they were read",
                    partition=str(partition),
                    records=beginning - stored.watermark,
                    remedy="lengthen the topic's retention, or add workers",
                )
            return stored, end
        checkpoint = await self._checkpoints.load_checkpoint(self._group, partition.topic, partition.partition)
        beginning, end = await self._bounds(consumer, partition, 0 if checkpoint is None else checkpoint.offset)
        if checkpoint is None or checkpoint.offset < 0:
            # An earlier version wrote -1 where a new group's first commit had failed.
            return OffsetMap(beginning, beginning), end
        if checkpoint.offset > end or not await self._is_there(partition, checkpoint, beginning, end):
            return await self._anew(partition, beginning, "the checkpoint is of another topic of the same name"), end
        event(log, logging.WARNING, "restored from checkpoint", partition=str(partition), at=checkpoint.offset)
        return decode(checkpoint.offset, checkpoint.metadata), end

    async def _anew(self, partition: TopicPartition, beginning: int, cause: str) -> OffsetMap:
        event(
            log,
            logging.ERROR,
            "the topic was made anew; reading it from its beginning",
            partition=str(partition),
            cause=cause,
        )
        await self._checkpoints.drop_checkpoint(self._group, partition.topic, partition.partition)
        return OffsetMap(beginning, beginning)

    async def _is_there(self, partition: TopicPartition, checkpoint: Checkpoint, beginning: int, end: int) -> bool:
        """Whether the record that the checkpoint names is still there as it was, or went the way of old records."""
        if checkpoint.witness is None or checkpoint.witness[0] < beginning:
            return True
        offset, digest = checkpoint.witness
        if offset >= end:
            return False
        found = await self._read_one(partition, offset)
        return found is not None and witness(found) == (offset, digest)

    async def _read_one(self, partition: TopicPartition, offset: int) -> Record | None:
        """The record at ``offset`` or the next one; None where what stood there is passed without any."""
        reader = kafka_client.consumer(self._config, group=None)
        reader.assign([partition])
        try:
            async with asyncio.timeout(WITNESS_TIMEOUT_S):
                await reader.start()
                reader.seek(partition, offset)
                polled: dict[TopicPartition, list[Any]] = await reader.getmany(
                    partition, timeout_ms=int(WITNESS_TIMEOUT_S * 500), max_records=1
                )
                position = await reader.position(partition)
        except CLIENT_ERRORS as exc:
            raise mapped(exc, f"reading {partition} at {offset}") from exc
        finally:
            await closed(reader.stop(), CLOSE_TIMEOUT_S, partition=str(partition))
        found = next((record for records in polled.values() for record in records), None)
        if found is None and position <= offset:
            # A fetch that is throttled, or whose leader moves, brings nothing either, and raises nothing.
            raise BrokerError(f"nothing came of {partition} at {offset}: whether its records are the same is not known")
        return found

    async def _bounds(self, consumer: AIOKafkaConsumer, partition: TopicPartition, known: int) -> tuple[int, int]:
        """The partition's first offset and its end; asked for again where the end is before ``known``, which was read
        or committed once.
        """
        for tries_left in reversed(range(END_TRIES + 1)):
            beginning, end = await self._bounds_now(consumer, partition)
            if known <= end or not tries_left:
                break
            await asyncio.sleep(END_RETRY_S)
        return beginning, end

    async def _bounds_now(self, consumer: AIOKafkaConsumer, partition: TopicPartition) -> tuple[int, int]:
        try:
            async with asyncio.timeout(METADATA_TIMEOUT_S):
                beginning = await consumer.beginning_offsets([partition])
                end = await consumer.end_offsets([partition])
        except CLIENT_ERRORS as exc:
            raise mapped(exc, f"looking up the offsets of {partition}") from exc
        return beginning[partition], end[partition]
