"""What bounds a call in-process: its timeout, whatever it waits for, and the bridge's end."""

from __future__ import annotations

import asyncio
import gc
import math
import threading
import time
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from stratarouter_runtime import assembly
from stratarouter_runtime.bridge import CoreRuntimeBridge
from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.drafts import Draft
from stratarouter_runtime.engine.engine import Engine
from stratarouter_runtime.errors import (
    BrokerError,
    DeadlineExceededError,
    ExecutionError,
    InfrastructureError,
    InvalidRecordError,
    ShuttingDownError,
)
from stratarouter_runtime.inline import InlineCarrier
from stratarouter_runtime.journal.memory import MemoryJournal, MemoryStore
from stratarouter_runtime.records import CacheCommand, Response
from stratarouter_runtime.routes import RouteTable
from stratarouter_runtime.testing.simulator import Simulator, SimulatorSettings

LATENCY_S = 1.0


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with Simulator(SimulatorSettings(latency_ms=1000 * LATENCY_S)) as running:
        yield running


def _table(simulator: Simulator) -> RouteTable:
    table = {
        "providers": {"sim": {"kind": "simulator", "base_url": simulator.base_url}},
        "routes": {"chat": {"targets": [{"provider": "sim", "model": "gpt-4o-mini"}]}},
    }
    return RouteTable.from_dict(table)


@pytest.fixture
async def bridge(simulator: Simulator) -> AsyncIterator[CoreRuntimeBridge]:
    config = RuntimeConfig(
        state_backend="memory", cache_backend="memory", cache_control="off", max_in_flight=1, drain_timeout_s=0.1
    )
    async with CoreRuntimeBridge(config, _table(simulator)) as running:
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


async def test_a_stream_is_paid_for_once_however_often_it_is_iterated_over(
    bridge: CoreRuntimeBridge, simulator: Simulator
) -> None:
    stream = bridge.stream("chat", query="one", cache={"mode": "bypass"})
    pieces = [piece async for piece in stream]
    with pytest.raises(ExecutionError, match="iterated over before") as caught:
        _ = [piece async for piece in stream]
    assert "keep its pieces" in caught.value.remedy
    assert "".join(pieces) == stream.result.response
    assert len(simulator.paid_calls) == 1


async def test_who_waits_when_the_bridge_is_closed_is_told_so(bridge: CoreRuntimeBridge) -> None:
    under_way = asyncio.create_task(bridge.execute("chat", query="one"))
    await asyncio.sleep(0.05)
    waiting = asyncio.create_task(bridge.execute("chat", query="another"))
    await asyncio.sleep(0.05)
    await bridge.close()
    for task in (under_way, waiting):
        with pytest.raises(ShuttingDownError):
            await asyncio.wait_for(task, 5.0)


@pytest.mark.parametrize(("retention_s", "left"), [(0.001, 0), (0.0, 5), (3600.0, 5)])
async def test_results_are_kept_in_process_for_as_long_as_is_set(
    monkeypatch: pytest.MonkeyPatch, retention_s: float, left: int
) -> None:
    """Workers alone deleted old ones: the journal in memory grew as long as the bridge was open."""
    monkeypatch.setattr(assembly, "PURGE_INTERVAL_S", 0.01)
    purged = asyncio.Event()

    class Journal(MemoryJournal):
        async def purge(self, older_than_s: float, batch: int = 5000) -> int:
            gone = await super().purge(older_than_s, batch)
            if len(store.rows) == left:
                purged.set()
            return gone

    store = MemoryStore()
    monkeypatch.setattr(assembly, "create_journal", lambda _, *, owner: Journal(store, owner=owner))
    async with Simulator(SimulatorSettings(latency_ms=1)) as simulator:
        table = {
            "providers": {"sim": {"kind": "simulator", "base_url": simulator.base_url}},
            "routes": {"chat": {"targets": [{"provider": "sim", "model": "gpt-4o-mini"}]}},
        }
        config = RuntimeConfig(state_backend="memory", cache_enabled=False, journal_retention_s=retention_s)
        async with CoreRuntimeBridge(config, RouteTable.from_dict(table)) as bridge:
            for number in range(5):
                await bridge.execute("chat", query=f"question {number}", request_id=f"r{number}")
            purged.clear()
            if retention_s > 0:
                await asyncio.wait_for(purged.wait(), 5.0)
            else:
                await asyncio.sleep(0.1)
            assert len(store.rows) == left
    assert purged.is_set() is (retention_s > 0)


@pytest.mark.parametrize("timeout_s", [0, -1.0, float("-inf")])
async def test_who_has_no_time_left_pays_for_nothing(simulator: Simulator, timeout_s: float) -> None:
    config = RuntimeConfig(state_backend="memory", cache_enabled=False)
    async with CoreRuntimeBridge(config, _table(simulator)) as bridge:
        await bridge.execute("chat", query="the first")
        with pytest.raises(DeadlineExceededError, match="no answer"):
            await bridge.execute("chat", query="what is left of its time is none", timeout_s=timeout_s)
        with pytest.raises(DeadlineExceededError, match="no answer"):
            [piece async for piece in bridge.stream("chat", query="streamed", timeout_s=timeout_s)]
    assert len(simulator.paid_calls) == 1


async def test_a_close_that_was_cut_off_goes_on_and_is_waited_for_by_the_next(simulator: Simulator) -> None:
    config = RuntimeConfig(
        state_backend="memory", cache_backend="memory", cache_control="off", prometheus_port=0, gc_threshold=50_000
    )
    threshold, before = gc.get_threshold()[0], asyncio.all_tasks()
    bridge = CoreRuntimeBridge(config, _table(simulator))
    await bridge.start()
    port = bridge.http_port
    under_way = asyncio.create_task(bridge.execute("chat", query="one", request_id="r1"))
    await asyncio.sleep(0.05)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(bridge.close(), 0.05)
    with pytest.raises(ShuttingDownError):
        await bridge.execute("chat", query="another")
    await asyncio.gather(bridge.close(), bridge.close())
    assert under_way.done()
    assert (await under_way).response
    assert (bridge.registry, bridge.http_port, gc.get_threshold()[0]) == (None, None, threshold)
    with pytest.raises(OSError, match="Connect call failed"):
        await asyncio.open_connection("127.0.0.1", port)
    left = {task.get_name() for task in asyncio.all_tasks() - before}
    assert not {name for name in left if "journal" in name or name in {"heartbeat", "gauges of the engine"}}


async def test_the_metrics_of_an_inline_bridge_can_be_shown_among_ones_own(bridge: CoreRuntimeBridge) -> None:
    own = CollectorRegistry(auto_describe=True)
    assert bridge.registry is not None
    own.register(bridge.registry)
    await bridge.execute("chat", query="counted")
    assert b'stratarouter_responses_total{code="ok",status="ok"} 1.0' in generate_latest(own)
    await bridge.close()
    assert bridge.registry is None
    assert CoreRuntimeBridge(bridge.config).registry is None


class Told:
    """An engine of which every leader fails, and that notes what it is told of a request."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.dues: list[float | None] = []
        self.failed: list[int] = []

    def knows_leader(self, _: object) -> bool:
        return True

    async def follow(self, _: object, __: object, due: float | None = None) -> int:
        self.dues.append(due)
        await asyncio.sleep(0.05)
        return 1

    def submit(self, execution: Any, *, failed_leaders: int = 0, due: float | None = None, **how: Any) -> Any:
        self.dues.append(due)
        self.failed.append(failed_leaders)
        return self._engine.submit(execution, failed_leaders=failed_leaders, due=due, **how)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)


@pytest.mark.parametrize(("timeout_s", "lasts_s"), [(None, 60.0), (5.0, 60.0), (300.0, 300.0)])
async def test_what_a_request_has_waited_for_before_moves_its_end_nowhere(
    bridge: CoreRuntimeBridge, timeout_s: float | None, lasts_s: float
) -> None:
    assembly = cast("InlineCarrier", bridge._carrier)._assembly
    told = Told(assembly.engine)
    assembly.engine = cast("Engine", told)
    began = assembly.clock.monotonic()
    await bridge.execute("chat", query="one", timeout_s=timeout_s)
    assert told.failed == [1]
    followed, submitted = told.dues
    assert followed == submitted == pytest.approx(began + lasts_s, abs=2.0)


# --- the start ---------------------------------------------------------------------------------------------------

SOON_S, LONG_S = 0.05, 60.0


class Slow:
    """A carrier that starts, or fails, once it ``may``."""

    registry = None

    def __init__(self) -> None:
        self.may = asyncio.Event()
        self.failure: BrokerError | None = None
        self.ended = False
        self.refuses_to_stop = False
        self.bounds: list[float] = []

    async def start(self) -> None:
        try:
            await self.may.wait()
        except asyncio.CancelledError:
            self.ended = True
            raise
        if self.failure is not None:
            raise self.failure

    async def stop(self, grace_s: float) -> None:
        del grace_s
        self.ended = True
        if self.refuses_to_stop:
            raise BrokerError("away")

    async def abandon(self) -> None:
        self.ended = True

    async def carry(self, draft: Draft, bound_s: float, on_text: object) -> Response:
        del on_text
        self.bounds.append(bound_s)
        return Response(draft.request_id, "ok", text="an answer")

    async def command(self, command: CacheCommand) -> None:
        """Nothing to do."""

    async def response_to(self, request_id: str, tenant: str | None = None) -> Response | None:
        """None to tell."""


class Starting:
    """A bridge whose carriers are ``Slow``."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.bridge = CoreRuntimeBridge(RuntimeConfig())
        self.carriers: list[Slow] = []
        monkeypatch.setattr(self.bridge, "_new_carrier", self._new)

    def _new(self) -> Slow:
        self.carriers.append(Slow())
        return self.carriers[-1]

    async def ask(self, count: int, timeout_s: float = LONG_S) -> list[asyncio.Task[Any]]:
        """So many callers, who wait for the start now."""
        asked = (self.bridge.execute("chat", query=f"q{number}", timeout_s=timeout_s) for number in range(count))
        tasks = [asyncio.create_task(one) for one in asked]
        await asyncio.sleep(0.01)
        return tasks


@pytest.fixture
async def starting(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Starting]:
    made = Starting(monkeypatch)
    yield made
    await made.bridge.close()


async def _ended(tasks: list[asyncio.Task[Any]]) -> list[Any]:
    """What became of them: the errors' types, the answers' text."""
    async with asyncio.timeout(5.0):
        ended = await asyncio.gather(*tasks, return_exceptions=True)
    return [type(one) if isinstance(one, BaseException) else one.response for one in ended]


async def test_waiting_for_the_start_is_within_the_timeout(starting: Starting) -> None:
    """Each who waited made an attempt of its own, one after the other, and none looked at its timeout meanwhile."""
    assert await _ended(await starting.ask(8, SOON_S)) == [DeadlineExceededError] * 8
    assert len(starting.carriers) == 1


async def test_a_start_that_fails_fails_all_who_waited_and_the_next_begins_anew(starting: Starting) -> None:
    waiting = await starting.ask(8)
    starting.carriers[0].failure = BrokerError("away")
    starting.carriers[0].may.set()
    assert await _ended(waiting) == [BrokerError] * 8
    waiting = await starting.ask(8)
    [_, second] = starting.carriers
    second.may.set()
    assert await _ended(waiting) == ["an answer"] * 8
    assert max(second.bounds) < LONG_S


async def test_a_caller_that_gives_up_leaves_the_start_to_the_others(starting: Starting) -> None:
    [first], [late], [patient] = [await starting.ask(1, timeout_s) for timeout_s in (LONG_S, SOON_S, LONG_S)]
    first.cancel()
    assert await _ended([first, late]) == [asyncio.CancelledError, DeadlineExceededError]
    [carrier] = starting.carriers
    carrier.may.set()
    assert await _ended([patient]) == ["an answer"]


async def test_a_start_that_fails_after_all_have_given_up_is_nobodys_error(starting: Starting) -> None:
    await _ended(await starting.ask(2, SOON_S))
    starting.carriers[0].failure = BrokerError("away")
    starting.carriers[0].may.set()
    await asyncio.sleep(0.01)
    waiting = await starting.ask(1)
    starting.carriers[1].may.set()
    assert await _ended(waiting) == ["an answer"]


async def test_closing_ends_a_start_under_way(starting: Starting) -> None:
    waiting = await starting.ask(8)
    await asyncio.wait_for(starting.bridge.close(), 5.0)
    assert await _ended(waiting) == [ShuttingDownError] * 8
    assert [carrier.ended for carrier in starting.carriers] == [True]
    with pytest.raises(ShuttingDownError):
        await starting.bridge.start()


async def test_who_gives_up_entering_leaves_nothing_behind(starting: Starting) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(SOON_S), starting.bridge:
            raise AssertionError
    assert [carrier.ended for carrier in starting.carriers] == [True]


@pytest.mark.parametrize("away", ["the database", "an edge"])
async def test_a_start_that_fails_leaves_no_export_of_traces(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch, away: str
) -> None:
    """Each call begins a start anew: each left two threads and a connection behind."""

    async def failing(_: InlineCarrier) -> None:
        raise BrokerError("away")

    if away != "the database":
        monkeypatch.setattr(InlineCarrier, "_serve", failing)
    config = RuntimeConfig(
        state_backend="postgresql" if away == "the database" else "memory", database_url="postgresql://127.0.0.1:1/none",
        cache_backend="memory", cache_control="off", embedder="none", otel_exporter_otlp_endpoint="http://127.0.0.1:1",
    )  # fmt: skip
    before = set(threading.enumerate())
    bridge = CoreRuntimeBridge(config, _table(simulator))
    for _ in range(3):
        with pytest.raises(InfrastructureError):
            await bridge.execute("chat", query="one")
    await bridge.close()
    left = {thread.name for thread in threading.enumerate() if thread not in before}
    assert not {name for name in left if not name.startswith("asyncio")}


async def test_who_closes_hears_why_it_failed_and_the_next_finds_it_closed(starting: Starting) -> None:
    [waiting] = await starting.ask(1)
    [carrier] = starting.carriers
    carrier.may.set()
    await waiting
    carrier.refuses_to_stop = True
    assert await _ended([asyncio.create_task(starting.bridge.close()) for _ in range(2)]) == [BrokerError] * 2
    await starting.bridge.close()
