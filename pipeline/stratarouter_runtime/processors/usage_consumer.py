"""Faust's consumer, made to read what is committed and to commit what is counted, and nothing beyond it.

Around a rebalance Faust lets go of records that it has fetched: those in its queues, and those that a fetch brings
while it is broken off. The position is set back, so that they come again; where it was not, as in a partition without a
committed offset, the next commit passed them over. So what was fetched is noted here besides, and only what is
acknowledged without a gap is committed.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from aiokafka import AIOKafkaConsumer
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread, Consumer, Transport
from faust.types import TP

from stratarouter_runtime.state.in_order import InOrder

PASSED_OVER_S = 15.0
"""A record that is not acknowledged while a later one of its partition is has been lost on its way, where that lasts:
one agent acknowledges a partition's records in their order, and one that was read twice catches up at once."""


class ReadCommittedThread(AIOKafkaConsumerThread):
    """Faust reads what was aborted unless it writes transactions itself, and its own are not to be relied on."""

    consumer: UsageConsumer

    def _create_worker_consumer(self, transport: Transport) -> AIOKafkaConsumer:
        self.consumer.in_transaction = True
        try:
            return super()._create_worker_consumer(transport)
        finally:
            self.consumer.in_transaction = False

    async def _fetch_records(self, *args: Any, **options: Any) -> Any:
        records = await super()._fetch_records(*args, **options)
        self.consumer.note_read({place: [one.offset for one in some] for place, some in records.items()})
        return records

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Seek, to the beginning where nothing is committed yet. There the client stays where it is: behind what a
        fetch had brought in the middle of a rebalance, and Faust has thrown away.
        """
        found: Mapping[TP, int] = await super().seek_to_committed()
        bare = [place for place, offset in found.items() if not offset]
        if bare:
            # Not ``seek_to_beginning``, which takes the position away meanwhile: what Faust watches it by ends there.
            await self.seek_wait(await self.earliest_offsets(*bare))
        return found

    def topic_partitions(self, topic: str) -> int | None:
        """How many partitions ``topic`` has, None where it does not exist: by what the client was told. Faust asks
        what the group was assigned by, which its leader alone keeps.
        """
        found = None if self._consumer is None else self._consumer.partitions_for_topic(topic)
        return len(found) if found else None


class UsageConsumer(Consumer):
    """Commits up to the first record that is not acknowledged. Faust's own search for a gap stops for good at the
    markers and the aborted records of transactions that a rebalance has hidden from it.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        self._orders: defaultdict[TP, InOrder] = defaultdict(InOrder)
        self._orders_lock = threading.Lock()  # records are fetched in a thread of their own
        super().__init__(*args, **options)

    def _new_consumer_thread(self) -> AIOKafkaConsumerThread:
        return ReadCommittedThread(self, loop=self.loop, beacon=self.beacon)

    def note_read(self, offsets: dict[TP, list[int]]) -> None:
        """These were fetched, in this order."""
        with self._orders_lock:
            for place, some in offsets.items():
                self._orders[place].read(some)

    def ack(self, message: Any) -> bool:
        """``message`` was counted."""
        with self._orders_lock:
            self._orders[message.tp].done((message.offset,))
        return bool(super().ack(message))

    def open(self) -> int:
        """Records fetched and not acknowledged."""
        with self._orders_lock:
            return sum(map(len, self._orders.values()))

    def passed_over(self) -> str | None:
        """A record that was fetched and will never be acknowledged, where there is one."""
        now = time.monotonic()
        with self._orders_lock:
            found = {place: order.passed_over(now) for place, order in self._orders.items()}
        for place, passed in found.items():
            if passed is not None and passed[1] >= PASSED_OVER_S:
                return f"{place.topic}-{place.partition}@{passed[0]}"
        return None

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Their positions are gone."""
        with self._orders_lock:
            for place in revoked:
                self._orders.pop(place, None)
        await super().on_partitions_revoked(revoked)

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        """Of these it may have been fetched already; what a late fetch brought of others is theirs who have them."""
        with self._orders_lock:
            for place in self._orders.keys() - assigned:
                del self._orders[place]
        await super().on_partitions_assigned(assigned, generation_id)

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """Nothing looks for gaps there."""

    def _new_offset(self, tp: TP) -> int | None:
        self._acked[tp].clear()
        self._acked_index[tp].clear()
        with self._orders_lock:
            return self._orders[tp].advance()


class UsageTransport(Transport):
    """As Faust's, with that consumer."""

    Consumer = UsageConsumer
