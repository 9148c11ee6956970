"""What a group has committed is told as the broker knows it, never as nothing where it does not know yet."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import GroupAuthorizationFailedError, KafkaError, TopicAuthorizationFailedError
from aiokafka.protocol.commit import OffsetFetchRequest, OffsetFetchResponse_v3
from aiokafka.structs import OffsetAndMetadata

from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.errors import BrokerError
from stratarouter_runtime.processors import admin_client, kafka_client
from stratarouter_runtime.processors.publisher import TransactionalPublisher
from stratarouter_runtime.state.offsets import OffsetMap

LANE = TopicPartition("requests", 0)
COMMITTED = {LANE: OffsetAndMetadata(7, "srt1")}


def says(*partitions: tuple[int, int, int], error: int = 0) -> Any:
    """The coordinator's reply: of each partition its number, offset and error, and the error of the whole."""
    entries = [(number, offset, "srt1", code) for number, offset, code in partitions]
    return OffsetFetchResponse_v3(0, [("requests", entries)] if entries else [], error)


class Broker(AIOKafkaAdminClient):  # type: ignore[misc]
    """An admin client whose one broker answers with ``replies``, the last of them again and again."""

    def __init__(self, *replies: Any) -> None:
        super().__init__()
        self.replies = list(replies)
        self.asked: list[Any] = []
        self._client.send = self._answer
        self._client.bootstrap = self._reached
        self._client.cluster.brokers = lambda: [SimpleNamespace(nodeId=1)]

    async def _reached(self) -> None:
        """Nothing to do."""

    async def _answer(self, _: object, request: Any) -> Any:
        if not isinstance(request, OffsetFetchRequest):
            return SimpleNamespace(error_code=0, coordinator_id=1)
        self.asked.append(request._partitions)
        return self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]


@pytest.fixture(autouse=True)
def no_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin_client, "COORDINATOR_RETRY_S", 0.0)


@pytest.mark.parametrize("error", [14, 15, 16], ids=["loading", "not available", "not the coordinator"])
async def test_a_coordinator_that_does_not_know_yet_is_asked_again(error: int) -> None:
    """While it loaded, its reply was taken for that of a group without offsets: what was answered was answered anew,
    and the offset that it had committed was overwritten by a lower one.
    """
    for reply in (says(error=error), says((0, -1, error))):
        broker = Broker(reply, says((0, 7, 0)))
        assert await admin_client.committed_offsets(broker, "group", [LANE]) == COMMITTED
        assert len(broker.asked) == 2


async def test_all_that_a_group_has_is_asked_for_again_as_well() -> None:
    broker = Broker(says(error=14), says((0, 7, 0)))
    assert await admin_client.committed_offsets(broker, "group") == COMMITTED
    assert broker.asked == [None, None]


async def test_a_partition_that_is_missing_from_the_reply_is_asked_for_again() -> None:
    broker = Broker(says(), says((1, 3, 0)), says((0, 7, 0), (1, 3, 0)))
    other = TopicPartition("requests", 1)
    found = await admin_client.committed_offsets(broker, "group", [LANE, other])
    assert found == {**COMMITTED, other: OffsetAndMetadata(3, "srt1")}
    assert broker.asked == [[("requests", [0, 1])]] * 3


async def test_a_group_without_offsets_has_none() -> None:
    assert await admin_client.committed_offsets(Broker(says()), "group") == {}
    found = await admin_client.committed_offsets(Broker(says((0, -1, 0))), "group", [LANE])
    assert found[LANE].offset == -1


@pytest.mark.parametrize(
    ("reply", "error"),
    [(says(error=30), GroupAuthorizationFailedError), (says((0, -1, 29)), TopicAuthorizationFailedError)],
    ids=["of the group", "of the partition"],
)
async def test_what_is_refused_is_said_as_what_it_is(reply: Any, error: type[KafkaError]) -> None:
    with pytest.raises(error):
        await admin_client.committed_offsets(Broker(reply), "group", [LANE])


async def test_a_lane_opens_where_the_group_stands_once_the_coordinator_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_client, "admin", lambda _: Broker(says(error=14), says((0, 7, 0))))
    lane = TransactionalPublisher(RuntimeConfig(), "group", LANE)
    assert await lane.read_committed() == OffsetMap(7, 7)


async def test_a_lane_does_not_open_where_the_group_is_closed_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_client, "admin", lambda _: Broker(says(error=30)))
    with pytest.raises(BrokerError, match="GroupAuthorizationFailedError while reading what is committed") as refused:
        await TransactionalPublisher(RuntimeConfig(), "group", LANE).read_committed()
    assert "topics acls" in refused.value.remedy
