"""A provider's places: for calls alone, in order of coming, with as few rows begun before them as keep them busy."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any, cast

import pytest

from stratarouter_runtime.engine.places import SMOOTHING, Hold, Places
from stratarouter_runtime.journal.memory import MemoryJournal
from stratarouter_runtime.port_values import Begin, Begun, Finish, Recorded
from stratarouter_runtime.records import Response
from stratarouter_runtime.route_file import Budget
from unit.engine_bench import Bench, Provider, execution, until

ENOUGH = 10 * SMOOTHING
"""Calls after which an average has come to what all of them took."""


def _teach(pupil: Places | Hold, begin_s: float, call_s: float) -> None:
    for _ in range(ENOUGH):
        pupil.learn(begin_s, call_s)


def _ahead(places: Places) -> int:
    """Turns beyond the places."""
    return places.turns.places - places.calls.places


@pytest.mark.parametrize(
    ("places", "begin_s", "call_s", "ahead"),
    [
        (200, 0.0, 0.03, 0),
        (200, 0.01, 1.0, 4),
        (200, 0.01, 0.2, 20),
        (200, 0.05, 0.03, 200),
        (200, 9.0, 0.001, 200),
        (1, 0.01, 1.0, 0),
        (1, 0.05, 0.03, 1),
        (200, 0.01, 0.0, 0),
    ],
)
def test_twice_as_many_rows_are_begun_ahead_as_one_call_leaves_time_for(
    places: int, begin_s: float, call_s: float, ahead: int
) -> None:
    learnt = Places(places)
    _teach(learnt, begin_s, call_s)
    assert _ahead(learnt) == ahead


async def test_a_journal_that_slows_down_lets_more_near_and_one_that_recovers_puts_nobody_out() -> None:
    places = Places(1)
    first, second, third = (Hold(lambda _: places, "p") for _ in range(3))
    await first.turn()
    waiting = asyncio.create_task(second.turn())
    await asyncio.sleep(0)
    assert not waiting.done()
    _teach(places, 1.0, 1.0)
    await asyncio.wait_for(waiting, 5)
    _teach(places, 0.0, 1.0)
    assert _ahead(places) == 0
    last = asyncio.create_task(third.turn())
    first.release()
    await asyncio.sleep(0)
    assert not last.done(), "the second still has the one turn there is"
    second.release()
    await asyncio.wait_for(last, 5)


async def test_who_has_a_turn_gets_a_place_in_order_and_leaving_gives_back_both() -> None:
    places = Places(1)
    _teach(places, 1.0, 1.0)
    first, second, third = (Hold(lambda _: places, "p") for _ in range(3))
    await first.turn()
    await first.place()
    await first.place()
    await second.turn()
    assert not second.place_now()
    assert first.place_now(), "it has one"
    waits = asyncio.create_task(second.place())
    near = asyncio.create_task(third.turn())
    await asyncio.sleep(0)
    assert not waits.done()
    assert not near.done()
    assert not places.has_room
    with pytest.raises(ZeroDivisionError), first:
        raise ZeroDivisionError
    first.release()
    await asyncio.wait_for(asyncio.gather(waits, near), 5)
    third.release()
    second.release()
    assert (places.calls.free, places.turns.free) == (1, 2)
    assert places.has_room


class Slow(MemoryJournal):
    """Keeps results from being recorded until it is told to go on."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.go_on = asyncio.Event()
        self.came = 0

    async def finish(self, items: Sequence[Finish]) -> list[Recorded]:
        self.came += len(items)
        await self.go_on.wait()
        return await super().finish(items)


def _submit(bench: Bench, count: int) -> list[asyncio.Task[Response]]:
    return [bench.engine.submit(execution(f"r{n}", f"question {n}", threshold=None)) for n in range(count)]


async def test_a_place_is_free_for_the_next_call_while_an_answer_is_being_recorded() -> None:
    provider = Provider()
    async with Bench(provider, slots=1, journal=Slow) as bench:
        slow = cast("Slow", bench.journal)
        tasks = _submit(bench, 3)
        await until(lambda: len(provider.calls) == 3)
        assert slow.came > 0
        slow.go_on.set()
        answers = await asyncio.gather(*tasks)
    assert [answer.error for answer in answers] == [None] * 3


async def test_under_a_budget_a_place_is_kept_until_the_budget_knows_what_its_call_cost() -> None:
    provider = Provider()
    async with Bench(provider, slots=1, budgets=[Budget("all", usd=1000.0)], journal=Slow) as bench:
        _teach(bench.gates.hold("openai"), 1.0, 1.0)
        slow = cast("Slow", bench.journal)
        tasks = _submit(bench, 3)
        await until(lambda: slow.came > 0)
        for _ in range(20):
            await asyncio.sleep(0)
        assert len(provider.calls) == 1
        slow.go_on.set()
        answers = await asyncio.gather(*tasks)
    assert [answer.error for answer in answers] == [None] * 3


@pytest.mark.parametrize(("begin_s", "begun"), [(0.0, 1), (1.0, 2)])
async def test_no_more_rows_are_begun_than_keep_the_places_busy(begin_s: float, begun: int) -> None:
    provider = Provider()
    provider.gate.clear()
    async with Bench(provider, slots=1) as bench:
        _teach(bench.gates.hold("openai"), begin_s, 1.0)
        tasks = _submit(bench, 4)
        await until(lambda: len(bench.journal._store.rows) == begun)
        began = time.monotonic()
        await asyncio.sleep(0.05)
        held_ms = (time.monotonic() - began) * 1000
        assert len(bench.journal._store.rows) == begun
        assert len(provider.calls) == 1
        provider.gate.set()
        answers = await asyncio.gather(*tasks)
    assert [answer.error for answer in answers] == [None] * 4
    slots_ms = [answer.timings_ms["slot"] for answer in answers[1:]]
    assert min(slots_ms) >= 0.95 * held_ms, "also where its row was begun before"
    assert all(answer.timings_ms["provider"] < waited for answer, waited in zip(answers[1:], slots_ms, strict=True))


async def test_a_request_whose_time_ends_before_its_place_comes_is_not_called_though_its_row_was_begun() -> None:
    provider = Provider()
    provider.gate.clear()
    async with Bench(provider, slots=1, execution_timeout=30) as bench:
        _teach(bench.gates.hold("openai"), 1.0, 1.0)
        soon_ms = bench._clock.wall_ms() + 50
        first = bench.engine.submit(execution("r0", "question 0", threshold=None))
        late = bench.engine.submit(execution("r1", "question 1", threshold=None, deadline_ms=soon_ms))
        answer = await asyncio.wait_for(late, 5)
        assert answer.error is not None
        assert answer.error.code == "deadline_exceeded"
        provider.gate.set()
        assert (await first).error is None
    assert len(provider.calls) == 1


async def test_the_pace_of_the_journal_and_of_the_calls_is_learnt_from_what_is_executed() -> None:
    class Unhurried(MemoryJournal):
        async def begin(self, items: Sequence[Begin]) -> list[Begun]:
            await asyncio.sleep(0.02)
            return await super().begin(items)

    async with Bench(Provider(), slots=1, journal=Unhurried) as bench:
        places = bench.gates._places_of("openai")
        assert _ahead(places) == 0
        await asyncio.gather(*_submit(bench, 2))
        assert _ahead(places) == 1
