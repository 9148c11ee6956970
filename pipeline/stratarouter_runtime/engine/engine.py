"""The engine: an execution in, its one response out. Looks up, joins or leads, and never pays twice.

It knows no transport. ``submit`` is called by the execute processor and by the bridge alike.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from functools import partial
from typing import Any

from stratarouter_runtime import wire
from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.engine import lookup, respond
from stratarouter_runtime.engine.asking import Asking, Looked, likened_text, new_story
from stratarouter_runtime.engine.coalesce import Candidate, Leaders
from stratarouter_runtime.engine.fills import Fills
from stratarouter_runtime.engine.perform import Performer
from stratarouter_runtime.engine.respond import Story
from stratarouter_runtime.engine.shadows import Shadows
from stratarouter_runtime.engine.trials import Trials
from stratarouter_runtime.engine.work import (
    Leader,
    Manner,
    OnText,
    Running,
    Spoken,
    Work,
    again,
    as_exception,
    due,
    in_time,
    same_id,
    shutting_down,
)
from stratarouter_runtime.errors import ShuttingDownError
from stratarouter_runtime.port_values import CacheEntry, CacheHit, JournalKey, Recorded
from stratarouter_runtime.ports import Cache, Clock, Guard
from stratarouter_runtime.records import BatchVerdict, ErrorInfo, Execution, Response, milliseconds
from stratarouter_runtime.state.cache_control import CacheControl
from stratarouter_runtime.telemetry.logs import about, event
from stratarouter_runtime.telemetry.metrics import Metrics

log = logging.getLogger("stratarouter.engine")

FLUSH_S = 10.0
"""At the end, for results whose callers did not wait for the journal."""
FOLLOWERS_TURNS = 10
"""Turns of the event loop within which those who follow in their callers' tasks take note of an outcome."""
FAILED_LEADERS = 2
"""After so many leaders have failed, a follower takes the last one's error: an outage must not make a queue."""


class Engine:
    """Executes requests. One for each process; not shared between event loops."""

    def __init__(
        self,
        config: RuntimeConfig,
        *,
        cache: Cache | None,
        performer: Performer,
        guard: Guard,
        clock: Clock,
        metrics: Metrics,
        control: CacheControl | None = None,
        trials: Trials | None = None,
    ) -> None:
        """``cache`` None: every request is executed. ``guard`` judges likeness between leaders and followers.

        ``control`` is what the cache-control topic has said; None where nobody says anything. ``trials`` hold the bound
        on wrong hits.
        """
        self._config = config
        self._cache = cache
        self._performer = performer
        self._clock = clock
        self._metrics = metrics
        self._control = control or CacheControl()
        self._trials = trials or Trials.alone(metrics)
        self._leaders = Leaders(guard)
        self._leading: dict[JournalKey, Leader] = {}
        self._running: dict[JournalKey, Running] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._performing: set[Leader] = set()
        self._shadows = Shadows(self._trials, metrics, submit=self.submit, spawn=self._spawn)
        self._asking = Asking(
            cache, self._trials, metrics, clock, spawn=self._spawn, served=self._shadows.check, is_led=self._is_led
        )
        self._fills = Fills(cache, clock, self._trials.judged)
        self._following = 0
        self._closing = False

    @property
    def in_flight(self) -> int:
        """Requests submitted and not yet answered."""
        return len(self._running)

    def close(self) -> None:
        """Start no further call: what the journal was not yet asked for ends with ShuttingDownError. Idempotent."""
        self._closing = True
        for leader in self._performing:
            if leader.task is not None and not leader.work.asked:
                leader.task.cancel()

    async def stop(self, grace_s: float) -> None:
        """Wait up to ``grace_s`` for what runs, then break it off: its ``started`` rows tell the next worker."""
        until = self._clock.monotonic() + grace_s
        # What ends may begin something: an answer is kept, and held against another.
        while (tasks := self._all_tasks()) and (left_s := until - self._clock.monotonic()) > 0:
            await asyncio.wait(tasks, timeout=left_s)
        self.close()
        while tasks := self._all_tasks():
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            # What is done goes from the sets in a turn of the loop, and from Python 3.12 on to gather it takes none.
            await asyncio.sleep(0)
        # Their callers' tasks have the outcome now, and one turn or two of the loop to journal it.
        for _ in range(FOLLOWERS_TURNS):
            if not self._following:
                break
            await asyncio.sleep(0)
        await self._performer.stop(FLUSH_S)

    def _all_tasks(self) -> list[asyncio.Task[Any]]:
        return [*self._tasks, *(running.task for running in self._running.values())]

    async def give_way(self) -> None:
        """Let the answers that are on their way reach their callers: for work that would hold them up."""
        await self._performer.told.give_way()

    def look_now(self, execution: Execution) -> Response | Looked | None:
        """Ask the cache without waiting, so that a hit needs no task of its own.

        Returns:
            A hit's response, or what ``submit`` is to be told of a miss. None where that cannot be: it has to be waited
            for, it is not to be asked, or the request's id is under way.
        """
        return None if JournalKey.of(execution.request) in self._running else self._asking.now(execution)

    async def look(self, execution: Execution) -> Response | Looked | None:
        """As ``look_now``, with a round trip where the cache needs one."""
        return None if JournalKey.of(execution.request) in self._running else await self._asking.look(execution)

    async def same_words(self, execution: Execution) -> Response | None:
        """A hit's response where these very words are kept: asked before a vector is made, which may then be spared.

        None also where the request's id is under way.
        """
        return None if JournalKey.of(execution.request) in self._running else await self._asking.same_words(execution)

    def is_led(self, execution: Execution) -> bool:
        """Whether a request of the very same words is in flight, whom this one follows without a vector."""
        return lookup.may_follow(execution) and self._is_led(execution.content_hash)

    def _is_led(self, content_hash: str) -> bool:
        return content_hash in self._leaders

    def knows_leader(self, execution: Execution) -> bool:
        """Whether one who leads is known to answer these words, so that there is something to ``follow``."""
        return lookup.may_follow(execution) and self._leaders.know(execution.content_hash)

    async def follow(self, execution: Execution, looked: Looked | None, due: float | None = None) -> Response | int:
        """As ``submit``, in the caller's own task: for a request that nobody can ask for again and whose words one who
        leads is known to answer. Where the caller gives up, nothing is lost.

        Returns:
            A response; or else how many leaders have failed it, one or, where nobody leads any more, none: ``submit``
            it, and say so.
        """
        asked = looked or Looked(new_story(execution), likened_text(execution), self._clock.monotonic(), led=True)
        story, candidate = asked.story, Candidate.of(execution, asked.text)
        leader = self._join(execution, candidate, story, self._due(execution, due))
        if leader is None:
            return 0
        execution = wire.hashed(execution)
        self._following += 1
        try:
            outcome = await self._follow(execution, candidate.key, leader, story, deferred=True)
            if outcome.answer is None:
                if not leader.shares_error(execution, outcome):
                    story.batch = BatchVerdict()
                    return 1
                outcome = await self._performer.take_over(execution, candidate.key, outcome.error, deferred=True)
        finally:
            self._following -= 1
        response = respond.from_outcome(execution, outcome, story)
        response.timings_ms["execute"] = milliseconds(self._clock.monotonic() - asked.began)
        return response

    def submit(
        self,
        execution: Execution,
        *,
        check_journal: bool = False,
        deferred: bool = False,
        on_text: OnText | None = None,
        looked: Looked | None = None,
        ended: asyncio.Future[None] | None = None,
        due: float | None = None,
        failed_leaders: int = 0,
    ) -> asyncio.Task[Response]:
        """Start (or join) the execution of a request.

        Args:
            execution: the request made ready.
            check_journal: ask the journal before the cache: the record may have been executed before a restart.
            deferred: nobody can ask for this request again, so the journal is written after the answer is given.
            on_text: hears the answer's text in pieces as they come from the provider; called with the rest, or all of
                it, where the answer comes from elsewhere. Must not block.
            looked: what ``look_now`` has just returned for it.
            ended: done as soon as there is a response, before the task is, and else with it. Where it is done before,
                nobody waits, and what the task raises counts as seen.
            due: when nobody waits for its answer any more, monotonic seconds; None: as the request and
                ``execution_timeout`` say it now.
            failed_leaders: what ``follow`` has just returned for it.

        Returns:
            A task with the response. It raises IdempotencyConflictError where the id stands for another payload.
        """
        execution = wire.hashed(execution)
        key = JournalKey.of(execution.request)
        until = self._due(execution, due)
        manner = Manner(check_journal, deferred, on_text, looked, ended, self._performer.told, until, failed_leaders)
        running = self._running.get(key)
        if running is not None:
            repeated = in_time(same_id(running, execution), execution, self._clock, new_story(execution))
            repeat = self._spawn(repeated, f"repeat {key.request_id}")
            repeat.add_done_callback(manner.tell)
            return repeat
        task = asyncio.create_task(self._execute(execution, key, manner), name=key.request_id)
        self._running[key] = Running(execution.payload_hash, task)
        task.add_done_callback(partial(self._answered, key, manner))
        return task

    def _answered(self, key: JournalKey, manner: Manner, task: asyncio.Task[Response]) -> None:
        del self._running[key]
        manner.tell(task)

    async def _execute(self, execution: Execution, key: JournalKey, manner: Manner) -> Response:
        about(execution.request)
        await manner.told.give_way()
        looked = manner.looked
        began = self._clock.monotonic() if looked is None else looked.began
        story = new_story(execution) if looked is None else looked.story
        own = self._leading.get(key)
        finding = self._find_or_lead(execution, key, story, manner) if own is None else again(own, execution, story)
        response = await in_time(finding, execution, self._clock, story)
        response.timings_ms["execute"] = milliseconds(self._clock.monotonic() - began)
        manner.tell()
        return response

    async def _find_or_lead(self, execution: Execution, key: JournalKey, story: Story, manner: Manner) -> Response:
        # 1. A record that may have been executed before a restart: the journal's answer stands.
        if manner.check_journal:
            recorded = await self._performer.lookup(key)
            if recorded is not None:
                # begin() also tells a redelivery from a conflict.
                begun = await self._performer.begin(execution, key, leader=None)
                story.from_journal = True
                story.cache = lookup.verdict(lookup.RECORDED, execution.content_hash)
                return respond.from_outcome(execution, begun.recorded or recorded, story)
        # 2. The cache.
        looked = manner.looked
        candidate = Candidate.of(execution, likened_text(execution) if looked is None else looked.text)
        # Who led for these words when it was asked, and leads no more, has brought an answer since.
        asked = looked is not None and (not looked.led or candidate.content_hash in self._leaders)
        again = looked is not None
        hit = None if asked else await self._asking.ask(execution, candidate.text, story, again=again)
        if hit is not None:
            return await self._served(execution, key, hit, story, manner)
        # 3. A leader in flight, or lead.
        outcome = None
        for _ in range(FAILED_LEADERS - manner.failed_leaders):
            leader = await self._leader_or_fill(execution, candidate, story, manner.due)
            if isinstance(leader, CacheHit):
                return await self._served(execution, key, leader, story, manner)
            if leader is None:
                return await self._lead(execution, candidate, story, manner)
            outcome = await self._follow(
                execution, key, leader, story, deferred=manner.deferred, on_text=manner.on_text
            )
            follows = story.batch.role == "follower"
            heard = manner.on_text is not None and leader.work.spoken  # which is not taken back
            if outcome.answer is not None or not follows or heard or leader.shares_error(execution, outcome):
                break
        assert outcome is not None
        if outcome.answer is None and story.batch.role == "follower":
            # The error taken over from a leader is this request's own result from here on.
            outcome = await self._performer.take_over(execution, key, outcome.error, deferred=manner.deferred)
        return respond.from_outcome(execution, outcome, story)

    async def _served(
        self, execution: Execution, key: JournalKey, hit: CacheHit, story: Story, manner: Manner
    ) -> Response:
        if manner.check_journal:
            # What a worker that died had called for it is of unknown outcome, though nobody calls again.
            await self._performer.count_abandoned(key)
        return respond.from_hit(execution, hit, story.timings_ms)

    # -- leading and following ---------------------------------------------------------------------------------

    def _join(self, execution: Execution, candidate: Candidate, story: Story, due: float) -> Leader | None:
        if not lookup.may_follow(execution):
            return None
        threshold = self._trials.least_batch_similarity(execution)
        match = self._leaders.find(candidate, threshold, self._control.vetoed(candidate.content_hash))
        if match is None:
            return None
        leader = self._leading[match.leader]
        if self._control.may_cover(leader.answer_begun) and self._control.is_stale(leader.origin):
            # What it brings was invalidated while it was under way: this request is newer, and pays for itself.
            self._metrics.cache_stale_total.labels("join").inc()
            return None
        leader.work.wait_until(due)
        story.batch = BatchVerdict(
            "follower", match.leader.request_id, round(match.similarity, 4), leader.candidate.content_hash
        )
        self._metrics.coalesced_total.inc()
        return leader

    async def _leader_or_fill(
        self, execution: Execution, candidate: Candidate, story: Story, due: float
    ) -> Leader | CacheHit | None:
        """Whom to follow, or what another process has brought meanwhile; None: this request leads."""
        leader = self._join(execution, candidate, story, due)
        if leader is not None or not self._fills.concern(execution):
            return leader
        brought = await self._fills.wait(
            execution,
            candidate.text,
            due=due,
            somebody_leads=lambda: candidate.content_hash in self._leaders,
            closing=lambda: self._closing,
        )
        if brought is not None:
            story.cache = lookup.verdict(brought, execution.content_hash)
            self._metrics.cache_fills_awaited_total.inc()
            return brought
        # Others may have come while the cache was asked who fills.
        leader = self._join(execution, candidate, story, due)
        if leader is not None and not self._fills.ends_with(execution, leader.work.execution):
            self._end_fill(execution)
        return leader

    def _end_fill(self, execution: Execution) -> None:
        if self._fills.holds(execution):
            self._spawn(self._fills.done(execution), "fill done")

    async def _lead(self, execution: Execution, candidate: Candidate, story: Story, manner: Manner) -> Response:
        if self._closing:
            raise shutting_down()
        timeout_s = self._config.execution_timeout
        work = Work(execution, candidate.key, manner.due, timeout_s, timings_ms=story.timings_ms)
        work.spoken = None if manner.on_text is None else Spoken(manner.on_text)
        work.deferred = manner.deferred
        leader = Leader(candidate, work, asyncio.get_running_loop().create_future(), self._control.position)
        story.batch = BatchVerdict("none" if execution.batch_threshold is None else "leader")
        if candidate.key not in self._leading:
            self._leading[candidate.key] = leader
            self._leaders.add(candidate)
        if execution.request.deadline_ms is None:
            # Nothing ends this task but the engine itself, so it may make the call itself, a task the less.
            outcome = await self._perform_here(leader)
        else:
            # The call belongs to the engine: a requester that gives up takes nothing from the followers.
            self._performing.add(leader)
            leader.task = self._spawn(self._perform(leader), f"perform {candidate.key.request_id}")
            leader.task.add_done_callback(lambda _: self._ended(leader))
            outcome = await asyncio.shield(leader.outcome)
        story.from_journal = work.from_journal
        self._compare(work, story, outcome)
        return respond.from_outcome(execution, outcome, story)

    def _compare(self, work: Work, story: Story, outcome: Recorded) -> None:
        """Hold a hit that was held back, or is checked, against the fresh answer."""
        if story.withheld is not None and outcome.answer is not None and not work.from_journal:
            self._spawn(self._trials.compare(work.execution, story.withheld, outcome.answer), "compare answers")

    async def _perform_here(self, leader: Leader) -> Recorded:
        self._performing.add(leader)
        leader.task = asyncio.current_task()
        try:
            outcome = await self._performer.perform(leader.work)
        except BaseException as exc:
            # A task that somebody else cancelled takes nobody with it: who follows goes on without it.
            gave_up = isinstance(exc, asyncio.CancelledError) and not self._closing
            problem = RuntimeError("who led gave up") if gave_up else as_exception(exc)
            leader.fail(problem)
            self._ended(leader)
            if gave_up or problem is exc:
                raise
            raise problem from exc
        leader.outcome.set_result(outcome)
        if outcome.answer is None or self._cache is None or not lookup.may_write(leader.work.execution):
            self._ended(leader)
        elif not self._cache.shared:
            await self._keep_and_end(leader, outcome)
        else:
            # Runs before the caller does: whoever has this answer finds it in the cache.
            self._spawn(self._keep_and_end(leader, outcome), "keep answer")
        return outcome

    async def _keep_and_end(self, leader: Leader, outcome: Recorded) -> None:
        try:
            await self._keep_answer(leader, outcome)
        finally:
            self._ended(leader)

    async def _keep_answer(self, leader: Leader, outcome: Recorded) -> None:
        if outcome.answer is not None:
            entry = lookup.entry(leader.work.execution, outcome.answer, leader.answer_begun)
            await self._store(leader.work.execution, entry)

    async def _perform(self, leader: Leader) -> None:
        try:
            outcome = await self._performer.perform(leader.work)
            if not leader.outcome.done():
                leader.outcome.set_result(outcome)
            # Until it is stored the leader can be joined, so nobody misses the answer meanwhile.
            await self._keep_answer(leader, outcome)
        except BaseException as exc:
            # Whoever waits must hear of it; cancellation and unforeseen errors go on to this task's owner too.
            if not leader.outcome.done():
                leader.fail(as_exception(exc))
            if isinstance(exc, asyncio.CancelledError):
                raise
            event(log, logging.DEBUG, "leader failed", request_id=leader.candidate.key.request_id, cause=repr(exc))

    def _ended(self, leader: Leader) -> None:
        """Also for a task that was cancelled before its first step, of which nothing ran."""
        if not leader.outcome.done():
            leader.fail(shutting_down())
        self._performing.discard(leader)
        self._end_fill(leader.work.execution)
        if self._leading.get(leader.candidate.key) is leader:
            del self._leading[leader.candidate.key]
            self._leaders.remove(leader.candidate)

    async def _follow(
        self,
        execution: Execution,
        key: JournalKey,
        leader: Leader,
        story: Story,
        *,
        deferred: bool,
        on_text: OnText | None = None,
    ) -> Recorded:
        """The leader's outcome; the request's own, and then no follower's, where it has one already."""
        if not deferred:
            # The follower's own row comes first: its id may have been answered before, or stand for other words.
            begun = await self._performer.begin(execution, key, leader=leader.candidate.key)
            if begun.recorded is not None or begun.state == "ambiguous":
                story.batch = BatchVerdict()
                story.from_journal = begun.recorded is not None
                return begun.recorded or await self._performer.record_ambiguous(key)
        if on_text is not None and leader.work.spoken is not None:
            leader.work.spoken.join(on_text)
        try:
            outcome = await asyncio.shield(leader.outcome)
        except ShuttingDownError:
            raise
        except Exception as exc:  # noqa: BLE001
            # What befell the leader's own record (a conflict, a defect) is not the follower's fault: it goes on.
            failed = ErrorInfo("execution", f"the leader failed: {exc!r}", "send it again", retryable=True)
            return Recorded(None, failed)
        if deferred and outcome.answer is not None:
            # Not before: of a leader that fails nothing is to stand in the way of this request's own result.
            await self._performer.follow_later(execution, key, leader=leader.candidate.key)
        elif leader.work.deferred and outcome.answer is not None:
            # The leader's row has the answer to this one, which may be asked for again.
            await self._performer.settle()
        source = leader.candidate.content_hash
        # Of the same words the leader's own entry stands, which is found by its vector too.
        if outcome.answer is not None and self._cache is not None and source != execution.content_hash:
            likeness = story.batch.similarity or 0.0
            alias = lookup.alias(execution, outcome.answer, source, leader.origin, likeness)
            self._spawn(self._store(execution, alias), "store alias")
        return outcome

    async def _store(self, execution: Execution, entry: CacheEntry) -> None:
        if self._cache is not None and lookup.may_write(execution):
            if self._control.is_stale(entry.origin):
                self._metrics.cache_stale_total.labels("store").inc()
            await self._cache.store([entry])

    # -- time and tasks ----------------------------------------------------------------------------------------

    def _due(self, execution: Execution, said: float | None) -> float:
        return due(execution, self._clock, self._config.execution_timeout) if said is None else said

    def _spawn(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
