"""What an operator does to a cluster: read and delete a group's progress, delete topics and make them anew."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.protocol.admin import DeleteGroupsRequest
from aiokafka.structs import OffsetAndMetadata

from stratarouter_runtime import topics
from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.processors import kafka_client
from stratarouter_runtime.processors.admin_client import committed_offsets

TIMEOUT_S = 60.0
GROUP_ID_NOT_FOUND = 69
"""Kafka's error code."""


@asynccontextmanager
async def admin(config: RuntimeConfig) -> AsyncIterator[AIOKafkaAdminClient]:
    """An admin client."""
    client = kafka_client.admin(config)
    await client.start()
    try:
        yield client
    finally:
        await client.close()


async def committed(config: RuntimeConfig, processor: str) -> dict[TopicPartition, OffsetAndMetadata]:
    """What the processor's group has committed."""
    async with admin(config) as client:
        found = await committed_offsets(client, f"{config.group_id}-{processor}")
    return {place: entry for place, entry in found.items() if entry.offset >= 0}


async def ends(config: RuntimeConfig, topic: str) -> dict[TopicPartition, int]:
    """The end of each partition."""
    consumer = kafka_client.consumer(config, topic, group=None)
    await consumer.start()
    try:
        return dict(await consumer.end_offsets(kafka_client.places_of(consumer, topic)))
    finally:
        await consumer.stop()


async def caught_up(config: RuntimeConfig, processor: str, topic: str) -> bool:
    """Whether the group has committed the very end of every partition that holds anything."""
    progress = await committed(config, processor)
    return all(
        end == 0 or (place in progress and progress[place].offset == end)
        for place, end in (await ends(config, topic)).items()
    )


async def until_caught_up(config: RuntimeConfig, processor: str, topic: str) -> None:
    """Wait for it."""
    deadline = time.monotonic() + TIMEOUT_S
    while not await caught_up(config, processor, topic):
        assert time.monotonic() < deadline, (await committed(config, processor), await ends(config, topic))
        await asyncio.sleep(0.5)


async def forget_groups(config: RuntimeConfig) -> None:
    """Delete both groups, whose members have left: their offsets are gone, as expired ones are."""
    async with admin(config) as client:
        for group in (f"{config.group_id}-{processor}" for processor in ("enrich", "execute")):
            deadline = time.monotonic() + TIMEOUT_S
            while True:
                coordinator = await client.find_coordinator(group)
                # aiokafka has the request and no method for it.
                answer = await client._send_request(DeleteGroupsRequest([group]), coordinator)
                [(_, code)] = answer.results
                if code in {0, GROUP_ID_NOT_FOUND}:
                    break
                assert time.monotonic() < deadline, (group, code)
                await asyncio.sleep(0.5)


async def make_anew(config: RuntimeConfig, *names: str, partitions: int = 4) -> None:
    """Delete topics and create them again, empty."""
    async with admin(config) as client:
        await client.delete_topics(list(names))
        deadline = time.monotonic() + TIMEOUT_S
        while set(names) & set(await client.list_topics()):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.2)
    await topics.apply(config, partitions=partitions)
