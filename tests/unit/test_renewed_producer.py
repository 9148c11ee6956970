"""One send that failed fails no other.

A record too large for its topic, or a right missing for a moment, and everything that a bridge sent to that partition
afterwards was refused as out of sequence, until its process was started anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import (
    KafkaConnectionError,
    MessageSizeTooLargeError,
    OutOfOrderSequenceNumber,
    TopicAuthorizationFailedError,
)

from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.errors import BrokerError, OutputRefusedError, ShuttingDownError
from stratarouter_runtime.feedback import command
from stratarouter_runtime.processors import kafka_client, renewed_producer
from stratarouter_runtime.processors.cache_control import ControlWriter
from stratarouter_runtime.processors.renewed_producer import RenewedProducer
from stratarouter_runtime.wire_control import encode_command


class Producer:
    """As aiokafka's, for one partition: what comes after a record that failed is out of sequence."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.sent: list[bytes] = []
        self.failed = cluster.fails
        self.stopped = False

    async def start(self) -> None:
        await self.cluster.may_start.wait()
        if self.cluster.away:
            raise KafkaConnectionError("away")

    async def stop(self) -> None:
        self.stopped = True

    async def send_and_wait(self, topic: str, value: bytes, *, headers: list[tuple[str, bytes]], **_: Any) -> object:
        assert not self.stopped
        # As aiokafka has it, whose builder of records takes no tuple.
        assert type(headers) is list
        if value == b"slow":
            await self.cluster.may_end.wait()
        error = self.cluster.errors.pop(value, OutOfOrderSequenceNumber() if self.failed else None)
        if error is not None:
            self.failed = True
            raise error
        self.sent.append(value)
        return SimpleNamespace(topic=topic, partition=0, offset=len(self.sent) - 1)


class Cluster:
    """Makes producers. ``errors``: what the first send of a value fails with."""

    def __init__(self) -> None:
        self.made: list[Producer] = []
        self.errors: dict[bytes, Exception] = {}
        self.away = self.fails = False
        self.may_start, self.may_end = asyncio.Event(), asyncio.Event()
        self.may_start.set()

    def producer(self, _: RuntimeConfig) -> Producer:
        self.made.append(Producer(self))
        return self.made[-1]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    made = Cluster()
    monkeypatch.setattr(kafka_client, "producer", made.producer)
    return made


@pytest.fixture
async def renewed(cluster: Cluster) -> AsyncIterator[RenewedProducer]:
    made = RenewedProducer(RuntimeConfig())
    yield made
    await made.stop()
    assert all(producer.stopped for producer in cluster.made)


async def send(renewed: RenewedProducer, value: bytes) -> Any:
    return await renewed.send("topic", value, key=b"k")


async def turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("error", "ours"),
    [
        (MessageSizeTooLargeError(), OutputRefusedError),
        (TopicAuthorizationFailedError("topic"), OutputRefusedError),
        (KafkaConnectionError("no leader"), BrokerError),
    ],
)
async def test_what_comes_after_a_failed_send_goes_through_another_producer(
    renewed: RenewedProducer, cluster: Cluster, error: Exception, ours: type[BrokerError]
) -> None:
    cluster.errors[b"bad"] = error
    await send(renewed, b"before")
    with pytest.raises(ours, match="writing to topic"):
        await send(renewed, b"bad")
    await send(renewed, b"after")
    await send(renewed, b"last")
    assert [producer.sent for producer in cluster.made] == [[b"before"], [b"after", b"last"]]
    assert [producer.stopped for producer in cluster.made] == [True, False]


async def test_a_command_too_large_for_its_topic_costs_the_next_one_nothing(cluster: Cluster) -> None:
    writer = ControlWriter(RuntimeConfig())
    first, large, last = (command("invalidate", "ann", "because", tag=tag) for tag in ("first", "large", "last"))
    cluster.errors[encode_command(large)] = MessageSizeTooLargeError()
    await writer.send(first)
    with pytest.raises(OutputRefusedError):
        await writer.send(large)
    await writer.send(last)
    await writer.stop()
    assert [producer.sent for producer in cluster.made] == [[encode_command(first)], [encode_command(last)]]


async def test_who_is_refused_for_another_ones_record_is_sent_again(renewed: RenewedProducer, cluster: Cluster) -> None:
    cluster.errors[b"bad"] = MessageSizeTooLargeError()
    await renewed.start()
    slow, bad = (asyncio.create_task(send(renewed, value)) for value in (b"slow", b"bad"))
    await turns()
    assert isinstance(bad.exception(), OutputRefusedError)
    cluster.may_end.set()
    await slow
    assert [producer.sent for producer in cluster.made] == [[], [b"slow"]]


async def test_one_that_is_out_of_sequence_for_good_is_an_error(renewed: RenewedProducer, cluster: Cluster) -> None:
    cluster.fails = True
    with pytest.raises(BrokerError, match="OutOfOrderSequenceNumber"):
        await send(renewed, b"never")
    assert len(cluster.made) == 2


async def test_what_is_under_way_on_the_old_one_comes_to_its_end(renewed: RenewedProducer, cluster: Cluster) -> None:
    await renewed.start()
    slow = asyncio.create_task(send(renewed, b"slow"))
    await turns()
    cluster.errors[b"bad"] = MessageSizeTooLargeError()
    with pytest.raises(OutputRefusedError):
        await send(renewed, b"bad")
    await send(renewed, b"next")
    [old, new] = cluster.made
    assert (old.stopped, new.sent) == (False, [b"next"])
    old.failed = False  # it goes to another partition
    cluster.may_end.set()
    await slow
    await turns()
    assert (old.stopped, old.sent) == (True, [b"slow"])


async def test_a_caller_that_gives_up_ends_no_producer(
    renewed: RenewedProducer, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    await renewed.start()
    slow = asyncio.create_task(send(renewed, b"slow"))
    await turns()
    slow.cancel()
    await asyncio.wait([slow])
    monkeypatch.setattr(renewed_producer, "SEND_TIMEOUT_S", 0.01)
    with pytest.raises(BrokerError, match="TimeoutError"):
        await send(renewed, b"slow")
    await send(renewed, b"next")
    assert len(cluster.made) == 1


async def test_all_who_send_at_first_share_one_connection(renewed: RenewedProducer, cluster: Cluster) -> None:
    cluster.may_start.clear()
    tasks = [asyncio.create_task(send(renewed, b"%d" % number)) for number in range(5)]
    await turns()
    tasks[0].cancel()
    await turns()
    cluster.may_start.set()
    await asyncio.wait(tasks)
    assert [sorted(producer.sent) for producer in cluster.made] == [[b"1", b"2", b"3", b"4"]]


async def test_a_connection_that_fails_is_made_anew_by_the_next(renewed: RenewedProducer, cluster: Cluster) -> None:
    cluster.away = True
    failed = await asyncio.gather(*(send(renewed, b"lost") for _ in range(3)), return_exceptions=True)
    assert [type(error) for error in failed] == [BrokerError] * 3
    assert [producer.stopped for producer in cluster.made] == [True]
    cluster.away = False
    await send(renewed, b"next")
    assert len(cluster.made) == 2


async def test_stopping_waits_for_nobody_and_nothing_begins_after_it(cluster: Cluster) -> None:
    renewed = RenewedProducer(RuntimeConfig())
    await renewed.start()
    slow = asyncio.create_task(send(renewed, b"slow"))
    await turns()
    await asyncio.wait_for(renewed.stop(), 1.0)
    await renewed.stop()
    with pytest.raises(ShuttingDownError):
        await send(renewed, b"late")
    assert [producer.stopped for producer in cluster.made] == [True]
    slow.cancel()
    await asyncio.wait([slow])


async def test_stopping_ends_a_connection_that_is_being_made(cluster: Cluster) -> None:
    renewed = RenewedProducer(RuntimeConfig())
    cluster.may_start.clear()
    waiting = asyncio.create_task(send(renewed, b"never"))
    await turns()
    await asyncio.wait_for(renewed.stop(), 1.0)
    with pytest.raises(ShuttingDownError):
        await waiting
    assert [producer.stopped for producer in cluster.made] == [True]
