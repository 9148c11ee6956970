"""How the pipeline stands: lag, unfinished records, checkpoint of each lane; workers, dead letters. A bounded look."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, replace
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import TopicAuthorizationFailedError

from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.errors import OffsetMetadataError, RuntimeSystemError
from stratarouter_runtime.journal.reader import JournalReader
from stratarouter_runtime.processors import admin_client, kafka_client
from stratarouter_runtime.processors.closing import closed
from stratarouter_runtime.state.offsets import decode
from stratarouter_runtime.telemetry.logs import event

log = logging.getLogger("stratarouter.status")

TIMEOUT_S = 30.0
CLOSE_TIMEOUT_S = 5.0
PEEK_TIMEOUT_S = 5.0
"""For the first record behind each lane; what is not seen by then counts as if it were records."""
POLL_MS = 200
USAGE = "usage"


@dataclass(frozen=True, slots=True)
class LaneStatus:
    """One input partition of one processor.

    Attributes:
        processor: enrich, execute or usage.
        topic, partition: what it reads.
        committed: offset below which everything is finished; None where nothing was committed yet.
        end: the offset that the next record gets.
        lag: offsets from the first record that was not taken to ``end``; 0 where nothing but markers of transactions
            is left. Markers between records count among them, and those behind the last where this user may not read
            the topic.
        unfinished: records taken and not finished, between ``committed`` and the highest finished one.
        finished_ahead: offsets beyond ``committed`` that are finished.
        problem: what the committed metadata says wrong, or empty.
        checkpoint: the offset that the journal has of it, for a group that lost its own; None where there is none.
        checkpoint_age_s: seconds since that was written.
    """

    processor: str
    topic: str
    partition: int
    committed: int | None
    end: int
    lag: int
    unfinished: int = 0
    finished_ahead: int = 0
    problem: str = ""
    checkpoint: int | None = None
    checkpoint_age_s: float | None = None


@dataclass(frozen=True, slots=True)
class Status:
    """Everything at once. ``workers`` is None, and ``journal`` says why, where the journal could not be read."""

    lanes: tuple[LaneStatus, ...]
    workers: tuple[dict[str, Any], ...] | None
    journal: str
    responses: int
    dead_letters: int

    @property
    def lag(self) -> dict[str, int]:
        """By processor."""
        sums: dict[str, int] = {}
        for lane in self.lanes:
            sums[lane.processor] = sums.get(lane.processor, 0) + lane.lag
        return sums


async def look(config: RuntimeConfig) -> Status:
    """Read it. Raises BrokerError, TopicContractError; a journal that is away is part of the answer."""
    lanes, counts = await _from_broker(config)
    workers, checkpoints, journal = await _from_journal(config)
    seen = [replace(lane, **checkpoints.get((lane.processor, lane.topic, lane.partition), {})) for lane in lanes]
    return Status(tuple(seen), workers, journal, *counts)


def inputs(config: RuntimeConfig) -> dict[str, tuple[str, str]]:
    """Consumer group and topic that each processor reads."""
    return {
        "enrich": (f"{config.group_id}-enrich", config.topic(config.requests_topic)),
        "execute": (f"{config.group_id}-execute", config.topic(config.executions_topic)),
        USAGE: (f"{config.group_id}-usage", config.topic(config.usage_deltas_topic)),
    }


async def _from_broker(config: RuntimeConfig) -> tuple[list[LaneStatus], tuple[int, int]]:
    outputs = config.topic(config.responses_topic), config.topic(config.dead_letter_topic)
    read = inputs(config)
    names = [topic for _, topic in read.values()]
    consumer = kafka_client.consumer(config, *names, *outputs, group=None)
    try:
        async with admin_client.connected(config, "looking at the lanes", TIMEOUT_S) as admin:
            await consumer.start()
            places = kafka_client.places_of(consumer, *names, *outputs)
            first, end = await consumer.beginning_offsets(places), await consumer.end_offsets(places)
            lanes = []
            for processor, (group, topic) in read.items():
                committed = await admin_client.committed_offsets(admin, group)
                lanes += [_lane(processor, place, committed, first, end) for place in places if place.topic == topic]
            lanes = await _without_markers(consumer, lanes)
    finally:
        await closed(consumer.stop(), CLOSE_TIMEOUT_S)
    held = [sum(end[place] - first[place] for place in places if place.topic == topic) for topic in outputs]
    return lanes, (held[0], held[1])


def _lane(
    processor: str,
    place: TopicPartition,
    committed: dict[TopicPartition, Any],
    first: dict[TopicPartition, int],
    end: dict[TopicPartition, int],
) -> LaneStatus:
    found = committed.get(place)
    if found is None or found.offset < 0:
        lag = end[place] - first[place]
        return LaneStatus(processor, place.topic, place.partition, None, end[place], lag)
    unfinished = ahead = 0
    problem = ""
    if processor != USAGE:
        try:
            state = decode(found.offset, found.metadata or "")
        except OffsetMetadataError as exc:
            problem = exc.message
        else:
            unfinished = len(state.unfinished)
            ahead = state.end - state.watermark - unfinished
    lag = max(0, end[place] - found.offset)
    return LaneStatus(
        processor, place.topic, place.partition, found.offset, end[place], lag, unfinished, ahead, problem
    )


async def _without_markers(consumer: AIOKafkaConsumer, lanes: list[LaneStatus]) -> list[LaneStatus]:
    """``lanes`` with the lag from their first waiting record on: behind the last record of a transaction its marker
    stands, which nobody takes.
    """
    behind = {
        TopicPartition(lane.topic, lane.partition): lane
        for lane in lanes
        if lane.committed is not None and lane.lag and not (lane.unfinished or lane.finished_ahead or lane.problem)
    }
    if not behind:
        return lanes
    consumer.pause(*consumer.assignment())
    found: dict[TopicPartition, LaneStatus] = {}
    try:
        async with asyncio.timeout(PEEK_TIMEOUT_S):
            for place, lane in behind.items():
                consumer.seek(place, lane.committed)
            consumer.resume(*behind)
            while found.keys() < behind.keys():
                left = [place for place in behind if place not in found]
                polled = await consumer.getmany(*left, timeout_ms=POLL_MS, max_records=len(left))
                for place in left:
                    records, lane = polled.get(place), behind[place]
                    if records:
                        found[place] = replace(lane, lag=max(0, lane.end - records[0].offset))
                    elif await consumer.position(place) >= lane.end:
                        found[place] = replace(lane, lag=0)
                consumer.pause(*found)
    except (TopicAuthorizationFailedError, TimeoutError) as exc:
        # What was not seen keeps its markers, as ``lag`` says: a look needs no right to read.
        event(log, logging.DEBUG, "markers count as lag", cause=repr(exc))
    return [found.get(TopicPartition(lane.topic, lane.partition), lane) for lane in lanes]


Checkpoints = dict[tuple[str, str, int], dict[str, Any]]
"""What the journal has of a lane, by processor, topic and partition, as ``LaneStatus`` names it."""


async def _from_journal(config: RuntimeConfig) -> tuple[tuple[dict[str, Any], ...] | None, Checkpoints, str]:
    if config.state_backend != "postgresql":
        return None, {}, "in each worker's memory"
    processors = {group: processor for processor, (group, _) in inputs(config).items()}
    reader = JournalReader(config.database_url)
    try:
        await reader.start()
        checkpoints = {
            (processors[row["grp"]], row["topic"], row["partition"]): {
                "checkpoint": row["committed_offset"],
                "checkpoint_age_s": row["age_s"],
            }
            for row in await reader.checkpoints(list(processors))
            if row["committed_offset"] >= 0
        }
        return tuple(await reader.workers()), checkpoints, "ok"
    except RuntimeSystemError as exc:
        return None, {}, exc.message
    finally:
        await reader.stop()
