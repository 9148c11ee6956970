"""Looking a response up passes over what is none, and says so."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, cast

import pytest
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from stratarouter_runtime import wire
from stratarouter_runtime.processors import find_response as searching
from stratarouter_runtime.processors.partitioner import partitions_of
from stratarouter_runtime.records import Response

PLACE = TopicPartition("responses", 0)
KEY = b"r1"


class Partition:
    """Reads one partition, whose values all have one key."""

    def __init__(self, values: Sequence[bytes | None]) -> None:
        self._records: list[Any] = [
            ConsumerRecord("responses", 0, offset, 0, 0, KEY, value, None, 0, 0, ())
            for offset, value in enumerate(values)
        ]
        self._at = 0

    def seek(self, _: TopicPartition, offset: int) -> None:
        self._at = offset

    async def position(self, _: TopicPartition) -> int:
        return self._at

    async def getmany(self, place: TopicPartition, *, timeout_ms: int) -> dict[TopicPartition, list[Any]]:
        del timeout_ms
        found, self._at = self._records[self._at :], len(self._records)
        return {place: found}


@pytest.mark.parametrize("count", [1, 2, 8, 64])
def test_a_key_is_looked_for_where_it_belongs_and_then_where_it_belonged_among_fewer(count: int) -> None:
    numbers = searching._numbers(KEY, count)
    assert numbers[0] == partitions_of([KEY], count)[0]
    assert len(set(numbers)) == len(numbers)
    assert set(numbers) == {partitions_of([KEY], fewer)[0] for fewer in range(1, count + 1)}


@pytest.mark.parametrize("foreign", [None, b"", b"{", b"{}", b"7", b'{"request_id":"r1"}'])
async def test_a_record_that_is_no_response_hides_none_beside_it(
    foreign: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    good = Response("r1", "ok", text="a")
    consumer = cast("AIOKafkaConsumer", Partition([foreign, wire.encode_response(good), foreign]))
    with caplog.at_level(logging.WARNING):
        found = await searching._last(consumer, PLACE, 0, 3, KEY, None)
    assert found == (good, None)
    assert [one.getMessage() for one in caplog.records] == ["response not understood"] * 2
