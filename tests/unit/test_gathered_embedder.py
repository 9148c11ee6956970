"""Single texts in front of an embedder: alone at once, together while it is at work."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np
import pytest

from stratarouter_runtime.clock import SystemClock
from stratarouter_runtime.embedders import HashingEmbedder
from stratarouter_runtime.embedders.gathered import GatheredEmbedder
from stratarouter_runtime.errors import EmbedderError
from stratarouter_runtime.records import Vector


class Slow(HashingEmbedder):
    """Works while ``gate`` is open; ``lists`` are the calls it was given."""

    def __init__(self, problem: Exception | None = None) -> None:
        super().__init__(8)
        self.gate = asyncio.Event()
        self.lists: list[list[str]] = []
        self.problem = problem

    async def embed(self, texts: Sequence[str]) -> list[Vector]:
        self.lists.append(list(texts))
        await self.gate.wait()
        if self.problem is not None:
            raise self.problem
        return await super().embed(texts)


def _gathered(slow: Slow, *, window_s: float = 60.0, max_size: int = 3, max_calls: int = 2) -> GatheredEmbedder:
    return GatheredEmbedder(slow, clock=SystemClock(), window_s=window_s, max_size=max_size, max_calls=max_calls)


async def _tasks(gathered: GatheredEmbedder, *texts: str) -> list[asyncio.Task[list[Vector]]]:
    tasks = [asyncio.create_task(gathered.embed([text])) for text in texts]
    await asyncio.sleep(0.01)
    return tasks


async def test_each_gets_its_own_vector_however_they_went() -> None:
    slow = Slow()
    gathered = _gathered(slow)
    tasks = await _tasks(gathered, "one", "two", "three", "four", "five")
    assert slow.lists == [["one"], ["two", "three", "four"]]
    slow.gate.set()
    vectors = [(await task)[0] for task in tasks]
    assert slow.lists[2:] == [["five"]]
    expected = await HashingEmbedder(8).embed(["one", "two", "three", "four", "five"])
    assert all(np.array_equal(vector, own) for vector, own in zip(vectors, expected, strict=True))


async def test_a_window_ends() -> None:
    slow = Slow()
    tasks = await _tasks(_gathered(slow, window_s=0.05), "one", "two")
    async with asyncio.timeout(10):
        while len(slow.lists) < 2:
            await asyncio.sleep(0.005)
    slow.gate.set()
    await asyncio.gather(*tasks)
    assert slow.lists == [["one"], ["two"]]


async def test_lists_and_no_texts_go_on_as_they_are() -> None:
    slow = Slow()
    slow.gate.set()
    gathered = _gathered(slow)
    assert len(await gathered.embed(["one", "two"])) == 2
    assert await gathered.embed([]) == []
    assert slow.lists == [["one", "two"], []]


@pytest.mark.parametrize("problem", [EmbedderError("no"), ValueError("a defect")])
async def test_a_failure_is_told_to_each_and_the_next_one_is_tried(problem: Exception) -> None:
    slow = Slow(problem)
    gathered = _gathered(slow)
    tasks = await _tasks(gathered, "one", "two", "three")
    slow.gate.set()
    for task in tasks:
        with pytest.raises(EmbedderError):
            await task
    slow.problem = None
    assert len(await gathered.embed(["four"])) == 1


async def test_a_text_that_is_refused_fails_alone() -> None:
    own = await HashingEmbedder(8).embed(["one", "two", "three", "four"])
    slow = Slow(EmbedderError("no", vectors=[own[1], None, own[3]]))
    tasks = await _tasks(_gathered(slow), "one", "two", "three", "four")
    slow.gate.set()
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    assert slow.lists == [["one"], ["two", "three", "four"]]
    assert [type(one) for one in ended] == [EmbedderError, list, EmbedderError, list]
    assert [np.array_equal(ended[at], [own[at]]) for at in (1, 3)] == [True, True]


async def test_one_that_gives_up_is_not_embedded_and_the_end_breaks_off_the_rest() -> None:
    slow = Slow()
    gathered = _gathered(slow, max_calls=1)
    first, second, third = await _tasks(gathered, "one", "two", "three")
    second.cancel()
    await asyncio.wait([second])
    slow.gate.set()
    await asyncio.gather(first, third)
    assert slow.lists == [["one"], ["three"]]
    slow.gate.clear()
    [left] = await _tasks(gathered, "four")
    await gathered.stop()
    with pytest.raises(EmbedderError):
        await left


async def test_the_end_fails_who_waits_and_begins_no_call() -> None:
    """The call that was broken off made room, and the next one left into an embedder about to stop."""
    slow = Slow()
    gathered = _gathered(slow, max_calls=1)
    tasks = await _tasks(gathered, "one", "two", "three")
    await gathered.stop()
    async with asyncio.timeout(10):
        ended = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(one) for one in ended] == [EmbedderError] * 3
    assert slow.lists == [["one"]]
    with pytest.raises(EmbedderError, match="stopped"):
        await gathered.embed(["four"])


async def test_a_window_ends_after_another_start_too() -> None:
    slow = Slow()
    gathered = _gathered(slow, window_s=0.05)
    left = await _tasks(gathered, "one", "two")
    await gathered.stop()
    await asyncio.gather(*left, return_exceptions=True)
    await gathered.start()
    slow.lists.clear()
    tasks = await _tasks(gathered, "three", "four")
    async with asyncio.timeout(10):
        while len(slow.lists) < 2:
            await asyncio.sleep(0.005)
    slow.gate.set()
    assert len(await asyncio.gather(*tasks)) == 2
    assert slow.lists == [["three"], ["four"]]
