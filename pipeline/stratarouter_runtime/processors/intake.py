"""Polls one topic for a consumer group and hands each record to the lane that owns its partition.

Takes no more than lanes and the worker have room for: a partition without room is paused, polling goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Collection, Iterable

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.abc import ConsumerRebalanceListener

from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.errors import InfrastructureError, OffsetMetadataError, UnreadableBatchError
from stratarouter_runtime.processors import kafka_client
from stratarouter_runtime.processors.closing import closed
from stratarouter_runtime.processors.finished import Accounts, Committed
from stratarouter_runtime.processors.kafka_client import CLIENT_ERRORS, Record, mapped
from stratarouter_runtime.processors.lane import Lane, Publisher
from stratarouter_runtime.processors.placement import Checkpoints, Placement
from stratarouter_runtime.processors.publisher import PlainPublisher, TransactionalPublisher
from stratarouter_runtime.processors.reading import Polled, Reading, unreadable
from stratarouter_runtime.state.offsets import OffsetMap
from stratarouter_runtime.telemetry.logs import event
from stratarouter_runtime.telemetry.metrics import Metrics
from stratarouter_runtime.usage_deltas import DeltaWriter

log = logging.getLogger("stratarouter.intake")

MAX_POLL_RECORDS = 500
"""Records in one poll over all partitions."""
SLICE_RECORDS = 64
"""Records handled before the event loop has its turn: 4 ms of hits. A commit is five round trips, each of which needs a
few turns; without them all that was fetched is handled first, and then the broker works while this process waits."""
POLL_TIMEOUT_MS = 200
"""How long a poll waits for records."""
FULL_POLL_MS = 10
"""The same, and how long a broker does, while a lane is full: it may have room again any moment, and is asked after
this poll of the others, and after their fetch. At 200 ms each, a lane of 400 places answered 1,400 requests a second
where it answers 3,200 now, one of 1,500 3,800 and 4,700."""
FULL_POLL_SHARE = 0.1
"""A lane that stays full is looked after less often: after this share of the time that it has been."""
TOGETHER_S = 0.1
"""How long a lane that is ready waits for those that open beside it: a fetch and a poll under way know nothing of a
partition that is resumed after them, and last up to 200 ms each."""
FENCED_REOPEN_S = 5.0
"""A fenced lane whose partition is still ours is taken anew after this; a zombie hears of its loss earlier."""
POLL_RETRY_S = 0.5
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 15.0
METADATA_TIMEOUT_S = 15.0
PULSE_S = 2.0
PULSE_TIMEOUT_S = 5.0
"""Every so often the brokers are asked for the partitions' ends: a worker with nothing to do would not notice that
they are gone, and one whose partitions are paused would not know how far it is behind."""

Handler = Callable[[Lane, "list[Record]"], None]


class Intake(ConsumerRebalanceListener):  # type: ignore[misc]
    """The consumer of one processor and its lanes.

    Args:
        handle: called with a lane and the records just taken from it, in offset order; must not block.
        room: how many more records the worker can hold.
        checkpoints: where progress is kept beside the group's offsets.
        committed: told of each lane's commits.
    """

    def __init__(
        self,
        config: RuntimeConfig,
        *,
        processor: str,
        topic: str,
        handle: Handler,
        room: Callable[[], int],
        checkpoints: Checkpoints,
        metrics: Metrics,
        committed: Committed | None = None,
    ) -> None:
        self._committed = committed
        self.processor = processor
        self.topic = topic
        self.group = f"{config.group_id}-{processor}"
        self.lanes: dict[TopicPartition, Lane] = {}
        self.error: str | None = None
        self._config = config
        self._handle = handle
        self._room = room
        self._placement = Placement(config, self.group, checkpoints)
        self._metrics = metrics
        self._consumer: AIOKafkaConsumer | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._ends: dict[TopicPartition, int] = {}
        self._silence: str | None = None
        self._openings: set[asyncio.Task[None]] = set()
        self._unplaced: set[Lane] = set()
        self._all_placed = asyncio.Event()
        self._retiring: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self._full_since: float | None = None
        """Since when a lane at work has had no room; None where all have."""
        self._held_back_ms = kafka_client.FETCH_WAIT_MS
        self._draining = False
        self._joined = False
        self._reading = Reading(
            next_offset=self._next_offset,
            room=self._room_now,
            deliver=self._deliver,
            unreadable=self._found_unreadable,
        )
        self._unreadable: dict[Lane, UnreadableBatchError] = {}
        """Lanes that are halted once all that was taken before the unreadable record is committed."""

    # -- life --------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Join the group and begin to poll. Raises BrokerError."""
        named = self._config.group_instance_id
        self._consumer = kafka_client.consumer(
            self._config,
            group=self.group,
            max_partition_fetch_bytes=2 * 1024**2,
            group_instance_id=None if named is None else f"{named}-{self.processor}",
        )
        self._consumer.subscribe([self.topic], listener=self)
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                await self._consumer.start()
        except CLIENT_ERRORS as exc:
            await self._stop_consumer()
            # A join that was under way may have ended meanwhile; the next start has a consumer of its own.
            await self._close_lanes(0.0)
            self._joined = False
            raise mapped(exc, f"joining group {self.group}") from exc
        self._tasks = [
            asyncio.create_task(self._poll_loop(), name=f"poll {self.topic}"),
            asyncio.create_task(self._pulse_loop(), name=f"pulse {self.topic}"),
        ]

    def stop_taking(self) -> None:
        """Take no further record; those taken go on."""
        self._draining = True
        self._changed.set()

    async def stop(self, grace_s: float) -> None:
        """Commit what is finished within ``grace_s`` and leave the group."""
        self.stop_taking()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._close_lanes(grace_s)
        await self._stop_consumer()

    async def _stop_consumer(self) -> None:
        if self._consumer is not None:
            await closed(self._consumer.stop(), STOP_TIMEOUT_S, group=self.group)

    async def drained(self) -> None:
        """Wait until every record taken is answered and committed."""
        await asyncio.gather(*(lane.drained() for lane in self.lanes.values()))

    def ready(self) -> tuple[bool, str]:
        """Whether this processor does its work now, and what keeps it from it."""
        problem = self._problem() or next(filter(None, (lane.hindrance for lane in self.lanes.values())), None)
        return problem is None, problem or f"{len(self.lanes)} lanes running"

    def _problem(self) -> str | None:
        if self.error is not None or self._silence is not None:
            return self.error or self._silence
        if self._unreadable:
            return str(next(iter(self._unreadable.values())))
        if not self._joined:
            return f"group {self.group} has assigned nothing yet"
        if not self.lanes and self._consumer is not None and not self._consumer.partitions_for_topic(self.topic):
            return f"topic {self.topic} does not exist"
        return None

    def lag(self) -> int:
        """Records between the committed watermarks and the last known ends of the partitions held here."""
        if self._consumer is None:
            return 0
        found = 0
        for partition, lane in self.lanes.items():
            # What was fetched last says more where records flow, what was asked for where the partition is paused.
            end = max(self._consumer.highwater(partition) or 0, self._ends.get(partition, 0))
            found += max(0, end - lane.committed.watermark)
        return found

    async def topics(self) -> frozenset[str]:
        """The names of the broker's topics, as of now. Raises BrokerError."""
        assert self._consumer is not None
        try:
            async with asyncio.timeout(METADATA_TIMEOUT_S):
                return frozenset(await self._consumer.topics())
        except CLIENT_ERRORS as exc:
            raise mapped(exc, "listing the topics") from exc

    # -- rebalance ---------------------------------------------------------------------------------------------

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:  # noqa: ARG002 - all go
        """Commit what is finished and let go. Bounded: no heartbeat is sent meanwhile."""
        self._joined = False
        await self._close_lanes(min(2.0, self._config.session_timeout_ms / 4000))

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Start a lane for each partition in the background; records wait until it has sought its place.

        None where nothing is taken any more. To leave the group is to wait for the end of a rebalance: a lane opened
        then would stay behind, and might fence that of the partition's next owner.
        """
        consumer = self._consumer
        assert consumer is not None
        for partition in assigned:
            consumer.pause(partition)
            if not self._draining:
                self._open(partition)
        self._joined = True

    def _open(self, partition: TopicPartition) -> None:
        lane = self._new_lane(partition)
        self.lanes[partition] = lane
        self._unplaced.add(lane)
        self._all_placed.clear()
        task = asyncio.create_task(self._open_lane(partition, lane), name=f"open {lane.name}")
        self._openings.add(task)
        task.add_done_callback(self._openings.discard)

    def _new_lane(self, partition: TopicPartition) -> Lane:
        if self._config.processing_guarantee == "exactly_once":
            publisher: Publisher = TransactionalPublisher(self._config, self.group, partition)
        else:
            assert self._consumer is not None
            publisher = PlainPublisher(self._config, self.group, partition, self._consumer)
        return Lane(
            f"{partition.topic}-{partition.partition}",
            publisher,
            processor=self.processor,
            max_in_flight=self._config.lane_max_in_flight,
            metadata_max_chars=self._config.offset_metadata_max_bytes,
            metrics=self._metrics,
            on_change=self._changed.set,
            accounts=self._accounts(partition),
            committed=self._committed,
        )

    def _accounts(self, partition: TopicPartition) -> Accounts | None:
        if not self._config.usage_enabled:
            return None
        topic = self._config.topic(self._config.usage_deltas_topic)
        lane = f"{self.group}.{partition.topic}-{partition.partition}"
        singly = self._config.processing_guarantee != "exactly_once"
        return DeltaWriter(topic, lane, int(time.time() * 1000), singly=singly).write

    async def _open_lane(self, partition: TopicPartition, lane: Lane) -> None:
        async def resume(stored: OffsetMap) -> OffsetMap:
            assert self._consumer is not None
            place, lane.backlog_end = await self._placement.decide(self._consumer, partition, stored)
            self._placed(lane)
            await _wait(self._all_placed, TOGETHER_S)
            if self.lanes.get(partition) is lane and self._consumer is not None:
                self._consumer.seek(partition, place.watermark)
                self._consumer.resume(partition)
            return place

        try:
            await lane.open(resume)
            event(log, logging.INFO, "lane ready", lane=lane.name, group=self.group, offset=lane.committed.watermark)
        except OffsetMetadataError as exc:
            lane.halt(exc)
        except Exception as exc:
            # The outermost guard of a lane's start: broker, journal or defect, it is said, and tried again.
            if not isinstance(exc, InfrastructureError):
                log.exception("lane failed to open", extra={"fields": {"lane": lane.name}})
            lane.fence(exc)
        finally:
            self._placed(lane)

    def _placed(self, lane: Lane) -> None:
        """``lane`` knows where it begins, or will not begin: nobody waits for it any more."""
        self._unplaced.discard(lane)
        if not self._unplaced:
            self._all_placed.set()

    async def _close_lanes(self, grace_s: float) -> None:
        for task in list(self._openings):
            task.cancel()
        await asyncio.gather(*self._openings, return_exceptions=True)
        lanes, self.lanes = list(self.lanes.values()), {}
        await asyncio.gather(*self._retiring, *(lane.close(grace_s) for lane in lanes))

    # -- polling -----------------------------------------------------------------------------------------------

    async def _poll_loop(self) -> None:
        while True:
            try:
                await self._poll_once()
                self.error = None
            except CLIENT_ERRORS as exc:
                self.error = f"polling {self.topic}: {type(exc).__name__}: {exc}"
                event(log, logging.WARNING, "poll failed", topic=self.topic, cause=self.error)
                await asyncio.sleep(POLL_RETRY_S)
            except Exception as exc:
                # The outermost loop of the intake: were it to end, the worker would look alive and read nothing.
                self.error = f"polling {self.topic}: {type(exc).__name__}: {exc}"
                log.exception("poll failed", extra={"fields": {"topic": self.topic}})
                await asyncio.sleep(POLL_RETRY_S)

    async def _pulse_loop(self) -> None:
        while True:
            await asyncio.sleep(PULSE_S)
            try:
                async with asyncio.timeout(PULSE_TIMEOUT_S):
                    await self._feel_pulse()
            except CLIENT_ERRORS as exc:
                self._silence = f"the brokers do not answer for {self.topic}: {type(exc).__name__}: {exc}".rstrip(": ")
            else:
                self._silence = None

    async def _feel_pulse(self) -> None:
        assert self._consumer is not None
        partitions = list(self.lanes)
        if partitions:
            self._ends = await self._consumer.end_offsets(partitions)
        else:
            await self._consumer.topics()

    async def _poll_once(self) -> None:
        consumer = self._consumer
        assert consumer is not None
        self._reopen_fenced()
        self._halt_unreadable()
        limit = 0 if self._draining or self._holds_too_much() else min(MAX_POLL_RECORDS, self._room())
        rooms = self._pause_and_resume(limit)
        if rooms:
            await self._reading.poll(consumer, rooms, self._wait_ms(consumer))
            return
        self._changed.clear()
        await _wait(self._changed, POLL_TIMEOUT_MS / 1000)
        await self._reading.keep_alive(consumer, self.lanes)

    async def _deliver(self, polled: Polled, partitions: Collection[TopicPartition]) -> None:
        consumer = self._consumer
        assert consumer is not None
        # Those it was polled for. One that takes over while others' records are handed out begins further back.
        lanes = {partition: lane for partition in partitions if (lane := self.lanes.get(partition)) is not None}
        for partition, records in polled.items():
            if partition in lanes:
                await self._take(partition, lanes[partition], records)
        for partition, lane in lanes.items():
            if self.lanes.get(partition) is lane and partition in consumer.assignment():
                lane.passed(await consumer.position(partition))

    def _next_offset(self, partition: TopicPartition) -> int | None:
        lane = self.lanes.get(partition)
        return lane.next_offset if lane is not None and lane.state == "running" else None

    def _room_now(self, partition: TopicPartition) -> int:
        lane = self.lanes.get(partition)
        return 0 if lane is None or lane.room(1) <= 0 else self._room()

    def _found_unreadable(self, partition: TopicPartition, exc: Exception) -> None:
        lane = self.lanes[partition]
        self._unreadable[lane] = error = unreadable(partition, lane.next_offset, exc)
        cause = f"{error} {error.remedy}"
        event(log, logging.ERROR, "records cannot be read", lane=lane.name, group=self.group, cause=cause)

    def _halt_unreadable(self) -> None:
        """Halt each lane whose next record cannot be read, once those before it are answered and committed: whoever
        moves the group's offset past that one must not skip any of these.
        """
        for lane, error in list(self._unreadable.items()):
            if lane.state != "running" or lane not in self.lanes.values():
                del self._unreadable[lane]
            elif not lane.in_flight:
                del self._unreadable[lane]
                lane.halt(error)

    async def _take(self, partition: TopicPartition, lane: Lane, records: list[Record]) -> None:
        """Hand ``records`` to ``lane``, a slice at a time: between two, commits, calls and heartbeats go on."""
        consumer = self._consumer
        assert consumer is not None
        for start in range(0, len(records), SLICE_RECORDS):
            if self.lanes.get(partition) is not lane:
                return  # revoked meanwhile; whoever has the partition now reads them again
            taken = lane.take_all(records[start : start + SLICE_RECORDS])
            if taken:
                self._hand_over(lane, taken)
            if lane.turned_away is not None:
                if partition in consumer.assignment():
                    consumer.seek(partition, lane.turned_away)
                return
            await asyncio.sleep(0)

    def _hand_over(self, lane: Lane, taken: list[Record]) -> None:
        try:
            self._handle(lane, taken)
        except Exception as exc:
            # Handlers finish each record themselves; where one fails as a whole, its records are read again.
            log.exception("handler failed", extra={"fields": {"lane": lane.name}})
            lane.fence(exc)

    def _holds_too_much(self) -> bool:
        return sum(lane.held_bytes for lane in self.lanes.values()) >= self._config.max_in_flight_bytes

    def _pause_and_resume(self, limit: int) -> dict[TopicPartition, int]:
        """The partitions to ask now, each with how many records it can take. Those without room are paused, so that
        nothing is fetched for them.
        """
        consumer = self._consumer
        assert consumer is not None
        assigned, paused = consumer.assignment(), consumer.paused()
        ask: dict[TopicPartition, int] = {}
        full = False
        for partition, lane in self.lanes.items():
            if partition not in assigned:
                continue
            room = lane.room(min(limit, MAX_POLL_RECORDS)) if limit > 0 and lane not in self._unreadable else 0
            full = full or (room <= 0 and lane.state == "running" and lane not in self._unreadable)
            if room > 0:
                if partition in paused:
                    consumer.resume(partition)
                ask[partition] = room
            elif partition not in paused:
                self._metrics.intake_paused_total.labels("worker_full" if limit <= 0 else lane.full_by).inc()
                consumer.pause(partition)
        if full is (self._full_since is None):
            self._full_since = time.monotonic() if full else None
        return ask

    def _wait_ms(self, consumer: AIOKafkaConsumer) -> int:
        """How long the next poll may wait for records; the broker is told to answer its fetches as soon."""
        wait_ms, held_back_ms = POLL_TIMEOUT_MS, kafka_client.FETCH_WAIT_MS
        if self._full_since is not None:
            share_ms = int((time.monotonic() - self._full_since) * 1000 * FULL_POLL_SHARE)
            wait_ms = held_back_ms = min(max(FULL_POLL_MS, share_ms), POLL_TIMEOUT_MS)
        if held_back_ms != self._held_back_ms:
            self._held_back_ms = held_back_ms
            kafka_client.hold_back(consumer, held_back_ms)
        return wait_ms

    def _reopen_fenced(self) -> None:
        """Still ours and fenced: an expired transaction, or a zombie's last act. Take the lane anew."""
        now = time.monotonic()
        for partition, lane in list(self.lanes.items()):
            if lane.state == "fenced" and lane.ended_at is not None and now - lane.ended_at >= FENCED_REOPEN_S:
                event(log, logging.WARNING, "lane reopened", lane=lane.name)
                self._metrics.producer_replacements_total.labels("fenced").inc()
                retired = asyncio.create_task(lane.close(0.0), name=f"retire {lane.name}")
                self._retiring.add(retired)
                retired.add_done_callback(self._retiring.discard)
                self._open(partition)


async def _wait(changed: asyncio.Event, timeout_s: float) -> None:
    """Until ``changed`` or the time is up."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            await changed.wait()
