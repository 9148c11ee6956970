"""Polls a consumer so that a batch that cannot be decoded costs its own partition, and no record of any other.

aiokafka decodes in ``getmany``, one partition after the other. Where one fails, what it had decoded of the others by
then is gone and their positions stand behind it: read on from there, records that nobody saw look like a gap. So after
a failed poll every partition is sought back to its first record that was not delivered, and for a time partitions are
polled one by one. One that fails alone is read record by record, up to the very one that cannot be read.
"""

from __future__ import annotations

import asyncio
import gzip
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import TypeAlias

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import (
    ConsumerStoppedError,
    CorruptRecordException,
    IllegalOperation,
    KafkaError,
    RecordTooLargeError,
    UnsupportedCodecError,
)

from stratarouter_runtime.errors import UnreadableBatchError
from stratarouter_runtime.processors.kafka_client import Record

APART_S = 10.0
"""How long partitions are polled one by one after a poll failed; each fetches anew what it had, and shows within this
which of them it was."""
IDLE_S = 0.05
"""Pause after a round of single polls that brought nothing: each of them returns at once."""
RETRY_S = 0.5
"""How long a partition whose next record cannot be read is left alone before it is asked again."""

Polled: TypeAlias = "dict[TopicPartition, list[Record]]"
NextOffset: TypeAlias = "Callable[[TopicPartition], int | None]"
Room: TypeAlias = "Callable[[TopicPartition], int]"
Deliver: TypeAlias = "Callable[[Polled, Collection[TopicPartition]], Awaitable[None]]"
Unreadable: TypeAlias = "Callable[[TopicPartition, Exception], None]"

DECODING = (CorruptRecordException, UnsupportedCodecError, RecordTooLargeError, gzip.BadGzipFile)
"""Of the kinds in ``ELSEWHERE``, those that say what is wrong with a batch."""
ELSEWHERE = (KafkaError, OSError, ConsumerStoppedError, IllegalOperation)
"""What ``getmany`` raises where brokers, network (TimeoutError is an OSError) or a closed client are at fault."""
EMPTY_CONTROL_BATCH = "Control batch did not contain any records"
"""aiokafka says it in a plain KafkaError."""


def is_unreadable(exc: Exception) -> bool:
    """Whether ``exc``, out of ``getmany``, means that a batch cannot be decoded.

    All that has no other cause: aiokafka 0.14 and its codecs raise ValueError, IndexError, TypeError, OverflowError,
    EOFError, MemoryError, AssertionError (a message compressed twice), RuntimeError (a codec that it knows by name
    only), ``struct.error``, ``zlib.error`` and cramjam's own, and no list of these is complete.
    """
    if isinstance(exc, DECODING) or (type(exc) is KafkaError and EMPTY_CONTROL_BATCH in str(exc)):
        return True
    return not isinstance(exc, ELSEWHERE)


def unreadable(partition: TopicPartition, offset: int, exc: Exception) -> UnreadableBatchError:
    """The error of a group whose records of ``partition`` from ``offset`` on raise ``exc``."""
    where = f"topic {partition.topic} partition {partition.partition} offset {offset}"
    missing = isinstance(exc, UnsupportedCodecError)
    first = "install the codec (pip install cramjam) and restart the worker; or " if missing else ""
    return UnreadableBatchError(
        f"the records from {where} on cannot be unpacked: {type(exc).__name__}: {exc}.",
        remedy=first + UnreadableBatchError.default_remedy,
    )


class Reading:
    """How the polls of one consumer go. Its owner delivers what they bring, and decides about what cannot be read.

    Args:
        next_offset: of a partition, the first offset that was not delivered; None where it is not ours to seek.
        room: how many records a partition may bring now, asked again between single polls.
        deliver: takes what was polled of the partitions named; below their positions there is nothing else. Must have
            moved ``next_offset`` past what it took when it returns or raises.
        unreadable: told of a partition whose record at ``next_offset`` cannot be read, and why: again every ``RETRY_S``
            for as long as it is polled.
    """

    def __init__(self, *, next_offset: NextOffset, room: Room, deliver: Deliver, unreadable: Unreadable) -> None:
        self._next_offset = next_offset
        self._room = room
        self._deliver = deliver
        self._unreadable = unreadable
        self._apart_until = 0.0
        self._narrow: dict[TopicPartition, float] = {}
        """Partitions that failed by themselves, and when to ask each again: record by record."""

    async def poll(self, consumer: AIOKafkaConsumer, rooms: Mapping[TopicPartition, int], timeout_ms: int) -> None:
        """One turn over the partitions in ``rooms`` (at least one), which may bring so many records each.

        Waits up to ``timeout_ms`` for records. Raises what ``getmany`` and ``deliver`` raise, but for a partition that
        fails alone; all have been sought back by then.
        """
        try:
            if time.monotonic() < self._apart_until:
                await self._poll_apart(consumer, rooms)
            else:
                self._narrow.clear()
                most = min(rooms.values())
                polled: Polled = await consumer.getmany(*rooms, timeout_ms=timeout_ms, max_records=most)
                await self._deliver(polled, rooms)
        except Exception as exc:
            self._seek_back(consumer, *rooms)
            if is_unreadable(exc):
                self._apart_until = time.monotonic() + APART_S
            raise

    async def keep_alive(self, consumer: AIOKafkaConsumer, partitions: Collection[TopicPartition]) -> None:
        """Poll where nobody has room, so that the group sees us alive. Paused partitions bring nothing; what comes of
        one that was resumed meanwhile is read again.
        """
        try:
            polled: Polled = await consumer.getmany(timeout_ms=0)
        except Exception:
            self._seek_back(consumer, *partitions)
            raise
        if polled:
            self._seek_back(consumer, *partitions)

    async def _poll_apart(self, consumer: AIOKafkaConsumer, rooms: Mapping[TopicPartition, int]) -> None:
        failure, found = None, False
        for partition, room in rooms.items():
            if time.monotonic() < self._narrow.get(partition, 0.0):
                continue
            try:
                found = await self._poll_one(consumer, partition, room) or found
            except Exception as exc:  # noqa: BLE001 - raised below: the other partitions have their turn first
                self._seek_back(consumer, partition)
                failure = failure or exc
        if failure is not None:
            raise failure
        await asyncio.sleep(0 if found else IDLE_S)

    async def _poll_one(self, consumer: AIOKafkaConsumer, partition: TopicPartition, room: int) -> bool:
        """Whether ``partition`` alone brought anything, ``room`` records at most."""
        step = 1 if partition in self._narrow else room
        for taken in range(0, room, step):
            most = min(step, room - taken, self._room(partition))
            if most <= 0:
                return taken > 0
            try:
                polled: Polled = await consumer.getmany(partition, timeout_ms=0, max_records=most)
            except Exception as exc:
                if not is_unreadable(exc):
                    raise
                self._failed_alone(consumer, partition, exc)
                return True
            await self._deliver(polled, (partition,))
            if not polled:
                return taken > 0
            await asyncio.sleep(0)
        return True

    def _failed_alone(self, consumer: AIOKafkaConsumer, partition: TopicPartition, exc: Exception) -> None:
        """With many records at first, in the end with the very one: what stands before it is read at once."""
        now = time.monotonic()
        self._apart_until = now + APART_S
        self._seek_back(consumer, partition)
        if self._next_offset(partition) is None:
            return
        if partition not in self._narrow:
            self._narrow[partition] = now
            return
        self._narrow[partition] = now + RETRY_S
        self._unreadable(partition, exc)

    def _seek_back(self, consumer: AIOKafkaConsumer, *partitions: TopicPartition) -> None:
        assigned = consumer.assignment()
        for partition in partitions:
            offset = self._next_offset(partition)
            if offset is not None and partition in assigned:
                consumer.seek(partition, offset)
