"""The topics' contract against a real broker."""

from __future__ import annotations

import asyncio

import pytest
from aiokafka.admin import NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from stratarouter_runtime import topics
from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.embedded import StackAddresses
from stratarouter_runtime.errors import BrokerError
from stratarouter_runtime.processors import kafka_client
from stratarouter_runtime.processors.tail import Tail

pytestmark = pytest.mark.stack

TOLD_S = 10.0
"""The controller answers before the broker that is asked has heard."""


@pytest.fixture
def config(addresses: StackAddresses, request: pytest.FixtureRequest) -> RuntimeConfig:
    """Topics of the test's own; no database is needed."""
    return RuntimeConfig(
        bootstrap_servers=addresses.bootstrap_servers, topic_prefix=f"{request.node.name[:40]}.", cache_backend="memory"
    )


async def test_apply_makes_the_broker_agree_with_the_contract(config):
    before = await topics.check(config)
    assert [difference.what for difference in before] == ["topic"] * len(topics.load())
    changes = await topics.apply(config)
    assert [change.difference for change in changes] == before
    assert await topics.check(config) == []


async def test_apply_twice_changes_nothing_the_second_time(config):
    await topics.apply(config, partitions=2)
    assert await topics.apply(config, partitions=2) == []


async def test_dry_run_changes_nothing(config):
    would = await topics.apply(config, dry_run=True)
    assert len(would) == len(topics.load())
    assert len(await topics.check(config)) == len(would)


async def test_partitions_are_raised_and_never_lowered(config):
    await topics.apply(config, partitions=2)
    raised = await topics.apply(config, partitions=3)
    assert {change.difference.what for change in raised} == {"partitions"}
    assert await topics.apply(config, partitions=1) == []
    client = kafka_client.admin(config)
    await client.start()
    try:
        described = await client.describe_topics([config.topic("requests")])
    finally:
        await client.close()
    assert len(described[0]["partitions"]) == 3


async def test_a_wrong_setting_is_corrected_and_the_operators_own_settings_stay(config):
    await topics.apply(config, partitions=1)
    name = config.topic("requests")
    client = kafka_client.admin(config)
    await client.start()
    try:
        by_hand = {"retention.ms": "1000", "cleanup.policy": "delete", "segment.bytes": "16777216"}
        await client.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, by_hand)])
        # The broker takes a setting before it tells of it.
        async with asyncio.timeout(TOLD_S):
            while "retention.ms" not in {difference.what for difference in await topics.check(config)}:
                await asyncio.sleep(0.05)
        await topics.apply(config, partitions=1)
        settings: dict[str, str] = {}
        async with asyncio.timeout(TOLD_S):
            while settings.get("retention.ms") in {None, "1000"}:
                [reply] = await client.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name)])
                settings = {entry[0]: entry[1] for entry in reply.resources[0][4]}
    finally:
        await client.close()
    assert settings["retention.ms"] == "604800000"
    assert settings["segment.bytes"] == "16777216"


async def test_a_topic_that_stands_there_already_is_brought_into_line(config):
    client = kafka_client.admin(config)
    await client.start()
    try:
        await client.create_topics([NewTopic(config.topic("executions"), 1, 1)])
    finally:
        await client.close()
    await topics.apply(config, partitions=2)
    assert await topics.apply(config, partitions=2) == []


async def test_a_topic_takes_the_largest_record_it_is_declared_for(config):
    await topics.apply(config, partitions=1)
    producer = kafka_client.producer(config)
    await producer.start()
    try:
        sent = await producer.send_and_wait(config.topic("requests"), bytes(12 * 1024 * 1024), key=b"k" * 1000)
    finally:
        await producer.stop()
    assert sent.offset == 0


async def test_an_impossible_replication_factor_is_said(config):
    with pytest.raises(BrokerError, match=r"creating topic .*requests"):
        await topics.apply(config.model_copy(update={"replication_factor": 9}))


async def test_no_broker_is_said_with_its_address(config, unused_tcp_port: int):
    nowhere = config.model_copy(update={"bootstrap_servers": f"127.0.0.1:{unused_tcp_port}"})
    with pytest.raises(BrokerError, match=str(unused_tcp_port)):
        await topics.check(nowhere)


async def test_who_reads_along_goes_on_where_it_was_when_partitions_are_added(
    config: RuntimeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka_client, "METADATA_MAX_AGE_MS", 1000)
    topic = config.topic(config.responses_topic)
    await topics.apply(config, partitions=1)
    async with Tail(config, topic, from_beginning=False) as tail:
        await _write(config, topic, b"known", partition=0)
        read = [record.value for record in await tail.poll(10.0)]
        await topics.apply(config, partitions=2)
        for partition in (1, 0):
            await _write(config, topic, b"new in %d" % partition, partition)
        async with asyncio.timeout(20):
            while len(read) < 3:
                read += [record.value for record in await tail.poll(0.2)]
        read += [record.value for record in await tail.poll(1.0)]
    assert (read[0], sorted(read[1:])) == (b"known", [b"new in 0", b"new in 1"])


async def _write(config: RuntimeConfig, topic: str, value: bytes, partition: int) -> None:
    async with asyncio.timeout(20), kafka_client.producer(config) as producer:
        while partition not in await producer.partitions_for(topic):
            await asyncio.sleep(0.1)
        await producer.send_and_wait(topic, value, partition=partition)
