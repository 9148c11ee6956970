"""Looking a response up by its request id."""

from __future__ import annotations

import asyncio

import pytest

from stratarouter_runtime import RuntimeConfig, topics, wire
from stratarouter_runtime.errors import BrokerError
from stratarouter_runtime.processors import find_response as searching
from stratarouter_runtime.processors import kafka_client
from stratarouter_runtime.processors.find_response import find_response
from stratarouter_runtime.records import CacheVerdict, Response
from support.cluster import admin
from support.waits import until

pytestmark = pytest.mark.stack


def response(number: int, **more: str) -> Response:
    return Response(f"r{number}", "ok", cache=CacheVerdict("miss", key=f"k{number}"), **more)


async def _produce(config: RuntimeConfig, *responses: Response) -> None:
    producer = kafka_client.producer(config)
    await producer.start()
    topic = config.topic(config.responses_topic)
    sent = [await producer.send(topic, wire.encode_response(one), key=one.request_id.encode()) for one in responses]
    await asyncio.gather(*sent)
    await producer.stop()


async def test_the_last_response_is_found_however_far_back_it_is(
    config: RuntimeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(searching, "WINDOW", 7)
    await topics.apply(config, partitions=3)
    await _produce(config, *(response(number) for number in range(100)))
    again = response(5, text="the second time")
    await _produce(config, again, *(response(number) for number in range(100, 130)))
    for number in (0, 50, 129):
        assert await find_response(config, f"r{number}") == response(number)
    assert await find_response(config, "r5") == again
    assert await find_response(config, "nobody's") is None


@pytest.mark.parametrize("counts", [(1, 8), (3, 4, 7)], ids=str)
async def test_responses_from_before_partitions_were_added_are_found(
    counts: tuple[int, ...], config: RuntimeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(searching, "WINDOW", 7)
    for count in counts:
        await topics.apply(config, partitions=count)
        await _until_known(config, count)
        await _produce(config, *(response(number, text=f"of {count}") for number in range(20)))
        await _produce(config, *(response(count * 100 + number) for number in range(30)))
    for number in range(20):
        assert await find_response(config, f"r{number}") == response(number, text=f"of {counts[-1]}")
    for count in counts:
        for number in (0, 11, 29):
            assert await find_response(config, f"r{count * 100 + number}") == response(count * 100 + number)
    assert await find_response(config, "nobody's") is None


async def _until_known(config: RuntimeConfig, count: int) -> None:
    async with admin(config) as client:

        async def all_there() -> bool:
            [found] = await client.describe_topics([config.topic(config.responses_topic)])
            return len(found["partitions"]) == count and all(one["leader"] >= 0 for one in found["partitions"])

        await until(all_there, f"{count} partitions")


async def test_what_a_replay_wrote_stands_behind_the_response_itself(
    config: RuntimeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a replay out of the journal, corrections by request id failed: its responses name no key of the cache."""
    monkeypatch.setattr(searching, "WINDOW", 7)
    await topics.apply(config, partitions=1)
    await _produce(config, *(response(number) for number in range(20)))
    repeated = [
        Response(f"r{number}", "ok", from_journal=True, replay_id=name) for name in "ab" for number in range(30)
    ]
    await _until_known(config, 1)
    await _produce(config, *repeated[:40])
    await topics.apply(config, partitions=4)
    await _until_known(config, 4)
    await _produce(config, *repeated[40:])
    for number in (0, 7, 15, 19):
        assert await find_response(config, f"r{number}") == response(number)
    for number in (20, 29):
        assert await find_response(config, f"r{number}") == repeated[30 + number], "nothing else is held"


async def test_the_same_id_of_another_tenant_is_another_request(config: RuntimeConfig) -> None:
    await topics.apply(config, partitions=2)
    ours, theirs = response(1, tenant="acme"), response(1, tenant="globex")
    await _produce(config, ours, theirs)
    assert await find_response(config, "r1", "acme") == ours
    assert await find_response(config, "r1", "globex") == theirs
    assert await find_response(config, "r1") == theirs
    assert await find_response(config, "r1", "initech") is None


async def test_an_empty_topic_holds_nothing_and_a_missing_one_is_said(config: RuntimeConfig) -> None:
    with pytest.raises(BrokerError, match="r1"):
        await find_response(replace_prefix(config), "r1")
    await topics.apply(config, partitions=2)
    assert await find_response(config, "r1") is None


def replace_prefix(config: RuntimeConfig) -> RuntimeConfig:
    return config.model_copy(update={"topic_prefix": f"{config.topic_prefix}none."})
