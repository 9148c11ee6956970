"""What is counted and said of calls in-process: tokens whatever their price, and why no cache was asked."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from stratarouter_runtime.bridge import CoreRuntimeBridge
from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.errors import DeadlineExceededError
from stratarouter_runtime.inline import InlineCarrier
from stratarouter_runtime.records import Answer, Attempt, Response, Usage
from stratarouter_runtime.routes import RouteTable
from stratarouter_runtime.telemetry.metrics import Metrics
from stratarouter_runtime.telemetry.responses import Tally, count_calls, count_paid
from stratarouter_runtime.testing.simulator import Simulator, SimulatorSettings

CALLED = (Attempt("own", "model", "ok", 1.0, 200),)


def tokens(metrics: Metrics) -> dict[str, float]:
    return {
        kind: metrics.registry.get_sample_value("stratarouter_tokens_total", {"kind": kind}) or 0.0
        for kind in ("input", "output", "cached", "reasoning")
    }


def measured(reader: InMemoryMetricReader) -> dict[str, Any]:
    """What went out for OpenTelemetry, by name."""
    data = reader.get_metrics_data()
    assert data is not None
    [found] = [scope.metrics for resource in data.resource_metrics for scope in resource.scope_metrics]
    return {metric.name: metric for metric in found}


def answer(**changes: Any) -> Response:
    return Response("r", "ok", "text", "own", "model", usage=Usage(7, 5, 3, 2), **changes)


def test_tokens_of_a_call_are_counted_whatever_its_price() -> None:
    for cost in (None, 0.0, 0.5):
        metrics = Metrics()
        count_paid(metrics, Answer("text", "own", "model", Usage(7, 5, 3, 2), cost_usd=cost))
        assert tokens(metrics) == {"input": 7, "output": 5, "cached": 3, "reasoning": 2}
        assert metrics.registry.get_sample_value("stratarouter_cost_usd_total") == (cost or 0.0)


def test_calls_are_measured_by_the_conventions_for_generative_ai() -> None:
    reader, metrics = InMemoryMetricReader(), Metrics()
    metrics.export_calls(MeterProvider([reader], shutdown_on_exit=False).get_meter("calls"))
    refused, answered = Attempt("own", "large", "provider_unavailable", 40.0, 503), Attempt("own", "small", "ok", 100.0)
    count_calls(metrics, [refused, answered], Answer("text", "own", "small-2", Usage(11, 7)))
    count_calls(metrics, [refused], None)
    found = measured(reader)
    assert {name: metric.unit for name, metric in found.items()} == {
        "gen_ai.client.operation.duration": "s",
        "gen_ai.client.token.usage": "{token}",
    }
    calls = {
        (point.attributes["gen_ai.request.model"], point.attributes.get("error.type")): point
        for point in found["gen_ai.client.operation.duration"].data.data_points
    }
    assert {name: (point.count, point.sum) for name, point in calls.items()} == {
        ("large", "provider_unavailable"): (2, 0.08),
        ("small", None): (1, 0.1),
    }
    answering = calls["small", None]
    assert answering.explicit_bounds == (*(0.01 * 2**n for n in range(14)),)
    assert answering.attributes["gen_ai.provider.name"] == "own"
    assert answering.attributes["gen_ai.response.model"] == "small-2"
    used = found["gen_ai.client.token.usage"].data.data_points
    assert {point.attributes["gen_ai.token.type"]: point.sum for point in used} == {"input": 11, "output": 7}
    metrics.export_calls(None)
    count_calls(metrics, [answered], None)
    assert measured(reader)["gen_ai.client.token.usage"].data.data_points[0].count == 1


def test_a_call_without_a_price_is_not_counted_as_a_hit() -> None:
    tally = Tally(Metrics())
    assert not tally.take(answer(cost_usd=None, attempts=CALLED))
    assert tally.take(answer(cost_usd=0.0, saved_usd=0.5))


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with Simulator(SimulatorSettings(latency_ms=1)) as running:
        yield running


@pytest.mark.parametrize(
    ("enabled", "options", "reason"),
    [(True, {"mode": "bypass"}, "mode"), (True, {"mode": "refresh"}, "mode"), (False, None, "disabled")],
)
async def test_why_the_cache_was_not_asked_is_said_and_counted(
    simulator: Simulator, enabled: bool, options: dict[str, Any] | None, reason: str
) -> None:
    table = {
        "providers": {"sim": {"kind": "simulator", "base_url": simulator.base_url}},
        "routes": {"chat": {"targets": [{"provider": "sim", "model": "gpt-4o-mini"}]}},
    }
    config = RuntimeConfig(state_backend="memory", cache_backend="memory", cache_control="off", cache_enabled=enabled)
    async with CoreRuntimeBridge(config, RouteTable.from_dict(table)) as bridge:
        result = await bridge.execute("chat", query="where is my invoice", cache=options)
        registry = bridge.registry
    assert registry is not None
    assert (result.cache.kind, result.cache.reason) == ("bypass", reason)
    counted = {
        why: registry.get_sample_value("stratarouter_cache_bypass_total", {"reason": why})
        for why in ("mode", "disabled")
    }
    assert counted == {"mode": 0.0, "disabled": 0.0} | {reason: 1.0}


async def test_a_call_is_counted_once_whoever_gets_its_answer(simulator: Simulator) -> None:
    simulator.settings = SimulatorSettings(latency_ms=200)
    table = {
        "providers": {"sim": {"kind": "simulator", "base_url": simulator.base_url}},
        "routes": {"chat": {"targets": [{"provider": "sim", "model": "gpt-4o-mini"}]}},
        "prices": {"sim/gpt-4o-mini": {"input": 1.0, "output": 2.0}},
    }
    config = RuntimeConfig(state_backend="memory", cache_enabled=False)
    reader = InMemoryMetricReader()
    async with CoreRuntimeBridge(config, RouteTable.from_dict(table)) as bridge:
        assert isinstance(bridge._carrier, InlineCarrier)
        bridge._carrier._assembly.metrics.export_calls(
            MeterProvider([reader], shutdown_on_exit=False).get_meter("calls")
        )
        # The first goes on without its caller, and is paid for all the same.
        with pytest.raises(DeadlineExceededError):
            await bridge.execute("chat", query="where is my invoice", request_id="one", timeout_s=0.05)
        results = [await bridge.execute("chat", query="where is my invoice", request_id="one") for _ in range(3)]
        registry = bridge.registry
    assert registry is not None
    assert [result.record.from_journal for result in results] == [True, True, True]
    assert results[0].cost_usd
    assert {result.cost_usd for result in results} == {results[0].cost_usd}
    assert registry.get_sample_value("stratarouter_cost_usd_total") == results[0].cost_usd
    spent = registry.get_sample_value("stratarouter_tokens_total", {"kind": "input"})
    assert spent == results[0].usage.input_tokens
    found = measured(reader)
    [calls] = found["gen_ai.client.operation.duration"].data.data_points
    assert calls.count == 1
    points = found["gen_ai.client.token.usage"].data.data_points
    used = {point.attributes["gen_ai.token.type"]: point.sum for point in points}
    assert used == {"input": results[0].usage.input_tokens, "output": results[0].usage.output_tokens}
