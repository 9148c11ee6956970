"""Performs one leader: the journal's permission, the provider calls with retries and fallbacks, the record of it."""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from stratarouter_runtime.engine.budgets import Budgets
from stratarouter_runtime.engine.calls import Caller, Outcome
from stratarouter_runtime.engine.gates import Gates
from stratarouter_runtime.engine.later import Later
from stratarouter_runtime.engine.places import Hold
from stratarouter_runtime.engine.respond import error_info
from stratarouter_runtime.engine.work import Work
from stratarouter_runtime.errors import (
    AmbiguousCallError,
    DeadlineExceededError,
    IdempotencyConflictError,
    JournalUnavailableError,
)
from stratarouter_runtime.journal.grouped import GroupedJournal
from stratarouter_runtime.port_values import Begin, Begun, Finish, JournalKey, Recorded
from stratarouter_runtime.ports import Clock
from stratarouter_runtime.records import Answer, ErrorInfo, Execution, milliseconds
from stratarouter_runtime.telemetry.logs import event
from stratarouter_runtime.telemetry.metrics import Metrics
from stratarouter_runtime.telemetry.responses import count_calls
from stratarouter_runtime.told import Told

log = logging.getLogger("stratarouter.perform")
T = TypeVar("T")

BUSY_FIRST_POLL_S = 0.1
BUSY_MAX_POLL_S = 1.0
"""Waits between looks in the journal for a result that another living worker owes."""
BUSY_REJUDGE_S = 2.0
"""How often such a request is asked for anew: its owner may have died meanwhile."""
JOURNAL_FIRST_BACKOFF_S = 0.05
JOURNAL_MAX_BACKOFF_S = 2.0


class Performer:
    """Turns work into an outcome that the journal holds.

    Args:
        owner: this worker's id in the journal.
        on_ambiguous: ``retry`` pays again for a call of unknown outcome, ``fail`` answers with an error.

    Attributes:
        told: answers on their way to callers, before whom no row is written that nobody waits for.
    """

    def __init__(
        self,
        *,
        journal: GroupedJournal,
        caller: Caller,
        gates: Gates,
        budgets: Budgets,
        clock: Clock,
        metrics: Metrics,
        owner: str,
        on_ambiguous: str,
    ) -> None:
        self._journal = journal
        self._caller = caller
        self._gates = gates
        self._budgets = budgets
        self._clock = clock
        self._metrics = metrics
        self._owner = owner
        self._may_repeat = on_ambiguous == "retry"
        self.told = Told()
        self._later = Later(journal, self._persist, self.told)

    async def perform(self, work: Work) -> Recorded:
        """Execute ``work`` once. Raises IdempotencyConflictError where its id stands for another payload."""
        try:
            return await self._perform(work)
        except _TooLateError as exc:
            # No call was made and no result is recorded: the same id may ask again.
            return Recorded(None, error_info(DeadlineExceededError(f"the deadline passed before a call was made{exc}")))

    async def _perform(self, work: Work) -> Recorded:
        asked = self._clock.monotonic()
        while True:
            if not self._caller.knows(work):
                await self._caller.until_known(work)
            with self._gates.hold(work.execution.targets[0].provider) as hold:
                await hold.turn()
                is_charged = bool(self._budgets.matching(work.execution))
                if is_charged:
                    # A budget is exceeded by the calls in flight at most: nothing is checked before its place is there.
                    await hold.place()
                began = self._clock.monotonic()
                work.timings_ms["slot"] = milliseconds(began - asked)
                if began >= work.due:
                    raise _TooLateError
                # 1. Not beyond what the tenant may spend.
                refused = await self._refused(work) if is_charged else None
                if refused is not None:
                    return refused
                work.asked = True
                # What is charged to a budget is recorded at once: the next call is held against it.
                if work.deferred and not is_charged:
                    return await self._call_and_record_later(work, hold)
                # 2. Durable permission before any money is spent.
                begun = await self._begin_once(work.execution, work.key, leader=None, until=work.due)
                begin_s = self._clock.monotonic() - began
                work.timings_ms["journal_begin"] = milliseconds(begin_s)
                if begun.state == "granted":
                    return await self._call_and_record(work, hold, begin_s, is_charged=is_charged)
            if begun.state == "ambiguous":
                return await self.record_ambiguous(work.key)
            work.asked = False
            # Another living worker is at it: its result is waited for, without holding a place meanwhile. Past our
            # own deadline too: an error recorded now would win over the result that is being paid for.
            recorded = begun.recorded or await self._result_of_another(work.key)
            if recorded is not None:
                work.from_journal = True
                return recorded

    async def _refused(self, work: Work) -> Recorded | None:
        """Why its budgets forbid the call, unless none is to be made: the answer is recorded, or on its way."""
        refusal = await self._persist(lambda: self._budgets.refusal(work.execution), "read budgets", until=work.due)
        if refusal is None or await self._is_spoken_for(work):
            return None
        return Recorded(None, error_info(refusal))

    async def _is_spoken_for(self, work: Work) -> bool:
        """Whether its id costs nothing: the journal says its result again, or another living worker pays for it."""
        if work.deferred:
            return False
        return await self._persist(lambda: self._journal.spoken_for_one(work.key), "lookup", until=work.due)

    async def begin(self, execution: Execution, key: JournalKey, *, leader: JournalKey | None) -> Begun:
        """Claim ``key``; waits while another living worker executes it.

        Returns granted, recorded or ambiguous. Raises IdempotencyConflictError.
        """
        while True:
            begun = await self._begin_once(execution, key, leader=leader)
            if begun.state != "busy":
                return begun
            recorded = await self._result_of_another(key)
            if recorded is not None:
                return Begun("recorded", recorded=recorded)

    async def _begin_once(
        self, execution: Execution, key: JournalKey, *, leader: JournalKey | None, until: float = math.inf
    ) -> Begun:
        item = self._row(execution, key, leader)
        begun = await self._persist(lambda: self._journal.begin_one(item), "begin", until=until)
        if begun.state == "busy" and begun.owner == self._owner:
            # This process runs a key once at a time, so an earlier run of ours was broken off.
            begun = Begun("granted" if self._may_repeat else "ambiguous", took_over=True)
        if begun.state == "conflict":
            raise IdempotencyConflictError(f"request_id {key.request_id!r} was used before with another payload")
        if begun.took_over or begun.state == "ambiguous":
            self._metrics.ambiguous_calls_total.inc()
        return begun

    def _row(self, execution: Execution, key: JournalKey, leader: JournalKey | None) -> Begin:
        source = execution.source
        return Begin(
            key=key,
            payload_hash=execution.payload_hash,
            route_id=execution.request.decision.route_id,
            leader=leader,
            retry_ambiguous=self._may_repeat,
            source=None if source is None else f"{source.topic}-{source.partition}@{source.offset}",
        )

    async def follow_later(self, execution: Execution, key: JournalKey, *, leader: JournalKey) -> None:
        """Journal that ``key``, which nobody can ask for again, has its leader's answer, while its caller goes on."""
        await self._later.put(self._row(execution, key, leader))

    async def settle(self) -> None:
        """Return once every result that was put off is durable."""
        await self._later.settle()

    async def take_over(
        self, execution: Execution, key: JournalKey, error: ErrorInfo | None, *, deferred: bool
    ) -> Recorded:
        """Record a leader's error as a follower's own. ``deferred``: nobody can ask for ``key`` again."""
        finish = Finish(key, None, error)
        return await (self._record_later(execution, finish) if deferred else self.record(finish))

    async def _record_later(self, execution: Execution, finish: Finish) -> Recorded:
        await self._later.put(self._row(execution, finish.key, None), finish)
        return Recorded(finish.answer, finish.error, finish.attempts)

    async def _result_of_another(self, key: JournalKey) -> Recorded | None:
        """The result that another worker recorded meanwhile; None when it is time to ask whether that one lives."""
        rejudge = self._clock.monotonic() + BUSY_REJUDGE_S
        wait = BUSY_FIRST_POLL_S
        while self._clock.monotonic() < rejudge:
            await self._clock.sleep(wait)
            recorded = await self.lookup(key)
            if recorded is not None:
                return recorded
            wait = min(BUSY_MAX_POLL_S, wait * 2)
        return None

    async def lookup(self, key: JournalKey) -> Recorded | None:
        """What the journal holds for ``key``."""
        return await self._persist(lambda: self._journal.lookup_one(key), "lookup")

    async def count_abandoned(self, key: JournalKey) -> None:
        """Count the call that a dead worker may have made for ``key``, which is answered without another one."""
        if await self._persist(lambda: self._journal.is_abandoned(key), "lookup"):
            self._metrics.ambiguous_calls_total.inc()

    async def record_ambiguous(self, key: JournalKey) -> Recorded:
        """Record that a call for ``key``, which is not made again, may have been paid for."""
        return await self.record(Finish(key, None, error_info(_ambiguous(key))))

    async def record(self, finish: Finish) -> Recorded:
        """Make a result durable; what stands afterwards may be another worker's, if it was first."""
        try:
            return await self._persist(lambda: self._journal.finish_one(finish), "finish")
        except asyncio.CancelledError:
            # It was paid for. Written twice, where its statement was under way, it stands once.
            self._journal.leave_finish(finish)
            raise

    async def _call_and_record(self, work: Work, hold: Hold, begin_s: float, *, is_charged: bool) -> Recorded:
        # 3. The calls.
        answer, error = await self._call(work, hold, begin_s)
        called = self._clock.monotonic()
        if not is_charged:
            # The provider has room for the next call; a budget is to know first what this one cost.
            hold.release()
        # 4. The result is durable before anybody sees it.
        outcome = await self.record(self._finish(work, answer, error))
        work.timings_ms["journal_finish"] = milliseconds(self._clock.monotonic() - called)
        return outcome

    async def _call_and_record_later(self, work: Work, hold: Hold) -> Recorded:
        answer, error = await self._call(work, hold, 0.0)
        hold.release()
        return await self._record_later(work.execution, self._finish(work, answer, error))

    async def _call(self, work: Work, hold: Hold, begin_s: float) -> Outcome:
        """The calls, once there is a place for them; what was waited for before is not theirs."""
        began = self._clock.monotonic()
        if not hold.place_now():
            ready, before_s = began, work.timings_ms["slot"] / 1000
            await hold.place()
            began = self._clock.monotonic()
            work.timings_ms["slot"] = milliseconds(before_s + began - ready)
        work.began = began
        answer, error = await self._caller.call_targets(work, hold)
        call_s = self._clock.monotonic() - began
        work.timings_ms["provider"] = milliseconds(call_s)
        hold.learn(begin_s, call_s)
        count_calls(self._metrics, work.attempts, answer)
        return answer, error

    def _finish(self, work: Work, answer: Answer | None, error: ErrorInfo | None) -> Finish:
        charges = self._budgets.charges(work.execution, answer)
        return Finish(work.key, answer, error, tuple(work.attempts), charges)

    async def stop(self, timeout_s: float) -> None:
        """Wait for what is still to be written, at most ``timeout_s`` seconds; what is left is said and given up."""
        await self._later.stop(timeout_s)

    async def _persist(self, write: Callable[[], Awaitable[T]], doing: str, *, until: float = math.inf) -> T:
        """The journal is waited for: without it no call starts and no paid result is let go. What limits the wait
        is the caller's: intake stops when too much is held.

        Raises _TooLateError where it is away and it is ``until``, monotonic seconds.
        """
        backoff = JOURNAL_FIRST_BACKOFF_S
        while True:
            try:
                return await write()
            except JournalUnavailableError as exc:
                event(log, logging.WARNING, "journal unavailable", doing=doing, cause=str(exc), wait_s=backoff)
                left_s = until - self._clock.monotonic()
                if left_s <= 0:
                    raise _TooLateError(f": {exc}") from exc
            await self._clock.sleep(min(left_s, backoff * (0.5 + random.random() / 2)))  # noqa: S311
            backoff = min(JOURNAL_MAX_BACKOFF_S, backoff * 2)


class _TooLateError(Exception):
    """Nobody waits any longer, and no call was made."""


def _ambiguous(key: JournalKey) -> AmbiguousCallError:
    return AmbiguousCallError(f"a call for {key.request_id!r} was started by a worker that died; it may have been paid")
