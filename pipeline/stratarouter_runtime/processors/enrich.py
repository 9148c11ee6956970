"""enrich: decodes and validates requests, answers hits at once, sends misses on to be executed."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.engine import lookup, respond
from stratarouter_runtime.engine.accept import Acceptor
from stratarouter_runtime.engine.embed import lacks_vector, with_vectors
from stratarouter_runtime.engine.trials import Trials
from stratarouter_runtime.errors import (
    BrokerError,
    ExecutionError,
    InvalidRecordError,
    OutputRefusedError,
    PoisonRecordError,
    RecordTooLargeError,
    ReplyTopicNotAllowedError,
)
from stratarouter_runtime.plain import dataclass
from stratarouter_runtime.port_values import CacheEntry, CacheHit, CacheMiss, CacheQuery
from stratarouter_runtime.ports import Cache, Embedder
from stratarouter_runtime.processors.finished import Instead, Insteads, ProcessorLane
from stratarouter_runtime.processors.kafka_client import Record
from stratarouter_runtime.processors.own_executions import OwnExecutions
from stratarouter_runtime.processors.publish import Outputs, coordinates
from stratarouter_runtime.records import Execution, Outbound, Request, Response, milliseconds
from stratarouter_runtime.telemetry.logs import event
from stratarouter_runtime.telemetry.metrics import Metrics
from stratarouter_runtime.telemetry.spans import Spans

log = logging.getLogger("stratarouter.enrich")

TOPICS_RETRY_S = 0.5
TOPICS_TRUSTED_S = 30.0
"""A reply topic may be deleted at any time: what is asked for after so long is refused before it is paid for."""
SEND_LESS = "send less, or raise max.message.bytes of the executions topic"
CREATE_TOPIC = "create the topic, then resend the record; topics are never created by themselves"
FAILED = CacheMiss(reason="unavailable", bypassed=True)
"""The cache was asked and broke."""


@dataclass(slots=True)
class Accepted:
    """A record on its way: its execution so far, when its decoding began (perf_counter seconds), whether it is done."""

    record: Record
    execution: Execution
    began: float
    done: bool = False


class Enrich:
    """The first stream processor. ``cache`` and ``embedder`` may be None."""

    name = "enrich"

    def __init__(
        self,
        config: RuntimeConfig,
        *,
        acceptor: Acceptor,
        cache: Cache | None,
        embedder: Embedder | None,
        metrics: Metrics,
        list_topics: Callable[[], Awaitable[frozenset[str]]],
        spans: Spans | None = None,
        trials: Trials | None = None,
        own: OwnExecutions | None = None,
    ) -> None:
        self._spans = spans or Spans()
        self._trials = trials or Trials.alone(metrics)
        self._own = own
        self._list_topics = list_topics
        self._topics: frozenset[str] = frozenset()
        self._listed_at = -math.inf
        self._config = config
        self._acceptor = acceptor
        self._cache = cache
        self._embedder = embedder
        self._metrics = metrics
        self._outputs = Outputs(config, self.name, metrics)
        self._tasks: set[asyncio.Task[None]] = set()
        self.in_flight = 0

    def handle(self, lane: ProcessorLane, records: Sequence[Record]) -> None:
        """Take one poll's records. What needs no waiting is finished before this returns."""
        self._metrics.requests_total.labels(self.name).inc(len(records))
        self.in_flight += len(records)
        accepted = [item for record in records if (item := self._accept(lane, record)) is not None]
        if not accepted:
            return
        missing = any(lacks_vector(self._embedder, a.execution) for a in accepted)
        unknown = any(self._is_unknown(a.execution.request.reply_to) for a in accepted)
        found = None if missing or unknown else self._look_up_now(accepted)
        if found is not None:
            try:
                self._settle(lane, accepted, found)
            except Exception:
                # Intake opens the lane anew, and the records come again.
                self.in_flight -= sum(not item.done for item in accepted)
                raise
            return
        task = asyncio.create_task(self._embed_and_look_up(lane, accepted), name="enrich batch")
        self._tasks.add(task)
        task.add_done_callback(lambda task: self._batch_ended(task, lane, accepted))

    def _batch_ended(self, task: asyncio.Task[None], lane: ProcessorLane, batch: list[Accepted]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            # Nobody else would hear of it; the records are read again when the lane is opened anew.
            log.error("batch failed", exc_info=task.exception(), extra={"fields": {"lane": lane.name}})
            self.in_flight -= sum(not item.done for item in batch)
            lane.fence(PoisonRecordError(f"a batch failed: {task.exception()!r}"))

    async def stop(self) -> None:
        """Break off what still waits; its offsets are not committed, so it is read again."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # -- one record --------------------------------------------------------------------------------------------

    def _accept(self, lane: ProcessorLane, record: Record) -> Accepted | None:
        """Decode and resolve; finishes the record itself where it goes no further."""
        for tries in range(1, self._config.poison_tries + 1):
            try:
                return self._accept_once(lane, record)
            except InvalidRecordError as exc:
                self._refuse(lane, record, exc)
                return None
            except Exception as exc:
                # The lane's outermost guard: a record that no step foresaw must not stop the others.
                log.exception("record failed", extra={"fields": {"offset": record.offset, "try": tries}})
                cause = exc
        self._refuse(lane, record, self._poison(cause))
        return None

    def _poison(self, cause: Exception) -> PoisonRecordError:
        return PoisonRecordError(f"{type(cause).__name__} in {self._config.poison_tries} tries: {cause}")

    def _refuse(self, lane: ProcessorLane, record: Record, exc: InvalidRecordError) -> None:
        letter = self._outputs.dead_letter(exc, record)
        self._finish(lane, record, letter, (self._outputs.shorter(exc, record),))

    def _accept_once(self, lane: ProcessorLane, record: Record) -> Accepted | None:
        began, place = time.perf_counter(), coordinates(record)
        request = self._acceptor.decode(record.value, record.headers, place)
        try:
            execution = self._acceptor.accept(request, place)
        except ExecutionError as exc:
            refused = replace(respond.refused(request, respond.error_info(exc)), source=place)
            trace = self._spans.enriched(request, place, time.perf_counter() - began, "refused", error=exc.code)
            self._answer_refused(lane, record, request, refused, trace)
            return None
        return Accepted(record, execution, began)

    def _answer_refused(
        self, lane: ProcessorLane, record: Record, request: Request, refused: Response, trace: str | None
    ) -> None:
        """At once, unless it names a topic that is to be looked for first: a client's choice too."""

        def answer() -> None:
            outbound = self._outputs.answer(request, refused, traceparent=trace)
            self._finish(lane, record, outbound, (self._instead(refused),))

        async def look() -> None:
            await self._learn_topics([request.reply_to])
            try:
                if self._is_unknown(request.reply_to):
                    self._refuse(lane, record, _no_topic(request))
                else:
                    answer()
            except Exception:
                self.in_flight -= 1
                raise

        if not self._is_unknown(request.reply_to):
            answer()
            return
        task = asyncio.create_task(look(), name="answer refused")
        self._tasks.add(task)
        task.add_done_callback(lambda task: self._batch_ended(task, lane, []))

    def _instead(self, response: Response) -> Instead:
        """What is published where the topic that its request names does not take ``response``."""

        def instead(refusal: OutputRefusedError) -> tuple[Outbound, ...]:
            # It may be gone: whoever names it next has it looked for again.
            self._topics -= refusal.topics
            return (self._outputs.refused_response(refusal, response),)

        return instead

    # -- a batch -----------------------------------------------------------------------------------------------

    async def _embed_and_look_up(self, lane: ProcessorLane, accepted: list[Accepted]) -> None:
        accepted = await self._with_reply_topics(lane, accepted)
        found = await self._looked_up(accepted)
        # Words that are kept need no vector: only who is not answered by them waits and pays for one.
        lacking = [at for at, item in enumerate(accepted) if self._is_to_be_embedded(item.execution, found[at])]
        await self._embed([accepted[at] for at in lacking])
        again = [at for at in lacking if isinstance(miss := found[at], CacheMiss) and not miss.bypassed]
        if again:
            for at, result in zip(again, await self._looked_up([accepted[at] for at in again]), strict=True):
                found[at] = result
        self._settle(lane, accepted, found)

    def _is_to_be_embedded(self, execution: Execution, found: CacheHit | CacheMiss) -> bool:
        if not lacks_vector(self._embedder, execution):
            return False
        return isinstance(self._trials.judged(execution, found)[1], CacheMiss)

    async def _embed(self, accepted: list[Accepted]) -> None:
        try:
            executions = await with_vectors(self._embedder, [a.execution for a in accepted])
            for item, execution in zip(accepted, executions, strict=True):
                item.execution = execution
        except Exception:
            # A defect in the embedder must not cost a request: without a vector it is executed all the same.
            log.exception("embedding failed")

    def _is_unknown(self, reply_to: str | None) -> bool:
        if reply_to is None:
            return False
        return reply_to not in self._topics or time.monotonic() - self._listed_at > TOPICS_TRUSTED_S

    async def _with_reply_topics(self, lane: ProcessorLane, accepted: list[Accepted]) -> list[Accepted]:
        """Refuse what names a reply topic that does not exist: a transaction that writes to it could never commit."""
        await self._learn_topics([a.execution.request.reply_to for a in accepted])
        kept = []
        for item in accepted:
            request = item.execution.request
            if self._is_unknown(request.reply_to):
                self._refuse(lane, item.record, _no_topic(request))
                item.done = True
            else:
                kept.append(item)
        return kept

    async def _learn_topics(self, named: Sequence[str | None]) -> None:
        """Have the topics listed where one of those ``named`` is unknown."""
        while any(self._is_unknown(name) for name in named):
            try:
                self._topics = await self._list_topics()
                self._listed_at = time.monotonic()
                break
            except BrokerError as exc:
                event(log, logging.WARNING, "topics unknown", cause=str(exc))
                await asyncio.sleep(TOPICS_RETRY_S)

    def _look_up_now(self, accepted: list[Accepted]) -> list[CacheHit | CacheMiss] | None:
        """What the cache says of each, without waiting; None where it needs a round trip."""
        if self._cache is None:
            return [lookup.DISABLED] * len(accepted)
        try:
            found = self._cache.lookup_now(_queries(accepted))
        except Exception:
            # A defect in the cache must not cost a request: what cannot be looked up is executed.
            log.exception("lookup failed")
            found = []
        return None if found is None else _for_each(accepted, found)

    async def _looked_up(self, accepted: list[Accepted]) -> list[CacheHit | CacheMiss]:
        found = self._look_up_now(accepted)
        if found is not None:
            return found
        assert self._cache is not None
        try:
            return _for_each(accepted, await self._cache.lookup(_queries(accepted)))
        except Exception:
            # As above.
            log.exception("lookup failed")
            return _for_each(accepted, [])

    def _settle(self, lane: ProcessorLane, accepted: list[Accepted], found: list[CacheHit | CacheMiss]) -> None:
        """Answer the hits, pass on the rest. What is held back is found again in execute, which compares it."""
        results = [self._trials.judged(item.execution, result)[1] for item, result in zip(accepted, found, strict=True)]
        lookup.count_all(self._metrics, results)
        aliases = []
        with self._outputs.counted_together():
            for item, result in zip(accepted, results, strict=True):
                if isinstance(result, CacheHit) and result.kind == "semantic" and lookup.may_write(item.execution):
                    aliases.append(lookup.alias_of(item.execution, result))
                self._write(lane, item, result)
        if aliases:
            task = asyncio.create_task(self._store(aliases), name="store aliases")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _store(self, aliases: list[CacheEntry]) -> None:
        """Keep what was served to paraphrases under their own words."""
        assert self._cache is not None
        try:
            await self._cache.store(aliases)
        except Exception:
            # A defect in the cache must not cost more than the hits that these would have been.
            log.exception("aliases not stored")

    def _write(self, lane: ProcessorLane, item: Accepted, result: CacheHit | CacheMiss) -> None:
        """Publish what became of ``item``; a record that no writer foresaw must not stop the others."""
        for tries in range(1, self._config.poison_tries + 1):
            try:
                if isinstance(result, CacheHit):
                    self._answer(lane, item, result)
                else:
                    self._pass_on(lane, item)
            except Exception as exc:
                # As in _accept.
                log.exception("record failed", extra={"fields": {"offset": item.record.offset, "try": tries}})
                cause = exc
            else:
                return
        self._refuse(lane, item.record, self._poison(cause))
        item.done = True

    def _answer(self, lane: ProcessorLane, item: Accepted, hit: CacheHit) -> None:
        took_s = time.perf_counter() - item.began
        response = respond.from_hit(item.execution, hit, {"enrich": milliseconds(took_s)})
        request, trace = item.execution.request, item.execution.request.traceparent
        if self._spans.enabled:
            place = coordinates(item.record)
            trace = self._spans.enriched(request, place, took_s, "hit", cache=hit.kind, similarity=hit.similarity)
        outbound = self._outputs.answer(request, response, traceparent=trace)
        shadow = self._trials.shadow_of(item.execution, hit)
        if shadow is None:
            self._done(lane, item, (outbound,), (self._instead(response),))
            return
        # Where it may be the check that is refused, it goes first: the client's answer is worth more.
        unchecked = self._unchecked(outbound, self._instead(response))
        self._done(lane, item, (outbound, self._outputs.execution(shadow)), unchecked)

    def _unchecked(self, answer: Outbound, instead: Instead) -> Insteads:
        return lambda refusal: instead(refusal) if refusal.topics else (answer,), instead

    def _pass_on(self, lane: ProcessorLane, item: Accepted) -> None:
        execution, took_s = item.execution, time.perf_counter() - item.began
        execution.enriched_ms["enrich"] = milliseconds(took_s)
        if self._spans.enabled:
            trace = self._spans.enriched(execution.request, coordinates(item.record), took_s, "execution")
            execution = replace(execution, request=replace(execution.request, traceparent=trace))
        outbound = self._outputs.execution(execution)
        if self._own is not None:
            self._own.keep(outbound.value, execution)
        self._done(lane, item, (outbound,), self._too_large(item.record))

    def _too_large(self, record: Record) -> Insteads:
        """What is published where the execution is larger than its topic takes: numbers may be longer as we write them
        than as they came (1e15), and the vector, the prompt and the targets come on top.
        """

        def letter(refusal: OutputRefusedError) -> tuple[Outbound, ...]:
            if not refusal.too_large:
                # Closed to us, as an example: nothing is wrong with the record, which waits for somebody to look.
                raise refusal
            return (self._outputs.dead_letter(_no_room(), record),)

        return letter, lambda refusal: (self._outputs.dead_letter(_no_room(), record, refusal),)

    def _done(self, lane: ProcessorLane, item: Accepted, outbounds: tuple[Outbound, ...], instead: Insteads) -> None:
        lane.finish(item.record.offset, outbounds, instead)
        item.done = True
        self.in_flight -= 1

    def _finish(self, lane: ProcessorLane, record: Record, outbound: Outbound, instead: Insteads) -> None:
        self.in_flight -= 1
        lane.finish(record.offset, (outbound,), instead)


def _no_topic(request: Request) -> ReplyTopicNotAllowedError:
    return ReplyTopicNotAllowedError(f"$.reply_to = {request.reply_to!r} does not exist", remedy=CREATE_TOPIC)


def _no_room() -> RecordTooLargeError:
    return RecordTooLargeError("the request, written as an execution, is larger than its topic takes", remedy=SEND_LESS)


def _queries(accepted: list[Accepted]) -> list[CacheQuery]:
    return [lookup.query(a.execution) for a in accepted if lookup.may_read(a.execution)]


def _for_each(accepted: list[Accepted], found: list[CacheHit | CacheMiss]) -> list[CacheHit | CacheMiss]:
    """``found`` is for those that may read, in their order."""
    answers = iter(found)
    return [
        next(answers, FAILED) if lookup.may_read(item.execution) else lookup.not_asked(item.execution)
        for item in accepted
    ]
