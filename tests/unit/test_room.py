"""Places in order of coming, whoever gives up meanwhile."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

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


@given(
    st.integers(1, 4),
    st.lists(st.tuples(st.sampled_from(["take", "give", "cancel", "resize"]), st.integers(0, 7)), max_size=40),
)
async def test_whoever_comes_leaves_or_gives_up_and_however_many_places_there_are_none_is_lost(
    places: int, steps: list[tuple[str, int]]
) -> None:
    room = Room(places)
    waiting: list[asyncio.Task[None]] = []
    has = 0
    for step, which in (*steps, *[("let them come", 1)] * 3):
        if step == "take":
            waiting.append(asyncio.create_task(room.take()))
        elif step == "give" and has:
            room.give_back()
            has -= 1
        elif step == "cancel" and waiting:
            waiting[which % len(waiting)].cancel()
        elif step == "resize":
            room.resize(which)
        if which % 2:
            # Else the next step meets those that were woken in this one.
            await asyncio.sleep(0)
        has += sum(task.done() and not task.cancelled() for task in waiting)
        waiting = [task for task in waiting if not task.done()]
    assert room.taken == has
    assert not waiting or has >= room.places, "nobody waits beside an empty place"
    room.resize(room.places + len(waiting) + max(0, has - room.places))
    await asyncio.wait_for(asyncio.gather(*waiting), 5)
    for _ in range(has + len(waiting)):
        room.give_back()
    assert room.free == room.places
