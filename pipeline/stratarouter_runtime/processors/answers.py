"""Follows the topics of answers from where it began: every partition of them, those added later among them.

Partitions are assigned by hand. One that is subscribed to without a group loses all its positions where partitions are
added to the topic, or the topic is away from the brokers' metadata for a moment: aiokafka reads everything anew.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import OffsetOutOfRangeError

from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.processors import kafka_client
from stratarouter_runtime.processors.closing import closed
from stratarouter_runtime.processors.kafka_client import Record
from stratarouter_runtime.processors.reading import RETRY_S, Polled, Reading, unreadable
from stratarouter_runtime.telemetry.logs import event

log = logging.getLogger("stratarouter.answers")

STOP_TIMEOUT_S = 10.0
POLL_TIMEOUT_MS = 200
POLL_RECORDS = 500
"""Records in one poll; of one partition, before the others have their turn, while they are polled one by one."""
LOOK_S = 1.0
"""Between two looks for partitions without a place; the brokers themselves are asked every ``METADATA_MAX_AGE_MS``."""
CLOCKS_APART_S = 60.0
"""How much earlier than ours the clock of a worker, which stamps the answers, may be."""


class Answers:
    """A consumer of ``topics`` without a group.

    A partition found later is read from the first record that may answer a request still waited for: all it holds where
    it was just added, and no more than that where we hear of it late, or lost our place because the broker dropped what
    stood there. Found by the records' timestamps, since nothing else tells how old a record is before it is read.

    Args:
        handle: called with each record; must not raise.
        since: the time, in epoch seconds, of the oldest request that an answer is waited for; now, where there is none.
    """

    def __init__(
        self, config: RuntimeConfig, topics: list[str], *, handle: Callable[[Record], None], since: Callable[[], float]
    ) -> None:
        self._config = config
        self._topics = topics
        self._handle = handle
        self._since = since
        self._consumer: AIOKafkaConsumer | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._next: dict[TopicPartition, int] = {}
        """Of each partition that is read, the offset after the last record that was handled."""
        self._said: dict[TopicPartition, int] = {}
        """The offset at which each partition was last said to be unreadable."""
        self._reading = Reading(
            next_offset=self._next.get, room=lambda _: POLL_RECORDS, deliver=self._deliver, unreadable=self._unreadable
        )

    async def start(self) -> None:
        """Stand at the end of every partition, and read on from there. Raises TopicContractError, aiokafka's errors."""
        self._consumer = consumer = kafka_client.consumer(
            self._config, group=None, fetch_max_wait_ms=100, auto_offset_reset="none"
        )
        # The client asks for the metadata of assigned topics alone, and waits for it.
        consumer.assign([TopicPartition(topic, 0) for topic in self._topics])
        await consumer.start()
        places = kafka_client.places_of(consumer, *self._topics)
        self._assign(consumer, places, await consumer.end_offsets(places))
        self._tasks = [
            asyncio.create_task(self._read_loop(consumer), name="bridge reader"),
            asyncio.create_task(self._look_loop(consumer), name="bridge partitions"),
        ]

    async def stop(self) -> None:
        """Disconnect. Bounded."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._consumer is not None:
            await closed(self._consumer.stop(), STOP_TIMEOUT_S)

    # -- reading -----------------------------------------------------------------------------------------------

    async def _read_loop(self, consumer: AIOKafkaConsumer) -> None:
        while True:
            try:
                await self._read_once(consumer)
            except Exception as exc:  # noqa: BLE001 - outermost: were it to end, every caller would wait for nothing
                event(log, logging.WARNING, "reading answers failed", cause=repr(exc))
                await asyncio.sleep(RETRY_S)

    async def _read_once(self, consumer: AIOKafkaConsumer) -> None:
        if not self._next:
            await asyncio.sleep(RETRY_S)
            return
        try:
            await self._reading.poll(consumer, dict.fromkeys(self._next, POLL_RECORDS), POLL_TIMEOUT_MS)
        except OffsetOutOfRangeError as exc:
            for partition in exc.args[0]:
                self._next.pop(partition, None)
            raise

    async def _deliver(self, polled: Polled, _: Collection[TopicPartition]) -> None:
        for partition, records in polled.items():
            for record in records:
                self._next[partition] = record.offset + 1
                self._handle(record)

    def _unreadable(self, partition: TopicPartition, exc: Exception) -> None:
        """It may be read later, with a codec installed and a bridge started anew, or once retention has dropped it."""
        offset = self._next[partition]
        level = logging.DEBUG if self._said.get(partition) == offset else logging.WARNING
        self._said[partition] = offset
        name = f"{partition.topic}-{partition.partition}"
        cause = unreadable(partition, offset, exc).message
        event(log, level, "answers cannot be read", partition=name, offset=offset, cause=cause)

    # -- partitions --------------------------------------------------------------------------------------------

    async def _look_loop(self, consumer: AIOKafkaConsumer) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                await self._look(consumer)
            except Exception as exc:  # noqa: BLE001 - outermost: were it to end, no new partition would be read
                event(log, logging.WARNING, "new partitions of answers are not read yet", cause=repr(exc))

    async def _look(self, consumer: AIOKafkaConsumer) -> None:
        present = self._present(consumer)
        begins = await self._begins(consumer, present - self._next.keys())
        if begins or present != consumer.assignment():
            # As far as was read by now: polling went on while the brokers were asked.
            known = {place: self._next[place] for place in present & self._next.keys()}
            self._assign(consumer, present, begins | known)

    def _present(self, consumer: AIOKafkaConsumer) -> set[TopicPartition]:
        """Every partition there is; of a topic that the brokers do not name now, those there were."""
        found: set[TopicPartition] = set()
        for topic in self._topics:
            numbers = consumer.partitions_for_topic(topic)
            if numbers:
                found.update(TopicPartition(topic, number) for number in numbers)
            else:
                found.update(place for place in consumer.assignment() if place.topic == topic)
        return found

    async def _begins(self, consumer: AIOKafkaConsumer, new: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        """Where to begin in each of ``new``, but for those whose brokers do not say: they have to be asked again."""
        places = sorted(new)
        found = await asyncio.gather(*(self._begin(consumer, place) for place in places), return_exceptions=True)
        begins: dict[TopicPartition, int] = {}
        for place, offset in zip(places, found, strict=True):
            told = {"partition": f"{place.topic}-{place.partition}"}
            if isinstance(offset, BaseException):
                event(log, logging.WARNING, "partition of answers not read yet", **told, cause=repr(offset))
            else:
                begins[place] = offset
                event(log, logging.INFO, "partition of answers", **told, offset=offset)
        return begins

    async def _begin(self, consumer: AIOKafkaConsumer, place: TopicPartition) -> int:
        since_ms = int((min(self._since(), time.time()) - CLOCKS_APART_S) * 1000)
        # The end first: what is written between the two questions stands behind it.
        end: int = (await consumer.end_offsets([place]))[place]
        found = (await consumer.offsets_for_times({place: since_ms}))[place]
        return end if found is None else int(found.offset)

    def _assign(
        self, consumer: AIOKafkaConsumer, present: Collection[TopicPartition], offsets: dict[TopicPartition, int]
    ) -> None:
        """Read from ``offsets`` on; what was fetched before is fetched again.

        Those of ``present`` without a place are assigned too: the client hears of assigned topics alone.
        """
        self._next.clear()
        self._next.update(offsets)
        consumer.assign(sorted(present))
        for partition, offset in offsets.items():
            consumer.seek(partition, offset)
