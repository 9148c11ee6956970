"""The execute processor, on an engine that fails as told: no record is dropped, none stops the others."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import pytest
from aiokafka import ConsumerRecord

from stratarouter_runtime import wire
from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.engine.engine import Engine
from stratarouter_runtime.errors import IdempotencyConflictError, OutputRefusedError, ShuttingDownError
from stratarouter_runtime.processors.execute import Execute
from stratarouter_runtime.processors.finished import Insteads
from stratarouter_runtime.processors.lane import Lane
from stratarouter_runtime.processors.publish import MAX_REASON_CHARS, Outputs
from stratarouter_runtime.records import (
    Attempt,
    Coordinates,
    Decision,
    Execution,
    Outbound,
    Request,
    Response,
    Target,
    UsageLine,
)
from stratarouter_runtime.telemetry.metrics import Metrics

ATTEMPTS = (Attempt("openai", "m", "ok", 1.0),)


class FailingEngine:
    """Raises what its script says for each submission, then answers."""

    def __init__(self, *script: BaseException) -> None:
        self.script = list(script)
        self.journal_checked: list[bool] = []

    def submit(self, execution: Execution, *, check_journal: bool = False) -> asyncio.Task[Response]:
        self.journal_checked.append(check_journal)
        return asyncio.create_task(self._execute(execution))

    async def _execute(self, execution: Execution) -> Response:
        if self.script:
            raise self.script.pop(0)
        return Response(execution.request.request_id, "ok", text="answer", source=execution.source)


class Collector:
    """A lane that keeps what is finished."""

    backlog_end = 0
    name = "executions-0"

    def __init__(self) -> None:
        self.finished: dict[int, Outbound] = {}
        self.instead: Insteads = ()

    def finish(self, offset: int, outbounds: Sequence[Outbound], instead: Insteads = ()) -> None:
        [self.finished[offset]] = outbounds
        self.instead = instead


def _record(offset: int, value: bytes) -> Any:
    return ConsumerRecord("executions", 0, offset, 1, 0, b"k", value, None, 1, len(value), ())


def _value(request_id: str, *, shadow: bool = False) -> bytes:
    request = Request(request_id, Decision("support"), ({"role": "user", "content": "q"},))
    source = Coordinates("requests", 3, 77, 5)
    targets = (Target("openai", "m"),)
    return wire.encode_execution(Execution(request, targets, None, "s", "c", "p", source, shadow=shadow))


async def _run(engine: FailingEngine, *values: bytes, lane: Collector | None = None) -> dict[int, Outbound]:
    config = RuntimeConfig(poison_tries=2)
    execute = Execute(config, engine=cast("Engine", engine), metrics=Metrics())
    lane = lane or Collector()
    execute.handle(cast("Lane", lane), [_record(n, value) for n, value in enumerate(values)])
    async with asyncio.timeout(5):
        while len(lane.finished) < len(values):
            await asyncio.sleep(0)
    assert execute.in_flight == 0
    return lane.finished


async def test_an_unexpected_exception_is_tried_again_and_then_answered() -> None:
    engine = FailingEngine(ZeroDivisionError("oops"))
    [out] = (await _run(engine, _value("r1"))).values()
    assert wire.decode_response(out.value).text == "answer"
    assert engine.journal_checked == [False, True]


async def test_poison_becomes_a_dead_letter_after_bounded_tries_and_the_lane_lives() -> None:
    engine = FailingEngine(ZeroDivisionError("oops"), ZeroDivisionError("oops"))
    first = await _run(engine, _value("r1"))
    letter = wire.decode_dead_letter(first[0].value)
    assert letter.code == "poison"
    assert "ZeroDivisionError" in letter.reason
    assert (letter.source.topic, letter.source.partition, letter.source.offset) == ("requests", 3, 77)
    assert wire.decode_request(letter.value).request_id == "r1"
    after = await _run(engine, _value("r2"))
    assert wire.decode_response(after[0].value).request_id == "r2"


@pytest.mark.parametrize("enabled", [True, False])
async def test_accounts_hear_of_a_response_and_of_a_checked_hit_where_they_are_kept(enabled: bool) -> None:
    outputs = Outputs(RuntimeConfig(usage_enabled=enabled), "execute", Metrics())
    response = Response("r1", "ok", text="a", model="m", attempts=ATTEMPTS, source=Coordinates("requests", 3, 77, 5))
    written = outputs.response(response, reply_to=None, traceparent=None).usage
    assert (written is not None, len(outputs.shadow_usage(response))) == (enabled, enabled)


async def test_a_foreign_record_among_executions_is_a_dead_letter_beside_answers() -> None:
    finished = await _run(FailingEngine(), b"not ours", _value("r1"))
    assert wire.decode_dead_letter(finished[0].value).code == "undecodable"
    assert wire.decode_response(finished[1].value).status == "ok"


async def test_a_conflict_is_a_dead_letter_at_once() -> None:
    engine = FailingEngine(IdempotencyConflictError("used before"))
    [out] = (await _run(engine, _value("r1"))).values()
    assert wire.decode_dead_letter(out.value).code == "idempotency_conflict"
    assert len(engine.journal_checked) == 1


@pytest.mark.parametrize(
    ("engine", "code"),
    [
        (FailingEngine(IdempotencyConflictError("used before")), "idempotency_conflict"),
        (FailingEngine(ZeroDivisionError("oops"), ZeroDivisionError("oops")), "poison"),
    ],
)
async def test_a_dead_letter_that_the_broker_refuses_is_a_shorter_one_of_the_same_request(
    engine: FailingEngine, code: str
) -> None:
    lane = Collector()
    await _run(engine, _value("r1"), lane=lane)
    [instead] = lane.instead
    [out] = instead(OutputRefusedError("larger than the topic takes", too_large=True))
    letter = wire.decode_dead_letter(out.value)
    assert (letter.source.topic, letter.source.partition, letter.source.offset) == ("requests", 3, 77)
    assert (letter.code, letter.request_id, letter.key, letter.value) == (code, "r1", b"r1", None)
    assert "larger than the topic takes" in letter.reason


async def test_a_reason_is_clipped_however_much_an_exception_says() -> None:
    engine = FailingEngine(*(ZeroDivisionError("o" * 20_000_000) for _ in range(2)))
    letter = wire.decode_dead_letter((await _run(engine, _value("r1")))[0].value)
    assert letter.reason.startswith("ZeroDivisionError in 2 tries: ooo")
    assert len(letter.reason) < MAX_REASON_CHARS + 100


async def test_a_foreign_record_whose_dead_letter_the_broker_refuses_is_named_in_a_shorter_one() -> None:
    lane = Collector()
    await _run(FailingEngine(), b"not ours", lane=lane)
    [instead] = lane.instead
    [out] = instead(OutputRefusedError("larger than the topic takes", too_large=True))
    letter = wire.decode_dead_letter(out.value)
    assert (letter.code, letter.source, letter.value) == ("undecodable", Coordinates("executions", 0, 0, 1), None)


async def test_a_response_too_large_is_an_error_response_that_says_so() -> None:
    class Verbose(FailingEngine):
        async def _execute(self, execution: Execution) -> Response:
            return Response(execution.request.request_id, "ok", text="x" * 2_000_000)

    [out] = (await _run(Verbose(), _value("r1"))).values()
    response = wire.decode_response(out.value)
    assert response.error is not None
    assert response.error.code == "response_too_large"
    assert response.text is None


class Accounted:
    """A lane that keeps what each finished record publishes, and what it means for the accounts beside that."""

    backlog_end = 0
    name = "executions-0"

    def __init__(self) -> None:
        self.finished: list[tuple[int, tuple[Outbound, ...], tuple[UsageLine, ...]]] = []

    def finish(
        self,
        offset: int,
        outbounds: tuple[Outbound, ...],
        _: Insteads = (),
        usage: tuple[UsageLine, ...] = (),
    ) -> None:
        self.finished.append((offset, outbounds, usage))


async def _ended(engine: FailingEngine, value: bytes) -> Accounted:
    """The lane, once the engine is done with the one record, whatever came of it."""
    execute, lane = Execute(RuntimeConfig(), engine=cast("Engine", engine), metrics=Metrics()), Accounted()
    execute.handle(cast("Lane", lane), [_record(4, value)])
    async with asyncio.timeout(5):
        while execute.in_flight:
            await asyncio.sleep(0)
    return lane


async def test_a_request_broken_off_by_the_shutdown_is_left_to_whoever_has_the_lane_next() -> None:
    # Finished here, as a dead letter or an error, its offset would be committed, and its answer never come.
    for problem in (ShuttingDownError("this worker is shutting down"), asyncio.CancelledError()):
        engine = FailingEngine(problem)
        assert (await _ended(engine, _value("r1"))).finished == []
        assert len(engine.journal_checked) == 1


async def test_the_check_of_a_hit_answers_nobody_and_is_paid_for_in_the_accounts() -> None:
    class Paid(FailingEngine):
        async def _execute(self, execution: Execution) -> Response:
            place = execution.source
            return Response("r1", "ok", text="a", model="m", cost_usd=0.5, attempts=ATTEMPTS, source=place)

    [(offset, outbounds, [line])] = (await _ended(Paid(), _value("r1", shadow=True))).finished
    assert (offset, outbounds) == (4, ())
    # Under the hit's own place the two would have one id, and only one of them be counted.
    assert (line.kind, line.nano_usd, line.source) == ("paid", 500_000_000, None)


async def test_the_check_of_a_hit_that_fails_is_done_with_and_is_no_dead_letter() -> None:
    for problem in (ZeroDivisionError("oops"), IdempotencyConflictError("used before")):
        engine = FailingEngine(problem)
        assert (await _ended(engine, _value("r1", shadow=True))).finished == [(4, (), ())]
        assert len(engine.journal_checked) == 1
