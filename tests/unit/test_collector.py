"""The worker's garbage collector."""

from __future__ import annotations

import gc
import weakref

from stratarouter_runtime import collector


class Node:
    other: Node


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
