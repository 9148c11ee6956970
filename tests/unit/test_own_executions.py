"""What this process wrote is known by its bytes; whatever differs in anything is decoded."""

from __future__ import annotations

from typing import Any

import pytest
from aiokafka import ConsumerRecord

from stratarouter_runtime import wire
from stratarouter_runtime.processors import own
from stratarouter_runtime.processors.own import OwnExecutions
from stratarouter_runtime.records import Coordinates, Decision, Execution, Request, Target

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def execution(request_id: str = "r1", text: str = "q", traceparent: str | None = None) -> Execution:
    request = Request(request_id, Decision("a"), ({"role": "user", "content": text},), traceparent=traceparent)
    source = Coordinates("requests", 3, 77, 5)
    return Execution(request, (Target("openai", "m"),), None, "s", "c", "p", source, enriched_ms={"enrich": 0.25})


def record(value: bytes | None, traceparent: str | None = None) -> Any:
    headers = () if traceparent is None else (("traceparent", traceparent.encode()),)
    return ConsumerRecord("executions", 0, 0, 1, 0, b"k", value, None, 1, len(value or b""), headers)


@pytest.mark.parametrize("traceparent", [None, PARENT])
def test_what_comes_back_is_what_decoding_gives_and_comes_once(traceparent: str | None) -> None:
    mine = OwnExecutions()
    value = wire.encode_execution(execution(traceparent=traceparent))
    mine.keep(value, execution(traceparent=traceparent))
    read = record(bytes(bytearray(value)), traceparent)
    assert mine.take(read) == wire.decode_execution(read.value, read.headers)
    assert mine.take(read) is None
    assert len(mine) == 0


def test_another_record_is_not_taken_for_it() -> None:
    mine = OwnExecutions()
    mine.keep(wire.encode_execution(execution()), execution())
    assert mine.take(record(wire.encode_execution(execution("r2")))) is None
    assert mine.take(record(None)) is None
    assert mine.take(record(wire.encode_execution(execution()), PARENT)) is None


def test_they_are_kept_within_bounds_the_oldest_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    mine, written = OwnExecutions(), [execution(f"r{number}") for number in range(10)]
    values = [wire.encode_execution(one) for one in written]
    monkeypatch.setattr(own, "MAX_KEPT", 4)
    for value, one in zip(values, written, strict=True):
        mine.keep(value, one)
    assert [mine.take(record(value)) is not None for value in values] == [False] * 6 + [True] * 4
    monkeypatch.setattr(own, "MAX_BYTES", 2 * len(values[0]))
    for value, one in zip(values, written, strict=True):
        mine.keep(value, one)
    assert [mine.take(record(value)) is not None for value in values] == [False] * 8 + [True] * 2
    large = execution(text="x" * own.LARGE_BYTES)
    mine.keep(wire.encode_execution(large), large)
    assert len(mine) == 0
