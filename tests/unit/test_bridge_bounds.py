"""What bounds a call in-process: its timeout, whatever it waits for, and the bridge's end."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator
from typing import cast

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from stratarouter_runtime.bridge import CoreRuntimeBridge
from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.errors import DeadlineExceededError, InvalidRecordError, ShuttingDownError
from stratarouter_runtime.inline import InlineCarrier
from stratarouter_runtime.routes import RouteTable
from stratarouter_runtime.testing.simulator import Simulator, SimulatorSettings

LATENCY_S = 1.0


@pytest.fixture
async def bridge() -> AsyncIterator[CoreRuntimeBridge]:
    async with Simulator(SimulatorSettings(latency_ms=1000 * LATENCY_S)) as simulator:
        table = {
            "providers": {"sim": {"kind": "simulator", "base_url": simulator.base_url}},
            "routes": {"chat": {"targets": [{"provider": "sim", "model": "gpt-4o-mini"}]}},
        }
        config = RuntimeConfig(
            state_backend="memory", cache_backend="memory", cache_control="off", max_in_flight=1, drain_timeout_s=0.1
        )
        async with CoreRuntimeBridge(config, RouteTable.from_dict(table)) as running:
            yield running


async def test_waiting_for_room_is_within_the_timeout(bridge: CoreRuntimeBridge) -> None:
    first = asyncio.create_task(bridge.execute("chat", query="one"))
    await asyncio.sleep(0.05)
    began = time.monotonic()
    with pytest.raises(DeadlineExceededError):
        await bridge.execute("chat", query="another", timeout_s=0.1)
    assert time.monotonic() - began < LATENCY_S / 2
    assert (await first).response


async def test_a_caller_that_gives_up_leaves_its_place_to_its_call(bridge: CoreRuntimeBridge) -> None:
    for number in range(3):
        with pytest.raises(DeadlineExceededError):
            await bridge.execute("chat", query=f"question {number}", timeout_s=0.1)
    cancelled = asyncio.create_task(bridge.execute("chat", query="cancelled"))
    await asyncio.sleep(0.05)
    cancelled.cancel()
    await asyncio.wait([cancelled])
    assert cast("InlineCarrier", bridge._carrier)._assembly.engine.in_flight == 1
    # The place comes back with the end of the call that was given up.
    assert (await bridge.execute("chat", query="last")).response
    assert bridge._room.free == 1


async def test_for_ever_is_a_timeout_and_what_is_no_number_is_none(bridge: CoreRuntimeBridge) -> None:
    assert (await bridge.execute("chat", query="one", timeout_s=math.inf)).response
    with pytest.raises(InvalidRecordError, match="timeout_s"):
        await bridge.execute("chat", query="one", timeout_s=math.nan)


async def test_who_waits_when_the_bridge_is_closed_is_told_so(bridge: CoreRuntimeBridge) -> None:
    under_way = asyncio.create_task(bridge.execute("chat", query="one"))
    await asyncio.sleep(0.05)
    waiting = asyncio.create_task(bridge.execute("chat", query="another"))
    await asyncio.sleep(0.05)
    await bridge.close()
    for task in (under_way, waiting):
        with pytest.raises(ShuttingDownError):
            await asyncio.wait_for(task, 5.0)


async def test_the_metrics_of_an_inline_bridge_can_be_shown_among_ones_own(bridge: CoreRuntimeBridge) -> None:
    own = CollectorRegistry(auto_describe=True)
    assert bridge.registry is not None
    own.register(bridge.registry)
    await bridge.execute("chat", query="counted")
    assert b'stratarouter_responses_total{code="ok",status="ok"} 1.0' in generate_latest(own)
    await bridge.close()
    assert bridge.registry is None
    assert CoreRuntimeBridge(bridge.config).registry is None
