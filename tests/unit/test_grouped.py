"""How rows of many callers become few journal calls, on the shipped memory journal behind a gate."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Coroutine, Sequence
from typing import Any

import pytest

from stratarouter_runtime.errors import JournalUnavailableError, SchemaViolationError, ShuttingDownError
from stratarouter_runtime.journal import grouped as grouped_module
from stratarouter_runtime.journal.grouped import GroupedJournal
from stratarouter_runtime.journal.memory import MemoryJournal, MemoryStore
from stratarouter_runtime.port_values import Begin, Begun, Finish, JournalKey, Recorded
from stratarouter_runtime.records import Answer

ANSWER = Answer("42", "openai", "gpt-4o-mini")


def key(n: int) -> JournalKey:
    return JournalKey("acme", f"r{n}")


def begin(n: int) -> Begin:
    return Begin(key(n), "p", "billing")


class GatedJournal(MemoryJournal):
    """A memory journal that notes its calls and holds each until the gate is open."""

    def __init__(self) -> None:
        super().__init__(MemoryStore(), owner=str(uuid.uuid4()))
        self.gate = asyncio.Event()
        self.calls: list[list[str]] = []

    async def begin(self, items: Sequence[Begin]) -> list[Begun]:
        self.calls.append([item.key.request_id for item in items])
        await self.gate.wait()
        return await super().begin(items)

    async def finish(self, items: Sequence[Finish]) -> list[Recorded]:
        self.calls.append([item.key.request_id for item in items])
        await self.gate.wait()
        return await super().finish(items)


@pytest.fixture
async def journal() -> AsyncIterator[GatedJournal]:
    made = GatedJournal()
    await made.start()
    yield made
    await made.stop()


async def spin() -> None:
    """Let everything that can run without the gate run."""
    for _ in range(20):
        await asyncio.sleep(0)


async def started(journal: GatedJournal, **options: Any) -> GroupedJournal:
    grouped = GroupedJournal(journal, **options)
    await grouped.start()
    return grouped


def spawn(*work: Coroutine[Any, Any, Any]) -> list[asyncio.Task[Any]]:
    return [asyncio.create_task(each) for each in work]


async def test_rows_gather_while_a_write_is_under_way(journal: GatedJournal) -> None:
    grouped = await started(journal, writers=1)
    tasks = spawn(grouped.begin_one(begin(0)))
    await spin()
    tasks += spawn(*(grouped.begin_one(begin(n)) for n in range(1, 6)))
    await spin()
    assert journal.calls == [["r0"]]
    journal.gate.set()
    assert await asyncio.gather(*tasks) == [Begun("granted")] * 6
    assert journal.calls == [["r0"], ["r1", "r2", "r3", "r4", "r5"]]
    await grouped.stop()


async def test_callers_of_one_moment_share_a_call_without_waiting_for_a_timer(journal: GatedJournal) -> None:
    journal.gate.set()
    grouped = await started(journal)
    await asyncio.gather(*(grouped.begin_one(begin(n)) for n in range(50)))
    assert journal.calls == [[f"r{n}" for n in range(50)]]
    await grouped.stop()


async def test_lingering_row_leaves_with_those_that_came_meanwhile(journal: GatedJournal) -> None:
    journal.gate.set()
    grouped = await started(journal, linger_s=0.001, writers=1)
    tasks = spawn(grouped.begin_one(begin(0)))
    # Less turns of the loop than the writer needs to see the row, wait and take it.
    await asyncio.sleep(0)
    tasks += spawn(grouped.begin_one(begin(1)))
    await asyncio.gather(*tasks)
    assert journal.calls == [["r0", "r1"]]
    await grouped.stop()


async def test_writes_in_flight_and_rows_a_call_are_bounded(journal: GatedJournal) -> None:
    grouped = await started(journal, max_rows=3, writers=2)
    tasks = spawn(*(grouped.begin_one(begin(n)) for n in range(10)))
    await spin()
    assert [len(call) for call in journal.calls] == [3, 3]
    journal.gate.set()
    await asyncio.gather(*tasks)
    assert [name for call in journal.calls for name in call] == [f"r{n}" for n in range(10)]
    await grouped.stop()


async def test_callers_beyond_the_bound_wait_and_are_served(journal: GatedJournal) -> None:
    grouped = await started(journal, writers=1, max_waiting=4)
    tasks = spawn(*(grouped.begin_one(begin(n)) for n in range(10)))
    await spin()
    assert len(journal.calls[0]) + len(grouped._begins._rows) == 4
    journal.gate.set()
    assert await asyncio.gather(*tasks) == [Begun("granted")] * 10
    await grouped.stop()


async def test_a_caller_that_gives_up_waiting_for_room_takes_none_with_it(journal: GatedJournal) -> None:
    grouped = await started(journal, writers=1, max_waiting=2)
    tasks = spawn(*(grouped.begin_one(begin(n)) for n in range(7)))
    await spin()
    tasks[2].cancel()  # waits, and has been given nothing
    journal.gate.set()
    await tasks[0]
    tasks[3].cancel()  # has been given a place, and may not have taken it yet
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    assert [one for one in ended if not isinstance(one, asyncio.CancelledError)] == [Begun("granted")] * (
        7 - sum(isinstance(one, asyncio.CancelledError) for one in ended)
    )
    assert isinstance(ended[2], asyncio.CancelledError)
    # Every place is back.
    assert await asyncio.gather(*(grouped.begin_one(begin(n)) for n in range(10, 14))) == [Begun("granted")] * 4
    assert grouped._begins._room.free == 2
    await grouped.stop()


async def test_each_caller_gets_its_own_row_s_result(journal: GatedJournal) -> None:
    journal.gate.set()
    grouped = await started(journal)
    answers = [Answer(str(n), "p", "m") for n in range(30)]
    await asyncio.gather(*(grouped.finish_one(Finish(key(n), answer, None)) for n, answer in enumerate(answers)))
    found = await asyncio.gather(*(grouped.lookup_one(key(n)) for n in (*range(30), 99)))
    assert found == [*(Recorded(answer, None) for answer in answers), None]
    await grouped.stop()


async def test_failed_call_reaches_every_waiter_and_the_next_call_works(journal: GatedJournal) -> None:
    journal.gate.set()
    grouped = await started(journal)
    journal._store.available = False
    errors = await asyncio.gather(*(grouped.begin_one(begin(n)) for n in range(3)), return_exceptions=True)
    assert [type(error) for error in errors] == [JournalUnavailableError] * 3
    assert len({id(error) for error in errors}) == 3
    assert len(journal.calls) == 1
    journal._store.available = True
    assert await grouped.begin_one(begin(0)) == Begun("granted")
    await grouped.stop()


async def test_while_the_journal_is_away_many_callers_are_few_calls(journal: GatedJournal) -> None:
    journal.gate.set()
    grouped = await started(journal)
    journal._store.available = False
    refused = 0

    async def insist(n: int) -> Begun:
        nonlocal refused
        while True:
            try:
                return await grouped.begin_one(begin(n))
            except JournalUnavailableError:
                refused += 1
                await asyncio.sleep(0.001 * n)

    callers = spawn(*(insist(n) for n in range(50)))
    await asyncio.sleep(0.6)
    tried = len(journal.calls)
    # Some five each of two writers; every caller hears of each that its row was in.
    assert 2 <= tried < 20
    assert refused >= 50
    async with asyncio.timeout(10):
        # Else those whose rows were just refused come back one by one, and a journal that answers takes each at once.
        while len(grouped._begins._rows) < 50:
            await asyncio.sleep(0.001)
        before = len(journal.calls)
        journal._store.available = True
        assert await asyncio.gather(*callers) == [Begun("granted")] * 50
    assert len(journal.calls) == before + 1
    await grouped.stop()


async def test_journal_that_answers_too_little_fails_its_callers_instead_of_hanging(journal: GatedJournal) -> None:
    class Short(GatedJournal):
        async def begin(self, items: Sequence[Begin]) -> list[Begun]:
            return (await MemoryJournal.begin(self, items))[1:]

    short = Short()
    await short.start()
    grouped = await started(short)
    with pytest.raises(ValueError, match="shorter"):
        await grouped.begin_one(begin(0))
    await grouped.stop()


async def test_row_that_cannot_be_stored_is_refused_alone(journal: GatedJournal) -> None:
    journal.gate.set()
    grouped = await started(journal)
    bad = Begin(JournalKey("acme", "\x00"), "p", "billing")
    results = await asyncio.gather(
        grouped.begin_one(begin(0)), grouped.begin_one(bad), grouped.begin_one(begin(1)), return_exceptions=True
    )
    assert [type(each) for each in results] == [Begun, SchemaViolationError, Begun]
    assert journal.calls == [["r0", "r1"]]
    await grouped.stop()


async def test_cancelled_caller_does_not_disturb_the_others_and_gives_its_grant_back(journal: GatedJournal) -> None:
    grouped = await started(journal, writers=1)
    one, other = spawn(grouped.begin_one(begin(0)), grouped.begin_one(begin(1)))
    await spin()
    one.cancel()
    await asyncio.wait([one])
    journal.gate.set()
    assert await other == Begun("granted")
    assert await grouped.begin_one(begin(0)) == Begun("granted")
    assert await grouped.begin_one(begin(1)) == Begun("busy", owner=journal._owner)
    await grouped.stop()


async def test_a_cancelled_caller_that_was_busy_gives_no_other_one_s_grant_back(journal: GatedJournal) -> None:
    # Who holds the grant is at its call: given to a third, it would be paid for twice.
    grouped = await started(journal, writers=1)
    journal.gate.set()
    assert await grouped.begin_one(begin(0)) == Begun("granted")
    journal.gate.clear()
    [second] = spawn(grouped.begin_one(begin(0)))
    await spin()
    second.cancel()
    await asyncio.wait([second])
    journal.gate.set()
    assert await grouped.begin_one(begin(0)) == Begun("busy", owner=journal._owner)
    await grouped.stop()


async def test_a_cancelled_caller_whose_call_fails_takes_no_writer_along(monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing(GatedJournal):
        async def begin(self, items: Sequence[Begin]) -> list[Begun]:
            begun = await super().begin(items)
            if len(self.calls) == 1:
                raise JournalUnavailableError("the reply was lost")
            return begun

    monkeypatch.setattr(grouped_module, "FIRST_PAUSE_S", 0.0)
    journal = Failing()
    await journal.start()
    grouped = await started(journal, writers=1)
    [given_up] = spawn(grouped.begin_one(begin(0)))
    await spin()
    given_up.cancel()
    await asyncio.wait([given_up])
    journal.gate.set()
    async with asyncio.timeout(5):
        assert await grouped.begin_one(begin(1)) == Begun("granted")
    await grouped.stop()
    await journal.stop()


async def test_rows_begun_together_are_all_begun_however_many_calls_they_are(journal: GatedJournal) -> None:
    grouped = await started(journal, max_rows=2)
    journal.gate.set()
    await grouped.begin_many([begin(n) for n in range(5)])
    assert journal.calls == [["r0", "r1"], ["r2", "r3"], ["r4"]]
    await grouped.stop()


async def test_caller_cancelled_when_its_grant_has_just_come_gives_it_back() -> None:
    class Cancelling(GatedJournal):
        async def begin(self, items: Sequence[Begin]) -> list[Begun]:
            begun = await super().begin(items)
            # Runs after the result is set and before the caller wakes.
            asyncio.get_running_loop().call_soon(task.cancel)
            return begun

    journal = Cancelling()
    await journal.start()
    grouped = await started(journal, writers=1)
    [task] = spawn(grouped.begin_one(begin(0)))
    journal.gate.set()
    await asyncio.wait([task])
    assert task.cancelled()
    assert await MemoryJournal.begin(journal, [begin(0)]) == [Begun("granted")]
    await grouped.stop()


async def test_caller_cancelled_before_its_row_is_sent_leaves_no_row(journal: GatedJournal) -> None:
    grouped = await started(journal, writers=1)
    first, second = spawn(grouped.begin_one(begin(0)), asyncio.sleep(0))
    await spin()
    [third] = spawn(grouped.begin_one(begin(1)))
    await spin()
    third.cancel()
    journal.gate.set()
    await asyncio.wait([first, second, third])
    await grouped.stop()
    assert journal.calls == [["r0"]]


async def test_a_result_that_its_cancelled_caller_leaves_is_written_once(journal: GatedJournal) -> None:
    grouped = await started(journal, writers=1)

    async def record(n: int) -> None:
        finish = Finish(key(n), ANSWER, None)
        try:
            await grouped.finish_one(finish)
        except asyncio.CancelledError:
            grouped.leave_finish(finish)
            raise

    tasks = spawn(record(0))
    await spin()
    tasks += spawn(record(1), record(2))
    await spin()
    tasks[1].cancel()
    await spin()
    journal.gate.set()
    await asyncio.wait(tasks)
    await grouped.stop()
    assert await journal.lookup([key(0), key(1), key(2)]) == [Recorded(ANSWER, None)] * 3
    assert journal.calls == [["r0"], ["r2", "r1"]]


async def test_a_result_that_nobody_waits_for_any_more_waits_out_an_outage(journal: GatedJournal) -> None:
    journal.gate.set()
    grouped = await started(journal, max_waiting=2)
    journal._store.available = False
    with pytest.raises(JournalUnavailableError):
        await grouped.finish_one(Finish(key(1), ANSWER, None))
    for n in (0, 2, 3, 4):
        grouped.leave_finish(Finish(key(n), ANSWER, None))
    await asyncio.sleep(0.2)
    journal._store.available = True
    async with asyncio.timeout(5):
        while await journal.lookup([key(n) for n in (0, 2, 3, 4)]) != [Recorded(ANSWER, None)] * 4:
            await asyncio.sleep(0.01)
        while grouped._finishes._room.free != 2:
            await asyncio.sleep(0.01)
    await grouped.stop()


async def test_a_result_that_cannot_be_recorded_before_the_end_is_said(
    journal: GatedJournal, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(grouped_module, "STOP_TIMEOUT_S", 0.05)
    journal.gate.set()
    grouped = await started(journal)
    journal._store.available = False
    grouped.leave_finish(Finish(key(0), ANSWER, None))
    await spin()
    await grouped.stop()
    grouped.leave_finish(Finish(key(1), ANSWER, None))
    assert [record.message for record in caplog.records].count("result not journaled") == 2
    journal._store.available = True


async def test_stop_writes_what_is_queued_and_then_takes_no_more(journal: GatedJournal) -> None:
    grouped = await started(journal, writers=1, max_rows=2)
    tasks = spawn(*(grouped.begin_one(begin(n)) for n in range(5)))
    await spin()
    [stopping] = spawn(grouped.stop())
    await spin()
    assert not stopping.done()
    journal.gate.set()
    await stopping
    assert await asyncio.gather(*tasks) == [Begun("granted")] * 5
    with pytest.raises(ShuttingDownError):
        await grouped.begin_one(begin(9))
    await grouped.stop()


async def test_stop_that_runs_out_of_time_fails_its_callers_and_leaves_no_task(
    journal: GatedJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grouped_module, "STOP_TIMEOUT_S", 0)
    before = asyncio.all_tasks()
    grouped = await started(journal, writers=1, max_rows=1)
    tasks = spawn(*(grouped.begin_one(begin(n)) for n in range(3)))
    await spin()
    await grouped.stop()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(each) for each in results] == [ShuttingDownError] * 3
    assert asyncio.all_tasks() == before


async def test_nothing_is_taken_before_start(journal: GatedJournal) -> None:
    with pytest.raises(ShuttingDownError):
        await GroupedJournal(journal).finish_one(Finish(key(0), ANSWER, None))
    assert journal.calls == []
