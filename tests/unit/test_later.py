"""Rows that are journaled after their callers went on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import pytest

from stratarouter_runtime.engine.later import Later
from stratarouter_runtime.journal.grouped import NEW_ROWS, GroupedJournal
from stratarouter_runtime.journal.memory import MemoryJournal, MemoryStore
from stratarouter_runtime.port_values import Begin, Finish, JournalKey
from stratarouter_runtime.records import Answer, Usage
from stratarouter_runtime.told import Told
from unit.engine_bench import FIRST


class Noting(MemoryJournal):
    """Notes how many rows came in one call."""

    def __init__(self, store: MemoryStore) -> None:
        super().__init__(store, owner=FIRST, heartbeat_ttl_s=5)
        self.sizes: list[int] = []

    async def record_new(self, items: Sequence[tuple[Begin, Finish]]) -> None:
        self.sizes.append(len(items))
        await super().record_new(items)


async def _at_once(write: Callable[[], Awaitable[None]], _doing: str) -> None:
    await write()


async def test_rows_are_gathered_and_written_a_few_hundred_at_once() -> None:
    store = MemoryStore()
    journal = Noting(store)
    await journal.start()
    later = Later(GroupedJournal(journal), _at_once, Told())
    count = 2 * NEW_ROWS + 1
    for number in range(count):
        key = JournalKey("acme", f"r{number}")
        answer = Answer("yes", "openai", "small", Usage(1, 1))
        await later.put(Begin(key, "0" * 32, "route"), Finish(key, answer, None))
    assert journal.sizes == [], "nobody waited"
    await later.stop(5.0)
    assert journal.sizes == [NEW_ROWS, NEW_ROWS, 1]
    await journal.stop()
    assert len(store.rows) == count


async def test_an_answer_reaches_its_caller_before_rows_are_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stratarouter_runtime.engine.later.GATHER_S", 0.0)
    told, order = Told(), list[str]()
    loop = asyncio.get_running_loop()

    async def caller(ended: asyncio.Future[None]) -> None:
        await ended
        order.append("answer")

    async def write(_write: Callable[[], Awaitable[None]], _doing: str) -> None:
        order.append("rows")

    later = Later(GroupedJournal(MemoryJournal(MemoryStore(), owner=FIRST, heartbeat_ttl_s=5)), write, told)
    ended: asyncio.Future[None] = loop.create_future()
    waiting = asyncio.create_task(caller(ended))
    await asyncio.sleep(0)
    await later.put(Begin(JournalKey("acme", "r"), "0" * 32, "route"))
    # The writer begins to gather in the next turn, and is due again in the one after it, in which the answer comes.
    await asyncio.sleep(0)
    told.tell(ended)
    await later.stop(5.0)
    await waiting
    assert order == ["answer", "rows"]


async def test_after_the_end_a_row_is_said_and_given_up(caplog: pytest.LogCaptureFixture) -> None:
    journal = Noting(MemoryStore())
    await journal.start()
    later = Later(GroupedJournal(journal), _at_once, Told())
    await later.stop(5.0)
    await later.put(Begin(JournalKey("acme", "r"), "0" * 32, "route"))
    assert later._writer is None
    assert "result not journaled" in [record.message for record in caplog.records]


async def test_who_is_cancelled_while_there_is_no_room_leaves_its_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stratarouter_runtime.engine.later.MAX_ROWS", 1)
    store = MemoryStore()
    journal = Noting(store)
    await journal.start()
    later = Later(GroupedJournal(journal), _at_once, Told())
    answer = Answer("yes", "openai", "small", Usage(1, 1))
    keys = [JournalKey("acme", f"r{number}") for number in range(3)]
    waiting = [asyncio.create_task(later.put(Begin(key, "0" * 32, "route"), Finish(key, answer, None))) for key in keys]
    await asyncio.sleep(0)
    for task in waiting:
        task.cancel()
    await asyncio.wait(waiting)
    assert [task.cancelled() for task in waiting] == [False, True, True]
    await later.stop(5.0)
    assert set(store.rows) == set(keys)
    assert later._room.free == 1


async def test_who_needs_a_row_has_it_written_before_others_have_gathered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stratarouter_runtime.engine.later.GATHER_S", 3600.0)
    store = MemoryStore()
    journal = Noting(store)
    await journal.start()
    later = Later(GroupedJournal(journal), _at_once, Told())
    await later.settle()
    keys = [JournalKey("acme", f"r{number}") for number in range(3)]
    for key in keys[:2]:
        await later.put(Begin(key, "0" * 32, "route"), Finish(key, Answer("yes", "openai", "small", Usage(1, 1)), None))
        waiting = [asyncio.create_task(later.settle()) for _ in range(2)]
        await asyncio.wait_for(asyncio.gather(*waiting), 5.0)
        assert key in store.rows
    await later.put(Begin(keys[2], "0" * 32, "route"))
    await asyncio.sleep(0.01)
    assert keys[2] not in store.rows, "nobody needs it"
    await later.stop(0.01)


async def test_who_needs_a_row_that_is_given_up_at_the_end_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stratarouter_runtime.engine.later.GATHER_S", 0.0)

    async def never(_write: Callable[[], Awaitable[None]], _doing: str) -> None:
        await asyncio.Event().wait()

    later = Later(GroupedJournal(Noting(MemoryStore())), never, Told())
    await later.put(Begin(JournalKey("acme", "r"), "0" * 32, "route"))
    waiting = asyncio.create_task(later.settle())
    await asyncio.sleep(0)
    await later.stop(0.01)
    await asyncio.wait_for(waiting, 5.0)
    await later.settle()
