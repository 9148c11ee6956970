"""Reads a topic's committed records without a group: for following along, counting and checking."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from aiokafka import TopicPartition

from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.processors import kafka_client
from stratarouter_runtime.processors.closing import closed
from stratarouter_runtime.processors.kafka_client import CLIENT_ERRORS, Record, mapped

START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 10.0


class Tail:
    """An async context manager over every partition of ``topics``; those added later are read from their beginning.

    Partitions are assigned by hand, as in ``answers``: subscribed to, all would be read anew where some are added.
    """

    def __init__(self, config: RuntimeConfig, *topics: str, from_beginning: bool) -> None:
        self._topics = topics
        self._from_beginning = from_beginning
        self._consumer = kafka_client.consumer(config, group=None, fetch_max_wait_ms=100)
        self._consumer.assign([TopicPartition(topic, 0) for topic in topics])

    async def __aenter__(self) -> Self:
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                await self._consumer.start()
                await self._place()
        except CLIENT_ERRORS as exc:
            await closed(self._consumer.stop(), STOP_TIMEOUT_S)
            raise mapped(exc, f"reading {', '.join(self._topics)}") from exc
        except BaseException:
            await closed(self._consumer.stop(), STOP_TIMEOUT_S)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await closed(self._consumer.stop(), STOP_TIMEOUT_S)

    async def poll(self, timeout_s: float = 1.0) -> Sequence[Record]:
        """The next records, none where there are none within ``timeout_s`` seconds. Raises BrokerError."""
        try:
            await self._take_new()
            polled = await self._consumer.getmany(timeout_ms=int(timeout_s * 1000))
        except CLIENT_ERRORS as exc:
            raise mapped(exc, f"reading {', '.join(self._topics)}") from exc
        return [record for records in polled.values() for record in records]

    async def _place(self) -> None:
        places = kafka_client.places_of(self._consumer, *self._topics)
        self._consumer.assign(places)
        seek = self._consumer.seek_to_beginning if self._from_beginning else self._consumer.seek_to_end
        await seek(*places)
        for place in places:
            await self._consumer.position(place)

    async def _take_new(self) -> None:
        consumer = self._consumer
        known = consumer.assignment()
        present = {
            TopicPartition(topic, number)
            for topic in self._topics
            for number in consumer.partitions_for_topic(topic) or ()
        }
        if present <= known:
            return
        positions = {place: await consumer.position(place) for place in known}
        consumer.assign(sorted(present | known))
        for place, position in positions.items():
            consumer.seek(place, position)
        await consumer.seek_to_beginning(*(present - known))
