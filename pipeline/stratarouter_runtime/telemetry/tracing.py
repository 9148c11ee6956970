"""Traces: OpenTelemetry's set-up, and the W3C trace context as pure functions.

Without ``tracing_enabled`` or without an endpoint nothing of the SDK is imported and spans cost next to nothing.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.metrics import Meter

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider

SERVICE_NAME = "stratarouter-runtime"
EXPORT_TIMEOUT_S = 5
"""One export; longer would hold up the exit of a worker whose collector is away."""
METRICS_EVERY_S = 15
"""Between two exports of metrics."""
QUEUE_SPANS = 4096
"""Spans kept for export; when the collector is away the rest are dropped, never waited for."""
SAMPLED: Final = 0x01

TRACEPARENT = "traceparent"
"""The header's name: https://www.w3.org/TR/trace-context."""
_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII)
_INVALID_VERSION = "ff"
_MAX_CHARS = 512


@dataclass(frozen=True, slots=True)
class TraceParent:
    """Where a trace comes from: ``trace_id`` 32 and ``span_id`` 16 lower-case hex digits, flags 0..255."""

    trace_id: str
    span_id: str
    flags: int = SAMPLED

    @property
    def sampled(self) -> bool:
        """Whether the caller records this trace."""
        return bool(self.flags & SAMPLED)

    def __str__(self) -> str:
        return f"00-{self.trace_id}-{self.span_id}-{self.flags:02x}"


def parse_traceparent(header: str | bytes | None) -> TraceParent | None:
    """Read a ``traceparent`` (W3C Trace Context, level 1); None where it is absent or breaks a rule.

    A version above 00 is read by its first four fields, as the recommendation says.
    """
    if header is None or len(header) > _MAX_CHARS:
        return None
    text = header.decode("ascii", errors="replace") if isinstance(header, bytes) else header
    match = _TRACEPARENT.fullmatch(text.strip())
    if match is None:
        return None
    version, trace_id, span_id, flags, rest = match.groups()
    if version == _INVALID_VERSION or (version == "00" and rest) or not int(trace_id, 16) or not int(span_id, 16):
        return None
    return TraceParent(trace_id, span_id, int(flags, 16))


def child_traceparent(parent: TraceParent | str | bytes | None, span_id: str | None = None) -> str:
    """A ``traceparent`` that continues ``parent``'s trace under ``span_id`` (a new one by default).

    Where there is no valid parent, a new trace that nobody records.
    """
    known = parent if isinstance(parent, TraceParent) else parse_traceparent(parent)
    trace_id = known.trace_id if known else _new_id(16)
    # Only the sampled bit is defined in version 00; others are not passed on.
    flags = known.flags & SAMPLED if known else 0
    return str(TraceParent(trace_id, span_id or _new_id(8), flags))


def exemplar(traceparent: str | None) -> dict[str, str] | None:
    """What leads from a measurement to its trace: the labels of an OpenMetrics exemplar; None where nobody records."""
    parent = parse_traceparent(traceparent)
    return {"trace_id": parent.trace_id} if parent is not None and parent.sampled else None


def context_of(parent: TraceParent | None) -> Context:
    """The OpenTelemetry context in which a span becomes a child of ``parent``; an empty one for None."""
    if parent is None:
        return Context()
    remote = trace.SpanContext(
        int(parent.trace_id, 16), int(parent.span_id, 16), is_remote=True, trace_flags=trace.TraceFlags(parent.flags)
    )
    return trace.set_span_in_context(trace.NonRecordingSpan(remote), Context())


def _new_id(size: int) -> str:
    while True:
        found = secrets.token_hex(size)
        if int(found, 16):
            return found


@dataclass(slots=True)
class Tracing:
    """The tracer of one process. Without a provider it hands out OpenTelemetry's no-op tracer."""

    _provider: TracerProvider | None = None
    _meters: MeterProvider | None = None

    @property
    def enabled(self) -> bool:
        """Whether spans are exported."""
        return self._provider is not None

    def tracer(self, name: str) -> trace.Tracer:
        """The tracer for ``name``."""
        return trace.NoOpTracer() if self._provider is None else self._provider.get_tracer(name)

    def meter(self, name: str) -> Meter | None:
        """The meter for ``name``; None where nobody exports."""
        return None if self._meters is None else self._meters.get_meter(name)

    def stop(self, timeout_s: float = EXPORT_TIMEOUT_S) -> None:
        """Export what is left within ``timeout_s`` seconds. Blocks: call it in a thread. Idempotent."""
        provider, self._provider = self._provider, None
        if provider is not None:
            provider.force_flush(int(timeout_s * 1000))
            provider.shutdown()
        meters, self._meters = self._meters, None
        if meters is not None:
            meters.shutdown(timeout_s * 1000)


def configure_tracing(*, enabled: bool, endpoint: str | None, version: str = "") -> Tracing:
    """Set up the export of spans and of the metrics of calls, over OTLP/gRPC to ``endpoint``; nothing where it is off
    or None.

    Args:
        enabled: ``tracing_enabled``.
        endpoint: ``OTEL_EXPORTER_OTLP_ENDPOINT``, like ``http://localhost:4317``; http is plain, https is TLS.
        version: the service's, for the resource.
    """
    if not enabled or not endpoint:
        return Tracing()
    # Imported late: gRPC costs 150 ms and a thread, and most processes export nothing.
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

    resource = Resource.create({"service.name": SERVICE_NAME, "service.version": version})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    exporter = OTLPSpanExporter(
        endpoint=endpoint, insecure=not endpoint.startswith("https://"), timeout=EXPORT_TIMEOUT_S
    )
    provider.add_span_processor(
        BatchSpanProcessor(exporter, max_queue_size=QUEUE_SPANS, export_timeout_millis=EXPORT_TIMEOUT_S * 1000)
    )
    return Tracing(provider, _meter_provider(endpoint, resource))


def _meter_provider(endpoint: str, resource: Resource) -> MeterProvider:
    from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter  # noqa: PLC0415 - as above
    from opentelemetry.sdk.metrics import MeterProvider  # noqa: PLC0415
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader  # noqa: PLC0415

    exporter = OTLPMetricExporter(
        endpoint=endpoint, insecure=not endpoint.startswith("https://"), timeout=EXPORT_TIMEOUT_S
    )
    reader = PeriodicExportingMetricReader(exporter, METRICS_EVERY_S * 1000, EXPORT_TIMEOUT_S * 1000)
    return MeterProvider([reader], resource, shutdown_on_exit=False)


def trace_headers(traceparent: str | None) -> tuple[tuple[str, bytes], ...]:
    """The headers of a record that goes on in the trace of ``traceparent``; none for None."""
    return () if traceparent is None else ((TRACEPARENT, traceparent.encode()),)
