"""Questions to the brokers that no consumer or producer asks: a client that can ask them, and what groups committed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import GroupCoordinatorNotAvailableError, GroupLoadInProgressError, NotCoordinatorForGroupError
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

    A broker has none until its first group is asked for: it makes the topic that holds the offsets then.
    """
    while True:
        try:
            found: dict[TopicPartition, OffsetAndMetadata] = await client.list_consumer_group_offsets(
                group, partitions=partitions
            )
        except (GroupCoordinatorNotAvailableError, NotCoordinatorForGroupError, GroupLoadInProgressError):
            await asyncio.sleep(COORDINATOR_RETRY_S)
        else:
            return found
