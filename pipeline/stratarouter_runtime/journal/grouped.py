"""Gathers concurrent callers' rows into few journal calls: while one write is under way, the next gathers.

Knows the ``Journal`` port alone. It retries nothing but results that nobody waits for any more: they were paid for.
Else whether to wait out an outage is the caller's decision; callers who ask again, each in its own time, share a call
now and then.
"""

from __future__ import annotations

import asyncio
import copy
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Generic, TypedDict, TypeVar

from stratarouter_runtime.errors import JournalUnavailableError, ShuttingDownError
from stratarouter_runtime.journal import rows
from stratarouter_runtime.journal.held import Releases
from stratarouter_runtime.port_values import Begin, Begun, BudgetWindow, Finish, JournalKey, Recorded, Spent
from stratarouter_runtime.ports import Journal
from stratarouter_runtime.room import Room
from stratarouter_runtime.telemetry.logs import event

log = logging.getLogger("stratarouter.grouped")

Item = TypeVar("Item")
Result = TypeVar("Result")

STOP_TIMEOUT_S = 12.0
"""How long ``stop`` waits for what is queued: a little more than the journal's own timeout a statement."""
NEW_ROWS = 200
"""Rows in one call that nobody waits for: packing them takes some 4 ms, and between two calls the event loop has its
turn."""
FIRST_PAUSE_S, MAX_PAUSE_S = 0.05, 0.5
"""Between two calls of a writer while the journal is away, doubled from the one to the other. Each call tries to
connect: 160 requests that waited out an outage of 4 s tried 800 times, and left 10 MB of tracebacks."""


class _Failure:
    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error


class _Bounds(TypedDict):
    max_rows: int
    max_waiting: int
    linger_s: float


class _Gatherer(Generic[Item, Result]):
    """One kind of call: rows wait in order, each of ``writers`` tasks takes up to ``max_rows`` of them at once.

    Rows whose waiter was cancelled before they were sent are left out; ``abandon`` hears of results that came for a
    cancelled waiter, ``lost`` of rows that nobody waited for and that could not be written.
    """

    def __init__(
        self,
        call: Callable[[Sequence[Item]], Awaitable[Sequence[Result]]],
        *,
        max_rows: int,
        max_waiting: int,
        linger_s: float,
        check: Callable[[Item], None] | None = None,
        abandon: Callable[[Item, Result], None] | None = None,
        lost: Callable[[Item, BaseException], None] | None = None,
    ) -> None:
        self._call = call
        self._max_rows = max_rows
        self._linger_s = linger_s
        self._check = check
        self._abandon = abandon
        self._lost = lost
        self._rows: deque[tuple[Item, asyncio.Future[Result | _Failure] | None]] = deque()
        self._room = Room(max_waiting)
        self._wake = asyncio.Event()
        self._open = False
        self._pause_s = 0.0
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, name: str, writers: int) -> None:
        self._open, self._loop = True, asyncio.get_running_loop()
        self._tasks = [asyncio.create_task(self._write_all(), name=f"journal {name} {n}") for n in range(writers)]

    async def stop(self, timeout_s: float) -> None:
        """Take no more, write what is queued, join the writers; those still at work after ``timeout_s`` are cut off."""
        self._open = False
        self._wake.set()
        tasks, self._tasks = self._tasks, []
        if tasks:
            try:
                await asyncio.wait(tasks, timeout=timeout_s)
            finally:
                for task in tasks:
                    task.cancel()
                self._fail_queued()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _fail_queued(self) -> None:
        self._settle(list(self._rows), _Failure(_closed()))
        self._rows.clear()

    async def submit(self, item: Item) -> Result:
        """Wait for room, then for the row's result. Raises what ``check`` does of a row that cannot be written."""
        if self._check is not None:
            self._check(item)
        if not self._room.take_now():
            await self._room.take()
        try:
            if not self._open:
                raise _closed()
            future: asyncio.Future[Result | _Failure] = self._loop.create_future()
            self._rows.append((item, future))
            if len(self._rows) == 1:
                self._wake.set()
            try:
                outcome = await future
            except asyncio.CancelledError:
                # Cancelled between the result's coming and this task's waking: nobody else has seen it.
                if not future.cancelled():
                    self._give_up(item, future.result())
                raise
        finally:
            self._room.give_back()
        if isinstance(outcome, _Failure):
            # A copy each: one exception raised in hundreds of tasks would gather all their tracebacks.
            raise copy.copy(outcome.error) from outcome.error
        return outcome

    def leave(self, item: Item) -> None:
        """Have a row written that nobody waits for, however long the journal is away."""
        assert self._lost is not None
        if not self._open:
            self._lost(item, _closed())
            return
        self._room.take_more()
        self._rows.append((item, None))
        self._wake.set()

    async def _write_all(self) -> None:
        while await self._has_rows():
            if self._linger_s > 0 and len(self._rows) < self._max_rows:
                await asyncio.sleep(self._linger_s)
            await self._write(self._take())

    async def _has_rows(self) -> bool:
        while not self._rows:
            if not self._open:
                return False
            self._wake.clear()
            await self._wake.wait()
        return True

    def _take(self) -> list[tuple[Item, asyncio.Future[Result | _Failure] | None]]:
        taken: list[tuple[Item, asyncio.Future[Result | _Failure] | None]] = []
        while self._rows and len(taken) < self._max_rows:
            item, future = self._rows.popleft()
            if future is None or not future.done():
                taken.append((item, future))
        return taken

    async def _write(self, taken: list[tuple[Item, asyncio.Future[Result | _Failure] | None]]) -> None:
        if not taken:
            return
        try:
            results = await self._call([item for item, _ in taken])
            pairs = list(zip(taken, results, strict=True))
        except asyncio.CancelledError:
            self._settle(taken, _Failure(_closed()))
            raise
        except JournalUnavailableError as exc:
            # Who waits decides whether to ask again; for a row that nobody waits for it is asked here.
            for item, future in taken:
                if future is None:
                    self._rows.append((item, None))
                else:
                    self._settle_one(item, future, _Failure(exc))
            self._pause_s = min(MAX_PAUSE_S, max(FIRST_PAUSE_S, 2 * self._pause_s))
            await asyncio.sleep(self._pause_s)
        except Exception as exc:  # noqa: BLE001 - whatever it is belongs to the waiters; this task must live on
            self._settle(taken, _Failure(exc))
        else:
            self._pause_s = 0.0
            for (item, future), result in pairs:
                self._settle_one(item, future, result)

    def _settle(
        self, waiting: list[tuple[Item, asyncio.Future[Result | _Failure] | None]], outcome: Result | _Failure
    ) -> None:
        for item, future in waiting:
            self._settle_one(item, future, outcome)

    def _settle_one(
        self, item: Item, future: asyncio.Future[Result | _Failure] | None, outcome: Result | _Failure
    ) -> None:
        if future is None:
            self._room.give_back()
            if isinstance(outcome, _Failure) and self._lost is not None:
                self._lost(item, outcome.error)
        elif future.done():
            self._give_up(item, outcome)
        else:
            future.set_result(outcome)

    def _give_up(self, item: Item, outcome: Result | _Failure) -> None:
        if self._abandon is not None and not isinstance(outcome, _Failure):
            self._abandon(item, outcome)


class GroupedJournal:
    """One row at a time for the caller, hundreds a call for the journal.

    The journal's own start and stop stay with the caller: start it before and stop it after this one.

    Args:
        journal: where the rows go.
        max_rows: rows in one call.
        linger_s: how long a row waits for others where less than ``max_rows`` are there; 0 sends at once.
        writers: calls under way at once for begins and for finishes each; each kind of read has one. Together they
            should not be more than the journal's connections by much.
        max_waiting: rows of each kind queued or under way; further callers wait their turn.
    """

    def __init__(
        self,
        journal: Journal,
        max_rows: int = 500,
        linger_s: float = 0.0,
        *,
        writers: int = 2,
        max_waiting: int = 10_000,
    ) -> None:
        self._journal = journal
        self._max_rows = max_rows
        self._writers = writers
        bounds: _Bounds = {"max_rows": max_rows, "max_waiting": max_waiting, "linger_s": linger_s}
        self._begins = _Gatherer[Begin, Begun](journal.begin, **bounds, check=rows.check_begin, abandon=self._abandon)
        self._finishes = _Gatherer[Finish, Recorded](journal.finish, **bounds, check=rows.check_finish, lost=self._lost)
        self._lookups = _Gatherer[JournalKey, Recorded | None](journal.lookup, **bounds, check=rows.check_key)
        self._spoken = _Gatherer[JournalKey, bool](journal.spoken_for, **bounds, check=rows.check_key)
        self._spent = _Gatherer[BudgetWindow, Spent](journal.spent, **bounds)

    async def start(self) -> None:
        """Start the writers."""
        self._begins.start("begin", self._writers)
        self._finishes.start("finish", self._writers)
        self._lookups.start("lookup", 1)
        self._spoken.start("spoken for", 1)
        self._spent.start("spent", 1)

    async def stop(self) -> None:
        """Take no more, write what is queued, join the writers. Idempotent."""
        gatherers = (self._begins, self._finishes, self._lookups, self._spoken, self._spent)
        await asyncio.gather(*(gatherer.stop(STOP_TIMEOUT_S) for gatherer in gatherers))

    @staticmethod
    def check(item: Begin) -> None:
        """Raise SchemaViolationError where the row cannot be stored."""
        rows.check_begin(item)

    async def record_new(self, items: Sequence[tuple[Begin, Finish]]) -> None:
        """Write rows begun and finished at once, whose keys nobody else can know. Raises JournalUnavailableError."""
        at_once = min(self._max_rows, NEW_ROWS)
        for start in range(0, len(items), at_once):
            await self._journal.record_new(items[start : start + at_once])

    async def begin_many(self, items: Sequence[Begin]) -> None:
        """Begin rows whatever stands under their keys. Raises JournalUnavailableError."""
        for start in range(0, len(items), self._max_rows):
            await self._journal.begin(items[start : start + self._max_rows])

    def begin_one(self, item: Begin) -> Coroutine[None, None, Begun]:
        """Claim one row.

        A caller cancelled meanwhile leaves the call to the others in it; a grant that so comes too late is given
        back, and the next ``begin_one`` of the row in this process has it.

        Raises:
            SchemaViolationError: the row cannot be stored; the others of its call are not touched.
            JournalUnavailableError: it may or may not be claimed; ask again.
            ShuttingDownError: not started, or stopped.
        """
        return self._begins.submit(item)

    def finish_one(self, item: Finish) -> Coroutine[None, None, Recorded]:
        """Record one result; returns what stands. Errors as ``begin_one``'s.

        A caller cancelled meanwhile takes along what was not sent yet, and leaves it to ``leave_finish``.
        """
        return self._finishes.submit(item)

    def leave_finish(self, item: Finish) -> None:
        """Have a result recorded that nobody waits for any more, however long the journal is away; said where it cannot
        be before the end.
        """
        self._finishes.leave(item)

    def lookup_one(self, key: JournalKey) -> Coroutine[None, None, Recorded | None]:
        """Read one finished result, or None. Errors as ``begin_one``'s."""
        return self._lookups.submit(key)

    def spoken_for_one(self, key: JournalKey) -> Coroutine[None, None, bool]:
        """Whether it has a result, or another living worker is at it. Errors as ``begin_one``'s."""
        return self._spoken.submit(key)

    async def is_abandoned(self, key: JournalKey) -> bool:
        """Whether a dead worker has started it. Asked too seldom to be gathered. Raises JournalUnavailableError."""
        [found] = await self._journal.abandoned([key])
        return found

    def spent_one(self, window: BudgetWindow) -> Coroutine[None, None, Spent]:
        """Read what was spent in one window. Errors as ``begin_one``'s."""
        return self._spent.submit(window)

    @staticmethod
    def _lost(item: Finish, error: BaseException) -> None:
        event(log, logging.ERROR, "result not journaled", request_id=item.key.request_id, cause=repr(error))

    def _abandon(self, item: Begin, begun: Begun) -> None:
        if begun.state == "granted" and isinstance(self._journal, Releases):
            self._journal.release([item.key])


def _closed() -> ShuttingDownError:
    return ShuttingDownError("the journal's writers are not running")
