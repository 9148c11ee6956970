"""Progress is dropped only where it is certain that its topic is gone."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import pytest
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaConnectionError

from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.errors import BrokerError
from stratarouter_runtime.port_values import Checkpoint
from stratarouter_runtime.processors import kafka_client, placement
from stratarouter_runtime.processors.placement import Checkpoints, Placement, witness
from stratarouter_runtime.state.offsets import OffsetMap, encode

PLACE = TopicPartition("requests", 0)


def _record(offset: int, value: bytes = b"x") -> Any:
    return ConsumerRecord("requests", 0, offset, 1, 0, b"k", value, None, 1, 1, ())


SEEN = witness(_record(6))


class Partition:
    """A consumer of a partition whose offsets go from 3 to before 9.

    Args:
        delivers: what a poll brings.
        ends: where it is said to end, one time after the other.
        moves: how far a poll moves on.
    """

    def __init__(self, *delivers: Any, ends: Sequence[int] = (9,), moves: int = 0) -> None:
        self.delivers = delivers
        self.ends = list(ends)
        self.moves = moves
        self.at = 0
        self.stopped = False

    async def beginning_offsets(self, places: list[TopicPartition]) -> dict[TopicPartition, int]:
        return dict.fromkeys(places, 3)

    async def end_offsets(self, places: list[TopicPartition]) -> dict[TopicPartition, int]:
        return dict.fromkeys(places, self.ends.pop(0) if len(self.ends) > 1 else self.ends[0])

    def assign(self, _: object) -> None:
        """Nothing to do."""

    async def start(self) -> None:
        """Nothing to do."""

    def seek(self, _: object, offset: int) -> None:
        self.at = offset

    async def getmany(self, *_: object, **__: object) -> dict[TopicPartition, list[Any]]:
        self.at += self.moves
        return {PLACE: list(self.delivers)} if self.delivers else {}

    async def position(self, _: object) -> int:
        return self.at

    async def stop(self) -> None:
        self.stopped = True


class Saved:
    """A journal with a checkpoint whose witness is the record at 6."""

    dropped = 0

    async def load_checkpoint(self, group: str, topic: str, partition: int) -> Checkpoint | None:
        return Checkpoint(group, topic, partition, 7, encode(OffsetMap(7, 7)), SEEN)

    async def drop_checkpoint(self, *_: object) -> None:
        self.dropped += 1


async def _decide(reader: Partition, saved: Saved, monkeypatch: pytest.MonkeyPatch) -> OffsetMap:
    """Where a lane without a committed offset begins."""
    monkeypatch.setattr(kafka_client, "consumer", lambda *_, **__: reader)
    deciding = Placement(RuntimeConfig(), "group", cast("Checkpoints", saved))
    try:
        async with asyncio.timeout(5):
            place, end = await deciding.decide(cast("AIOKafkaConsumer", Partition()), PLACE, OffsetMap(-1, -1))
    finally:
        assert reader.stopped
    assert end == 9
    return place


async def test_a_checkpoint_counts_where_its_witness_is_read_back(monkeypatch: pytest.MonkeyPatch) -> None:
    saved = Saved()
    assert await _decide(Partition(_record(6)), saved, monkeypatch) == OffsetMap(7, 7)
    assert saved.dropped == 0


async def test_another_record_in_its_place_drops_it(monkeypatch: pytest.MonkeyPatch) -> None:
    saved = Saved()
    assert await _decide(Partition(_record(6, b"y")), saved, monkeypatch) == OffsetMap(3, 3)
    assert saved.dropped == 1


async def test_a_place_that_is_passed_without_a_record_drops_it(monkeypatch: pytest.MonkeyPatch) -> None:
    saved = Saved()
    assert await _decide(Partition(moves=1), saved, monkeypatch) == OffsetMap(3, 3)
    assert saved.dropped == 1


async def test_a_witness_that_does_not_come_in_time_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fetch that is throttled, or whose leader moves, brings nothing: the checkpoint was dropped, and the whole topic
    read again.
    """
    saved = Saved()
    with pytest.raises(BrokerError, match=r"partition=0.* at 6"):
        await _decide(Partition(), saved, monkeypatch)
    assert saved.dropped == 0


@pytest.mark.parametrize("failure", ["hangs", "fails"])
async def test_a_reader_that_does_not_close_holds_nothing_up(failure: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placement, "CLOSE_TIMEOUT_S", 0.05, raising=False)
    reader = Partition(_record(6))

    async def stop() -> None:
        reader.stopped = True
        if failure == "fails":
            raise KafkaConnectionError("gone")
        await asyncio.sleep(3600)

    monkeypatch.setattr(reader, "stop", stop)
    saved = Saved()
    assert await _decide(reader, saved, monkeypatch) == OffsetMap(7, 7)
    assert saved.dropped == 0


@pytest.mark.parametrize("stored", [OffsetMap(7, 7), OffsetMap(-1, -1)], ids=["committed", "checkpoint"])
async def test_a_leader_that_knows_the_end_late_is_asked_again(
    stored: OffsetMap, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(placement, "END_RETRY_S", 0.0)
    monkeypatch.setattr(kafka_client, "consumer", lambda *_, **__: Partition(_record(6)))
    saved = Saved()
    deciding = Placement(RuntimeConfig(), "group", cast("Checkpoints", saved))
    for ends, place in (((4, 5, 6, 9), OffsetMap(7, 7)), ((4, 5, 6, 6, 9), OffsetMap(3, 3))):
        found, _ = await deciding.decide(cast("AIOKafkaConsumer", Partition(ends=ends)), PLACE, stored)
        assert found == place
    assert saved.dropped == 1


class Kept(Saved):
    """A journal with the given checkpoint, or none."""

    def __init__(self, offset: int | None, witness_at: tuple[int, str] | None = None) -> None:
        self.offset = offset
        self.witness_at = witness_at

    async def load_checkpoint(self, group: str, topic: str, partition: int) -> Checkpoint | None:
        if self.offset is None:
            return None
        state = encode(OffsetMap(self.offset, self.offset))
        return Checkpoint(group, topic, partition, self.offset, state, self.witness_at)


NONE = OffsetMap(-1, -1)


@pytest.mark.parametrize(
    ("stored", "saved", "place", "dropped"),
    [
        # The group's own offset stands, whatever the checkpoint says: an operator may have set it back to the very 0.
        (OffsetMap(5, 8, frozenset({5, 6})), Kept(7, SEEN), OffsetMap(5, 8, frozenset({5, 6})), 0),
        (OffsetMap(0, 0), Kept(7, SEEN), OffsetMap(0, 0), 0),
        (OffsetMap(9, 9), Kept(None), OffsetMap(9, 9), 0),
        (OffsetMap(10, 10), Kept(9, SEEN), OffsetMap(3, 3), 1),
        (NONE, Kept(None), OffsetMap(3, 3), 0),
        # Without a witness, or with one that retention has taken, a checkpoint counts as far as the topic goes.
        (NONE, Kept(9), OffsetMap(9, 9), 0),
        (NONE, Kept(10), OffsetMap(3, 3), 1),
        (NONE, Kept(7, (2, "gone")), OffsetMap(7, 7), 0),
        (NONE, Kept(7, (3, "another's")), OffsetMap(3, 3), 1),
        # A topic that is shorter than what was read of it is another one: nothing stands there to be read back.
        (NONE, Kept(8, (9, "another's")), OffsetMap(3, 3), 1),
    ],
)
async def test_a_lane_begins_at_the_group_s_offset_else_at_a_checkpoint_of_this_topic_else_at_the_beginning(
    stored: OffsetMap, saved: Kept, place: OffsetMap, dropped: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(placement, "END_RETRY_S", 0.0)
    reader = Partition(*([_record(3)] if saved.witness_at and saved.witness_at[0] < 9 else []))
    monkeypatch.setattr(kafka_client, "consumer", lambda *_, **__: reader)
    deciding = Placement(RuntimeConfig(), "group", cast("Checkpoints", saved))
    found = await deciding.decide(cast("AIOKafkaConsumer", Partition()), PLACE, stored)
    assert found == (place, 9)
    assert saved.dropped == dropped
