"""Finds the response to a request on the responses topic, the newest first."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Sequence

from aiokafka import AIOKafkaConsumer, TopicPartition

from stratarouter_runtime import wire
from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.errors import InvalidRecordError
from stratarouter_runtime.processors import kafka_client
from stratarouter_runtime.processors.closing import closed
from stratarouter_runtime.processors.kafka_client import CLIENT_ERRORS, Record, mapped
from stratarouter_runtime.processors.partitioner import partitions_of
from stratarouter_runtime.records import Response
from stratarouter_runtime.telemetry.logs import event
from stratarouter_runtime.validation import traceparent

log = logging.getLogger("stratarouter.find_response")

WINDOW = 20_000
"""Records looked through at once, from the end backwards: about a second."""
SAMPLE = 256
"""Offsets at a partition's beginning whose keys tell whether the topic has been given partitions since."""
STOP_TIMEOUT_S = 10.0

Answered = tuple[Response, str | None]
"""A response and its ``traceparent``."""


async def find_response(
    config: RuntimeConfig, request_id: str, tenant: str | None = None, *, timeout_s: float = 60.0
) -> Response | None:
    """The last response to ``request_id`` (of ``tenant``, where given), or None where the topic holds none.

    Errors as ``find_answer``'s.
    """
    found = await find_answer(config, request_id, tenant, timeout_s=timeout_s)
    return None if found is None else found[0]


async def find_answer(
    config: RuntimeConfig, request_id: str, tenant: str | None = None, *, timeout_s: float = 60.0
) -> Answered | None:
    """The last response to ``request_id`` and its ``traceparent``.

    The partition of its key is read, and where that holds none and the topic was given partitions, those that the key
    may have been in before. What a replay has written again counts only where nothing else is held: out of the journal
    it names no key of the cache. Responses to a ``reply_to`` topic are not found. Raises BrokerError, also where it
    takes more than ``timeout_s`` seconds.
    """
    topic = config.topic(config.responses_topic)
    consumer = kafka_client.consumer(config, topic, group=None, fetch_max_wait_ms=100)
    try:
        async with asyncio.timeout(timeout_s):
            await consumer.start()
            return await _search(consumer, topic, request_id, tenant)
    except CLIENT_ERRORS as exc:
        raise mapped(exc, f"looking for the response to {request_id!r}") from exc
    finally:
        await closed(consumer.stop(), STOP_TIMEOUT_S)


async def _search(consumer: AIOKafkaConsumer, topic: str, request_id: str, tenant: str | None) -> Answered | None:
    count = len(kafka_client.places_of(consumer, topic))
    key = request_id.encode()
    own, *earlier = (TopicPartition(topic, number) for number in _numbers(key, count))
    found = await _newest(consumer, own, key, tenant)
    if not _is_original(found) and earlier:
        for place in await _from_before(consumer, earlier, count):
            found = _better(found, await _newest(consumer, place, key, tenant))
            if _is_original(found):
                break
    return found


def _is_original(found: Answered | None) -> bool:
    return found is not None and found[0].replay_id is None


def _better(found: Answered | None, other: Answered | None) -> Answered | None:
    """``found``, unless ``other`` is an original and it is none."""
    return other if found is None or (_is_original(other) and not _is_original(found)) else found


def _numbers(key: bytes, count: int) -> list[int]:
    """Where ``key`` belongs among ``count`` partitions, then where it did while there were fewer, the newest first."""
    return list(dict.fromkeys(partitions_of([key], fewer)[0] for fewer in range(count, 0, -1)))


async def _from_before(
    consumer: AIOKafkaConsumer, places: Sequence[TopicPartition], count: int
) -> list[TopicPartition]:
    """Those of ``places`` that still hold what was written while there were fewer than ``count`` partitions: among the
    first keys in them are some that belong elsewhere now.
    """
    begins = await consumer.beginning_offsets(places)
    ends = await consumer.end_offsets(places)
    until = {place: min(ends[place], begins[place] + SAMPLE) for place in places}
    left = [place for place in places if begins[place] < until[place]]
    for place in left:
        consumer.seek(place, begins[place])
    _read_only(consumer, left)
    keys: dict[TopicPartition, list[bytes]] = {place: [] for place in places}
    while left:
        for place, records in (await consumer.getmany(*left, timeout_ms=500)).items():
            keys[place] += [record.key for record in records if record.key is not None]
        left = [place for place in left if await consumer.position(place) < until[place]]
    return [place for place in places if set(partitions_of(keys[place], count)) - {place.partition}]


def _read_only(consumer: AIOKafkaConsumer, places: Collection[TopicPartition]) -> None:
    consumer.resume(*places)
    consumer.pause(*(other for other in consumer.assignment() if other not in places))


async def _newest(consumer: AIOKafkaConsumer, place: TopicPartition, key: bytes, tenant: str | None) -> Answered | None:
    _read_only(consumer, [place])
    first = (await consumer.beginning_offsets([place]))[place]
    end = (await consumer.end_offsets([place]))[place]
    found: Answered | None = None
    while end > first and not _is_original(found):
        begin = max(first, end - WINDOW)
        found = _better(found, await _last(consumer, place, begin, end, key, tenant))
        end = begin
    return found


async def _last(
    consumer: AIOKafkaConsumer, place: TopicPartition, begin: int, end: int, key: bytes, tenant: str | None
) -> Answered | None:
    """The last match from offset ``begin`` to before ``end``."""
    found: Answered | None = None
    consumer.seek(place, begin)
    while await consumer.position(place) < end:
        polled = await consumer.getmany(place, timeout_ms=500)
        for record in polled.get(place, ()):
            if record.key == key and record.offset < end:
                response = _decoded(record)
                if response is not None and tenant in {None, response.tenant}:
                    found = _better((response, traceparent(record.headers)), found)
    return found


def _decoded(record: Record) -> Response | None:
    try:
        return wire.decode_response(record.value)
    except InvalidRecordError as exc:
        # Whoever wrote it, a good response beside it is the one that is looked for.
        event(
            log, logging.WARNING, "response not understood",
            topic=record.topic, partition=record.partition, offset=record.offset, cause=exc.message,
        )  # fmt: skip
        return None
