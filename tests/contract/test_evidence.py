"""What workers learn of hits reaches all who share a Redis, outlives them, and costs nobody anything where it fails."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from redis.asyncio import Redis

from stratarouter_runtime.cache import create_evidence
from stratarouter_runtime.cache.evidence import READ_COUNT, RedisEvidence
from stratarouter_runtime.clock import SystemClock
from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.state.error_bound import Observation

pytestmark = pytest.mark.stack

DEADLINE_S = 20.0


class Workers:
    """Evidence of several workers that share one stream, each with what it has heard."""

    def __init__(self, url: str, stack: AsyncExitStack) -> None:
        self.url, self.stream = url, f"t{uuid.uuid4().hex[:8]}:evidence"
        self._stack = stack

    async def another(
        self, *, eager: bool = True, url: str | None = None, learn: Callable[[Observation], None] | None = None
    ) -> tuple[RedisEvidence, list[Observation]]:
        heard: list[Observation] = []
        evidence = RedisEvidence(url or self.url, self.stream, SystemClock(), eager=eager)
        await evidence.start(learn or heard.append)
        self._stack.push_async_callback(evidence.stop)
        return evidence, heard


@pytest.fixture
async def workers(url: str) -> AsyncIterator[Workers]:
    async with AsyncExitStack() as stack:
        yield Workers(url, stack)


def seen(number: int) -> Observation:
    return Observation(f"scope {number % 3}", 0.9 + number / 10_000, right=number % 7 != 0, served=True, bound=0.01)


async def until(condition: Any) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():
            await asyncio.sleep(0.01)


async def test_everybody_hears_everything_in_the_same_order(workers: Workers) -> None:
    (one, first), (other, second) = await workers.another(), await workers.another()
    for number in range(40):
        await (one, other)[number % 2].note(seen(number))
    await until(lambda: len(first) == len(second) == 40)
    assert first == second == [seen(number) for number in range(40)]


async def test_a_worker_that_starts_later_learns_all_that_is_known(workers: Workers) -> None:
    one, _ = await workers.another()
    count = 2 * READ_COUNT + 10
    for number in range(count):
        await one.note(seen(number))
    await one.stop()
    later, heard = await workers.another()
    await asyncio.wait_for(later.in_step.wait(), DEADLINE_S)
    assert heard == [seen(number) for number in range(count)]


async def test_one_that_needs_no_bound_yet_follows_from_its_first_comparison_on(workers: Workers) -> None:
    one, _ = await workers.another()
    await one.note(seen(1))
    lazy, heard = await workers.another(eager=False)
    assert (lazy._task, heard) == (None, [])
    await lazy.note(seen(2))
    await until(lambda: heard == [seen(1), seen(2)])


@pytest.mark.parametrize(
    "fields",
    [
        {"anything": "else"},
        {"scope": "s", "likeness": "much", "right": "1", "served": "0", "bound": "0.1"},
        {"scope": "s", "likeness": "nan", "right": "1", "served": "0", "bound": "0.1"},
        {"scope": "s", "likeness": "1e307", "right": "1", "served": "0", "bound": "0.1"},
        {"scope": "s", "likeness": "-1.1", "right": "1", "served": "0", "bound": "0.1"},
        {"scope": "s", "likeness": "0.9", "right": "1", "served": "0", "bound": "0"},
        {"scope": b"\xff\xfe", "likeness": "0.9", "right": "1", "served": "0", "bound": "0.1"},
    ],
)
async def test_garbage_is_passed_over(workers: Workers, fields: dict[Any, Any]) -> None:
    one, heard = await workers.another()
    async with Redis.from_url(workers.url) as redis:
        await redis.xadd(workers.stream, fields)
    await one.note(seen(1))
    await until(lambda: heard == [seen(1)])
    assert one.garbage == 1


async def test_one_that_nobody_can_learn_from_does_not_keep_them_from_the_next(workers: Workers) -> None:
    """The stream was read from it again and again, by everybody, for ever."""
    heard: list[Observation] = []

    def learn(one: Observation) -> None:
        if one == seen(1):
            raise OverflowError
        heard.append(one)

    evidence, _ = await workers.another(learn=learn)
    for number in range(3):
        await evidence.note(seen(number))
    await until(lambda: heard == [seen(0), seen(2)])
    assert evidence.failures == 1


async def test_a_key_of_another_type_is_a_failure_that_is_counted(workers: Workers) -> None:
    async with Redis.from_url(workers.url) as redis:
        await redis.set(workers.stream, "garbage")
        one, heard = await workers.another(eager=False)
        await one.note(seen(1))
        assert one.failures >= 1
        await redis.delete(workers.stream)
    await one.note(seen(2))
    await until(lambda: heard == [seen(2)])


async def test_a_redis_that_is_away_costs_the_evidence_and_nothing_else(workers: Workers) -> None:
    one, heard = await workers.another(url="redis://127.0.0.1:1/0")
    await one.note(seen(1))
    await one.stop()
    await one.note(seen(2))
    assert heard == []
    assert one.failures >= 1


def test_in_memory_nobody_shares_it() -> None:
    assert create_evidence(RuntimeConfig(cache_backend="memory"), clock=SystemClock(), eager=True) is None
    shared = create_evidence(RuntimeConfig(cache_backend="redis"), clock=SystemClock(), eager=True)
    assert shared is not None
    assert shared._stream.endswith(":evidence")
