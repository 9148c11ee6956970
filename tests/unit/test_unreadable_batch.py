"""A batch that cannot be unpacked stops its own partition, and costs no record of any other.

aiokafka unpacks in ``getmany``: it moves one partition's position, then raises over the next one, and what it had
unpacked by then is gone. The next poll began after it, the hole looked like a gap, and the watermark was committed over
records that nobody had answered.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from gzip import BadGzipFile
from typing import cast

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import CorruptRecordException, KafkaConnectionError, KafkaError

from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.processors import intake as intake_module
from stratarouter_runtime.processors.intake import Intake
from stratarouter_runtime.processors.kafka_client import Record
from stratarouter_runtime.processors.lane import Lane
from stratarouter_runtime.processors.placement import Checkpoints
from stratarouter_runtime.state.offsets import OffsetMap
from stratarouter_runtime.telemetry.metrics import Metrics
from support.unpacking import Kept, Unpacking, no_codec

GOOD, BAD, LATE = (TopicPartition("requests", number) for number in range(3))
RECORDS = 5


class Reading:
    """An intake over ``consumer`` whose handler answers what it is handed at once, unless told to hold it."""

    def __init__(self, consumer: Unpacking) -> None:
        self.consumer = consumer
        self.handed: dict[str, list[int]] = {f"requests-{place.partition}": [] for place in consumer.ends}
        self.holding = False
        self.failures: list[Exception] = []
        self.intake = Intake(
            RuntimeConfig(), processor="enrich", topic="requests", handle=self._handle, room=lambda: 1000,
            checkpoints=cast("Checkpoints", None), metrics=Metrics(),
        )  # fmt: skip
        self.intake._consumer = cast("AIOKafkaConsumer", consumer)
        self.intake._joined = True

    def _handle(self, lane: Lane, taken: list[Record]) -> None:
        self.handed[lane.name] += [record.offset for record in taken]
        if not self.holding:
            for record in taken:
                lane.finish(record.offset, ())

    async def open(self) -> None:
        async def resume(stored: OffsetMap) -> OffsetMap:
            return stored

        for place in self.consumer.ends:
            lane = Lane(
                f"requests-{place.partition}", Kept(), processor="enrich", max_in_flight=1000, metadata_max_chars=4096,
                metrics=Metrics(), on_change=lambda: None,
            )  # fmt: skip
            await lane.open(resume)
            self.intake.lanes[place] = lane

    async def turns(self, count: int) -> None:
        """Poll as the loop does, without its pauses."""
        for _ in range(count):
            try:
                await self.intake._poll_once()
            except Exception as exc:  # noqa: BLE001 - as the loop does
                self.failures.append(exc)
            for _ in range(5):
                await asyncio.sleep(0)

    async def close(self) -> None:
        await asyncio.gather(*(lane.close(0.1) for lane in self.intake.lanes.values()))


@pytest.fixture(autouse=True)
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake_module, "POLL_TIMEOUT_MS", 1)


def _header() -> Exception:
    return UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")


DECODING = [
    no_codec,
    _header,
    lambda: CorruptRecordException("Invalid CRC"),
    lambda: BadGzipFile("CRC check failed"),
    lambda: RuntimeError("Invalid compression codec 0x05"),
    lambda: AssertionError("appears double-compressed"),
    MemoryError,
    lambda: KafkaError("Control batch did not contain any records"),
]
"""One of each kind that aiokafka 0.14 and its codecs raise while decoding."""


@pytest.mark.parametrize("error", DECODING)
async def test_records_beside_a_batch_that_cannot_be_read_are_handed_over_once(error: Callable[[], Exception]) -> None:
    reading = Reading(Unpacking({GOOD: RECORDS, BAD: RECORDS, LATE: RECORDS}, (BAD, 0), error))
    await reading.open()
    await reading.turns(4)
    reading.consumer.ends[GOOD] += RECORDS
    await reading.turns(4)
    assert reading.handed == {
        "requests-0": list(range(2 * RECORDS)),
        "requests-1": [],
        "requests-2": list(range(RECORDS)),
    }
    lanes = reading.intake.lanes
    assert [lanes[place].state for place in (GOOD, BAD, LATE)] == ["running", "halted", "running"]
    assert [lanes[place].committed.watermark for place in (GOOD, BAD, LATE)] == [2 * RECORDS, 0, RECORDS]
    await reading.close()


async def test_the_halted_lane_names_the_record_and_what_to_do() -> None:
    reading = Reading(Unpacking({GOOD: RECORDS, BAD: RECORDS}, (BAD, 3)))
    await reading.open()
    await reading.turns(8)
    ready, why = reading.intake.ready()
    assert not ready
    assert "lane requests-1 is halted" in why
    assert "topic requests partition 1 offset 3" in why
    assert "UnsupportedCodecError" in why
    assert "install" in why
    assert "--reset-offsets" in why
    await reading.close()


async def test_what_comes_before_the_unreadable_record_is_read_and_committed_first(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Whoever moves the group's offset past the bad record must not skip records that wait for their answers."""
    reading = Reading(Unpacking({GOOD: RECORDS, BAD: RECORDS}, (BAD, 3), _header))
    reading.holding = True
    await reading.open()
    with caplog.at_level(logging.ERROR):
        await reading.turns(8)
    lane = reading.intake.lanes[BAD]
    assert reading.handed["requests-1"] == [0, 1, 2]
    assert lane.room(1) > 0
    assert [record.message for record in caplog.records] == ["records cannot be read"]
    assert "offset 3" in reading.intake.ready()[1]
    for offset in range(3):
        lane.finish(offset, ())
    await lane.drained()
    await reading.turns(1)
    assert lane.state == "halted"
    assert lane.committed == OffsetMap(3, 3)
    await reading.close()


@pytest.mark.parametrize("error", [KafkaConnectionError("gone"), TimeoutError(), OSError("reset by peer")])
async def test_a_broker_that_is_away_for_a_moment_halts_nothing_and_loses_nothing(error: Exception) -> None:
    reading = Reading(Unpacking({GOOD: RECORDS, BAD: RECORDS}))
    reading.consumer.passing = [error, error, error]
    await reading.open()
    await reading.turns(6)
    assert reading.failures == [error, error, error]
    assert reading.handed == {"requests-0": list(range(RECORDS)), "requests-1": list(range(RECORDS))}
    assert {lane.state for lane in reading.intake.lanes.values()} == {"running"}
    await reading.close()


async def test_a_batch_that_was_damaged_on_the_way_is_read_the_second_time() -> None:
    reading = Reading(Unpacking({GOOD: RECORDS, BAD: RECORDS}))
    reading.consumer.passing = [CorruptRecordException("Invalid CRC")]
    await reading.open()
    await reading.turns(4)
    assert reading.handed == {"requests-0": list(range(RECORDS)), "requests-1": list(range(RECORDS))}
    assert {lane.state for lane in reading.intake.lanes.values()} == {"running"}
    await reading.close()


async def test_what_a_lane_had_fetched_that_opened_while_nobody_had_room_is_read_again() -> None:
    reading = Reading(Unpacking({GOOD: RECORDS}))
    await reading.open()
    reading.intake.stop_taking()
    consumer, pause = reading.consumer, reading.consumer.pause
    reading.consumer.pause = lambda place: None if place == GOOD else pause(place)  # type: ignore[method-assign]
    await reading.turns(2)
    assert reading.handed == {"requests-0": []}
    assert consumer.positions[GOOD] == 0
    await reading.close()


async def test_after_a_restart_the_place_is_the_first_record_not_read_again() -> None:
    reading = Reading(Unpacking({GOOD: 1}))
    await reading.open()
    lane = reading.intake.lanes[GOOD]
    assert lane.next_offset == 0
    await lane.close(0)
    publisher = Kept()
    publisher.stored = OffsetMap(2, 9, frozenset({2, 4}))
    again = Lane(
        "requests-0", publisher, processor="enrich", max_in_flight=1000, metadata_max_chars=4096,
        metrics=Metrics(), on_change=lambda: None,
    )  # fmt: skip

    async def resume(stored: OffsetMap) -> OffsetMap:
        return stored

    await again.open(resume)
    places = []
    for offset in (2, 3, 4, 8, 9, 12):
        places.append(again.next_offset)
        again.take(offset)
    assert [*places, again.next_offset] == [2, 3, 4, 5, 9, 10, 13]
    await again.close(0)
