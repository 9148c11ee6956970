"""Executions that a worker wrote and reads itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from aiokafka import ConsumerRecord

from stratarouter_runtime import wire
from stratarouter_runtime.errors import InvalidRecordError
from stratarouter_runtime.processors import own_executions
from stratarouter_runtime.processors.own_executions import HELD_S, OwnExecutions, decoded
from stratarouter_runtime.records import Coordinates, Decision, Execution, Request, Target

PARENT = f"00-{'1' * 32}-{'2' * 16}-01"


def _execution(offset: int, parent: str | None = None) -> Execution:
    request = Request(f"r{offset}", Decision("support"), ({"role": "user", "content": "q"},), traceparent=parent)
    return Execution(request, (Target("openai", "m"),), None, "s", "c", "p", Coordinates("requests", 3, offset, 5))


def _record(value: bytes | None, headers: Sequence[tuple[str, bytes]] = ()) -> Any:
    return ConsumerRecord("executions", 0, 0, 1, 0, b"k", value, None, 1, len(value or b""), tuple(headers))


def _written(execution: Execution) -> bytes:
    """As the broker gives it back: other bytes of the same value."""
    return bytes(bytearray(wire.encode_execution(execution)))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time in seconds."""
    now = [0.0]
    monkeypatch.setattr(own_executions.time, "monotonic", lambda: now[0])
    return now


def test_what_this_worker_wrote_is_not_read_again_and_kept_no_longer() -> None:
    own, execution = OwnExecutions(), _execution(1)
    own.keep(_written(execution), execution)
    record = _record(_written(execution))
    assert decoded(record, own) is execution
    again = decoded(record, own)
    assert again is not execution
    assert again == execution


def test_anybodys_record_is_read() -> None:
    own, execution = OwnExecutions(), _execution(1)
    own.keep(_written(execution), execution)
    other = _execution(2)
    assert decoded(_record(_written(other)), own) == other
    assert decoded(_record(_written(other)), None) == other
    with pytest.raises(InvalidRecordError):
        decoded(_record(None), own)
    assert own.take(_record(_written(execution))) is execution


def test_a_record_under_another_trace_is_read() -> None:
    own, execution = OwnExecutions(), _execution(1, PARENT)
    own.keep(_written(execution), execution)
    headers = [("traceparent", PARENT.encode())]
    assert own.take(_record(_written(execution), headers)) is execution
    own.keep(_written(execution), execution)
    assert decoded(_record(_written(execution)), own) == replace(
        execution, request=replace(execution.request, traceparent=None)
    )


def test_it_holds_no_more_than_its_bounds_and_the_oldest_first(
    clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_executions, "MOST", 3)
    own, made = OwnExecutions(), [_execution(n) for n in range(9)]
    for execution in made[:4]:
        own.keep(_written(execution), execution)
    taken = [own.take(_record(_written(execution))) for execution in made[:4]]
    assert [execution is not None for execution in taken] == [True, True, True, False]
    for execution in made[:3]:
        own.keep(_written(execution), execution)
    clock[0] = HELD_S
    own.keep(_written(made[4]), made[4])
    assert own.take(_record(_written(made[0]))) is None
    assert own.take(_record(_written(made[4]))) is made[4]


def test_what_another_worker_reads_is_let_go(clock: list[float]) -> None:
    own, made = OwnExecutions(), [_execution(n) for n in range(4)]
    for at, execution in zip((0.0, HELD_S / 2, HELD_S), made, strict=False):
        clock[0] = at
        own.keep(_written(execution), execution)
    assert [own.take(_record(_written(one))) for one in made[:3]] == [None, made[1], made[2]]
    clock[0] = HELD_S + own_executions.SWEEP_S / 2
    own.keep(_written(made[3]), made[3])
    assert own.take(_record(_written(made[3]))) is made[3]


def test_it_holds_no_more_bytes_than_its_bound(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    made = [_execution(n) for n in range(5)]
    size = len(_written(made[0]))
    monkeypatch.setattr(own_executions, "MOST_BYTES", 2 * size)
    own = OwnExecutions()
    for execution in made[:3]:
        own.keep(_written(execution), execution)
        own.keep(_written(execution), execution)
    assert own.take(_record(_written(made[2]))) is None
    assert own.take(_record(_written(made[0]))) is made[0]
    own.keep(_written(made[3]), made[3])
    assert own.take(_record(_written(made[3]))) is made[3]
    assert own.take(_record(_written(made[1]))) is made[1]
    own.keep(b"x" * (3 * size), made[4])
    assert own.take(_record(b"x" * (3 * size))) is None
