"""The spans of a request: one trace, the right parents, measured times, standard names; none where it is off."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from stratarouter_runtime.records import (
    Attempt,
    BatchVerdict,
    CacheVerdict,
    Context,
    Coordinates,
    Decision,
    ErrorInfo,
    Outbound,
    Request,
    Response,
    Usage,
)
from stratarouter_runtime.telemetry.spans import Spans
from stratarouter_runtime.telemetry.tracing import Tracing, parse_traceparent

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
UNSAMPLED = PARENT[:-2] + "00"
SOURCE = Coordinates("requests", 3, 17)
MS = 1_000_000


def _request(traceparent: str | None = PARENT) -> Request:
    message = {"role": "user", "content": "a secret question"}
    return Request("r-1", Decision("billing"), (message,), context=Context("acme"), traceparent=traceparent)


def _response(**changes: object) -> Response:
    fields: dict[str, object] = {
        "request_id": "r-1",
        "status": "ok",
        "text": "a secret answer",
        "provider": "openai",
        "model": "small",
        "finish_reason": "stop",
        "usage": Usage(11, 7),
        "cost_usd": 0.5,
        "cache": CacheVerdict("miss"),
        "batch": BatchVerdict("leader"),
        "attempts": (
            Attempt("openai", "large", "provider_unavailable", 40.0, 503),
            Attempt("openai", "small", "ok", 100.0, 200, waited_ms=25.0),
        ),
        "timings_ms": {"lookup": 2.0, "slot": 1.0, "journal_begin": 3.0, "journal_finish": 4.0, "execute": 180.0},
    }
    return Response(**{**fields, **changes})  # type: ignore[arg-type]


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def spans(exporter: InMemorySpanExporter) -> Iterator[Spans]:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    yield Spans(Tracing(provider))
    provider.shutdown()


def _by_name(exporter: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    return {span.name: span for span in exporter.get_finished_spans()}


def _ms(span: ReadableSpan) -> float:
    assert span.start_time is not None
    assert span.end_time is not None
    return (span.end_time - span.start_time) / MS


def test_one_trace_from_the_producer_through_both_processors(spans: Spans, exporter: InMemorySpanExporter) -> None:
    passed_on = spans.enriched(_request(), SOURCE, 0.005, "execution")
    answered = spans.executed(_request(passed_on), SOURCE, _response())
    found = _by_name(exporter)
    enrich, execute = found["enrich"], found["execute"]
    assert {span.context.trace_id for span in found.values()} == {int(PARENT[3:35], 16)}
    assert enrich.parent is not None
    assert f"{enrich.parent.span_id:016x}" == PARENT[36:52]
    assert execute.parent is not None
    assert execute.parent.span_id == enrich.context.span_id
    parsed = parse_traceparent(answered)
    assert parsed is not None
    assert (parsed.span_id, parsed.sampled) == (f"{execute.context.span_id:016x}", True)
    children = [span for span in found.values() if span.parent and span.parent.span_id == execute.context.span_id]
    assert {span.name for span in children} == {
        *("cache lookup", "wait for room", "journal begin", "chat large", "chat small", "journal finish")
    }


def test_steps_take_what_was_measured_and_stand_within_their_parent(
    spans: Spans, exporter: InMemorySpanExporter
) -> None:
    spans.executed(_request(), SOURCE, _response())
    found = _by_name(exporter)
    took = {name: round(_ms(span), 3) for name, span in found.items()}
    assert took == {
        "execute": 180.0,
        "cache lookup": 2.0,
        "wait for room": 1.0,
        "journal begin": 3.0,
        "chat large": 40.0,
        "chat small": 100.0,
        "journal finish": 4.0,
    }
    order = sorted(found.values(), key=lambda span: (span.start_time or 0, -_ms(span)))
    assert [span.name for span in order] == [
        *("execute", "cache lookup", "wait for room", "journal begin", "chat large", "chat small", "journal finish")
    ]
    # The second call was waited for.
    gap = (found["chat small"].start_time or 0) - (found["chat large"].end_time or 0)
    assert round(gap / MS, 3) == 25.0
    assert (order[-1].end_time or 0) <= (found["execute"].end_time or 0)


def test_calls_carry_the_conventions_for_generative_models(spans: Spans, exporter: InMemorySpanExporter) -> None:
    spans.executed(_request(), SOURCE, _response())
    found = _by_name(exporter)
    answered, failed = dict(found["chat small"].attributes or {}), dict(found["chat large"].attributes or {})
    assert answered["gen_ai.operation.name"] == "chat"
    assert answered["gen_ai.provider.name"] == "openai"
    assert answered["gen_ai.request.model"] == "small"
    assert (answered["gen_ai.usage.input_tokens"], answered["gen_ai.usage.output_tokens"]) == (11, 7)
    assert answered["gen_ai.response.finish_reasons"] == ("stop",)
    assert (failed["error.type"], failed["http.response.status_code"]) == ("provider_unavailable", 503)
    assert "gen_ai.usage.input_tokens" not in failed
    assert found["chat large"].status.status_code.name == "ERROR"


def test_no_text_is_in_any_span(spans: Spans, exporter: InMemorySpanExporter) -> None:
    spans.enriched(_request(), SOURCE, 0.001, "hit", cache="semantic", similarity=0.97)
    spans.executed(_request(), SOURCE, _response(error=ErrorInfo("x", "a secret message"), status="error"))
    assert "secret" not in repr([span.to_json() for span in exporter.get_finished_spans()])


def test_a_follower_waits_for_its_leader(spans: Spans, exporter: InMemorySpanExporter) -> None:
    follower = _response(batch=BatchVerdict("follower", "r-0", 0.99), attempts=(), timings_ms={"execute": 50.0})
    spans.executed(_request(), SOURCE, follower)
    found = _by_name(exporter)
    assert dict(found["follow a leader"].attributes or {}) == {"stratarouter.leader_id": "r-0"}
    assert round(_ms(found["follow a leader"])) == 50


def test_a_commit_is_linked_to_what_it_published(spans: Spans, exporter: InMemorySpanExporter) -> None:
    outbounds = [
        Outbound("responses", b"k", b"v", (("traceparent", PARENT.encode()),)),
        Outbound("responses", b"k", b"v", (("traceparent", UNSAMPLED.encode()),)),
        Outbound("responses", b"k", b"v"),
    ]
    spans.committed("requests-3", 18, 3, 0.01, outbounds)
    spans.committed("requests-3", 19, 1, 0.01, outbounds[1:])
    [commit] = exporter.get_finished_spans()
    assert [f"{link.context.span_id:016x}" for link in commit.links] == [PARENT[36:52]]
    assert (commit.attributes or {})["messaging.batch.message_count"] == 3


def test_what_the_producer_does_not_record_is_not_recorded(spans: Spans, exporter: InMemorySpanExporter) -> None:
    passed_on = spans.enriched(_request(UNSAMPLED), SOURCE, 0.001, "execution")
    parsed = parse_traceparent(passed_on)
    assert parsed is not None
    assert (parsed.trace_id, parsed.sampled) == (UNSAMPLED[3:35], False)
    spans.executed(_request(passed_on), SOURCE, _response())
    assert exporter.get_finished_spans() == ()


@pytest.mark.parametrize("traceparent", [PARENT, None])
def test_where_nobody_exports_the_header_goes_through_as_it_came(traceparent: str | None) -> None:
    off = Spans()
    assert not off.enabled
    assert off.enriched(_request(traceparent), SOURCE, 0.001, "hit") == traceparent
    assert off.executed(_request(traceparent), SOURCE, _response()) == traceparent
    off.committed("requests-3", 18, 1, 0.01, [])


def test_what_the_journal_says_again_was_called_for_before(spans: Spans, exporter: InMemorySpanExporter) -> None:
    spans.executed(_request(), SOURCE, _response(from_journal=True))
    found = _by_name(exporter)
    assert set(found) == {"execute", "cache lookup", "wait for room", "journal begin", "journal finish"}
    assert (found["execute"].attributes or {})["stratarouter.from_journal"] is True
