"""Places in order of coming, whoever gives up meanwhile."""

from __future__ import annotations

import asyncio

import pytest

from stratarouter_runtime.room import Room


async def test_who_is_cancelled_in_the_turn_of_its_place_is_cancelled_and_leaves_it() -> None:
    room = Room(1)
    assert room.take_now()
    waiting = [asyncio.create_task(room.take()) for _ in range(3)]
    await asyncio.sleep(0)
    for task in waiting:
        task.cancel()
    # Before the cancelled ones have their turn: it passes over them all.
    room.give_back()
    for task in waiting:
        with pytest.raises(asyncio.CancelledError):
            await task
    assert room.free == 1
    assert room.take_now()


async def test_places_taken_beyond_the_bound_are_given_back_before_anybody_s_turn_comes() -> None:
    room = Room(1)
    assert room.take_now()
    room.take_more()
    waiting = asyncio.create_task(room.take())
    await asyncio.sleep(0)
    room.give_back()
    await asyncio.sleep(0)
    assert not waiting.done()
    assert room.is_full
    room.give_back()
    await waiting
    room.give_back()
    assert not room.is_full
    assert room.free == 1
