"""Cycles, and memory that a burst has left."""

from __future__ import annotations

import asyncio
import gc
import os
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stratarouter_runtime import CoreRuntimeBridge, RuntimeConfig, collector
from stratarouter_runtime.routes import RouteTable

PYTHONS = (700, 10, 10)


class Node:
    other: Node


def lost_cycle() -> weakref.ref[Node]:
    first, second = Node(), Node()
    first.other, second.other = second, first
    return weakref.ref(first)


@pytest.fixture
def pythons() -> Iterator[None]:
    """Python's own thresholds, and this process' again afterwards."""
    before = gc.get_threshold()
    gc.set_threshold(*PYTHONS)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.enable()


def test_a_settled_process_searches_seldom_and_still_frees_cycles() -> None:
    before = gc.get_threshold()
    try:
        collector.settle()
        assert gc.get_threshold() == collector.THRESHOLDS
        assert gc.get_freeze_count() > 0
        gone = lost_cycle()
        # More than one search's worth of new objects: the search comes by itself. Nobody asks for the lost one before:
        # from Python 3.12 on that could be the moment of the search, which it would survive.
        kept: list[list[object]] = [[] for _ in range(2 * collector.THRESHOLDS[0])]
        assert gone() is None
        assert kept
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


@pytest.mark.usefixtures("pythons")
def test_the_threshold_is_raised_while_somebody_holds_it() -> None:
    seldom = collector.Seldom()
    seldom.hold(20_000)
    seldom.hold(50_000)
    assert gc.get_threshold() == (20_000, 10, 10)
    seldom.let_go()
    assert gc.get_threshold() == (20_000, 10, 10)
    seldom.let_go()
    assert gc.get_threshold() == PYTHONS
    seldom.hold(30_000)
    assert gc.get_threshold() == (30_000, 10, 10)
    seldom.let_go()
    assert gc.get_threshold() == PYTHONS


@pytest.mark.usefixtures("pythons")
@pytest.mark.parametrize("own", [(90_000, 5, 5), (0, 10, 10)])
def test_a_process_that_searches_as_seldom_or_never_is_left_alone(own: tuple[int, int, int]) -> None:
    gc.set_threshold(*own)
    seldom = collector.Seldom()
    seldom.hold(20_000)
    assert gc.get_threshold() == own
    seldom.let_go()
    assert gc.get_threshold() == own


@pytest.mark.usefixtures("pythons")
def test_a_process_whose_searches_are_switched_off_is_left_alone() -> None:
    gc.disable()
    seldom = collector.Seldom()
    seldom.hold(20_000)
    assert gc.get_threshold() == PYTHONS
    seldom.let_go()


@pytest.mark.usefixtures("pythons")
def test_what_the_caller_sets_meanwhile_stays() -> None:
    seldom = collector.Seldom()
    seldom.hold(20_000)
    gc.set_threshold(1000, 5, 5)
    seldom.let_go()
    assert gc.get_threshold() == (1000, 5, 5)


@pytest.mark.usefixtures("pythons")
@pytest.mark.parametrize(("asked", "meanwhile"), [(20_000, (20_000, 10, 10)), (0, PYTHONS)])
async def test_a_bridge_holds_it_while_it_runs(asked: int, meanwhile: tuple[int, int, int]) -> None:
    nobody = RouteTable.from_dict(
        {
            "providers": {"nobody": {"kind": "simulator", "base_url": "http://127.0.0.1:9/v1"}},
            "routes": {"support": {"targets": [{"provider": "nobody", "model": "gpt-4o-mini"}]}},
        }
    )
    config = RuntimeConfig(state_backend="memory", cache_backend="memory", metrics_enabled=False, gc_threshold=asked)
    async with CoreRuntimeBridge(config, nobody) as bridge:
        assert gc.get_threshold() == meanwhile
        await bridge.start()
    assert gc.get_threshold() == PYTHONS
    await bridge.close()
    assert gc.get_threshold() == PYTHONS


def resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


@pytest.mark.skipif(collector._trim() is None, reason="this C library takes no request to give memory back")
async def test_an_idle_process_gives_back_what_lies_between_pieces_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collector, "TIDY_EVERY_S", 0.05)
    monkeypatch.setattr(collector, "WORTH_A_SEARCH", 0)
    pieces = [bytes(2000) for _ in range(40_000)]
    kept = pieces[::64]
    del pieces
    before = resident_mib()
    tidying = asyncio.create_task(collector.tidy_up(lambda: True))
    async with asyncio.timeout(10):
        while resident_mib() > before - 40:
            await asyncio.sleep(0.05)
    tidying.cancel()
    assert len(kept) == 625


@pytest.mark.parametrize("library", [lambda _: 0, None], ids=["glibc", "another"])
async def test_cycles_wait_for_an_idle_moment_and_for_company(
    library: Callable[[int], int] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collector, "TIDY_EVERY_S", 0.01)
    monkeypatch.setattr(collector, "WORTH_A_SEARCH", 50_000)
    monkeypatch.setattr(collector, "_trim", lambda: library)
    before, idle = gc.get_threshold(), False
    gc.collect()
    gc.set_threshold(0)
    try:
        gone = lost_cycle()
        tidying = asyncio.create_task(collector.tidy_up(lambda: idle))
        company: list[list[object]] = [[] for _ in range(60_000)]
        await asyncio.sleep(0.1)
        assert gone() is not None, "searched while busy"
        idle = True
        async with asyncio.timeout(10):
            while gone() is not None:
                await asyncio.sleep(0.01)
        gone = lost_cycle()
        await asyncio.sleep(0.1)
        assert gone() is not None, "searched although nothing had happened"
        assert not tidying.done()
        tidying.cancel()
        assert len(company) == 60_000
    finally:
        gc.set_threshold(*before)
