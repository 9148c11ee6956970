"""Places and deadlines: what thousands of waits have in common."""

import asyncio
import time
from typing import Any

import pytest
import uvloop

from stratarouter_runtime import deadlines
from stratarouter_runtime.clock import SystemClock
from stratarouter_runtime.deadlines import Deadlines
from stratarouter_runtime.room import Room


async def spin() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_places_are_given_in_the_order_of_coming() -> None:
    room, order = Room(1), []

    async def visit(number: int) -> None:
        await room.take()
        order.append(number)
        await asyncio.sleep(0)
        room.give_back()

    assert room.take_now()
    visits = [asyncio.create_task(visit(number)) for number in range(3)]
    await spin()
    assert (order, room.is_full, room.take_now()) == ([], True, False)
    room.give_back()
    await asyncio.gather(*visits)
    assert order == [0, 1, 2]
    assert not room.is_full


async def test_who_gives_up_takes_no_place_and_passes_on_the_one_he_was_given() -> None:
    room = Room(1)
    await room.take()
    gone, late, last = (asyncio.create_task(room.take()) for _ in range(3))
    await spin()
    gone.cancel()
    await spin()
    room.give_back()
    late.cancel()  # its turn has come and it has not run since
    await asyncio.wait([gone, late, last], timeout=5)
    assert (gone.cancelled(), late.cancelled(), last.done()) == (True, True, True)
    room.give_back()
    assert room.take_now()
    assert not room.take_now()


@pytest.mark.parametrize("exact_below_s", [0.0, 1.0])
async def test_a_wait_ends_with_its_result_or_its_time(monkeypatch: pytest.MonkeyPatch, exact_below_s: float) -> None:
    monkeypatch.setattr(deadlines, "EXACT_BELOW_S", exact_below_s)
    monkeypatch.setattr(deadlines, "TICK_S", 0.001)
    waits = Deadlines()
    loop = asyncio.get_running_loop()
    answered: asyncio.Future[int] = loop.create_future()
    loop.call_soon(answered.set_result, 7)
    assert await waits.wait(answered, 5.0) == 7
    began = loop.time()
    never = [loop.create_future() for _ in range(3)]
    ended = await asyncio.gather(*(waits.wait(future, 0.02) for future in never), return_exceptions=True)
    assert [type(one) for one in ended] == [TimeoutError] * 3
    assert loop.time() - began >= 0.02


async def test_who_gives_up_waiting_leaves_nothing_to_end() -> None:
    waits = Deadlines()
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(waits.wait(future, 60.0))
    await spin()
    task.cancel()
    await asyncio.wait([task])
    assert (task.cancelled(), future.cancelled()) == (True, True)
    assert not any(tick.futures for tick in waits._ticks.values())


@pytest.mark.parametrize("within_s", [60.0, 7 * 86_400.0])
async def test_a_time_that_nobody_waits_for_any_more_is_not_kept(
    monkeypatch: pytest.MonkeyPatch, within_s: float
) -> None:
    loop = asyncio.get_running_loop()
    now = [loop.time()]
    monkeypatch.setattr(loop, "time", lambda: now[0])
    waits, before = Deadlines(), _timers(loop)
    longest: asyncio.Future[None] = loop.create_future()
    waiting = asyncio.create_task(waits.wait(longest, within_s))
    for _ in range(300):
        now[0] += deadlines.TICK_S
        # Two at once, which may end in either order.
        futures: list[asyncio.Future[None]] = [loop.create_future() for _ in range(2)]
        answered = [asyncio.create_task(waits.wait(future, within_s)) for future in futures]
        await spin()
        for future in futures:
            future.set_result(None)
        await asyncio.gather(*answered)
    # The one that somebody waits for, and the newest.
    assert (len(waits._ticks), len(_timers(loop) - before)) == (2, 2)
    now[0] += within_s + 2 * deadlines.TICK_S
    with pytest.raises(TimeoutError):
        await waiting
    await spin()
    assert (waits._ticks, _timers(loop) - before) == ({}, set())


def _timers(loop: Any) -> set[asyncio.TimerHandle]:
    """Those that are due some time."""
    return {timer for timer in loop._scheduled if not timer.cancelled()}


def test_nobody_is_woken_before_the_time() -> None:
    """On a worker's event loop who waited for a key to open woke before it had, and went to the end of the queue."""

    async def early() -> list[float]:
        clock, left = SystemClock(), []
        for number in range(60):
            seconds = 0.002 + number * 0.00013
            until = time.monotonic() + seconds
            await clock.sleep(seconds)
            left.append(until - time.monotonic())
        return [seconds for seconds in left if seconds > 0]

    assert uvloop.run(early()) == []
