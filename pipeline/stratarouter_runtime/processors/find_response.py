"""Finds the response to a request on the responses topic, the newest first."""

from __future__ import annotations

import asyncio
import logging

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
STOP_TIMEOUT_S = 10.0


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
) -> tuple[Response, str | None] | None:
    """The last response to ``request_id`` and its ``traceparent``.

    Only the partition of its key is read. Responses to a ``reply_to`` topic are not found. Raises BrokerError, also
    where it takes more than ``timeout_s`` seconds.
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


async def _search(
    consumer: AIOKafkaConsumer, topic: str, request_id: str, tenant: str | None
) -> tuple[Response, str | None] | None:
    partitions = [place.partition for place in kafka_client.places_of(consumer, topic)]
    key = request_id.encode()
    [chosen] = partitions_of([key], len(partitions))
    place = TopicPartition(topic, partitions[chosen])
    consumer.pause(*(TopicPartition(topic, other) for other in partitions if other != place.partition))
    first = (await consumer.beginning_offsets([place]))[place]
    end = (await consumer.end_offsets([place]))[place]
    while end > first:
        begin = max(first, end - WINDOW)
        found = await _last(consumer, place, begin, end, key, tenant)
        if found is not None:
            return found
        end = begin
    return None


async def _last(
    consumer: AIOKafkaConsumer, place: TopicPartition, begin: int, end: int, key: bytes, tenant: str | None
) -> tuple[Response, str | None] | None:
    """The last match from offset ``begin`` to before ``end``."""
    found = None
    consumer.seek(place, begin)
    while await consumer.position(place) < end:
        polled = await consumer.getmany(place, timeout_ms=500)
        for record in polled.get(place, ()):
            if record.key == key and record.offset < end:
                response = _decoded(record)
                if response is not None and tenant in {None, response.tenant}:
                    found = response, traceparent(record.headers)
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
