"""execute: hands each execution to the engine and publishes its one response. Completion is out of order."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from stratarouter_runtime import wire
from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.engine.engine import Engine
from stratarouter_runtime.errors import InvalidRecordError, PoisonRecordError
from stratarouter_runtime.processors.kafka_client import Record
from stratarouter_runtime.processors.lane import Lane
from stratarouter_runtime.processors.publish import Outputs
from stratarouter_runtime.records import Execution, Outbound, Response
from stratarouter_runtime.telemetry.metrics import Metrics

log = logging.getLogger("stratarouter.execute")


class Execute:
    """The second stream processor."""

    name = "execute"

    def __init__(self, config: RuntimeConfig, *, engine: Engine, metrics: Metrics) -> None:
        self._config = config
        self._engine = engine
        self._metrics = metrics
        self._outputs = Outputs(config, self.name, metrics)
        self.in_flight = 0

    def handle(self, lane: Lane, records: Sequence[Record]) -> None:
        """Start one poll's records; each finishes when its answer is recorded."""
        self._metrics.requests_total.labels(self.name).inc(len(records))
        for record in records:
            self.in_flight += 1
            try:
                execution = wire.decode_execution(record.value, record.headers)
            except InvalidRecordError as exc:
                self._finish(lane, record, self._outputs.dead_letter(exc, record))
                continue
            self._start(lane, record, execution, tries=1)

    def _start(self, lane: Lane, record: Record, execution: Execution, *, tries: int) -> None:
        redelivered = tries > 1 or record.offset < lane.backlog_end
        task = self._engine.submit(execution, check_journal=redelivered)
        task.add_done_callback(lambda done: self._done(done, lane, record, execution, tries))

    def _done(self, task: asyncio.Task[Response], lane: Lane, record: Record, execution: Execution, tries: int) -> None:
        if task.cancelled():
            # Shut down in mid-call: the offset stays uncommitted and the journal knows the rest.
            self.in_flight -= 1
            return
        exc = task.exception()
        if exc is None:
            request = execution.request
            outbound = self._outputs.response(task.result(), reply_to=request.reply_to, traceparent=request.traceparent)
            self._finish(lane, record, outbound)
        elif isinstance(exc, InvalidRecordError):
            self._finish(lane, record, self._outputs.refused_execution(exc, execution, record))
        elif tries < self._config.poison_tries:
            log.error("execution failed", exc_info=exc, extra={"fields": {"offset": record.offset, "try": tries}})
            self._start(lane, record, execution, tries=tries + 1)
        else:
            log.error("execution failed", exc_info=exc, extra={"fields": {"offset": record.offset, "try": tries}})
            poison = PoisonRecordError(f"{type(exc).__name__} in {tries} tries: {exc}")
            self._finish(lane, record, self._outputs.refused_execution(poison, execution, record))

    def _finish(self, lane: Lane, record: Record, outbound: Outbound) -> None:
        self.in_flight -= 1
        lane.finish(record.offset, (outbound,))
