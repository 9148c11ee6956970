"""A bridge belongs to the event loop that starts it.

Where each call had an ``asyncio.run`` of its own, or a thread its own loop, the provider was paid, its answer went to
connections of a loop that no longer ran, and the caller waited for its whole timeout.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest

from stratarouter_runtime.bridge import CoreRuntimeBridge
from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.errors import BrokerError, ConfigurationError, ShuttingDownError
from stratarouter_runtime.routes import RouteTable
from stratarouter_runtime.shared_task import SharedTask
from stratarouter_runtime.testing.simulator import Simulator, SimulatorSettings

SOON_S = 2.0
"""Of a call's own bound; what is refused is refused at once."""

Doing = Callable[[CoreRuntimeBridge], Coroutine[Any, Any, Any]]


def bridge_to(simulator: Simulator, **settings: Any) -> CoreRuntimeBridge:
    table = {
        "providers": {"sim": {"kind": "simulator", "base_url": simulator.base_url}},
        "routes": {"chat": {"targets": [{"provider": "sim", "model": "gpt-4o-mini"}]}},
    }
    config = RuntimeConfig(
        state_backend="memory", cache_backend="memory", embedder="none", execution_timeout=SOON_S, **settings
    )
    return CoreRuntimeBridge(config, RouteTable.from_dict(table))


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with Simulator() as running:
        yield running


async def heard(bridge: CoreRuntimeBridge) -> list[str]:
    return [piece async for piece in bridge.stream("chat", query="streamed")]


DOING: dict[str, Doing] = {
    "execute": lambda bridge: bridge.execute("chat", query="another"),
    "stream": heard,
    "execute_many": lambda bridge: bridge.execute_many(
        [{"decision": "chat", "query": "one of many"}], return_exceptions=True
    ),
    "mark_wrong": lambda bridge: bridge.mark_wrong("r1", reason="wrong"),
    "correct": lambda bridge: bridge.correct("key", "right", reason="wrong"),
    "invalidate": lambda bridge: bridge.invalidate(everything=True, reason="wrong"),
    "start": lambda bridge: bridge.start(),
    "close": lambda bridge: bridge.close(),
}


@pytest.mark.parametrize("name", DOING)
async def test_what_is_asked_in_another_event_loop_is_refused_before_it_is_paid_for(
    simulator: Simulator, name: str
) -> None:
    async with bridge_to(simulator) as bridge:
        await bridge.execute("chat", query="the first", request_id="r1")
        with pytest.raises(ConfigurationError, match="another event loop") as caught:
            await asyncio.to_thread(asyncio.run, DOING[name](bridge))
        assert "one bridge for each event loop" in caught.value.remedy
        # Its own event loop has it as before.
        assert (await bridge.execute("chat", query="the second")).response
    assert len(simulator.paid_calls) == 2


async def test_a_call_handed_to_the_bridges_event_loop_is_answered_to_another_thread(simulator: Simulator) -> None:
    async with bridge_to(simulator) as bridge:
        await bridge.start()
        loop = asyncio.get_running_loop()

        def ask() -> str:
            asked = asyncio.run_coroutine_threadsafe(bridge.execute("chat", query="from a thread"), loop)
            return asked.result(SOON_S).response

        assert "from a thread" in await asyncio.to_thread(ask)


@pytest.fixture
async def behind(simulator: Simulator) -> CoreRuntimeBridge:
    """A bridge that was started in an event loop that is closed now."""
    bridge = bridge_to(simulator, prometheus_port=0, gc_threshold=50_000)
    await asyncio.to_thread(asyncio.run, bridge.execute("chat", query="the first"))
    return bridge


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_a_second_asyncio_run_is_refused_before_it_is_paid_for(
    behind: CoreRuntimeBridge, simulator: Simulator
) -> None:
    for _ in range(2):
        with pytest.raises(ConfigurationError, match="which is closed") as caught:
            await asyncio.to_thread(asyncio.run, behind.execute("chat", query="the second"))
        assert "run_coroutine_threadsafe" in caught.value.remedy
    await behind.close()
    assert len(simulator.paid_calls) == 1
    gc.collect()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_closing_after_the_event_loop_releases_what_it_can_and_says_so(
    behind: CoreRuntimeBridge, caplog: pytest.LogCaptureFixture
) -> None:
    port = behind.http_port
    assert port is not None
    assert gc.get_threshold()[0] == 50_000
    with caplog.at_level(logging.WARNING, "stratarouter.bridge"):
        await behind.close()
    [said] = [record.getMessage() for record in caplog.records]
    assert said == "the bridge's event loop was closed before the bridge"
    assert gc.get_threshold()[0] < 50_000
    with socket.socket() as again:
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind(("127.0.0.1", port))
    await behind.close()
    with pytest.raises(ShuttingDownError):
        await behind.execute("chat", query="too late")
    gc.collect()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_a_close_that_its_event_loop_did_not_outlive_is_done_from_another() -> None:
    async with Simulator(SimulatorSettings(latency_ms=60_000)) as simulator:
        bridge = bridge_to(simulator, prometheus_port=0, gc_threshold=50_000)

        async def cut_off() -> None:
            asking = asyncio.create_task(bridge.execute("chat", query="the first"))
            await bridge.start()
            while not simulator.active:
                await asyncio.sleep(0.01)
            await asyncio.wait([asyncio.create_task(bridge.close())], timeout=0.05)
            assert not asking.done()

        await asyncio.to_thread(asyncio.run, cut_off())
        port = bridge.http_port
        assert port is not None
        await bridge.close()
        assert gc.get_threshold()[0] < 50_000
        with socket.socket() as again:
            again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            again.bind(("127.0.0.1", port))
        gc.collect()


async def test_a_bridge_that_is_closed_may_be_closed_in_any_event_loop(simulator: Simulator) -> None:
    async with bridge_to(simulator) as bridge:
        pass
    await asyncio.to_thread(asyncio.run, bridge.close())
    with pytest.raises(ShuttingDownError):
        await asyncio.to_thread(asyncio.run, bridge.execute("chat", query="too late"))


def test_a_start_that_failed_may_be_tried_again_in_another_event_loop() -> None:
    bridge = CoreRuntimeBridge(RuntimeConfig(transport="kafka", bootstrap_servers="127.0.0.1:1"))
    for _ in range(2):
        with pytest.raises(BrokerError):
            asyncio.run(bridge.start())
    asyncio.run(bridge.close())


def test_what_a_closed_event_loop_left_running_is_begun_anew_in_another() -> None:
    begun = 0

    async def make() -> int:
        nonlocal begun
        begun += 1
        await asyncio.sleep(0 if begun > 1 else 3600)
        return begun

    async def ended() -> int:
        result = await shared.result()
        await shared.end()
        return result

    shared = SharedTask(make, "making")
    loop = asyncio.new_event_loop()
    left = loop.create_task(shared.result())
    loop.run_until_complete(asyncio.wait([left], timeout=0))
    loop.close()
    assert asyncio.run(asyncio.wait_for(ended(), SOON_S)) == 2
