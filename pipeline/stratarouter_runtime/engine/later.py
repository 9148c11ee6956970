"""Journals what no caller waits for, many rows at a time: of requests that nobody can ever ask for again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from stratarouter_runtime.errors import SchemaViolationError
from stratarouter_runtime.journal.grouped import GroupedJournal
from stratarouter_runtime.port_values import Begin, Finish
from stratarouter_runtime.room import Room
from stratarouter_runtime.telemetry.logs import event
from stratarouter_runtime.told import Told

log = logging.getLogger("stratarouter.later")

MAX_ROWS = 2000
"""Rows that wait to be journaled after their callers went on; beyond it callers wait for the journal."""
GATHER_S = 0.1
"""How long rows gather, to share their statements: alone, each would cost the process 0.7 ms. What a process that is
killed loses of its journal. A statement of 21 rows holds the event loop for 0.7 ms, one of a single row for 0.6."""

Row = tuple[Begin, Finish | None]
"""What was begun, and what came of it; None for a follower, whose result is its leader's."""
Persist = Callable[[Callable[[], Awaitable[None]], str], Awaitable[None]]
"""Repeats a write until the journal has taken it."""


class Later:
    """Rows on their way to the journal. ``persist`` waits out a journal that is away; answers that were ``told`` go
    before rows.
    """

    def __init__(self, journal: GroupedJournal, persist: Persist, told: Told) -> None:
        self._journal = journal
        self._persist = persist
        self._told = told
        self._rows: list[Row] = []
        self._room = Room(MAX_ROWS)
        self._writer: asyncio.Task[None] | None = None
        self._gone = 0
        """Rows that are not outstanding any more."""
        self._round = asyncio.Event()
        """Set when the next ones are gone."""
        self._hurry = asyncio.Event()
        self._stopped = False

    async def put(self, begin: Begin, finish: Finish | None = None) -> None:
        """Have a row written; waits only where too many do already."""
        try:
            self._journal.check(begin)
        except SchemaViolationError:
            # What was answered stays answered.
            log.exception("result not journaled")
            return
        if not self._room.take_now():
            try:
                await self._room.take()
            except asyncio.CancelledError:
                # Its caller leaves, and it was paid for.
                self._room.take_more()
                self._add(begin, finish)
                raise
        self._add(begin, finish)

    def _add(self, begin: Begin, finish: Finish | None) -> None:
        if self._stopped:
            self._room.give_back()
            event(log, logging.ERROR, "result not journaled", request_id=begin.key.request_id, cause="stopped before")
            return
        self._rows.append((begin, finish))
        if self._writer is None:
            self._writer = asyncio.create_task(self._write_all(), name="journal later")

    async def settle(self) -> None:
        """Have every row that was put so far written, without waiting for others to gather."""
        until = self._gone + len(self._rows)
        while self._gone < until:
            self._hurry.set()
            await self._round.wait()

    async def stop(self, timeout_s: float) -> None:
        """Take no more; wait for what is still to be written, at most ``timeout_s`` seconds. What is left is said and
        given up.
        """
        self._stopped = True
        if self._writer is None:
            return
        await asyncio.wait([self._writer], timeout=timeout_s)
        if self._writer is not None:
            self._writer.cancel()
            await asyncio.wait([self._writer])
            event(log, logging.ERROR, "results not journaled", count=len(self._rows))
            self._drop(len(self._rows))

    def _drop(self, count: int) -> None:
        del self._rows[:count]
        for _ in range(count):
            self._room.give_back()
        self._gone += count
        self._round.set()
        self._round = asyncio.Event()

    async def _gather(self) -> None:
        try:
            async with asyncio.timeout(GATHER_S):
                await self._hurry.wait()
        except TimeoutError:
            return
        self._hurry.clear()

    async def _write_all(self) -> None:
        try:
            while self._rows:
                await self._gather()
                await self._told.give_way()
                rows = self._rows[:]
                try:
                    await self._persist(partial(self._write, rows), "journal later")
                except Exception:
                    # A defect: the rows after these must not wait behind them for ever.
                    log.exception("%d results not journaled", len(rows))
                self._drop(len(rows))
        finally:
            self._writer = None

    async def _write(self, rows: Sequence[Row]) -> None:
        await self._journal.record_new([(begin, finish) for begin, finish in rows if finish is not None])
        followers = [begin for begin, finish in rows if finish is None]
        if followers:
            await self._journal.begin_many(followers)
