"""The bridge's reader of answers goes on whatever a partition holds, and whichever partitions there are."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaConnectionError, KafkaTimeoutError, OffsetOutOfRangeError

from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.processors import answers as answers_module
from stratarouter_runtime.processors import reading as reading_module
from stratarouter_runtime.processors.answers import CLOCKS_APART_S, Answers
from support.unpacking import Unpacking, no_codec

FIRST, BAD, LAST, ADDED, OTHER = (TopicPartition("responses", number) for number in range(5))
LETTERS = TopicPartition("letters", 0)
LONG_S = 5.0


class Topic(Unpacking):
    """A topic as the brokers show it: its partitions come and go, and each record has a timestamp. Another has one."""

    def __init__(self) -> None:
        super().__init__(dict.fromkeys((FIRST, BAD, LAST, LETTERS), 0))
        self.there: set[int] | None = {0, 1, 2}
        """The partitions in the metadata; None: it names no such topic now."""
        self.stamps_ms: dict[TopicPartition, list[int]] = {place: [] for place in self.ends}
        self.assigned = 0
        self.silent: set[TopicPartition] = set()
        """Partitions whose brokers do not say where they end."""
        self.meanwhile: Callable[[], Any] = lambda: asyncio.sleep(0)

    def write(self, place: TopicPartition, count: int, *, age_s: float = 0) -> None:
        self.ends[place] = self.ends.get(place, 0) + count
        self.stamps_ms.setdefault(place, []).extend([int((time.time() - age_s) * 1000)] * count)

    def partitions_for_topic(self, topic: str) -> set[int] | None:
        if topic not in {place.topic for place in self.positions}:
            return None  # the client asks for what is assigned
        return self.there if topic == "responses" else {0}

    def assign(self, places: list[TopicPartition]) -> None:
        self.positions = dict.fromkeys(places, 0)
        self.assigned += 1

    async def end_offsets(self, places: list[TopicPartition]) -> dict[TopicPartition, int]:
        await self.meanwhile()
        if self.silent.intersection(places):
            raise KafkaTimeoutError("no leader")
        return {place: self.ends[place] for place in places}

    async def offsets_for_times(self, times: dict[TopicPartition, int]) -> dict[TopicPartition, Any]:
        await asyncio.sleep(0)
        found = {}
        for place, since_ms in times.items():
            late = [offset for offset, stamp in enumerate(self.stamps_ms[place]) if stamp >= since_ms]
            found[place] = SimpleNamespace(offset=late[0]) if late else None
        return found


class Following:
    """Answers over ``Topic``, their loop running; ``read`` has what was handled, in order."""

    def __init__(self) -> None:
        self.topic = Topic()
        self.read: dict[TopicPartition, list[int]] = {}
        self.since_s = float("inf")
        self.answers = Answers(RuntimeConfig(), ["responses", "letters"], handle=self._note, since=lambda: self.since_s)
        self.consumer = cast("AIOKafkaConsumer", self.topic)
        self.answers._assign(self.consumer, list(self.topic.ends), dict(self.topic.ends))
        self.task = asyncio.create_task(self.answers._read_loop(self.consumer))

    def _note(self, found: Any) -> None:
        self.read.setdefault(TopicPartition(found.topic, found.partition), []).append(found.offset)

    async def look(self) -> None:
        await self.answers._look(self.consumer)

    async def until(self, wanted: dict[TopicPartition, int]) -> None:
        """Until each partition brought so many records, from its first on."""
        await self.until_read({place: list(range(count)) for place, count in wanted.items()})

    async def until_read(self, wanted: dict[TopicPartition, list[int]]) -> None:
        async with asyncio.timeout(LONG_S):
            while any(len(self.read.get(place, ())) < len(offsets) for place, offsets in wanted.items()):
                assert not self.task.done(), "the reader has ended"
                await asyncio.sleep(0.001)
        await asyncio.sleep(0.01)
        assert {place: self.read.get(place, []) for place in wanted} == wanted


@pytest.fixture
async def following(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Following]:
    for module in (reading_module, answers_module):
        monkeypatch.setattr(module, "RETRY_S", 0.001)
    monkeypatch.setattr(reading_module, "IDLE_S", 0.001)
    made = Following()
    yield made
    made.task.cancel()
    await asyncio.gather(made.task, return_exceptions=True)


# --- batches that cannot be read -------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [no_codec, lambda: IndexError("index out of range"), lambda: RuntimeError("codec")])
async def test_a_partition_that_cannot_be_read_costs_no_record_of_the_others(
    following: Following, error: Callable[[], Exception]
) -> None:
    following.topic.error, following.topic.bad = error, (BAD, 3)
    for place in (FIRST, BAD, LAST):
        following.topic.write(place, 5)
    await following.until({FIRST: 5, BAD: 3, LAST: 5})
    following.topic.write(FIRST, 5)
    following.topic.write(LAST, 2)
    await following.until({FIRST: 10, BAD: 3, LAST: 7})
    following.topic.bad = None
    await following.until({FIRST: 10, BAD: 5, LAST: 7})


@pytest.mark.parametrize("error", [KafkaConnectionError("gone"), LookupError("a defect")])
async def test_what_a_failed_poll_had_unpacked_is_read_again_once(following: Following, error: Exception) -> None:
    following.topic.passing = [error, error, error]
    for place in (FIRST, BAD, LAST):
        following.topic.write(place, 4)
    await following.until({FIRST: 4, BAD: 4, LAST: 4})


async def test_partitions_are_read_together_again_once_all_can_be_read(
    following: Following, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading_module, "APART_S", 0.01)
    following.topic.bad = (FIRST, 0)
    following.topic.write(FIRST, 4)
    reading = following.answers._reading
    async with asyncio.timeout(LONG_S):
        while not reading._narrow:
            await asyncio.sleep(0.001)
    following.topic.bad = None
    await following.until({FIRST: 4})
    async with asyncio.timeout(LONG_S):
        while time.monotonic() < reading._apart_until:
            await asyncio.sleep(0.001)
    following.topic.write(LAST, 4)
    await following.until({FIRST: 4, LAST: 4})
    assert not reading._narrow


async def test_a_bad_partition_is_said_once_however_often_it_is_asked(
    following: Following, caplog: pytest.LogCaptureFixture
) -> None:
    following.topic.bad = (BAD, 0)
    with caplog.at_level(logging.WARNING):
        for place in (FIRST, BAD):
            following.topic.write(place, 2)
        await following.until({FIRST: 2})
        async with asyncio.timeout(LONG_S):
            while following.topic.failures < 6:
                await asyncio.sleep(0.001)
    assert [found.message for found in caplog.records] == ["reading answers failed", "answers cannot be read"]


# --- partitions that come and go -------------------------------------------------------------------------------


async def test_a_partition_just_added_is_read_from_its_beginning_and_no_other_again(following: Following) -> None:
    following.topic.write(FIRST, 5)
    await following.until({FIRST: 5})
    following.topic.there = {0, 1, 2, 3}
    following.topic.write(ADDED, 3)
    await following.look()
    following.topic.write(FIRST, 1)
    await following.until({FIRST: 6, ADDED: 3})


async def test_of_a_partition_heard_of_late_only_what_may_be_waited_for_is_read(following: Following) -> None:
    following.since_s = time.time() - 100
    following.topic.there = {0, 1, 2, 3, 4}
    following.topic.write(ADDED, 1000, age_s=3600)
    following.topic.write(ADDED, 4, age_s=100 + CLOCKS_APART_S / 2)
    following.topic.write(OTHER, 20, age_s=3600)
    await following.look()
    following.topic.write(OTHER, 2)
    await following.until_read({ADDED: [1000, 1001, 1002, 1003], OTHER: [20, 21]})


async def test_a_topic_that_the_metadata_does_not_name_for_a_moment_is_read_on(following: Following) -> None:
    following.topic.write(FIRST, 5)
    await following.until({FIRST: 5})
    assigned = following.topic.assigned
    for there in (None, {0, 1, 2}):
        following.topic.there = there
        await following.look()
    following.topic.write(FIRST, 2)
    await following.until({FIRST: 7})
    assert following.topic.assigned == assigned


async def test_a_partition_that_is_gone_is_asked_no_more(following: Following) -> None:
    following.topic.there = {0, 1}
    await following.look()
    assert following.topic.assignment() == {FIRST, BAD, LETTERS}
    following.topic.write(BAD, 2)
    await following.until({BAD: 2})


async def test_a_place_that_the_broker_dropped_is_found_anew_by_time(following: Following) -> None:
    following.topic.write(FIRST, 1000, age_s=3600)
    following.topic.write(FIRST, 2)
    following.topic.write(LAST, 2)
    following.topic.bad, following.topic.error = (FIRST, 0), lambda: OffsetOutOfRangeError({FIRST: 0})
    async with asyncio.timeout(LONG_S):
        while FIRST in following.answers._next:
            await asyncio.sleep(0.001)
    await following.until({LAST: 2})
    await following.look()
    await following.until_read({FIRST: [1000, 1001], LAST: [0, 1]})


async def test_a_topic_whose_places_are_all_lost_is_read_on_once_its_brokers_answer(following: Following) -> None:
    following.topic.silent = {FIRST, BAD, LAST, ADDED}
    following.topic.ends[ADDED] = 0
    for place in (FIRST, BAD, LAST):
        following.topic.passing.append(OffsetOutOfRangeError({place: 0}))
    async with asyncio.timeout(LONG_S):
        while following.answers._next.keys() != {LETTERS}:
            await asyncio.sleep(0.001)
    await following.look()
    following.topic.there = {0, 1, 2, 3}
    await following.look()
    following.topic.silent = set()
    for place in (FIRST, ADDED, LETTERS):
        following.topic.write(place, 2)
    await following.look()
    await following.until({FIRST: 2, ADDED: 2, LETTERS: 2})


async def test_a_partition_whose_broker_does_not_answer_holds_up_no_other(
    following: Following, caplog: pytest.LogCaptureFixture
) -> None:
    following.topic.there = {0, 1, 2, 3, 4}
    for place in (ADDED, OTHER):
        following.topic.write(place, 2)
    following.topic.silent = {ADDED}
    await following.look()
    assert "partition of answers not read yet" in caplog.text
    following.topic.write(FIRST, 2)
    await following.until({FIRST: 2, ADDED: 0, OTHER: 2})
    following.topic.silent = set()
    await following.look()
    await following.until({FIRST: 2, ADDED: 2, OTHER: 2})


async def test_what_is_read_while_the_brokers_are_asked_is_not_read_again(following: Following) -> None:
    async def meanwhile() -> None:
        following.topic.write(FIRST, 5)
        await following.until({FIRST: 5})

    following.topic.there = {0, 1, 2, 3}
    following.topic.write(ADDED, 1)
    following.topic.meanwhile = meanwhile
    await following.look()
    await following.until({FIRST: 5, ADDED: 1})
