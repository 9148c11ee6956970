"""The number of series at /metrics does not follow what clients write: 100,000 requests of distinct ids go through both
processors, with distinct tenants, users, routes, reply topics and words.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any, cast

import orjson
from prometheus_client import generate_latest

from stratarouter_runtime.assembly import Assembly
from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.processors.enrich import Enrich
from stratarouter_runtime.processors.execute import Execute
from stratarouter_runtime.processors.lane import Lane
from stratarouter_runtime.records import Outbound
from stratarouter_runtime.routes import RouteTable
from stratarouter_runtime.testing.simulator import Simulator
from support.waits import until
from unit.enrich_bench import enrich_of, records

IDS = 100_000
POLL = 500
EXECUTED_OF_POLL = 10
"""Passed on to execute, of each poll: a call costs ten times what enrich does."""
ROUTES = {
    "providers": {"sim": {"kind": "simulator", "base_url": ""}},
    "routes": {"chat": {"targets": [{"provider": "sim", "model": "gpt-4o-mini"}]}},
}


class Collector:
    """A lane that counts what is finished and keeps what goes to ``topic``."""

    name = "requests-0"
    backlog_end = 0

    def __init__(self, topic: str | None = None) -> None:
        self.topic = topic
        self.kept: list[bytes] = []
        self.finished = 0

    def finish(self, _offset: int, outbounds: Sequence[Outbound], _instead: object = None) -> None:
        self.finished += 1
        self.kept += [outbound.value for outbound in outbounds if outbound.topic == self.topic]


def _value(number: int) -> bytes:
    """One request after another; of ten, one goes to a route and one to a topic that there are not, one is broken."""
    request: dict[str, Any] = {
        "request_id": f"id-{number}",
        "decision": {"route_id": f"route-{number}" if number % 10 == 1 else "chat", "confidence": 0.9},
        "query": f"what is {number}",
        "context": {"tenant": f"tenant-{number}", "user_id": f"user-{number}", "session_id": f"session-{number}"},
    }
    if number % 10 == 2:
        request["reply_to"] = f"elsewhere-{number}"
    if number % 10 == 3:
        request[f"field-{number}"] = number
    return orjson.dumps(request)


def _series(assembly: Assembly) -> int:
    return len(generate_latest(assembly.metrics.registry).splitlines())


async def _breakers_shown(assembly: Assembly) -> bool:
    return b"stratarouter_breakers{" in generate_latest(assembly.metrics.registry)


async def _through(assembly: Assembly, enrich: Enrich, execute: Execute, numbers: range) -> None:
    entered = Collector(assembly.config.executions_topic)
    enrich.handle(cast("Lane", entered), records([_value(number) for number in numbers]))
    assert entered.finished == len(numbers)
    executed = Collector()
    execute.handle(cast("Lane", executed), records(entered.kept[:EXECUTED_OF_POLL]))
    async with asyncio.timeout(30):
        while executed.finished < EXECUTED_OF_POLL:
            await asyncio.sleep(0)


async def test_series_stay_as_many_over_a_hundred_thousand_ids_in_the_pipeline() -> None:
    config = RuntimeConfig(state_backend="memory", cache_backend="memory", usage_enabled=False, cache_control="off")
    async with Simulator() as simulator:
        ROUTES["providers"]["sim"]["base_url"] = simulator.base_url
        assembly = Assembly(config, RouteTable.from_dict(ROUTES))
        await assembly.start()
        try:
            enrich = enrich_of(assembly)
            execute = Execute(config, engine=assembly.engine, metrics=assembly.metrics)
            await _through(assembly, enrich, execute, range(POLL))
            await until(partial(_breakers_shown, assembly), "the gauges of what was called")
            before = _series(assembly)
            for first in range(POLL, IDS, POLL):
                await _through(assembly, enrich, execute, range(first, first + POLL))
            assert _series(assembly) == before
        finally:
            await assembly.stop(0.0)
        assert len(simulator.paid_calls) == IDS // POLL * EXECUTED_OF_POLL
        shown = generate_latest(assembly.metrics.registry).decode()
        assert f'stratarouter_requests_total{{processor="enrich"}} {float(IDS)}' in shown
        assert "id-" not in shown
        assert "tenant-" not in shown
