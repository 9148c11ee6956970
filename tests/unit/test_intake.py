"""What is polled reaches its lane in slices, and only the lane that it was polled for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.consumer.fetcher import Fetcher
from aiokafka.consumer.subscription_state import SubscriptionState

from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.errors import BrokerError, LaneFencedError, OffsetMetadataError
from stratarouter_runtime.processors.intake import (
    FENCED_REOPEN_S,
    FULL_POLL_MS,
    POLL_TIMEOUT_MS,
    SLICE_RECORDS,
    TOGETHER_S,
    Intake,
)
from stratarouter_runtime.processors.kafka_client import FETCH_WAIT_MS, Record, hold_back
from stratarouter_runtime.processors.lane import Lane
from stratarouter_runtime.processors.placement import Checkpoints
from stratarouter_runtime.records import Outbound, UsageLine
from stratarouter_runtime.state.offsets import OffsetMap
from stratarouter_runtime.telemetry.metrics import Metrics
from support.unpacking import Kept, Unpacking

PLACE, OTHER = TopicPartition("requests", 0), TopicPartition("requests", 1)
POLLED = 3 * SLICE_RECORDS + 1


class OnePoll:
    """A consumer that has ``POLLED`` records of one partition, ``step`` offsets from each other."""

    def __init__(self, step: int = 1) -> None:
        self.sought: list[int] = []
        self.offsets = range(0, POLLED * step, step)

    async def getmany(self, *_: object, **__: object) -> dict[TopicPartition, list[Any]]:
        return {PLACE: [ConsumerRecord("requests", 0, n, 1, 0, None, b"x", None, 0, 1, ()) for n in self.offsets]}

    def assignment(self) -> set[TopicPartition]:
        return {PLACE}

    def paused(self) -> set[TopicPartition]:
        return set()

    async def position(self, _: TopicPartition) -> int:
        return self.sought[-1] if self.sought else self.offsets[-1] + 1

    def seek(self, _: TopicPartition, offset: int) -> None:
        self.sought.append(offset)


async def _lane(*, metadata_max_chars: int = 4096) -> Lane:
    lane = Lane(
        "requests-0", Kept(), processor="enrich", max_in_flight=1000, metadata_max_chars=metadata_max_chars,
        metrics=Metrics(), on_change=lambda: None,
    )  # fmt: skip

    async def resume(stored: OffsetMap) -> OffsetMap:
        return stored

    await lane.open(resume)
    return lane


def _no_lanes(handle: Callable[[Lane, list[Record]], None], **settings: Any) -> Intake:
    return Intake(
        RuntimeConfig(**settings), processor="enrich", topic="requests", handle=handle, room=lambda: 1000,
        checkpoints=cast("Checkpoints", None), metrics=Metrics(),
    )  # fmt: skip


def _intake(lane: Lane, handle: Callable[[Lane, list[Record]], None], *, step: int = 1) -> tuple[Intake, OnePoll]:
    intake = _no_lanes(handle)
    consumer = OnePoll(step)
    intake._consumer = cast("AIOKafkaConsumer", consumer)
    intake.lanes[PLACE] = lane
    return intake, consumer


async def test_others_have_their_turn_between_two_slices_of_a_poll() -> None:
    lane, seen, turns = await _lane(), [], 0
    intake, _ = _intake(lane, lambda _, taken: seen.append((len(taken), turns)))

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    beside = asyncio.create_task(others())
    await intake._poll_once()
    beside.cancel()
    assert [size for size, _ in seen] == [SLICE_RECORDS] * 3 + [1]
    assert [turn for _, turn in seen] == sorted({turn for _, turn in seen})
    await lane.close(0)


async def test_a_lane_that_took_over_in_mid_poll_gets_nothing_of_the_other_ones_records() -> None:
    old, new, seen = await _lane(), await _lane(), []

    def handle(lane: Lane, taken: list[Record]) -> None:
        seen.append((lane, len(taken)))
        intake.lanes[PLACE] = new

    intake, consumer = _intake(old, handle)
    consumer.sought.append(0)  # where the new lane has sought
    await intake._poll_once()
    assert seen == [(old, SLICE_RECORDS)]
    assert new.watermark_gap == 0
    await asyncio.gather(old.close(0), new.close(0))


class TwoPartitions(OnePoll):
    """One poll brings records of two partitions: the first ``POLLED`` of PLACE, and 50 to 59 of OTHER."""

    def __init__(self) -> None:
        super().__init__()
        self.positions = {PLACE: POLLED, OTHER: 60}

    async def getmany(self, *_: object, **__: object) -> dict[TopicPartition, list[Any]]:
        others = [ConsumerRecord("requests", 1, n, 1, 0, None, b"x", None, 0, 1, ()) for n in range(50, 60)]
        return await super().getmany() | {OTHER: others}

    def assignment(self) -> set[TopicPartition]:
        return {PLACE, OTHER}

    async def position(self, partition: TopicPartition) -> int:
        return self.positions[partition]


@pytest.mark.parametrize("position", [0, 60])
async def test_a_lane_that_took_over_while_others_records_were_handed_out_gets_nothing_of_a_poll_before_it(
    position: int,
) -> None:
    """It begins where the group has committed: the offsets between there and the poll's are no gap."""
    first, old, new = await _lane(), await _lane(), await _lane()
    for offset in range(50):
        assert old.take(offset)
    seen = []

    def handle(lane: Lane, taken: list[Record]) -> None:
        seen.append((lane, len(taken)))
        intake.lanes[OTHER] = new
        consumer.positions[OTHER] = position

    intake, consumer = _no_lanes(handle), TwoPartitions()
    intake._consumer = cast("AIOKafkaConsumer", consumer)
    intake.lanes |= {PLACE: first, OTHER: old}
    await intake._poll_once()
    assert seen == [(first, SLICE_RECORDS)] * 3 + [(first, 1)]
    assert new.next_offset == 0
    await asyncio.gather(*(lane.close(0) for lane in (first, old, new)))


async def test_nothing_of_a_poll_is_passed_over_where_the_map_has_no_room() -> None:
    lane, offsets = await _lane(metadata_max_chars=512), []
    intake, consumer = _intake(lane, lambda _, taken: offsets.extend(record.offset for record in taken), step=50_000)
    await intake._poll_once()
    assert SLICE_RECORDS < len(offsets) < POLLED
    first_left = consumer.offsets[len(offsets)]
    assert consumer.sought == [first_left]
    for offset in offsets:
        lane.finish(offset, (Outbound("responses", None, b"y"),))
    async with asyncio.timeout(5):
        await lane.drained()
    assert lane.committed.watermark == first_left
    await lane.close(0)


class Polls(Unpacking):
    """Two partitions without records; says how long each poll may wait, and how long the broker may."""

    def __init__(self) -> None:
        super().__init__({PLACE: 0, OTHER: 0})
        self.waits_ms: list[tuple[int, int]] = []
        self._fetcher = SimpleNamespace(_fetch_max_wait_ms=FETCH_WAIT_MS)

    async def getmany(
        self, *partitions: TopicPartition, timeout_ms: int, max_records: int | None = None
    ) -> dict[TopicPartition, list[Any]]:
        self.waits_ms.append((timeout_ms, self._fetcher._fetch_max_wait_ms))
        return await super().getmany(*partitions, timeout_ms=timeout_ms, max_records=max_records)


async def test_a_lane_without_room_does_not_wait_for_the_end_of_a_poll_of_the_others() -> None:
    full, other = await _lane(), await _lane()
    intake, consumer = _no_lanes(lambda *_: None), Polls()
    intake._consumer = cast("AIOKafkaConsumer", consumer)
    intake.lanes |= {PLACE: full, OTHER: other}
    await intake._poll_once()
    for offset in range(1000):
        assert full.take(offset)
    await intake._poll_once()
    assert consumer.stopped == {PLACE}
    for offset in range(1000):
        full.finish(offset, ())
    async with asyncio.timeout(5):
        await full.drained()
    await intake._poll_once()
    usual, short = (POLL_TIMEOUT_MS,) * 2, (FULL_POLL_MS,) * 2
    assert consumer.waits_ms == [usual, short, usual]
    # One that stays full is looked after less and less, up to the usual time.
    for offset in range(1000, 2000):
        assert full.take(offset)
    await intake._poll_once()
    for full_for_s in (1.0, 100.0):
        intake._full_since = time.monotonic() - full_for_s
        await intake._poll_once()
    (first, _), (second, held_back), (third, _) = consumer.waits_ms[-3:]
    assert (first, third) == (FULL_POLL_MS, POLL_TIMEOUT_MS)
    assert 100 <= second == held_back < POLL_TIMEOUT_MS
    # One that is over for good keeps nobody on their toes.
    full.halt(OffsetMetadataError("no map of ours"))
    await intake._poll_once()
    assert consumer.waits_ms[-1] == usual
    assert intake._full_since is None
    await asyncio.gather(full.close(0), other.close(0))


async def test_a_fetch_says_how_long_the_broker_may_hold_its_answer_back() -> None:
    """By aiokafka's own fetcher, which has no setting for it once it runs."""
    state = SubscriptionState()
    state.assign_from_user({PLACE})
    cluster = SimpleNamespace(leader_for_partition=lambda _: 1)
    fetcher = Fetcher(SimpleNamespace(_loop=asyncio.get_running_loop(), _metadata_max_age_ms=1, cluster=cluster), state)
    assignment = state.subscription.assignment
    assignment.state_value(PLACE).reset_to(0)
    for wait_ms in (FULL_POLL_MS, FETCH_WAIT_MS):
        hold_back(cast("AIOKafkaConsumer", SimpleNamespace(_fetcher=fetcher)), wait_ms)
        [(_, request)] = fetcher._get_actions_per_node(assignment)[0]
        assert request._max_wait_ms == wait_ms
    fetcher._fetch_task.cancel()


async def test_what_a_poll_passed_without_a_record_is_not_read_again() -> None:
    # Markers of transactions at the end of the topic; left out, they would look like lag for ever.
    lane = await _lane()
    intake, consumer = _intake(lane, lambda _, __: None)
    consumer.sought.append(POLLED + 2)  # where the poll has come to
    await intake._poll_once()
    assert lane.next_offset == POLLED + 2
    await lane.close(0)


@pytest.mark.parametrize(("guarantee", "deltas"), [("exactly_once", 1), ("at_least_once", 2)])
async def test_where_commits_may_repeat_each_response_is_counted_by_itself(guarantee: str, deltas: int) -> None:
    lines = [(offset, UsageLine("acme", "support", "m", "exact", None, 5)) for offset in range(2)]
    intake = _no_lanes(lambda _, __: None, processing_guarantee=guarantee)
    accounts = intake._accounts(PLACE)
    assert accounts is not None
    assert len(accounts(lines, 1)) == deltas
    assert _no_lanes(lambda _, __: None, usage_enabled=False)._accounts(PLACE) is None


# -- lanes that open side by side -------------------------------------------------------------------------------


class Opening:
    """A consumer that notes what is resumed, and a placement that takes its time over each partition."""

    def __init__(self, took_s: dict[int, float]) -> None:
        self.took_s = took_s
        self.placed = 0
        self.resumed: list[tuple[int, int]] = []
        """Each partition, and how many had their place by then."""
        self.sought: list[tuple[int, int]] = []

    async def decide(self, _: object, partition: TopicPartition, stored: OffsetMap) -> tuple[OffsetMap, int]:
        await asyncio.sleep(self.took_s[partition.partition])
        self.placed += 1
        return stored, 0

    def pause(self, _: TopicPartition) -> None:
        return

    def seek(self, partition: TopicPartition, offset: int) -> None:
        self.sought.append((partition.partition, offset))

    def resume(self, partition: TopicPartition) -> None:
        self.resumed.append((partition.partition, self.placed))


async def _opened(took_s: dict[int, float], monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    intake = _no_lanes(lambda _, __: None)
    opening = Opening(took_s)
    monkeypatch.setattr(intake, "_consumer", opening)
    monkeypatch.setattr(intake, "_placement", opening)
    monkeypatch.setattr("stratarouter_runtime.processors.intake.TransactionalPublisher", lambda *_: Kept())
    await intake.on_partitions_assigned([TopicPartition("requests", number) for number in took_s])
    await asyncio.gather(*intake._openings)
    assert {lane.state for lane in intake.lanes.values()} == {"running"}
    await asyncio.gather(*(lane.close(0) for lane in intake.lanes.values()))
    return opening.resumed


async def test_partitions_that_open_side_by_side_are_resumed_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fetch that began with the first alone would keep the others' records waiting until it ends."""
    resumed = await _opened({0: 0.0, 1: TOGETHER_S / 10}, monkeypatch)
    assert sorted(resumed) == [(0, 2), (1, 2)]


async def test_one_that_takes_long_holds_the_others_up_no_longer_than_that(monkeypatch: pytest.MonkeyPatch) -> None:
    assert await _opened({0: 0.0, 1: 5 * TOGETHER_S}, monkeypatch) == [(0, 1), (1, 2)]


class Failing(Kept):
    """A publisher that does not open."""

    def __init__(self, exc: Exception) -> None:
        super().__init__()
        self.exc = exc

    async def open(self) -> OffsetMap:
        raise self.exc


@pytest.mark.parametrize(
    ("exc", "state"),
    [
        (OffsetMetadataError("the metadata at offset 4 is a foreign program's"), "halted"),
        (LaneFencedError("its epoch is past"), "fenced"),
        (RuntimeError("a defect"), "fenced"),
    ],
)
async def test_a_lane_that_does_not_open_is_over_and_says_why(
    exc: Exception, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    intake, opening = _no_lanes(lambda _, __: None), Opening({0: 0.0})
    monkeypatch.setattr(intake, "_consumer", opening)
    monkeypatch.setattr("stratarouter_runtime.processors.intake.TransactionalPublisher", lambda *_: Failing(exc))
    await intake.on_partitions_assigned([PLACE])
    await asyncio.gather(*intake._openings)
    assert intake.lanes[PLACE].state == state
    ready, told = intake.ready()
    assert not ready
    assert str(exc) in told
    # Nobody waits for it, and nothing is read for it.
    assert intake._all_placed.is_set()
    assert opening.resumed == []
    await intake.lanes[PLACE].close(0)


class Stood(Kept):
    """A publisher of a group that has committed up to 7, and 8."""

    def __init__(self) -> None:
        super().__init__()
        self.stored = OffsetMap(7, 9, frozenset({7}))


async def test_a_fenced_lane_is_taken_anew_after_a_while_where_the_group_stands(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    intake, opening, lane = _no_lanes(lambda _, __: None), Opening({0: 0.0}), await _lane()
    monkeypatch.setattr(intake, "_consumer", opening)
    monkeypatch.setattr(intake, "_placement", opening)
    monkeypatch.setattr("stratarouter_runtime.processors.intake.TransactionalPublisher", lambda *_: Stood())
    lane.fence(BrokerError("its transaction has expired"))
    intake.lanes[PLACE] = lane
    intake._reopen_fenced()
    assert intake.lanes == {PLACE: lane}
    assert lane.ended_at is not None
    lane.ended_at -= FENCED_REOPEN_S
    intake._reopen_fenced()
    anew = intake.lanes[PLACE]
    assert anew is not lane
    await asyncio.gather(*intake._openings, *intake._retiring)
    assert (anew.state, anew.next_offset, opening.sought, opening.resumed) == ("running", 7, [(0, 7)], [(0, 1)])
    # One that was halted waits for somebody to look, however long.
    anew.halt(BrokerError("foreign metadata"))
    assert anew.ended_at is not None
    anew.ended_at -= FENCED_REOPEN_S
    intake._reopen_fenced()
    assert intake.lanes == {PLACE: anew}
    await anew.close(0)


# -- a rebalance that ends while the group is left --------------------------------------------------------------


class Joining:
    """A consumer whose group is in the midst of a rebalance: to leave it is to wait for the end of that."""

    def __init__(self) -> None:
        self.listener: Intake | None = None
        self.stopped = 0

    def subscribe(self, _: object, *, listener: Intake) -> None:
        self.listener = listener

    async def start(self) -> None:
        raise TimeoutError

    async def stop(self) -> None:
        self.stopped += 1
        assert self.listener is not None
        await self.listener.on_partitions_assigned([PLACE])
        await asyncio.sleep(0.01)

    def pause(self, _: TopicPartition) -> None:
        return

    def seek(self, _: TopicPartition, __: int) -> None:
        return

    resume = pause


class Counted(Kept):
    """A publisher that notes what was opened and not closed."""

    def __init__(self, held: list[Counted], opened: list[Counted]) -> None:
        super().__init__()
        self.held, self.opened = held, opened

    async def open(self) -> OffsetMap:
        self.opened.append(self)
        self.held.append(self)
        return await super().open()

    async def close(self) -> None:
        if self in self.held:
            self.held.remove(self)


@pytest.fixture
def joining(monkeypatch: pytest.MonkeyPatch) -> tuple[Intake, Joining, list[Counted], list[Counted]]:
    intake, consumer = _no_lanes(lambda _, __: None), Joining()
    held: list[Counted] = []
    opened: list[Counted] = []
    consumer.listener = intake
    monkeypatch.setattr(intake, "_placement", Opening({0: 0.0}))
    monkeypatch.setattr(
        "stratarouter_runtime.processors.intake.TransactionalPublisher", lambda *_: Counted(held, opened)
    )
    monkeypatch.setattr("stratarouter_runtime.processors.intake.kafka_client.consumer", lambda *_, **__: consumer)
    return intake, consumer, held, opened


async def test_a_worker_that_leaves_opens_no_lane(
    joining: tuple[Intake, Joining, list[Counted], list[Counted]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that was opened while it left stayed behind, and shut out whoever owned the partition next."""
    intake, consumer, held, opened = joining
    monkeypatch.setattr(intake, "_consumer", consumer)
    await intake.on_partitions_assigned([PLACE])
    await asyncio.gather(*intake._openings)
    assert (len(opened), len(held)) == (1, 1)
    async with asyncio.timeout(5):
        await intake.stop(1.0)
    assert (len(opened), held, intake.lanes, intake._openings) == (1, [], {}, set())


async def test_a_start_that_fails_leaves_no_lane_behind(
    joining: tuple[Intake, Joining, list[Counted], list[Counted]],
) -> None:
    """The next start, with another consumer, met the lanes of this one."""
    intake, consumer, held, _ = joining
    for tries in (1, 2):
        with pytest.raises(BrokerError, match="joining group"):
            await intake.start()
        assert (consumer.stopped, held, intake.lanes, intake._openings) == (tries, [], {}, set())
