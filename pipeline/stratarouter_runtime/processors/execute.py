"""execute: hands each execution to the engine and publishes its one response. Completion is out of order."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Protocol

from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.errors import InvalidRecordError, PoisonRecordError, ShuttingDownError
from stratarouter_runtime.processors.finished import Instead, ProcessorLane
from stratarouter_runtime.processors.kafka_client import Record
from stratarouter_runtime.processors.own_executions import OwnExecutions, decoded
from stratarouter_runtime.processors.publish import Outputs
from stratarouter_runtime.records import Execution, Outbound, Response
from stratarouter_runtime.telemetry.logs import event
from stratarouter_runtime.telemetry.metrics import Metrics
from stratarouter_runtime.telemetry.responses import count_shadow
from stratarouter_runtime.telemetry.spans import Spans

log = logging.getLogger("stratarouter.execute")


class Submits(Protocol):
    """The engine, as this processor needs it."""

    def submit(self, execution: Execution, *, check_journal: bool) -> asyncio.Task[Response]:
        """As ``Engine.submit``."""


class Execute:
    """The second stream processor."""

    name = "execute"

    def __init__(
        self,
        config: RuntimeConfig,
        *,
        engine: Submits,
        metrics: Metrics,
        spans: Spans | None = None,
        own: OwnExecutions | None = None,
    ) -> None:
        self._spans = spans or Spans()
        self._config = config
        self._engine = engine
        self._own = own
        self._metrics = metrics
        self._outputs = Outputs(config, self.name, metrics)
        self.in_flight = 0

    def handle(self, lane: ProcessorLane, records: Sequence[Record]) -> None:
        """Start one poll's records; each finishes when its answer is recorded."""
        self._metrics.requests_total.labels(self.name).inc(len(records))
        for record in records:
            self.in_flight += 1
            execution = self._decode(lane, record)
            if execution is not None:
                self._start(lane, record, execution, tries=1)

    def _decode(self, lane: ProcessorLane, record: Record) -> Execution | None:
        """The execution in ``record``; None where it became a dead letter."""
        try:
            return decoded(record, self._own)
        except InvalidRecordError as exc:
            problem = exc
        except Exception as exc:
            # A record that the decoder did not foresee must not stop the others; trying again changes nothing.
            log.exception("record failed", extra={"fields": {"offset": record.offset}})
            problem = PoisonRecordError(f"{type(exc).__name__} while decoding: {exc}")
        self._finish(lane, record, self._outputs.dead_letter(problem, record), self._outputs.shorter(problem, record))
        return None

    def _start(self, lane: ProcessorLane, record: Record, execution: Execution, *, tries: int) -> None:
        redelivered = tries > 1 or record.offset < lane.backlog_end
        task = self._engine.submit(execution, check_journal=redelivered)
        task.add_done_callback(lambda done: self._done(done, lane, record, execution, tries))

    def _done(
        self, task: asyncio.Task[Response], lane: ProcessorLane, record: Record, execution: Execution, tries: int
    ) -> None:
        if task.cancelled():
            # Shut down in mid-call: the offset stays uncommitted and the journal knows the rest.
            self.in_flight -= 1
            return
        exc = task.exception()
        if isinstance(exc, ShuttingDownError):
            # As above: whoever has the lane next executes it.
            self.in_flight -= 1
            return
        if execution.shadow:
            self._checked(task, lane, record)
            return
        if exc is None or isinstance(exc, InvalidRecordError):
            outbound, instead = self._outcome(task, record, execution)
            self._finish(lane, record, outbound, instead)
            return
        log.error("execution failed", exc_info=exc, extra={"fields": {"offset": record.offset, "try": tries}})
        if tries < self._config.poison_tries:
            self._start(lane, record, execution, tries=tries + 1)
        else:
            poison = PoisonRecordError(f"{type(exc).__name__} in {tries} tries: {exc}")
            outbound, instead = self._refused(poison, record, execution)
            self._finish(lane, record, outbound, instead)

    def _checked(self, task: asyncio.Task[Response], lane: ProcessorLane, record: Record) -> None:
        """End a hit's check, whatever came of it: its client has an answer, so there is no response and no dead letter,
        but what it cost is in the accounts.
        """
        self.in_flight -= 1
        exc = task.exception()
        if exc is not None:
            event(log, logging.WARNING, "hit not checked", offset=record.offset, cause=repr(exc))
            lane.finish(record.offset, ())
            return
        response = task.result()
        count_shadow(self._metrics, response)
        lane.finish(record.offset, (), usage=self._outputs.shadow_usage(response))

    def _outcome(self, task: asyncio.Task[Response], record: Record, execution: Execution) -> tuple[Outbound, Instead]:
        """What to publish for a task that ended with a response or a refusal, and where the broker refuses that."""
        request = execution.request
        try:
            response = task.result()
            trace = self._spans.executed(request, execution.source, response)
            answer = self._outputs.answer(request, response, traceparent=trace)
        except InvalidRecordError as exc:
            return self._refused(exc, record, execution)
        except Exception as exc:
            # Nobody waits for this callback: an answer that cannot be written must be seen somewhere.
            log.exception("response failed", extra={"fields": {"offset": record.offset}})
            poison = PoisonRecordError(f"{type(exc).__name__} while writing the response: {exc}")
            return self._refused(poison, record, execution)
        return answer, lambda refusal: (self._outputs.refused_response(refusal, response),)

    def _refused(self, problem: InvalidRecordError, record: Record, execution: Execution) -> tuple[Outbound, Instead]:
        """The request's dead letter, and a shorter one where the broker refuses that."""
        refused = self._outputs.refused_execution
        return refused(problem, execution, record), lambda refusal: (refused(problem, execution, record, refusal),)

    def _finish(self, lane: ProcessorLane, record: Record, outbound: Outbound, instead: Instead) -> None:
        self.in_flight -= 1
        lane.finish(record.offset, (outbound,), (instead,))
