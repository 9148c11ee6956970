"""Questions to the brokers that no consumer or producer asks: a client that can ask them, and what groups committed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import (
    GroupCoordinatorNotAvailableError,
    GroupLoadInProgressError,
    NotCoordinatorForGroupError,
    for_code,
)
from aiokafka.protocol.commit import OffsetFetchRequest
from aiokafka.structs import OffsetAndMetadata

from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.processors import kafka_client
from stratarouter_runtime.processors.closing import closed
from stratarouter_runtime.processors.kafka_client import CLIENT_ERRORS, mapped

CLOSE_TIMEOUT_S = 5.0
NO_BROKERS_RETRY_S = 0.2
COORDINATOR_RETRY_S = 0.1


@asynccontextmanager
async def connected(
    config: RuntimeConfig, doing: str, timeout_s: float, **told: Any
) -> AsyncIterator[AIOKafkaAdminClient]:
    """An admin client that knows a broker, for at most ``timeout_s`` seconds in all; closed after that.

    ``doing`` says in an error what it was wanted for, ``told`` goes with what its closing logs. Raises BrokerError.
    """
    client = kafka_client.admin(config)
    try:
        async with asyncio.timeout(timeout_s):
            await client.start()
            while not client._client.cluster.brokers():  # noqa: SLF001 - it shows them in no other way
                # A broker that has just started names none, itself neither: this client would ask it nothing more.
                await closed(client.close(), CLOSE_TIMEOUT_S, **told)
                await asyncio.sleep(NO_BROKERS_RETRY_S)
                client = kafka_client.admin(config)
                await client.start()
            yield client
    except CLIENT_ERRORS as exc:
        raise mapped(exc, f"{doing} at {config.bootstrap_servers}") from exc
    finally:
        await closed(client.close(), CLOSE_TIMEOUT_S, **told)


async def committed_offsets(
    client: AIOKafkaAdminClient, group: str, partitions: list[TopicPartition] | None = None
) -> dict[TopicPartition, OffsetAndMetadata]:
    """What ``group`` has committed, with the metadata. Waits for its coordinator; the caller bounds that.

    A broker has none until its first group is asked for: it makes the topic that holds the offsets then. One that has
    just taken the group over reads that topic first, and does not know yet.
    """
    asked = set(partitions or ())
    while True:
        try:
            found = await _ask_coordinator(client, group, partitions)
        except (GroupCoordinatorNotAvailableError, NotCoordinatorForGroupError, GroupLoadInProgressError):
            found = None
        # Each partition that is asked for is answered for, by -1 where nothing was committed: silence is no answer.
        if found is not None and asked <= found.keys():
            return found
        await asyncio.sleep(COORDINATOR_RETRY_S)


async def _ask_coordinator(
    client: AIOKafkaAdminClient, group: str, partitions: list[TopicPartition] | None
) -> dict[TopicPartition, OffsetAndMetadata]:
    """Ask once. aiokafka's ``list_consumer_group_offsets`` sees no error of the whole reply, which names no partitions
    then: a coordinator that does not know yet looks like a group that has committed nothing.
    """
    wanted: dict[str, list[int]] = {}
    for topic, number in partitions or ():
        wanted.setdefault(topic, []).append(number)
    request = OffsetFetchRequest(group, None if partitions is None else list(wanted.items()))
    reply = await client._send_request(request, await client.find_coordinator(group))  # noqa: SLF001 - no other way
    _check(reply.error_code, f"group {group}")
    found = {}
    for topic, entries in reply.topics:
        for number, offset, metadata, error_code in entries:
            _check(error_code, f"group {group}, {topic}-{number}")
            found[TopicPartition(topic, number)] = OffsetAndMetadata(offset, metadata)
    return found


def _check(error_code: int, whose: str) -> None:
    if error_code:
        raise for_code(error_code)(f"offsets of {whose}")
