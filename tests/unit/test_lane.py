"""A lane's promises, on a publisher that fails on demand."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Sequence
from typing import cast

import pytest
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.errors import BrokerError, LaneFencedError, OffsetMetadataError, OutputRefusedError
from stratarouter_runtime.port_values import Checkpoint
from stratarouter_runtime.processors import finished
from stratarouter_runtime.processors import lane as lane_module
from stratarouter_runtime.processors.finished import Accounts
from stratarouter_runtime.processors.kafka_client import Record
from stratarouter_runtime.processors.lane import Lane
from stratarouter_runtime.processors.placement import Checkpoints, Placement
from stratarouter_runtime.records import Outbound, UsageLine
from stratarouter_runtime.state.offsets import OffsetMap, decode, encode
from stratarouter_runtime.telemetry.metrics import Metrics
from stratarouter_runtime.usage_deltas import DeltaWriter
from stratarouter_runtime.usage_deltas import decode as decode_delta
from stratarouter_runtime.worker import _checkpoint


class ScriptedPublisher:
    """Keeps what is committed; fails as its script says: ``before`` or ``after`` the commit took place, ``fenced``, or
    by a ``defect``.
    """

    def __init__(self, *script: str) -> None:
        self.script = list(script)
        self.stored = OffsetMap(0, 0)
        self.published: list[bytes] = []
        self.commits = 0
        self.opened = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def open(self) -> OffsetMap:
        self.opened += 1
        return self.stored

    async def publish(self, outbounds: Sequence[Outbound], offset: int, metadata: str) -> None:
        await self.gate.wait()
        step = self.script.pop(0) if self.script else "ok"
        if step == "fenced":
            raise LaneFencedError("fenced")
        if step == "defect":
            raise RuntimeError("a defect")
        if any(o.value == b"refused" for o in outbounds):
            raise OutputRefusedError("too large")
        if step == "before":
            raise BrokerError("lost on the way")
        self.commits += 1
        self.published += [o.value for o in outbounds]
        self.stored = decode(offset, metadata)
        if step == "after":
            raise BrokerError("the reply was lost")

    async def close(self) -> None:
        return


@pytest.fixture(autouse=True)
def no_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane_module, "FIRST_BACKOFF_S", 0.0)


async def _lane(publisher: ScriptedPublisher, *, max_in_flight: int = 100, accounts: Accounts | None = None) -> Lane:
    lane = Lane(
        "requests-0", publisher, processor="enrich", max_in_flight=max_in_flight, metadata_max_chars=4096,
        metrics=Metrics(), on_change=lambda: None, accounts=accounts,
    )  # fmt: skip

    async def resume(stored: OffsetMap) -> OffsetMap:
        return stored

    await lane.open(resume)
    return lane


def _out(offset: int) -> tuple[Outbound, ...]:
    return (Outbound("responses", None, str(offset).encode()),)


async def _finish(lane: Lane, *offsets: int) -> None:
    for offset in offsets:
        lane.finish(offset, _out(offset))
    async with asyncio.timeout(5):
        await lane.drained()


async def test_work_finished_during_a_commit_makes_the_next_one() -> None:
    publisher = ScriptedPublisher()
    lane = await _lane(publisher)
    publisher.gate.clear()
    for offset in range(5):
        assert lane.take(offset)
    lane.finish(0, _out(0))
    await asyncio.sleep(0)
    for offset in range(1, 5):
        lane.finish(offset, _out(offset))
    publisher.gate.set()
    async with asyncio.timeout(5):
        await lane.drained()
    assert publisher.commits <= 2
    assert sorted(publisher.published) == [b"0", b"1", b"2", b"3", b"4"]
    await lane.close(1.0)


@pytest.mark.parametrize("failure", ["before", "after"])
async def test_a_commit_of_unknown_outcome_publishes_each_record_once(failure: str) -> None:
    publisher = ScriptedPublisher("ok", failure, "ok")
    lane = await _lane(publisher)
    for offset in range(6):
        lane.take(offset)
    await _finish_some(lane, publisher)
    assert sorted(publisher.published) == [b"0", b"1", b"2", b"3", b"4", b"5"]
    assert publisher.opened == 2
    assert publisher.stored == OffsetMap(6, 6)
    await lane.close(1.0)


@pytest.mark.parametrize("failure", ["ok", "before", "after"])
async def test_what_is_committed_is_in_the_accounts_once_beside_it(failure: str) -> None:
    publisher = ScriptedPublisher(failure)
    lane = await _lane(publisher, accounts=DeltaWriter("usage-deltas", "g.requests-0", 1, singly=False).write)
    hit = UsageLine("acme", "support", "m", "exact", None, 5)
    for offset in range(3):
        lane.take(offset)
    # A response, a record that goes on and means nothing, and a hit's check, which is paid for and answers nobody.
    lane.finish(0, (Outbound("responses", None, b"0", usage=hit),))
    lane.finish(1, _out(1))
    lane.finish(2, (), usage=(UsageLine("acme", "support", "m", "paid", None, 7),))
    async with asyncio.timeout(5):
        await lane.drained()
    assert sorted(publisher.published)[:2] == [b"0", b"1"]
    [delta] = [decode_delta(value) for value in publisher.published if value.startswith(b"{")]
    assert (delta.first_offset, delta.last_offset) == (0, 2)
    assert (delta.sums["requests"], delta.sums["exact_nano"], delta.sums["paid_nano"]) == (2, 5, 7)
    assert abs(delta.at_ms / 1000 - time.time()) < 60
    await lane.close(1.0)


async def _finish_some(lane: Lane, publisher: ScriptedPublisher) -> None:
    lane.finish(3, _out(3))
    while publisher.commits < 1:
        await asyncio.sleep(0)
    await _finish(lane, 0, 1, 2, 4, 5)


async def test_a_fenced_lane_publishes_nothing_more() -> None:
    publisher = ScriptedPublisher("fenced")
    lane = await _lane(publisher)
    lane.take(0)
    await _finish(lane, 0)
    assert lane.state == "fenced"
    lane.finish(1, _out(1))
    await lane.close(1.0)
    assert publisher.published == []


async def test_a_zombie_that_reopens_after_another_owner_committed_gives_up() -> None:
    publisher = ScriptedPublisher("ok", "before")
    lane = await _lane(publisher)
    lane.take(0)
    lane.take(1)
    await _finish_first(lane, publisher)
    publisher.stored = OffsetMap(50, 50)
    lane.finish(1, _out(1))
    async with asyncio.timeout(5):
        await lane.drained()
    assert lane.state == "fenced"
    assert publisher.published == [b"0"]
    await lane.close(1.0)


async def _finish_first(lane: Lane, publisher: ScriptedPublisher) -> None:
    lane.finish(0, _out(0))
    while lane.committed.watermark < 1:
        await asyncio.sleep(0)
    assert publisher.commits == 1


async def test_a_commit_is_bounded_by_its_bytes_and_a_larger_record_goes_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finished, "MAX_COMMIT_BYTES", 9)
    publisher = ScriptedPublisher()
    lane = await _lane(publisher)
    values = [b"larger than all of it", b"1234", b"56789", b"0"]
    for offset, value in enumerate(values):
        lane.take(offset)
        lane.finish(offset, (Outbound("responses", None, value),))
    async with asyncio.timeout(5):
        await lane.drained()
    assert publisher.published == values
    assert publisher.commits == 3
    await lane.close(1.0)


async def test_a_lane_closed_while_the_broker_is_away_stops_trying() -> None:
    # Tried on behind the close, it would open in the end, and fence the partition's next owner.
    class Away(ScriptedPublisher):
        async def open(self) -> OffsetMap:
            self.opened += 1
            raise BrokerError("the brokers are away")

    publisher = Away()
    lane = Lane(
        "requests-0", publisher, processor="enrich", max_in_flight=1, metadata_max_chars=4096, metrics=Metrics(),
        on_change=lambda: None,
    )  # fmt: skip
    opening = asyncio.create_task(lane.open(_never))
    while publisher.opened < 2:
        await asyncio.sleep(0)
    assert lane.problem == "the brokers are away"
    await lane.close(1.0)
    with pytest.raises(LaneFencedError, match="closed while the broker was away"):
        async with asyncio.timeout(5):
            await opening


async def _never(_: OffsetMap) -> OffsetMap:
    raise AssertionError("it has no place to resume from")


async def test_a_lane_takes_no_more_than_its_bound() -> None:
    publisher = ScriptedPublisher()
    lane = await _lane(publisher, max_in_flight=3)
    for offset in range(3):
        assert lane.room(1) == 1
        lane.take(offset)
    assert lane.room(1) == 0
    await _finish(lane, 0, 1, 2)
    assert lane.room(3) == 3
    await lane.close(1.0)


async def test_a_lane_that_closes_commits_what_is_finished_and_takes_nothing_more() -> None:
    publisher = ScriptedPublisher()
    lane = await _lane(publisher)
    publisher.gate.clear()
    lane.take(0)
    lane.finish(0, _out(0))
    closing = asyncio.create_task(lane.close(5.0))
    await asyncio.sleep(0)
    assert lane.room(100) == 0
    assert lane.take_all([_record(1)]) == []
    assert not lane.take(1)
    publisher.gate.set()
    await closing
    assert publisher.published == [b"0"]
    assert publisher.stored == OffsetMap(1, 1)
    assert lane.state == "closed"


async def test_records_finished_before_a_restart_are_skipped() -> None:
    publisher = ScriptedPublisher()
    publisher.stored = OffsetMap(2, 5, frozenset({2, 4}))
    lane = await _lane(publisher)
    assert [offset for offset in range(2, 7) if lane.take(offset)] == [2, 4, 5, 6]
    await _finish(lane, 2, 4, 5, 6)
    assert publisher.stored == OffsetMap(7, 7)
    await lane.close(1.0)


async def test_foreign_metadata_halts_the_lane_with_the_repair() -> None:
    lane = await _lane(ScriptedPublisher())
    lane.halt(OffsetMetadataError("the metadata at offset 4 is a foreign program's"))
    assert lane.state == "halted"
    assert lane.problem is not None
    assert "reset" in lane.problem
    assert lane.room(1) == 0
    await lane.close(0.1)


async def test_foreign_metadata_found_after_a_failed_commit_halts_the_lane_too() -> None:
    # Only fenced, it would be opened anew over and over, and go on as soon as somebody's guess can be read.
    class Foreign(ScriptedPublisher):
        async def open(self) -> OffsetMap:
            if self.opened:
                raise OffsetMetadataError("the metadata at offset 0 is a foreign program's")
            return await super().open()

    publisher = Foreign("before")
    lane = await _lane(publisher)
    lane.take(0)
    await _finish(lane, 0)
    assert lane.state == "halted"
    assert publisher.published == []
    await lane.close(1.0)


async def test_an_error_that_nobody_foresaw_gives_the_lane_up_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    lane = await _lane(ScriptedPublisher("defect"))
    lane.take(0)
    await _finish(lane, 0)
    assert lane.state == "fenced"
    assert lane.ended_at is not None
    assert lane.problem == "a defect"
    assert "lane failed" in caplog.text
    assert lane.committed == OffsetMap(0, 0)
    await lane.close(1.0)


async def test_what_was_unfinished_at_a_restart_and_not_taken_again_holds_no_drain_up() -> None:
    publisher = ScriptedPublisher()
    publisher.stored = OffsetMap(2, 5, frozenset({2, 4}))
    lane = await _lane(publisher)
    assert lane.take(2)
    assert lane.in_flight == 1
    await _finish(lane, 2)
    assert lane.in_flight == 0
    assert publisher.stored == OffsetMap(4, 5, frozenset({4}))
    await lane.close(1.0)


@pytest.mark.parametrize("refusals", [1, 2])
async def test_an_output_the_broker_refuses_is_replaced_and_its_neighbours_are_published_once(refusals: int) -> None:
    publisher = ScriptedPublisher()
    lane = await _lane(publisher)
    for offset in range(5):
        lane.take(offset)
    publisher.gate.clear()
    refused = (Outbound("responses.small", None, b"refused"),)
    again = [lambda _: refused] * (refusals - 1)
    for offset in range(5):
        if offset == 2:
            lane.finish(offset, refused, (*again, lambda _: (Outbound("responses", None, b"instead"),)))
        else:
            lane.finish(offset, _out(offset))
    publisher.gate.set()
    async with asyncio.timeout(5):
        await lane.drained()
    assert sorted(publisher.published) == [b"0", b"1", b"3", b"4", b"instead"]
    assert publisher.stored == OffsetMap(5, 5)
    assert lane.state == "running"
    await lane.close(1.0)


@pytest.mark.parametrize("more", [0, 1])
async def test_a_refused_output_with_nothing_in_its_place_halts_the_lane(
    more: int, caplog: pytest.LogCaptureFixture
) -> None:
    lane = await _lane(ScriptedPublisher())
    lane.take(0)
    refused = (Outbound("dead-letter", None, b"refused"),)
    lane.finish(0, refused, (lambda _: refused,) * more)
    async with asyncio.timeout(5):
        await lane.drained()
    assert lane.state == "halted"
    [said] = [record.fields for record in caplog.records if record.message == "lane halted"]
    assert (said["lane"], said["code"]) == (lane.name, "output_refused")
    await lane.close(0.1)


def _record(offset: int, value: bytes | None = b"x" * 100) -> Record:
    return ConsumerRecord("requests", 0, offset, 0, 0, None, value, 0, -1, -1 if value is None else len(value), ())


async def test_bytes_are_held_from_the_record_until_its_output_is_committed() -> None:
    publisher = ScriptedPublisher()
    lane = await _lane(publisher)
    publisher.gate.clear()
    assert len(lane.take_all([_record(0), _record(1, None)])) == 2
    assert lane.held_bytes == 100
    lane.finish(0, (Outbound("responses", None, b"y" * 50),))
    assert lane.held_bytes == 150
    publisher.gate.set()
    await _finish(lane, 1)
    assert lane.held_bytes == 0


async def test_offsets_that_go_back_end_the_lane_instead_of_being_skipped() -> None:
    lane = await _lane(ScriptedPublisher())
    assert len(lane.take_all([_record(5), _record(6)])) == 2
    assert lane.take_all([_record(0)]) == []
    assert lane.state == "fenced"
    assert lane.problem is not None
    assert "offset 0 came after 6" in lane.problem


async def test_an_idle_lane_commits_past_the_gap_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane_module, "GAP_COMMIT_S", 0.01)
    publisher = ScriptedPublisher()
    lane = await _lane(publisher)
    lane.take_all([_record(0)])
    lane.passed(4)
    await _finish(lane, 0)
    async with asyncio.timeout(5):
        while publisher.stored.watermark < 4:
            await asyncio.sleep(0.005)
    lane.passed(4)
    lane.passed(9)
    async with asyncio.timeout(5):
        while publisher.stored.watermark < 9:
            await asyncio.sleep(0.005)
    assert publisher.stored == OffsetMap(9, 9)
    assert publisher.published == [b"0"]


async def test_after_a_restart_what_the_map_held_is_read_again_first_however_much_it_was() -> None:
    publisher = ScriptedPublisher()
    publisher.stored = OffsetMap(0, 900, frozenset(range(0, 900, 9)))
    lane = await _lane(publisher, max_in_flight=101)
    taken, position = 0, 0
    while position < 900:
        room = lane.room(500)
        assert 0 < room <= 900 - position
        taken += len(lane.take_all([_record(position + n) for n in range(room)]))
        position += room
    assert taken == 100
    assert lane.room(500) == 0  # one is not worth a poll


async def test_a_lane_with_a_small_bound_is_still_asked() -> None:
    lane = await _lane(ScriptedPublisher(), max_in_flight=7)
    assert lane.room(500) == 7


async def test_records_far_apart_are_turned_away_before_the_map_could_outgrow_its_limit() -> None:
    publisher = ScriptedPublisher()
    lane = await _lane(publisher, max_in_flight=5000)
    records = [_record(number * 20_000) for number in range(3000)]
    taken = lane.take_all(records)
    assert 500 < len(taken) < 3000
    assert lane.turned_away == records[len(taken)].offset
    assert lane.room(500) == 0
    lane.finish(taken[-1].offset, _out(taken[-1].offset))
    async with asyncio.timeout(5):
        while publisher.commits < 1:
            await asyncio.sleep(0)
    assert len(encode(publisher.stored)) <= 4096
    await _finish(lane, *(record.offset for record in taken[:-1]))
    assert lane.take_all(records[len(taken) :][:500]) == records[len(taken) :][:500]
    assert lane.turned_away is None
    await lane.close(1.0)


async def test_a_gap_is_committed_though_markers_keep_coming(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane_module, "GAP_COMMIT_S", 0.05)
    publisher = ScriptedPublisher()
    lane = await _lane(publisher)
    async with asyncio.timeout(5):
        for position in itertools.count(1):
            lane.passed(position)
            if publisher.commits:
                break
            await asyncio.sleep(0.01)
    assert lane.committed.watermark > 0
    await lane.close(1)


async def test_the_gap_before_a_record_is_counted_before_the_record_is_taken() -> None:
    # Together they fit as a bitmap; one record far behind them would make a list of them all, of thrice the limit.
    lane = await _lane(ScriptedPublisher(), max_in_flight=20_000)
    assert len(lane.take_all([_record(2 * number) for number in range(6000)])) == 6000
    assert lane.take_all([_record(1_000_000)]) == []
    assert lane.turned_away == 1_000_000
    await lane.close(1.0)


async def test_what_retention_deleted_before_it_was_read_again_holds_nothing_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lane_module, "GAP_COMMIT_S", 0.01)
    publisher = ScriptedPublisher()
    publisher.stored = OffsetMap(2, 5, frozenset({2, 4}))
    lane = await _lane(publisher)
    lane.passed(5)
    async with asyncio.timeout(5):
        while publisher.stored.watermark < 5:
            await asyncio.sleep(0.005)
    assert lane.room(50) == 50
    await lane.close(1.0)


# -- commits that fail, and lanes that end ----------------------------------------------------------------------

PLACE = TopicPartition("requests", 0)


async def _elsewhere(publisher: ScriptedPublisher, stored: OffsetMap, begins: int) -> Lane:
    """A lane that begins at ``begins`` although the group's map is ``stored``."""
    publisher.stored = stored
    lane = Lane(
        "requests-0", publisher, processor="enrich", max_in_flight=100, metadata_max_chars=4096,
        metrics=Metrics(), on_change=lambda: None,
    )  # fmt: skip

    async def resume(_: OffsetMap) -> OffsetMap:
        return OffsetMap(begins, begins)

    await lane.open(resume)
    return lane


async def _anew(publisher: ScriptedPublisher, stored: int) -> Lane:
    """A lane that begins at 0 although the group's offset is ``stored``."""
    return await _elsewhere(publisher, OffsetMap(stored, stored), 0)


async def test_a_new_group_whose_first_commit_fails_keeps_the_place_where_it_began() -> None:
    """A checkpoint with offset -1 was saved, and no lane could seek there: it was reopened for ever."""
    publisher = ScriptedPublisher(*["before"] * 1000)
    lane = await _elsewhere(publisher, OffsetMap(-1, -1), 7)
    lane.take_all([_record(7)])
    lane.finish(7, _out(7))
    async with asyncio.timeout(5):
        while publisher.opened < 4:
            await asyncio.sleep(0)
    saved = _checkpoint("group", PLACE, lane)
    assert (saved.offset, decode(saved.offset, saved.metadata)) == (7, OffsetMap(7, 7))
    publisher.script.clear()
    async with asyncio.timeout(5):
        await lane.drained()
    assert publisher.stored == OffsetMap(8, 8)
    assert lane.committed == OffsetMap(8, 8)
    await lane.close(1.0)


class Ends:
    """A consumer that knows where a partition begins and ends."""

    async def beginning_offsets(self, places: list[TopicPartition]) -> dict[TopicPartition, int]:
        return dict.fromkeys(places, 3)

    async def end_offsets(self, places: list[TopicPartition]) -> dict[TopicPartition, int]:
        return dict.fromkeys(places, 9)


class Saved:
    """A journal with the checkpoint that an earlier version saved."""

    async def load_checkpoint(self, group: str, topic: str, partition: int) -> Checkpoint | None:
        return Checkpoint(group, topic, partition, -1, "srt1", None)

    async def drop_checkpoint(self, group: str, topic: str, partition: int) -> None:
        raise AssertionError((group, topic, partition))


async def test_a_saved_checkpoint_with_a_negative_offset_is_none() -> None:
    placement = Placement(RuntimeConfig(), "group", cast("Checkpoints", Saved()))
    place, end = await placement.decide(cast("AIOKafkaConsumer", Ends()), PLACE, OffsetMap(-1, -1))
    assert (place, end) == (OffsetMap(3, 3), 9)


async def test_a_halted_lane_holds_no_bytes_that_throttle_the_others() -> None:
    lane = await _lane(ScriptedPublisher())
    lane.take_all([_record(0), _record(1)])
    lane.halt(BrokerError("somebody must look"))
    assert lane.held_bytes == 0
    lane.finish(1, _out(1))
    assert lane.held_bytes == 0
    await lane.close(0.1)


async def test_commits_that_fail_one_after_the_other_are_tried_ever_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Publishing was refused at once and opening succeeded each time: producers were made without a pause."""
    waits: list[float] = []

    async def sleep(delay_s: float) -> None:
        waits.append(delay_s)

    publisher = ScriptedPublisher(*["before"] * 9, "ok", "before", "before", "ok")
    lane = await _lane(publisher)
    monkeypatch.setattr(lane_module, "FIRST_BACKOFF_S", 0.1)
    monkeypatch.setattr("stratarouter_runtime.processors.lane.asyncio.sleep", sleep)
    lane.take(0)
    await _finish(lane, 0)
    assert waits == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0])
    lane.take(1)
    await _finish(lane, 1)
    assert waits[8:] == pytest.approx([0.1])
    await lane.close(1.0)


# -- a topic made anew: the group's offset is the old one's -----------------------------------------------------


@pytest.mark.parametrize("failure", ["before", "after"])
@pytest.mark.parametrize("failing", [0, 1])
@pytest.mark.parametrize("stored", [5000, 3])
async def test_a_topic_made_anew_gets_all_its_answers_although_a_commit_fails(
    stored: int, failing: int, failure: str
) -> None:
    """All below the old topic's offset counted as finished: settled, and never published."""
    publisher = ScriptedPublisher(*["ok"] * failing, failure)
    lane = await _anew(publisher, stored)
    for offset in range(3):
        assert lane.take(offset)
    await _finish(lane, 0, 1, 2)
    assert publisher.published == [b"0", b"1", b"2"]
    assert publisher.stored == lane.committed == OffsetMap(3, 3)
    await lane.close(1.0)


async def test_a_commit_that_failed_leaves_no_progress_of_the_old_topic() -> None:
    """The checkpoint and the lag were told by the old topic's offset."""
    publisher = ScriptedPublisher(*["before"] * 1000)
    lane = await _anew(publisher, 5000)
    lane.take_all([_record(0)])
    lane.finish(0, _out(0))
    async with asyncio.timeout(5):
        while publisher.opened < 4:
            await asyncio.sleep(0)
    assert (lane.committed, lane.in_flight) == (OffsetMap(0, 0), 1)
    await lane.close(0.1)


async def test_a_lane_that_begins_anew_says_so_to_the_group_before_anything_else() -> None:
    """Whoever took the lane over before its first answer went on at the old topic's offset, once there were as many
    records again: those before it were never answered.
    """
    publisher = ScriptedPublisher("before", "ok")
    lane = await _anew(publisher, 5000)
    lane.take(0)
    async with asyncio.timeout(5):
        while publisher.stored != OffsetMap(0, 0):
            await asyncio.sleep(0)
    assert (publisher.commits, publisher.published) == (1, [])
    await _finish(lane, 0)
    assert publisher.published == [b"0"]
    await lane.close(1.0)


async def test_a_place_that_the_broker_does_not_let_it_commit_is_tried_ever_less_often(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waits: list[float] = []
    turn = asyncio.sleep

    async def sleep(delay_s: float) -> None:
        waits.append(delay_s)
        await turn(0)

    async def publish(*_: object) -> None:
        raise OutputRefusedError("no right to the group")

    publisher = ScriptedPublisher()
    monkeypatch.setattr(publisher, "publish", publish)
    monkeypatch.setattr(lane_module, "FIRST_BACKOFF_S", 0.1)
    monkeypatch.setattr("stratarouter_runtime.processors.lane.asyncio.sleep", sleep)
    lane = await _anew(publisher, 5000)
    async with asyncio.timeout(5):
        while len(waits) < 3:
            await turn(0)
    assert waits[:3] == pytest.approx([0.1, 0.2, 0.4])
    await lane.close(0.0)
