"""The worker's garbage collector."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from stratarouter_runtime import CoreRuntimeBridge, RuntimeConfig, collector
from stratarouter_runtime.routes import RouteTable

PYTHONS = (700, 10, 10)


class Node:
    other: Node


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
        first, second = Node(), Node()
        first.other, second.other = second, first
        gone = weakref.ref(first)
        del first, second
        kept: list[list[object]] = []
        # More than one search's worth of new objects: the search comes by itself.
        while gone() is not None and len(kept) <= 2 * collector.THRESHOLDS[0]:
            kept.append([])
        assert gone() is None
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
