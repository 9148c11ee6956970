"""A client that does not close takes nothing back of what was read with it."""

from __future__ import annotations

import asyncio
import copy
import time
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import NodeNotReadyError
from aiokafka.structs import OffsetAndMetadata

from stratarouter_runtime import topics
from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.errors import BrokerError
from stratarouter_runtime.processors import admin_client, find_response, kafka_client, publisher, tail
from stratarouter_runtime.tools import doctor, ranges, status

SOON_S = 0.05
LANE = TopicPartition("requests", 0)
FOUND: Any = ("the response", None)


class Hanging:
    """A client that starts, and never closes."""

    _client = SimpleNamespace(cluster=SimpleNamespace(brokers=lambda: {1}))

    async def start(self) -> None:
        """Nothing to do."""

    async def stop(self) -> None:
        """As it may be over TLS."""
        await asyncio.sleep(3600)

    close = stop

    def assign(self, places: object) -> None:
        """Nothing to do."""

    def pause(self, *places: object) -> None:
        """Nothing to do."""

    async def seek_to_end(self, *places: object) -> None:
        """Nothing to do."""


@pytest.fixture(autouse=True)
def hanging(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("consumer", "admin"):
        monkeypatch.setattr(kafka_client, name, lambda *_, **__: Hanging())
    monkeypatch.setattr(kafka_client, "places_of", lambda *_: [])
    for module in (find_response, tail, ranges):
        monkeypatch.setattr(module, "STOP_TIMEOUT_S", SOON_S)
    monkeypatch.setattr(admin_client, "CLOSE_TIMEOUT_S", SOON_S)
    monkeypatch.setattr(status, "CLOSE_TIMEOUT_S", SOON_S)


async def test_a_response_that_was_found_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    async def search(*_: object) -> object:
        return FOUND

    monkeypatch.setattr(find_response, "_search", search)
    assert await find_response.find_answer(RuntimeConfig(), "r1") == FOUND


async def test_a_range_and_a_topic_that_were_read_are_left() -> None:
    async with ranges.RangeReader(RuntimeConfig(), "requests"):
        pass
    async with tail.Tail(RuntimeConfig(), "responses", from_beginning=False):
        pass


async def test_topics_that_were_looked_at_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async def listed(_: object) -> list[str]:
        return ["requests"]

    monkeypatch.setattr(Hanging, "list_topics", listed, raising=False)
    assert await topics.names(RuntimeConfig()) == {"requests"}


@pytest.fixture
def early(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The clients that will be made; the first two hear from a broker that has just started and names none."""

    class Early(Hanging):
        _client = SimpleNamespace(cluster=SimpleNamespace(brokers=set))

    async def describe_cluster(_: object) -> dict[str, object]:
        return {"brokers": [1]}

    clients: list[Any] = [Early(), Early(), Hanging()]
    monkeypatch.setattr(kafka_client, "admin", lambda _: clients.pop(0))
    monkeypatch.setattr(admin_client, "NO_BROKERS_RETRY_S", 0.001)
    monkeypatch.setattr(Hanging, "list_topics", listed, raising=False)
    monkeypatch.setattr(Hanging, "describe_cluster", describe_cluster, raising=False)
    return clients


async def listed(client: Any) -> list[str]:
    if not client._client.cluster.brokers():
        raise NodeNotReadyError
    return ["requests"]


async def committed_by(client: Any, *_: object) -> dict[TopicPartition, OffsetAndMetadata]:
    await listed(client)
    return {LANE: OffsetAndMetadata(7, "")}


async def test_a_broker_that_names_none_yet_is_asked_anew_for_topics(early: list[Any]) -> None:
    assert await topics.names(RuntimeConfig()) == {"requests"}
    assert early == []


async def test_a_broker_that_names_none_yet_is_asked_anew_for_offsets(
    early: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admin_client, "committed_offsets", committed_by)
    reader = publisher.TransactionalPublisher(RuntimeConfig(), "group", LANE)
    assert (await reader.read_committed()).watermark == 7
    assert early == []


async def test_a_broker_that_names_none_yet_is_asked_anew_by_the_doctor(early: list[Any]) -> None:
    [check] = await doctor._broker(RuntimeConfig())
    assert (check.state, "1 brokers" in check.detail) == ("ok", True)
    assert early == []


async def test_a_broker_that_goes_on_naming_none_is_said(early: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    early[2:] = [copy.copy(early[0]) for _ in range(10_000)]
    monkeypatch.setattr(topics, "ADMIN_TIMEOUT_S", 0.5)
    with pytest.raises(BrokerError, match="TimeoutError while listing the topics at"):
        await topics.names(RuntimeConfig())


async def test_lanes_that_were_looked_at_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async def nothing(*_: object) -> dict[object, object]:
        return {}

    for name in ("beginning_offsets", "end_offsets"):
        monkeypatch.setattr(Hanging, name, nothing, raising=False)
    monkeypatch.setattr(admin_client, "committed_offsets", nothing)
    monkeypatch.setattr(status, "TIMEOUT_S", 30.0)
    began = time.monotonic()
    lanes, counts = await status._from_broker(RuntimeConfig())
    assert (lanes, counts) == ([], (0, 0))
    assert time.monotonic() - began < 15.0


async def test_what_went_wrong_before_is_what_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refused(*_: object) -> object:
        raise OSError("refused")

    monkeypatch.setattr(find_response, "_search", refused)
    with pytest.raises(BrokerError, match="refused"):
        await find_response.find_answer(RuntimeConfig(), "r1")
