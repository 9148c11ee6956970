"""What aiokafka raises over a batch that it cannot decode, and what it does not; and polling one by one."""

from __future__ import annotations

import gzip
import random
import struct
from collections import Counter
from collections.abc import Collection
from typing import Any, cast

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.consumer.fetcher import PartitionRecords
from aiokafka.errors import (
    ConsumerStoppedError,
    IllegalOperation,
    IllegalStateError,
    KafkaConnectionError,
    KafkaError,
    NotLeaderForPartitionError,
    OffsetOutOfRangeError,
    TopicAuthorizationFailedError,
)
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.legacy_records import LegacyRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import calc_crc32c

from stratarouter_runtime.processors import reading as reading_module
from stratarouter_runtime.processors.reading import Polled, Reading, is_unreadable
from support.unpacking import Unpacking

FIRST, BAD, LAST = (TopicPartition("requests", number) for number in range(3))
DAMAGED = 1500
CRC_AT, ATTRIBUTES_AT = 17, 21
"""Where a batch of the second version has them."""
OLD_ATTRIBUTES_AT = 17


def _damaged(chance: random.Random) -> bytes:
    """A batch with up to three other bytes, whose sum is right all the same."""
    batch = DefaultRecordBatchBuilder(
        magic=2, compression_type=chance.randrange(5), is_transactional=0, producer_id=-1, producer_epoch=-1,
        base_sequence=-1, batch_size=1 << 20,
    )  # fmt: skip
    for offset in range(4):
        batch.append(offset, 1000, b"k", b"v" * 50, [("h", b"x")])
    data = bytearray(batch.build())
    for _ in range(chance.randint(1, 3)):
        data[chance.randrange(ATTRIBUTES_AT, len(data))] = chance.randrange(256)
    data[CRC_AT:ATTRIBUTES_AT] = struct.pack(">I", calc_crc32c(bytes(data[ATTRIBUTES_AT:])))
    return bytes(data)


def _old_message(value: bytes) -> bytes:
    """A message of the version before, that says it is compressed."""
    batch = LegacyRecordBatchBuilder(magic=1, compression_type=0, batch_size=1 << 20)
    batch.append(0, 1000, None, value)
    data = bytearray(batch.build())
    data[OLD_ATTRIBUTES_AT] = 1
    return bytes(data)


def _raised(data: bytes, *, sums: bool = True) -> Exception | None:
    try:
        list(PartitionRecords(FIRST, MemoryRecords(data), [], 0, None, None, sums, 1))
    except Exception as exc:  # noqa: BLE001 - which ones come is the question
        return exc
    return None


def test_whatever_the_installed_aiokafka_raises_over_a_damaged_batch_is_known_as_unreadable() -> None:
    chance = random.Random(7)
    raised = [exc for exc in (_raised(_damaged(chance)) for _ in range(DAMAGED)) if exc is not None]
    kinds = Counter(type(exc).__name__ for exc in raised)
    wanted = {"BadGzipFile", "CorruptRecordException", "DecompressionError", "UnsupportedCodecError", "error"}
    assert wanted <= kinds.keys()
    assert [exc for exc in raised if not is_unreadable(exc)] == []


def test_a_message_compressed_twice_is_known_as_unreadable() -> None:
    twice = _raised(_old_message(gzip.compress(_old_message(b"x"))), sums=False)
    assert isinstance(twice, AssertionError)
    assert is_unreadable(twice)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("Invalid compression codec 0x05"),
        MemoryError(),
        KafkaError("Control batch did not contain any records"),
    ],
)
def test_what_damage_seldom_makes_it_raise_is_known_too(error: Exception) -> None:
    assert is_unreadable(error)


@pytest.mark.parametrize(
    "error",
    [
        KafkaConnectionError("gone"),
        KafkaError("Unexpected error during data retrieval"),
        IllegalStateError("Partition is not assigned"),
        NotLeaderForPartitionError(),
        OffsetOutOfRangeError({FIRST: 1}),
        TopicAuthorizationFailedError("requests"),
        ConsumerStoppedError(),
        IllegalOperation(),
        TimeoutError(),
        ConnectionResetError(),
        OSError("too many open files"),
    ],
)
def test_the_brokers_the_network_and_a_closed_client_make_no_batch_unreadable(error: Exception) -> None:
    assert not is_unreadable(error)


class Polls:
    """A reading over ``Unpacking`` that notes what is delivered, and what is said to be unreadable."""

    def __init__(self, consumer: Unpacking) -> None:
        self.consumer = consumer
        self.next = dict.fromkeys(consumer.ends, 0)
        self.room = 100
        self.unreadable: list[tuple[TopicPartition, int]] = []
        self.failing: tuple[TopicPartition, Exception] | None = None
        self.reading = Reading(
            next_offset=self.next.get,
            room=lambda _: self.room,
            deliver=self._deliver,
            unreadable=lambda place, _: self.unreadable.append((place, self.next[place])),
        )

    async def _deliver(self, polled: Polled, _: Collection[TopicPartition]) -> None:
        for place, records in polled.items():
            if self.failing is not None and self.failing[0] == place:
                raise self.failing[1]
            assert records[0].offset == self.next[place]
            self.next[place] = records[-1].offset + 1
            self.room -= len(records)

    async def poll(self, most: int = 10) -> Exception | None:
        rooms = {place: most for place in self.consumer.ends if place in self.next}
        try:
            await self.reading.poll(cast("AIOKafkaConsumer", self.consumer), rooms, 1)
        except Exception as exc:  # noqa: BLE001 - for the test to look at
            return exc
        return None


@pytest.fixture(autouse=True)
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading_module, "IDLE_S", 0.0)


def _polls(bad: tuple[TopicPartition, int] | None = (BAD, 2), **ends: Any) -> Polls:
    return Polls(Unpacking({FIRST: 5, BAD: 5, LAST: 5} | ends, bad))


async def test_one_that_fails_alone_is_read_up_to_the_very_record() -> None:
    polls = _polls()
    assert await polls.poll() is not None
    assert polls.next == {FIRST: 0, BAD: 0, LAST: 0}
    assert await polls.poll() is None
    assert polls.next == {FIRST: 5, BAD: 0, LAST: 5}
    assert await polls.poll() is None
    assert polls.next == {FIRST: 5, BAD: 2, LAST: 5}
    assert polls.unreadable == [(BAD, 2)]


async def test_it_is_left_alone_for_a_moment_and_then_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    polls = _polls()
    for _ in range(6):
        await polls.poll()
    assert polls.unreadable == [(BAD, 2)]
    monkeypatch.setattr(reading_module, "RETRY_S", 0.0)
    polls.reading._narrow[BAD] = 0.0
    for _ in range(2):
        await polls.poll()
    assert polls.unreadable == [(BAD, 2)] * 3


@pytest.mark.parametrize("error", [KafkaConnectionError("gone"), LookupError("a defect")])
async def test_while_apart_a_failed_delivery_is_raised_after_the_others_had_their_turn(error: Exception) -> None:
    polls = _polls((BAD, 0))
    await polls.poll()
    polls.failing = (FIRST, error)
    assert await polls.poll() is error
    assert polls.next == {FIRST: 0, BAD: 0, LAST: 5}
    polls.failing = None
    await polls.poll()
    assert polls.next == {FIRST: 5, BAD: 0, LAST: 5}


async def test_while_apart_no_more_is_read_than_there_is_room_for() -> None:
    polls = _polls()
    await polls.poll()
    polls.room = 3
    await polls.poll()
    assert polls.next == {FIRST: 3, BAD: 0, LAST: 0}
    polls.room = 3
    await polls.poll()
    assert polls.next == {FIRST: 5, BAD: 1, LAST: 0}


async def test_one_that_is_not_ours_any_more_is_neither_sought_nor_said() -> None:
    polls = _polls((BAD, 0))
    for _ in range(3):
        await polls.poll()
        polls.next.pop(BAD, None)
    assert polls.unreadable == []
    assert polls.next == {FIRST: 5, LAST: 5}
