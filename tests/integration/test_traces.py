"""One trace from the producer's header through every topic to the response, as a collector receives it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.sdk.trace import TracerProvider

from stratarouter_runtime import CoreRuntimeBridge, topics
from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.journal.migrations import migrate
from stratarouter_runtime.processors.tail import Tail
from stratarouter_runtime.routes import RouteTable
from stratarouter_runtime.telemetry.tracing import parse_traceparent
from stratarouter_runtime.testing.simulator import Simulator, SimulatorSettings
from support.fleet import Watch, WorkerProcess, produce, request, write_routes

pytestmark = pytest.mark.stack

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"


class MetricsCollector(metrics_service_pb2_grpc.MetricsServiceServicer):  # type: ignore[misc]  # as below
    """Keeps the names of the metrics that come."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def Export(self, request: Any, context: Any) -> Any:  # noqa: N802, ARG002 - the service's name and shape
        scopes = [scope for resource in request.resource_metrics for scope in resource.scope_metrics]
        self.names |= {metric.name for scope in scopes for metric in scope.metrics}
        return metrics_service_pb2.ExportMetricsServiceResponse()


class Collector(trace_service_pb2_grpc.TraceServiceServicer):  # type: ignore[misc]  # generated code has no types
    """An OTLP receiver that keeps every span, and the metrics beside them."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self._server = grpc.server(ThreadPoolExecutor(1))
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(self, self._server)
        self.metrics = MetricsCollector()
        metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(self.metrics, self._server)
        self.endpoint = f"http://127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def Export(self, request: Any, context: Any) -> Any:  # noqa: N802, ARG002 - the service's name and shape
        self.spans += [
            span for resource in request.resource_spans for scope in resource.scope_spans for span in scope.spans
        ]
        return trace_service_pb2.ExportTraceServiceResponse()

    def stop(self) -> None:
        self._server.stop(1).wait()

    def of(self, trace_id: str) -> dict[str, Any]:
        """The spans of one trace by name."""
        return {span.name: span for span in self.spans if span.trace_id.hex() == trace_id}


@pytest.fixture
def collector() -> Iterator[Collector]:
    running = Collector()
    yield running
    running.stop()


async def test_one_trace_through_every_topic(config: RuntimeConfig, tmp_path: Path, collector: Collector) -> None:
    await topics.apply(config, partitions=2)
    await migrate(config.database_url)
    async with Simulator(SimulatorSettings(latency_ms=50)) as simulator, Watch(config) as watch:
        routes = write_routes(tmp_path / "routes.toml", simulator.base_url)
        extra = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint}
        worker = WorkerProcess(config, routes, tmp_path / "worker.log", extra=extra)
        await worker.start()
        await produce(config, [request("traced", "what is traced")], headers=[("traceparent", PARENT.encode())])
        await watch.until(1, 60)
        # The same again is a hit; and one that the producer does not record.
        await produce(config, [request("hit", "what is traced")], headers=[("traceparent", PARENT.encode())])
        unsampled = f"00-{'1' * 32}-00f067aa0ba902b7-00".encode()
        await produce(config, [request("unsampled", "not recorded")], headers=[("traceparent", unsampled)])
        await watch.until(3, 60)
        # From a figure to the trace: the call's exemplar.
        async with httpx.AsyncClient() as client:
            accept = {"accept": "application/openmetrics-text; version=1.0.0"}
            page = await client.get(f"http://127.0.0.1:{worker.port}/metrics", headers=accept)
        shown = [line for line in page.text.splitlines() if " # {" in line]
        assert any("provider_call_seconds_bucket" in line and f'trace_id="{TRACE}"' in line for line in shown)
        assert not any("1" * 32 in line for line in shown)
        # Stopping exports what is left.
        assert await worker.stop() == 0
        assert collector.metrics.names == {"gen_ai.client.operation.duration", "gen_ai.client.token.usage"}
        found = collector.of(TRACE)
        assert {"enrich", "execute", "cache lookup", "journal begin", "chat gpt-4o-mini", "journal finish"} <= set(
            found
        )
        assert [span for span in collector.spans if span.trace_id.hex() == "1" * 32] == []
        [execute] = [span for span in collector.spans if span.name == "execute"]
        [passed_on] = [span for span in collector.spans if span.span_id == execute.parent_span_id]
        assert passed_on.name == "enrich"
        assert passed_on.parent_span_id.hex() == PARENT[36:52]
        commits = [span for span in collector.spans if span.name == "commit"]
        linked = {link.span_id for span in commits for link in span.links}
        enriched = {span.span_id for span in collector.spans if span.name == "enrich"}
        assert enriched | {execute.span_id} <= linked
        # The response's header continues the trace from the span that made it.
        headers = await _response_headers(config, 3)
        answered = {key: parse_traceparent(dict(value).get("traceparent")) for key, value in headers.items()}
        assert answered["traced"] is not None
        assert (answered["traced"].trace_id, answered["traced"].span_id) == (TRACE, execute.span_id.hex())
        assert answered["hit"] is not None
        assert bytes.fromhex(answered["hit"].span_id) in enriched - {passed_on.span_id}
        assert answered["unsampled"] is not None
        assert (answered["unsampled"].trace_id, answered["unsampled"].sampled) == ("1" * 32, False)


async def _response_headers(config: RuntimeConfig, count: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    async with Tail(config, config.topic(config.responses_topic), from_beginning=True) as tail, asyncio.timeout(60):
        while len(found) < count:
            found |= {(record.key or b"").decode(): record.headers for record in await tail.poll()}
    return found


async def test_in_process_the_callers_own_span_is_the_parent(config: RuntimeConfig, collector: Collector) -> None:
    await migrate(config.database_url)
    async with Simulator() as simulator:
        table = RouteTable.from_dict(
            {
                "providers": {"sim": {"kind": "simulator", "base_url": simulator.base_url}},
                "routes": {"chat": {"targets": [{"provider": "sim", "model": "gpt-4o-mini"}]}},
            }
        )
        traced = config.model_copy(update={"otel_exporter_otlp_endpoint": collector.endpoint})
        async with CoreRuntimeBridge(traced, table) as bridge:
            with TracerProvider().get_tracer("the application").start_as_current_span("handler") as span:
                await bridge.execute("chat", query="who calls?")
            await bridge.execute("chat", query="who calls without a span?")
        own = f"{span.get_span_context().trace_id:032x}"
        found = collector.of(own)
        assert found["execute"].parent_span_id.hex() == f"{span.get_span_context().span_id:016x}"
        assert found["chat gpt-4o-mini"].parent_span_id == found["execute"].span_id
        assert len({span.trace_id for span in collector.spans}) == 2
