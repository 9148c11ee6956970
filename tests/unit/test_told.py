"""What can wait gives way to answers that are on their way to their callers."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from stratarouter_runtime.bridge import CoreRuntimeBridge
from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.engine.engine import Engine
from stratarouter_runtime.inline import InlineCarrier
from stratarouter_runtime.routes import RouteTable
from stratarouter_runtime.testing.simulator import Simulator, SimulatorSettings
from stratarouter_runtime.told import MAX_TURNS, Told


async def test_who_gives_way_goes_on_after_the_callers() -> None:
    told, order = Told(), list[str]()
    ended = [asyncio.get_running_loop().create_future() for _ in range(3)]

    async def caller(number: int) -> None:
        await ended[number]
        order.append(f"answer {number}")

    async def search() -> None:
        await told.give_way()
        order.append("search")

    callers = [asyncio.create_task(caller(number)) for number in range(3)]
    await asyncio.sleep(0)
    # Ready before the callers are.
    searching = asyncio.create_task(search())
    for one in ended:
        told.tell(one)
    assert told.on_the_way == 3
    await asyncio.gather(searching, *callers)
    assert order == ["answer 0", "answer 1", "answer 2", "search"]
    assert told.on_the_way == 0


async def test_without_answers_nothing_waits() -> None:
    told = Told()
    giving = told.give_way()
    try:
        giving.send(None)
    except StopIteration:
        return
    raise AssertionError("it gave the event loop a turn for nobody")


async def test_answers_that_never_cease_do_not_keep_the_others_waiting() -> None:
    told, turns = Told(), 0
    loop = asyncio.get_running_loop()
    stopped = False

    def answer() -> None:
        nonlocal turns
        turns += 1
        told.tell(loop.create_future())
        if not stopped:
            loop.call_soon(answer)

    answer()
    await told.give_way()
    stopped = True
    assert turns <= MAX_TURNS + 1


class Noting:
    """An engine that notes when it searches."""

    def __init__(self, engine: Engine, order: list[str]) -> None:
        self._engine = engine
        self._order = order

    def look_now(self, execution: Any) -> Any:
        self._order.append("search")
        return self._engine.look_now(execution)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)


async def test_a_search_in_this_process_comes_after_answers() -> None:
    order: list[str] = []
    async with Simulator(SimulatorSettings(latency_ms=20)) as simulator:
        table = {
            "providers": {"sim": {"kind": "simulator", "base_url": simulator.base_url}},
            "routes": {"chat": {"targets": [{"provider": "sim", "model": "gpt-4o-mini"}]}},
        }
        config = RuntimeConfig(state_backend="memory", cache_backend="memory", cache_control="off")
        async with CoreRuntimeBridge(config, RouteTable.from_dict(table)) as bridge:
            assembly = cast("InlineCarrier", bridge._carrier)._assembly
            told = assembly.engine._performer.told
            assembly.engine = cast("Engine", Noting(assembly.engine, order))

            async def asker() -> None:
                await bridge.execute("chat", query="where is my invoice", embedding=[1.0, 0.0])
                order.append("answer")

            asking = asyncio.create_task(asker())
            while not told.on_the_way:
                await asyncio.sleep(0)
            # Told, but its caller has not gone on: who comes now would be first.
            await bridge.execute("chat", query="how do I return a parcel", embedding=[0.0, 1.0])
            await asking
    assert order == ["search", "answer", "search"]
