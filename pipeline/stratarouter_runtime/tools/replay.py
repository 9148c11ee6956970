"""Answers requests of a range again: from the journal and the responses topic without paying, or by paying again.

One transaction publishes some responses and commits how far the replay is, under a group of its own. So each request
is answered once for each replay, however often the replay is started again, also where its bounds have moved on in the
meantime; two processes at the same one fence each other.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
import uuid
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import orjson
from aiokafka import TopicPartition

from stratarouter_runtime import topics, wire
from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.engine import respond
from stratarouter_runtime.engine.respond import Story
from stratarouter_runtime.errors import ConfigurationError, InvalidRecordError, RecordTooLargeError
from stratarouter_runtime.journal.postgres import PostgresJournal
from stratarouter_runtime.json_bytes import json_bytes
from stratarouter_runtime.port_values import JournalKey, Recorded
from stratarouter_runtime.processors.kafka_client import Record
from stratarouter_runtime.processors.publish import coordinates
from stratarouter_runtime.records import Coordinates, Execution, Outbound, Request, Response
from stratarouter_runtime.telemetry.tracing import TRACEPARENT
from stratarouter_runtime.tools.ranges import BATCH, RangeReader, Span, Wanted
from stratarouter_runtime.tools.replay_progress import Gone, ProgressWriter, rounds
from stratarouter_runtime.tools.sent_again import Missing, Place, SentAgain, place
from stratarouter_runtime.validation import MAX_ID_CHARS

HEADER = "stratarouter-replay"
"""On every record that a replay writes: the replay's id."""
MAX_MISSING = 1_000_000
"""Requests without a result in the journal that one replay looks for on the responses topic; about 200 MB."""
CLOCKS_APART_MS = 3_600_000
"""So far ahead a producer's clock may be of the worker's that answered: a broker takes no record from further in the
future. An answer from before would be taken for none, and paid for again."""
LOOK_TIMEOUT_S = 30.0
SHOWN = 20
"""Requests without an answer that a report names, and refused records likewise."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to replay.

    Attributes:
        spans: of the requests topic.
        to_topic: where responses go; None: the responses topic.
        re_execute: pay again: the requests are sent once more, under new ids and past the cache.
        only_errors: of these, only those that were answered with an error, or not at all.
        tenant, route, request_id: only requests of these.
        replay_id: None: made of the rest, so that the same plan is the same replay.
        asked: how the range was asked for, where its bounds move: it stands for the spans in the replay's id then, so
            that the same words are the same replay whenever they are said. None: the spans are what was asked for.
    """

    spans: tuple[Span, ...]
    to_topic: str | None = None
    re_execute: bool = False
    only_errors: bool = False
    tenant: str | None = None
    route: str | None = None
    request_id: str | None = None
    replay_id: str | None = None
    asked: tuple[object, ...] | None = None

    @property
    def digest(self) -> str:
        """Of everything that decides which records are written where."""
        spans = [[span.partition, span.begin, span.end] for span in sorted(self.spans)]
        return _digest([spans if self.asked is None else self.asked, *self._kind])

    @property
    def group(self) -> str:
        """What the replay's group ends in. Not of the range: how far it is says what of a range was gone through."""
        return f"{self.name}.{_digest(self._kind)}"

    @property
    def _kind(self) -> list[object]:
        said: list[object] = [self.to_topic, self.re_execute, self.tenant, self.route, self.request_id]
        return [*said, "only errors"] if self.only_errors else said

    @property
    def name(self) -> str:
        """The replay's id."""
        return self.replay_id or self.digest

    @property
    def is_whole(self) -> bool:
        """Whether no filter leaves requests of the range out."""
        return self.tenant is None and self.route is None and self.request_id is None

    def takes(self, request: Request) -> bool:
        """Whether the filters let ``request`` through."""
        return (
            self.tenant in {None, request.context.tenant}
            and self.route in {None, request.decision.route_id}
            and self.request_id in {None, request.request_id}
        )


@dataclass(slots=True)
class Report:
    """What a replay did, or would do.

    Attributes:
        read: offsets gone through.
        requests: requests that the filters let through.
        refused: records that are no valid request; they have their dead letters.
        unread: the first of those, as ``topic-partition@offset code``, where no filter may have left them out; and of
            requests that would be too large under their new id.
        replays: requests that a replay wrote itself, left out.
        from_journal: answered with what the journal holds.
        from_responses: answered with the response that the cache gave then, out of the responses topic.
        left_out: answered then, so not sent once more.
        re_executed: sent once more, to be paid for.
        unanswered: neither the journal nor the responses topic knows an answer.
        without: the first of those, as ``topic-partition@offset request_id``.
        published: records written by this run.
        before: records written by an earlier run of the same replay; without ``go`` known of what is to be paid for
            alone.
    """

    replay_id: str
    dry_run: bool
    read: int = 0
    requests: int = 0
    refused: int = 0
    unread: list[str] = field(default_factory=list)
    replays: int = 0
    from_journal: int = 0
    from_responses: int = 0
    left_out: int = 0
    re_executed: int = 0
    unanswered: int = 0
    without: list[str] = field(default_factory=list)
    published: int = 0
    before: int = 0


class _Pace:
    """Keeps to so many records a second."""

    def __init__(self, rate: float | None) -> None:
        self._rate = rate
        self._next = time.monotonic()

    async def take(self, records: int) -> None:
        if self._rate is None or not records:
            return
        now = time.monotonic()
        await asyncio.sleep(max(0.0, self._next - now))
        self._next = max(now, self._next) + records / self._rate


class Replay:
    """One run of one plan.

    Args:
        config: the settings; its group id names the replay's own groups.
        plan: what to replay.
        go: write; else only say what would be.
        rate: records a second at most.
        heard: told the offsets gone through so far.
    """

    def __init__(
        self,
        config: RuntimeConfig,
        plan: Plan,
        *,
        go: bool,
        rate: float | None = None,
        heard: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._config = config
        self._plan = plan
        self._go = go
        self._heard = heard
        self._pace = _Pace(rate)
        self._chunk = BATCH if rate is None else max(1, min(BATCH, int(rate)))
        self._limits = wire.Limits.of(config)
        self._group = f"{config.group_id}.replay.{plan.group}"
        self._missing: dict[Place, Missing] = {}
        self._writers: dict[TopicPartition, ProgressWriter] = {}
        self._first: dict[int, int] = {}
        self.report = Report(plan.name, dry_run=not go)

    async def run(self) -> Report:
        """Go through the range. Raises ConfigurationError, BrokerError, JournalUnavailableError; run it again then."""
        self._check_plan()
        if self._go and self._plan.to_topic is not None:
            await self._require(self._plan.to_topic)
        journal = PostgresJournal(self._config.database_url, owner=str(uuid.uuid4()))
        await journal.start()
        try:
            await self._answer_from_journal(journal)
            if self._missing:
                await self._answer_from_responses()
            if self._missing and self._plan.only_errors:
                await self._execute_missing()
        finally:
            await journal.stop()
            for writer in self._writers.values():
                await writer.close()
        self.report.unanswered = len(self._missing)
        self.report.without = [
            f"{topic}-{partition}@{offset} {missing.key.request_id}"
            for (topic, partition, offset), missing in islice(self._missing.items(), SHOWN)
        ]
        return self.report

    def _check_plan(self) -> None:
        config, target = self._config, self._plan.to_topic
        if self._plan.only_errors and not self._plan.re_execute:
            raise ConfigurationError("--only-errors chooses what to execute again", remedy="give --re-execute with it")
        others = (
            *(config.requests_topic, config.executions_topic, config.dead_letter_topic),
            *(config.cache_control_topic, config.usage_deltas_topic, config.usage_topic),
        )
        if target in {config.topic(name) for name in others}:
            raise ConfigurationError(
                f"--to-topic {target}: its readers expect other records", remedy="name a topic for responses"
            )

    async def _require(self, topic: str) -> None:
        """Raises ConfigurationError where ``topic`` is not there: what is written to it names only where it is from."""
        if topic not in await topics.names(self._config, f"looking for {topic}", LOOK_TIMEOUT_S):
            raise ConfigurationError(
                f"--to-topic {topic}: there is no such topic, or this user may not see it",
                remedy="create it first, or write its whole name",
            )

    async def _requests(self) -> AsyncGenerator[tuple[Span, list[Record]]]:
        """The records of the range, each list with the span that it is of."""
        topic = self._config.topic(self._config.requests_topic)
        async with RangeReader(self._config, topic) as reader:
            self._first = {span.partition: span.begin for span in await reader.spans()}
            for spans in rounds(self._plan.spans):
                of = {span.partition: span for span in spans}
                async for records in reader.read(spans, chunk=self._chunk):
                    yield of[records[0].partition], records

    # -- 1. what the journal holds -----------------------------------------------------------------------------

    async def _answer_from_journal(self, journal: PostgresJournal) -> None:
        async with aclosing(self._requests()) as found:
            async for span, records in found:
                self.report.read += len(records)
                outbounds = await self._for_requests(journal, records)
                if not self._plan.only_errors:
                    await self._publish(span, records, outbounds)
                self._heard(self.report.read)

    async def _for_requests(self, journal: PostgresJournal, records: Sequence[Record]) -> list[tuple[int, Outbound]]:
        """What to write for ``records``, each with its record's offset."""
        wanted = [(record, request) for record in records if (request := self._request(record)) is not None]
        self.report.requests += len(wanted)
        plan = self._plan
        if plan.re_execute and not plan.only_errors:
            return self._once_more(wanted)
        keys = [JournalKey.of(request) for _, request in wanted]
        found = await journal.lookup(keys)
        hashes = await journal.payload_hashes(keys)
        outbounds = []
        for (record, request), key, recorded, known in zip(wanted, keys, found, hashes, strict=True):
            if recorded is None or known not in {None, wire.payload_hash(request)}:
                self._miss(key, request, coordinates(record))
            elif not plan.only_errors:
                self.report.from_journal += 1
                outbounds.append((record.offset, self._response(_rebuilt(request, coordinates(record), recorded))))
            elif recorded.answer is None:
                # The same id may have been sent twice, and this one answered: its own response says.
                self._miss(key, request, coordinates(record))
            else:
                self.report.left_out += 1
        return outbounds

    def _decoded(self, record: Record) -> Request:
        return wire.decode_request(
            record.value, headers=record.headers, limits=self._limits, source=coordinates(record)
        )

    def _request(self, record: Record) -> Request | None:
        if _mark(record) is not None:
            self.report.replays += 1
            return None
        try:
            request = self._decoded(record)
        except InvalidRecordError as exc:
            self.report.refused += 1  # it was refused when it first came, with a dead letter that says why
            if self._plan.is_whole:
                self._name_unread(record, exc)
            return None
        return request if self._plan.takes(request) else None

    def _name_unread(self, record: Record, exc: InvalidRecordError) -> None:
        if len(self.report.unread) < SHOWN:
            self.report.unread.append(f"{record.topic}-{record.partition}@{record.offset} {exc.code}")

    def _miss(self, key: JournalKey, request: Request, at: Coordinates) -> None:
        if len(self._missing) >= MAX_MISSING:
            raise ConfigurationError(
                f"more than {MAX_MISSING} requests of the range have no result in the journal",
                remedy="replay a shorter range at a time",
            )
        self._missing[place(at)] = Missing(key, wire.payload_hash(request), at.timestamp_ms)

    def _once_more(self, wanted: Sequence[tuple[Record, Request]]) -> list[tuple[int, Outbound]]:
        """What to write for requests that are to be executed again, each with its record's offset."""
        outbounds = []
        for record, request in wanted:
            try:
                outbounds.append((record.offset, self._under_new_id(record, request)))
            except RecordTooLargeError as exc:
                self._name_unread(record, exc)
        self.report.re_executed += len(outbounds)
        return outbounds

    def _under_new_id(self, record: Record, request: Request) -> Outbound:
        """The request under a new id, past the cache, without the deadline that is over: longer than it was."""
        found: dict[str, Any] = orjson.loads(record.value or b"{}")
        request_id = f"{request.request_id}.replay-{self._plan.name}"
        if len(request_id) > MAX_ID_CHARS:
            raise ConfigurationError(
                f"the id of {record.topic}-{record.partition}@{record.offset} is too long to be executed again",
                remedy="choose a shorter --replay-id, or leave this record out",
            )
        found["request_id"] = request_id
        found.pop("deadline", None)
        found["cache"] = {**(found.get("cache") or {}), "mode": "refresh"}
        if self._plan.to_topic is not None:
            found["reply_to"] = self._plan.to_topic
        value = json_bytes(found)
        # What the workers would refuse must not be sent: a topic for replies that they may not write to.
        wire.decode_request(value, limits=self._limits)
        headers = [(name, content) for name, content in record.headers if name == TRACEPARENT]
        topic = self._config.topic(self._config.requests_topic)
        return Outbound(topic, record.key, value, (*headers, self._marked()))

    # -- 2. what the cache answered then -----------------------------------------------------------------------

    async def _answer_from_responses(self) -> None:
        """Hits are in no journal: their responses are taken from the topic they went to."""
        asked = min(missing.timestamp_ms for missing in self._missing.values())
        since = max(0, asked - CLOCKS_APART_MS)
        topic = self._config.topic(self._config.responses_topic)
        writer = None
        if self._go and not self._plan.re_execute:
            # Requests come back in another order than they were asked in, so no offset says which of them an earlier
            # run has answered: what it wrote says so. Opened first: nobody else writes more of them from here on.
            writer = await self._writer(TopicPartition(topic, 0))
            if writer.begun:
                await self._leave_out_written(since)
        if not self._missing:
            return
        again = SentAgain(self._config, self._missing) if self._plan.only_errors else None
        async with RangeReader(self._config, topic) as reader:
            async for records in reader.read(await reader.spans(since_ms=since), chunk=self._chunk):
                found = [answer for record in records if (answer := self._answer_to_missing(record, again)) is not None]
                if again is not None:
                    self.report.left_out += len(found)
                    continue
                self.report.from_responses += len(found)
                if writer is not None and found:
                    await self._pace.take(len(found))
                    await writer.go_on([self._response(answer) for answer in found], Gone())
                    self.report.published += len(found)
        for at in [] if again is None else await again.found():
            if self._missing.pop(at, None) is not None:
                self.report.left_out += 1

    async def _leave_out_written(self, since_ms: int) -> None:
        """What an earlier run has written out of the responses topic is missing no more."""
        topic = self._plan.to_topic or self._config.topic(self._config.responses_topic)
        async with RangeReader(self._config, topic) as reader:
            async for records in reader.read(await reader.spans(since_ms=since_ms)):
                for record in records:
                    source = _answered(record) if _mark(record) == self._plan.name.encode() else None
                    if source is not None and self._missing.pop(place(source), None) is not None:
                        self.report.from_responses += 1
                        self.report.before += 1

    def _answer_to_missing(self, record: Record, again: SentAgain | None) -> Response | None:
        if _mark(record) is not None:
            return None
        try:
            response = wire.decode_response(record.value)
        except InvalidRecordError:
            return None  # a foreign record on the topic is no answer to anything
        if response.source is None:
            return None
        # By its coordinates: the same id may have been sent twice.
        asked = self._missing.get(place(response.source))
        if again is not None:
            if response.error is not None:
                return None
            again.note(response)
        if asked is None or asked.key != JournalKey(response.tenant, response.request_id):
            return None
        del self._missing[place(response.source)]
        return response

    # -- 3. what nobody answered, where only that is to be executed again ---------------------------------------

    async def _execute_missing(self) -> None:
        async with aclosing(self._requests()) as found:
            async for span, records in found:
                left = [one for one in records if self._missing.pop(place(coordinates(one)), None) is not None]
                outbounds = self._once_more([(record, self._decoded(record)) for record in left])
                if outbounds:
                    await self._publish(span, records, outbounds)

    # -- writing -----------------------------------------------------------------------------------------------

    def _response(self, response: Response) -> Outbound:
        topic = self._plan.to_topic or self._config.topic(self._config.responses_topic)
        value = wire.encode_response(replace(response, replay_id=self._plan.name))
        return Outbound(topic, response.request_id.encode(), value, (self._marked(),))

    def _marked(self) -> tuple[str, bytes]:
        return HEADER, self._plan.name.encode()

    async def _writer(self, place: TopicPartition) -> ProgressWriter:
        """Knows how far the replay is in ``place``; where this run writes, nobody else does from here on."""
        if place not in self._writers:
            writer = ProgressWriter(self._config, self._group, place)
            self._writers[place] = writer
            await (writer.open() if self._go else writer.read_committed())
        return self._writers[place]

    async def _publish(self, span: Span, records: Sequence[Record], outbounds: Sequence[tuple[int, Outbound]]) -> None:
        """Write what no earlier run has, and that ``span`` is gone through as far as ``records``.

        So also where there is nothing to write: what has no answer yet would get a second one of another run else.
        """
        if not (self._go or self._plan.re_execute):
            return
        writer = await self._writer(TopicPartition(records[0].topic, records[0].partition))
        left = [outbound for offset, outbound in outbounds if not writer.gone.holds(offset)]
        self.report.before += len(outbounds) - len(left)
        gone = writer.gone.joined(span.begin, records[-1].offset + 1).since(self._first.get(span.partition, 0))
        if self._go and (left or gone != writer.gone):
            await self._pace.take(len(left))
            await writer.go_on(left, gone)
            self.report.published += len(left)


async def find_spans(
    config: RuntimeConfig,
    wanted: Sequence[Wanted],
    since_ms: int | None,
    until_ms: int | None,
) -> list[Span]:
    """The spans of the requests topic that are asked for."""
    async with RangeReader(config, config.topic(config.requests_topic)) as reader:
        return await reader.spans(wanted, since_ms, until_ms)


def _rebuilt(request: Request, at: Coordinates, recorded: Recorded) -> Response:
    """The response that the journal's result stands for."""
    bare = Execution(request, (), None, "", "", "", source=at)
    return respond.from_outcome(bare, recorded, Story(from_journal=True))


def _digest(said: Sequence[object]) -> str:
    return hashlib.blake2b(json_bytes(said), digest_size=5).hexdigest()


def _mark(record: Record) -> bytes | None:
    return next((value for name, value in record.headers if name == HEADER), None)


def _answered(record: Record) -> Coordinates | None:
    """Which request the response in ``record`` is to; None for what is no response."""
    try:
        return wire.decode_response(record.value).source
    except InvalidRecordError:
        return None  # a foreign record on the topic, with our header on it
