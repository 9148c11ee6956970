"""Turns responses, dead letters and executions into the bytes that lanes publish, and counts them."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from stratarouter_runtime import wire
from stratarouter_runtime.config import MAX_REQUEST_BYTES, RuntimeConfig
from stratarouter_runtime.engine import respond
from stratarouter_runtime.engine.spread import meeting_key
from stratarouter_runtime.errors import (
    InvalidRecordError,
    OutputRefusedError,
    ReplyTopicNotAllowedError,
    ResponseTooLargeError,
    RuntimeSystemError,
)
from stratarouter_runtime.processors.finished import Instead
from stratarouter_runtime.processors.kafka_client import Record
from stratarouter_runtime.records import Coordinates, DeadLetter, Execution, Outbound, Request, Response, UsageLine
from stratarouter_runtime.telemetry.logs import event_of, ids
from stratarouter_runtime.telemetry.metrics import Metrics
from stratarouter_runtime.telemetry.responses import Tally, count_response, log_texts
from stratarouter_runtime.telemetry.tracing import TRACEPARENT, trace_headers
from stratarouter_runtime.usage_deltas import line_of

log = logging.getLogger("stratarouter.publish")

MAX_REASON_CHARS = 4_000
"""Of a dead letter's reason: some hold what a client wrote, or another's exception said."""


class Outputs:
    """Builds what one processor publishes."""

    def __init__(self, config: RuntimeConfig, processor: str, metrics: Metrics) -> None:
        self._config = config
        self._processor = processor
        self._metrics = metrics
        self._responses = config.topic(config.responses_topic)
        self._executions = config.topic(config.executions_topic)
        self._tally: Tally | None = None

    @contextmanager
    def counted_together(self) -> Iterator[None]:
        """What is built within this is counted at its end: a batch of hits raises each counter once."""
        self._tally = tally = Tally(self._metrics)
        try:
            yield
        finally:
            self._tally = None
            tally.count()

    def answer(self, request: Request, response: Response, *, traceparent: str | None) -> Outbound:
        """The response to ``request``, for the topic that it names."""
        if self._config.log_texts:
            log_texts(request, response)
        return self.response(response, reply_to=request.reply_to, traceparent=traceparent)

    def response(self, response: Response, *, reply_to: str | None, traceparent: str | None) -> Outbound:
        """The response as a record; one too large for its topic becomes an error response that says so."""
        value = wire.encode_response(response)
        if len(value) > self._config.max_response_bytes:
            said = f"{len(value)} bytes, more than max_response_bytes={self._config.max_response_bytes}"
            response = _without_answer(response, ResponseTooLargeError(f"the response has {said}"))
            value = wire.encode_response(response)
        if self._tally is None or not self._tally.take(response):
            count_response(self._metrics, response, traceparent)
        usage = line_of(response, self._processor) if self._config.usage_enabled else None
        key, headers = response.request_id.encode(), trace_headers(traceparent)
        return Outbound(reply_to or self._responses, key, value, headers, usage)

    def shadow_usage(self, response: Response) -> tuple[UsageLine, ...]:
        """What checking a hit means for the accounts: a paid request of its own, that nobody asked for. Without its
        request's place, which is the hit's own in them.
        """
        if not self._config.usage_enabled or response.status != "ok":
            return ()
        return (replace(line_of(response, self._processor), source=None),)

    def refused_response(self, refusal: OutputRefusedError, response: Response) -> Outbound:
        """An error response on the responses topic, for one that its own topic will not take."""
        kind = ResponseTooLargeError if refusal.too_large else ReplyTopicNotAllowedError
        problem = kind(f"the reply topic refused the response: {refusal.message}", remedy=refusal.remedy)
        return self.response(_without_answer(response, problem), reply_to=None, traceparent=None)

    def execution(self, execution: Execution) -> Outbound:
        """The execution as a record, keyed so that similar requests meet in one partition."""
        headers = trace_headers(execution.request.traceparent)
        return Outbound(self._executions, meeting_key(execution), wire.encode_execution(execution), headers)

    def dead_letter(
        self, exc: InvalidRecordError, record: Record, refusal: OutputRefusedError | None = None
    ) -> Outbound:
        """``record`` as it came, with why it could not be used; after a ``refusal``, without what makes it long."""
        key, value = (record.key, record.value) if refusal is None else (None, None)
        request_id = wire.peek_request_id(record.value)
        return self._dead_letter(exc, record, coordinates(record), key, value, request_id, refusal)

    def shorter(self, exc: InvalidRecordError, record: Record) -> Instead:
        """What is published where the broker refuses the dead letter of ``record``."""
        return lambda refusal: (self.dead_letter(exc, record, refusal),)

    def refused_execution(
        self,
        exc: InvalidRecordError,
        execution: Execution,
        record: Record,
        refusal: OutputRefusedError | None = None,
    ) -> Outbound:
        """The request inside ``execution``, under the coordinates where its client wrote it; after a ``refusal``, these
        alone.
        """
        request = execution.request
        place = execution.source or coordinates(record)
        value = wire.encode_request(request) if refusal is None else None
        return self._dead_letter(exc, record, place, request.request_id.encode(), value, request.request_id, refusal)

    def _dead_letter(
        self,
        exc: InvalidRecordError,
        record: Record,
        place: Coordinates,
        key: bytes | None,
        value: bytes | None,
        request_id: str | None,
        refusal: OutputRefusedError | None,
    ) -> Outbound:
        reason = _clipped(exc.message)
        if len(key or b"") > wire.MAX_HEADER_BYTES or len(value or b"") > MAX_REQUEST_BYTES:
            # Compressed, any size comes through the broker; a letter that its topic refuses would halt the lane.
            reason += f" (a value of {len(value or b'')} bytes and its key are in no letter: they stand at the source)"
            key = value = None
        if refusal is not None:
            reason += f" (without the value, which stands at the source: {_clipped(refusal.message)})"
        letter = DeadLetter(
            code=exc.code,
            reason=reason,
            remedy=exc.remedy,
            source=place,
            processor=self._processor,
            key=key,
            value=value,
            headers=wire.kept_headers(record.headers) if refusal is None else (),
            failed_at_ms=int(time.time() * 1000),
            request_id=request_id,
        )
        address = f"{place.topic}-{place.partition}@{place.offset}"
        if refusal is None:
            self._tell(letter, record, address)
        topic = self._config.topic(self._config.dead_letter_topic)
        return Outbound(topic, address.encode(), wire.encode_dead_letter(letter))

    def _tell(self, letter: DeadLetter, record: Record, address: str) -> None:
        self._metrics.dead_letters_total.labels(letter.code).inc()
        told = {"code": letter.code, "source": address, "processor": self._processor}
        parent = next((value for name, value in record.headers if name == TRACEPARENT), None)
        event_of(log, logging.WARNING, "dead letter", **ids(letter.request_id, parent), **told)


def _clipped(reason: str) -> str:
    return reason if len(reason) <= MAX_REASON_CHARS else reason[:MAX_REASON_CHARS] + " ..."


def _without_answer(response: Response, problem: RuntimeSystemError) -> Response:
    """``response`` as an error that says why its answer is not there."""
    return replace(response, status="error", text=None, tool_calls=(), error=respond.error_info(problem))


def coordinates(record: Record) -> Coordinates:
    """Where ``record`` stands."""
    return Coordinates(record.topic, record.partition, record.offset, record.timestamp)
