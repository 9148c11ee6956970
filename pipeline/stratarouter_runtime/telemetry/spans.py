"""The spans of one request, written from what was measured when a step is over.

enrich's span continues the producer's ``traceparent`` and goes on to execute in the record's header; execute's has the
lookup, the wait for room, the journal and every call as its children. A step's duration is measured; its beginning is
that of the steps before it, which run one after the other. Nothing is built where nobody exports, and nothing but the
two identifiers where the producer does not record its trace.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any

from opentelemetry import trace
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode

from stratarouter_runtime.records import Attempt, Coordinates, Outbound, Request, Response
from stratarouter_runtime.telemetry.tracing import TRACEPARENT, TraceParent, Tracing, context_of, parse_traceparent

SCOPE = "stratarouter_runtime"
MAX_LINKS = 128
"""Of one commit: OpenTelemetry's own limit."""
STEPS_BEFORE = ("lookup", "slot", "journal_begin")
STEPS_AFTER = ("journal_finish",)
NAMES = {
    "lookup": "cache lookup",
    "slot": "wait for room",
    "journal_begin": "journal begin",
    "journal_finish": "journal finish",
}
MS = 1_000_000
"""Nanoseconds."""


class Spans:
    """Writes spans through ``tracing``; off where that is."""

    def __init__(self, tracing: Tracing | None = None) -> None:
        self._tracer = tracing.tracer(SCOPE) if tracing is not None and tracing.enabled else None

    @property
    def enabled(self) -> bool:
        """Whether anybody exports."""
        return self._tracer is not None

    def enriched(self, request: Request, source: Coordinates, took_s: float, became: str, **more: Any) -> str | None:
        """Enrich's span; returns the ``traceparent`` to pass on: the request's own where nobody exports.

        ``became``: ``hit``, ``execution``, ``refused``. ``more``: attributes by name, None left out.
        """
        if self._tracer is None:
            return request.traceparent
        end = time.time_ns()
        attributes = _of_request(request, source) | {"stratarouter.became": became}
        attributes |= {f"stratarouter.{name}": value for name, value in more.items() if value is not None}
        span = self._start("enrich", request.traceparent, end - int(took_s * 1e9), SpanKind.CONSUMER, attributes)
        span.end(end)
        return _traceparent(span)

    def executed(self, request: Request, source: Coordinates | None, response: Response) -> str | None:
        """Execute's span with its steps; returns the ``traceparent`` of the response."""
        if self._tracer is None:
            return request.traceparent
        end = time.time_ns()
        begin = end - int(response.timings_ms.get("execute", 0.0) * MS)
        attributes = _of_request(request, source) | _of_response(response)
        span = self._start("execute", request.traceparent, begin, SpanKind.CONSUMER, attributes)
        if span.is_recording():
            self._steps(span, response, begin, end)
            if response.error is not None:
                span.set_status(Status(StatusCode.ERROR, response.error.code))
        span.end(end)
        return _traceparent(span)

    def committed(self, lane: str, offset: int, records: int, took_s: float, outbounds: Iterable[Outbound]) -> None:
        """One commit, linked to the requests whose outputs it made visible."""
        if self._tracer is None:
            return
        end = time.time_ns()
        links = [link for _, link in zip(range(MAX_LINKS), _links(outbounds), strict=False)]
        if not links:
            return  # nobody records any of these
        attributes: dict[str, Any] = {
            "messaging.system": "kafka",
            "messaging.operation.name": "commit",
            "messaging.batch.message_count": records,
            "messaging.kafka.offset": offset,
            "stratarouter.lane": lane,
        }
        span = self._tracer.start_span(
            "commit", context_of(None), SpanKind.INTERNAL, attributes, links, start_time=end - int(took_s * 1e9)
        )
        span.end(end)

    def _steps(self, parent: Span, response: Response, begin: int, end: int) -> None:
        at = begin
        for step in STEPS_BEFORE:
            at = self._step(parent, step, response, at)
        if response.batch.role == "follower":
            self._child(parent, "follow a leader", at, end, {"stratarouter.leader_id": response.batch.leader_id or ""})
        # What the journal holds was called for before, by whoever wrote it.
        for attempt in () if response.from_journal else response.attempts:
            at += int(attempt.waited_ms * MS)
            at = self._call(parent, attempt, response, at)
        for step in STEPS_AFTER:
            at = self._step(parent, step, response, at)

    def _step(self, parent: Span, step: str, response: Response, at: int) -> int:
        took = response.timings_ms.get(step)
        if took is None:
            return at
        self._child(parent, NAMES[step], at, at + int(took * MS), {})
        return at + int(took * MS)

    def _call(self, parent: Span, attempt: Attempt, response: Response, at: int) -> int:
        end = at + int(attempt.duration_ms * MS)
        attributes: dict[str, Any] = {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": attempt.provider,
            "gen_ai.request.model": attempt.model,
        }
        if attempt.status is not None:
            attributes["http.response.status_code"] = attempt.status
        if attempt.outcome == "ok":
            attributes |= {
                "gen_ai.response.model": response.model or attempt.model,
                "gen_ai.usage.input_tokens": response.usage.input_tokens,
                "gen_ai.usage.output_tokens": response.usage.output_tokens,
                "gen_ai.response.finish_reasons": (response.finish_reason or "",),
            }
        else:
            attributes["error.type"] = attempt.outcome
        self._child(parent, f"chat {attempt.model}", at, end, attributes, SpanKind.CLIENT)
        return end

    def _child(
        self,
        parent: Span,
        name: str,
        begin: int,
        end: int,
        attributes: dict[str, Any],
        kind: SpanKind = SpanKind.INTERNAL,
    ) -> None:
        assert self._tracer is not None
        context = trace.set_span_in_context(parent)
        span = self._tracer.start_span(name, context, kind, attributes, start_time=begin)
        if "error.type" in attributes:
            span.set_status(Status(StatusCode.ERROR, attributes["error.type"]))
        span.end(end)

    def _start(
        self, name: str, traceparent: str | None, begin: int, kind: SpanKind, attributes: dict[str, Any]
    ) -> Span:
        assert self._tracer is not None
        context = context_of(parse_traceparent(traceparent))
        return self._tracer.start_span(name, context, kind, attributes, start_time=begin)


def _of_request(request: Request, source: Coordinates | None) -> dict[str, Any]:
    attributes: dict[str, Any] = {
        "stratarouter.request_id": request.request_id,
        "stratarouter.tenant": request.context.tenant,
        "stratarouter.route": request.decision.route_id,
    }
    if source is not None:
        attributes |= {
            "messaging.system": "kafka",
            "messaging.destination.name": source.topic,
            "messaging.destination.partition.id": str(source.partition),
            "messaging.kafka.offset": source.offset,
        }
    return attributes


def _of_response(response: Response) -> dict[str, Any]:
    found = {
        "stratarouter.status": response.status,
        "stratarouter.cache": response.cache.kind,
        "stratarouter.cache.similarity": response.cache.similarity,
        "stratarouter.cache.reason": response.cache.reason,
        "stratarouter.batch": response.batch.role,
        "stratarouter.batch.leader_id": response.batch.leader_id,
        "stratarouter.cost_usd": response.cost_usd,
        "stratarouter.saved_usd": response.saved_usd,
        "stratarouter.from_journal": response.from_journal,
    }
    return {name: value for name, value in found.items() if value is not None}


def _links(outbounds: Iterable[Outbound]) -> Iterator[Link]:
    for outbound in outbounds:
        for name, value in outbound.headers:
            parent = parse_traceparent(value) if name == TRACEPARENT else None
            if parent is not None and parent.sampled:
                yield Link(trace.get_current_span(context_of(parent)).get_span_context())


def _traceparent(span: Span) -> str:
    context = span.get_span_context()
    return str(TraceParent(f"{context.trace_id:032x}", f"{context.span_id:016x}", int(context.trace_flags)))


def current_traceparent() -> str | None:
    """The ``traceparent`` of the caller's own span, where it has one."""
    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return None
    return str(TraceParent(f"{context.trace_id:032x}", f"{context.span_id:016x}", int(context.trace_flags)))
