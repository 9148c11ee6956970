"""Stand-ins for what lies on both sides of a lane: a consumer that unpacks as aiokafka does, and a publisher."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.errors import UnsupportedCodecError

from stratarouter_runtime.state.offsets import OffsetMap, decode


def no_codec() -> Exception:
    """What aiokafka raises over a batch whose codec is not installed."""
    error: Exception = UnsupportedCodecError("Libraries for lz4 compression codec not found")
    return error


class Unpacking:
    """Unpacks position by position, raising in the middle of what several partitions have.

    Args:
        ends: of each partition, how many records it has.
        bad: the partition, and the offset in it, that cannot be unpacked, and what is raised there; None: all can.
    """

    def __init__(
        self,
        ends: dict[TopicPartition, int],
        bad: tuple[TopicPartition, int] | None = None,
        error: Callable[[], Exception] = no_codec,
    ) -> None:
        self.ends = ends
        self.positions = dict.fromkeys(ends, 0)
        self.bad = bad
        self.error = error
        self.failures = 0
        """How often ``error`` was raised."""
        self.passing: list[Exception] = []
        """Raised once each, after a partition was unpacked."""
        self.stopped: set[TopicPartition] = set()

    async def getmany(
        self, *partitions: TopicPartition, timeout_ms: int, max_records: int | None = None
    ) -> dict[TopicPartition, list[Any]]:
        await asyncio.sleep(0)
        left, drained = max_records or 500, dict[TopicPartition, list[Any]]()
        for place in partitions or tuple(self.positions):
            if place not in self.stopped and left:
                drained[place] = self._unpack(place, left)
                left -= len(drained[place])
            if self.passing:
                raise self.passing.pop()
        found = {place: records for place, records in drained.items() if records}
        if not found:
            await asyncio.sleep(timeout_ms / 1e6)
        # As aiokafka: between unpacking and the caller nothing else has its turn.
        return found

    def _unpack(self, place: TopicPartition, most: int) -> list[Any]:
        records: list[Any] = []
        for offset in range(self.positions[place], min(self.ends[place], self.positions[place] + most)):
            if (place, offset) == self.bad:
                self.failures += 1
                raise self.error()
            records.append(ConsumerRecord(place.topic, place.partition, offset, 1, 0, b"k", b"x", 1, 1, 1, ()))
        self.positions[place] += len(records)
        return records

    def assignment(self) -> set[TopicPartition]:
        return set(self.positions)

    def paused(self) -> set[TopicPartition]:
        return set(self.stopped)

    def pause(self, place: TopicPartition) -> None:
        self.stopped.add(place)

    def resume(self, place: TopicPartition) -> None:
        self.stopped.discard(place)

    async def position(self, place: TopicPartition) -> int:
        return self.positions[place]

    def seek(self, place: TopicPartition, offset: int) -> None:
        self.positions[place] = offset


class Kept:
    """A publisher that keeps nothing but the map."""

    def __init__(self) -> None:
        self.stored = OffsetMap(0, 0)

    async def open(self) -> OffsetMap:
        return self.stored

    async def publish(self, _: object, offset: int, metadata: str) -> None:
        self.stored = decode(offset, metadata)

    async def close(self) -> None:
        return
