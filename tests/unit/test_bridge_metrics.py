"""Metrics and health of a bridge in-process: served where a port was named, and no answer hangs on them."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from stratarouter_runtime.bridge import CoreRuntimeBridge
from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.routes import RouteTable
from stratarouter_runtime.testing.simulator import Simulator, SimulatorSettings
from support.waits import until


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with Simulator() as running:
        yield running


def bridge(simulator: Simulator, **settings: Any) -> CoreRuntimeBridge:
    table = {
        "providers": {"sim": {"kind": "simulator", "base_url": simulator.base_url}},
        "routes": {"chat": {"targets": [{"provider": "sim", "model": "gpt-4o-mini"}]}},
    }
    config = RuntimeConfig(state_backend="memory", cache_backend="memory", embedder="none", **settings)
    return CoreRuntimeBridge(config, RouteTable.from_dict(table))


async def get(port: int | None, path: str) -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False, timeout=10) as client:
        return await client.get(f"http://127.0.0.1:{port}{path}")


def figure(metrics: str, name: str) -> float:
    found = re.search(rf"^stratarouter_{re.escape(name)} (\S+)$", metrics, re.MULTILINE)
    assert found is not None, name
    return float(found[1])


async def test_a_bridge_serves_its_metrics_where_a_port_is_named(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROMETHEUS_PORT", "0")
    async with bridge(simulator) as named:
        await named.execute("chat", query="where is my invoice")
        port = named.http_port
        metrics = (await get(port, "/metrics")).text
        assert figure(metrics, 'responses_total{code="ok",status="ok"}') == 1
        assert (await get(port, "/healthz")).json()["status"] == "alive"
        assert (await get(port, "/readyz")).json() == {"ready": True, "reasons": {}}
        assert (await get(port, "/")).status_code == 404, "the console is a worker's"
    assert named.http_port is None
    with pytest.raises(httpx.ConnectError):
        await get(port, "/healthz")


async def test_a_bridge_takes_no_port_that_nobody_named_or_that_metrics_are_off_for(simulator: Simulator) -> None:
    for settings in ({}, {"metrics_enabled": False, "prometheus_port": 0}):
        async with bridge(simulator, **settings) as quiet:
            await quiet.execute("chat", query="where is my invoice")
            assert quiet.http_port is None


async def test_a_bridge_whose_port_is_taken_answers_and_says_so(
    simulator: Simulator, caplog: pytest.LogCaptureFixture
) -> None:
    async with bridge(simulator, prometheus_port=0) as first:
        assert first.http_port is not None
        with caplog.at_level(logging.WARNING, "stratarouter.bridge"):
            async with bridge(simulator, prometheus_port=first.http_port) as second:
                assert (await second.execute("chat", query="where is my invoice")).response
                assert second.http_port is None
    assert [record.getMessage() for record in caplog.records] == ["metrics not served"]
    assert "PROMETHEUS_PORT" in str(vars(caplog.records[0]))


async def test_calls_in_flight_and_breakers_show_in_process(simulator: Simulator) -> None:
    simulator.settings = SimulatorSettings(latency_ms=300)
    async with bridge(simulator, prometheus_port=0) as busy:
        running = [asyncio.ensure_future(busy.execute("chat", query=f"question {n}")) for n in range(3)]

        async def called() -> bool:
            return simulator.active == 3

        await until(called, "three calls")
        assert figure((await get(busy.http_port, "/metrics")).text, 'in_flight{processor="execute"}') == 3
        await asyncio.gather(*running)
        assert figure((await get(busy.http_port, "/metrics")).text, 'in_flight{processor="execute"}') == 0

        async def told() -> bool:
            return 'breakers{provider="sim",state="closed"} 1.0' in (await get(busy.http_port, "/metrics")).text

        await until(told, "the target's breaker")
