"""Request and reply over Kafka: produce a request, await the response (or dead letter) to the very record.

An id is its tenant's own, and may be said twice: what tells whose answer it is, is where the request stands.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Self

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from stratarouter_runtime import validation as check
from stratarouter_runtime import wire
from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.drafts import Draft
from stratarouter_runtime.errors import InvalidRecordError, ShuttingDownError
from stratarouter_runtime.processors import kafka_client
from stratarouter_runtime.processors.cache_control import ControlWriter
from stratarouter_runtime.processors.find_response import find_response
from stratarouter_runtime.processors.kafka_client import CLIENT_ERRORS, Record, mapped
from stratarouter_runtime.records import CacheCommand, Context, Coordinates, DeadLetter, Response
from stratarouter_runtime.telemetry.logs import event
from stratarouter_runtime.wire_results import OWN_MAX_DEPTH

log = logging.getLogger("stratarouter.request_reply")

START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 10.0
SEND_TIMEOUT_S = 30.0
POLL_TIMEOUT_MS = 200
READ_RETRY_S = 0.5
"""Pause after a poll that failed, and before a partition that failed by itself is asked again."""
APART_S = 10.0
"""How long partitions are polled one by one after a poll of several failed, as in ``intake``."""
APART_IDLE_S = 0.05
"""Pause after a round of single polls that brought nothing: each of them returns at once."""
APART_RECORDS = 500
"""Records that one partition may bring before the others have their turn, while they are polled one by one."""
MAX_EARLY = 1_000
MAX_EARLY_BYTES = 64 * 1024**2
"""Answers that are held because they came before their request's offset did: a few milliseconds' worth, and only those
whose id is being sent. Beyond this the oldest is dropped, and who it was for waits until its timeout."""
REFUSALS = {kind.code: kind for kind in InvalidRecordError.__subclasses__()}
"""The error for a dead letter's code: over Kafka the same as in-process."""


class Place(NamedTuple):
    """Where a request stands on its topic."""

    topic: str
    partition: int
    offset: int

    @classmethod
    def of(cls, source: Coordinates | None) -> Self | None:
        """The place that an answer names."""
        return None if source is None else cls(source.topic, source.partition, source.offset)

    @classmethod
    def sent(cls, metadata: Any) -> Self | None:
        """The place that the producer tells; None where the broker knows the record but not its offset any more."""
        if metadata is None or metadata.offset < 0:
            return None
        return cls(metadata.topic, metadata.partition, metadata.offset)


@dataclass(eq=False, slots=True)
class Call:
    """A caller that waits. ``place`` is None while its request is being sent, and where nobody can tell."""

    number: int
    request_id: str
    tenant: str
    answer: asyncio.Future[Response]
    sending: bool = True
    place: Place | None = None

    def settle(self, outcome: Response | InvalidRecordError) -> None:
        """Hand over what became of the request, unless something else was."""
        if self.answer.done():
            return
        if isinstance(outcome, Response):
            self.answer.set_result(outcome)
        else:
            self.answer.set_exception(outcome)


@dataclass(frozen=True, slots=True)
class Arrived:
    """An answer as it was read: to which request, as far as it says, and of how many bytes."""

    outcome: Response | InvalidRecordError
    place: Place | None
    request_id: str | None
    tenant: str | None
    size: int
    number: int = 0


@dataclass(slots=True)
class Calls:
    """Who waits for what. Answers that come before the producer tells where their request stands are held meanwhile."""

    _by_id: dict[str, list[Call]] = field(default_factory=dict)
    _by_place: dict[Place, Call] = field(default_factory=dict)
    _sending: dict[int, Call] = field(default_factory=dict)
    _early: dict[Place, Arrived] = field(default_factory=dict)
    _early_bytes: int = 0
    _numbers: itertools.count[int] = field(default_factory=itertools.count)

    def expect(self, request_id: str, tenant: str, answer: asyncio.Future[Response]) -> Call:
        """A call whose request is sent next."""
        call = Call(next(self._numbers), request_id, tenant, answer)
        self._by_id.setdefault(request_id, []).append(call)
        self._sending[call.number] = call
        return call

    def stands(self, call: Call, place: Place | None) -> None:
        """``call``'s request was sent and stands at ``place``; None: nobody can tell."""
        call.sending, call.place = False, place
        if place is not None:
            self._by_place[place] = call
            likely = [place] if place in self._early else []
        else:
            likely = list(self._early)
        for early in [self._early[at] for at in likely]:
            if self._is_for(early, call):
                call.settle(early.outcome)
                self._drop(early)
        self._sent(call)

    def forget(self, call: Call) -> None:
        """Nobody waits for it any more."""
        waiting = self._by_id.get(call.request_id, [])
        if call in waiting:
            waiting.remove(call)
        if not waiting:
            self._by_id.pop(call.request_id, None)
        if call.place is not None:
            self._by_place.pop(call.place, None)
        self._sent(call)

    def waits_for(self, request_id: str) -> bool:
        """Whether anybody waits for an answer with this id, of whatever tenant."""
        return request_id in self._by_id

    def all(self) -> list[Call]:
        """Every call that waits."""
        return [call for calls in self._by_id.values() for call in calls]

    def take(self, arrived: Arrived) -> None:
        """Hand ``arrived`` to whom it is for, or hold it while its request may still be under way."""
        placed = None if arrived.place is None else self._by_place.get(arrived.place)
        likely = self._by_id.get(arrived.request_id or "", ()) if placed is None else (placed,)
        found = [call for call in likely if self._is_for(arrived, call)]
        for call in found:
            call.settle(arrived.outcome)
        if not found and self._may_be_sending(arrived.request_id):
            self._hold(arrived)

    def _hold(self, arrived: Arrived) -> None:
        if arrived.place is None or arrived.place in self._early:
            return  # of two answers to one request the first counts
        self._early[arrived.place] = replace(arrived, number=next(self._numbers))
        self._early_bytes += arrived.size
        self._let_go()

    def _is_for(self, arrived: Arrived, call: Call) -> bool:
        """By the place where both know it. Else by tenant and id, once it is known that the place will not be."""
        same_id = arrived.request_id == call.request_id
        if arrived.place is not None and call.place is not None:
            return arrived.place == call.place and (same_id or arrived.request_id is None)
        if arrived.place is not None and call.sending:
            return False
        return same_id and arrived.tenant == call.tenant

    def _may_be_sending(self, request_id: str | None) -> bool:
        if request_id is None:
            return bool(self._sending)
        return any(call.sending for call in self._by_id.get(request_id, ()))

    def _sent(self, call: Call) -> None:
        self._sending.pop(call.number, None)
        self._let_go()

    def _let_go(self) -> None:
        """Drop the answers that came before the oldest request under way was sent, and what is too much."""
        oldest = next(iter(self._sending), None)
        while self._early:
            first = next(iter(self._early.values()))
            too_much = len(self._early) > MAX_EARLY or self._early_bytes > MAX_EARLY_BYTES
            if not too_much and oldest is not None and first.number > oldest:
                return
            self._drop(first)
            if too_much:
                event(log, logging.WARNING, "too many early answers", place=first.place, id=first.request_id)

    def _drop(self, early: Arrived) -> None:
        if early.place is not None and self._early.pop(early.place, None) is not None:
            self._early_bytes -= early.size


class KafkaCarrier:
    """Sends requests to the requests topic and follows the responses and dead letters from its start on."""

    def __init__(self, config: RuntimeConfig) -> None:
        self._config = config
        self._calls = Calls()
        self._producer: AIOKafkaProducer | None = None
        self._consumer: AIOKafkaConsumer | None = None
        self._reader: asyncio.Task[None] | None = None
        self._writer = ControlWriter(config)
        self._next: dict[TopicPartition, int] = {}
        """Of each partition, the offset after the last record that was handled."""
        self._apart_until = 0.0
        self._failing: dict[TopicPartition, float] = {}
        """Partitions that failed by themselves, and when to ask each again: record by record."""

    async def start(self) -> None:
        """Connect, and stand at the end of the answers before the first request goes out."""
        topics = [self._config.topic(t) for t in (self._config.responses_topic, self._config.dead_letter_topic)]
        self._producer = kafka_client.producer(self._config)
        self._consumer = kafka_client.consumer(self._config, *topics, group=None, fetch_max_wait_ms=100)
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                await self._producer.start()
                await self._consumer.start()
                await self._stand_at_end(self._consumer, topics)
        except CLIENT_ERRORS as exc:
            await self.stop(0.0)
            raise mapped(exc, "connecting the bridge") from exc
        except BaseException:
            await self.stop(0.0)
            raise
        self._reader = asyncio.create_task(self._read_loop(self._consumer), name="bridge reader")

    async def stop(self, grace_s: float) -> None:
        """Wait for answers that are due, then disconnect."""
        waiting = [call.answer for call in self._calls.all()]
        if waiting:
            await asyncio.wait(waiting, timeout=grace_s)
        for future in waiting:
            if not future.done():
                future.set_exception(ShuttingDownError("the bridge was closed before the answer came"))
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.gather(self._reader, return_exceptions=True)
        await self._writer.stop()
        for client in (self._producer, self._consumer):
            if client is not None:
                try:
                    async with asyncio.timeout(STOP_TIMEOUT_S):
                        await client.stop()
                except CLIENT_ERRORS as exc:
                    event(log, logging.INFO, "client closed with an error", cause=repr(exc))

    async def carry(
        self,
        draft: Draft,
        bound_s: float,
        on_text: Callable[[str], None] | None = None,  # noqa: ARG002 - a response is one record
    ) -> Response:
        """Produce and wait."""
        try:
            async with asyncio.timeout(bound_s):
                return await self._request(draft)
        except TimeoutError as exc:
            raise draft.late(bound_s) from exc

    async def _request(self, draft: Draft) -> Response:
        if self._producer is None:
            raise ShuttingDownError("the bridge is not started")
        value, request_id = draft.record(), draft.request_id
        answer: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        call = self._calls.expect(request_id, _tenant_of(draft), answer)
        try:
            try:
                async with asyncio.timeout(SEND_TIMEOUT_S):
                    topic = self._config.topic(self._config.requests_topic)
                    metadata = await self._producer.send_and_wait(topic, value, key=request_id.encode())
            except CLIENT_ERRORS as exc:
                raise mapped(exc, "producing a request") from exc
            self._calls.stands(call, Place.sent(metadata))
            return await answer
        finally:
            self._calls.forget(call)
            if answer.done() and not answer.cancelled():
                answer.exception()  # its caller may have left with another error, and then nobody else looks

    async def command(self, command: CacheCommand) -> None:
        """Write to the cache-control topic; every worker applies it within moments."""
        await self._writer.send(command)

    async def response_to(self, request_id: str) -> Response | None:
        """The last response on the responses topic."""
        return await find_response(self._config, request_id)

    async def _stand_at_end(self, consumer: AIOKafkaConsumer, topics: list[str]) -> None:
        places = kafka_client.places_of(consumer, *topics)
        await consumer.seek_to_end(*places)
        for place in places:
            self._next[place] = await consumer.position(place)

    async def _read_loop(self, consumer: AIOKafkaConsumer) -> None:
        clock = asyncio.get_running_loop()
        while True:
            try:
                if clock.time() < self._apart_until:
                    await self._poll_apart(consumer)
                    continue
                self._failing.clear()
                polled: dict[TopicPartition, list[Record]] = await consumer.getmany(timeout_ms=POLL_TIMEOUT_MS)
                self._handle(polled)
            except Exception as exc:  # noqa: BLE001 - outermost: were it to end, every caller would wait for nothing
                event(log, logging.WARNING, "reading answers failed", cause=repr(exc))
                self._apart_until = clock.time() + APART_S
                try:
                    self._seek_back(consumer, *consumer.assignment())
                except Exception as failure:  # noqa: BLE001 - likewise
                    event(log, logging.WARNING, "seeking back failed", cause=repr(failure))
                await asyncio.sleep(READ_RETRY_S)

    async def _poll_apart(self, consumer: AIOKafkaConsumer) -> None:
        """Poll one partition after the other: one that cannot be read fails alone, and the others go on."""
        found, clock = False, asyncio.get_running_loop()
        for place in sorted(consumer.assignment()):
            if clock.time() < self._failing.get(place, 0.0):
                continue
            try:
                found = await self._poll_one(consumer, place) or found
            except Exception as exc:  # noqa: BLE001 - whatever a codec raises: the other partitions have their turn
                now, first = clock.time(), place not in self._failing
                self._apart_until = now + APART_S
                # What stands before the bad record is read one by one, at once; the bad one itself not all the time.
                self._failing[place] = now if first else now + READ_RETRY_S
                self._seek_back(consumer, place)
                name, at = f"{place.topic}-{place.partition}", self._next.get(place, 0)
                level = logging.WARNING if first else logging.DEBUG
                event(log, level, "answers cannot be read", partition=name, offset=at, cause=repr(exc))
        await asyncio.sleep(0 if found else APART_IDLE_S)

    async def _poll_one(self, consumer: AIOKafkaConsumer, place: TopicPartition) -> bool:
        """Whether ``place`` had anything."""
        if place not in self._failing:
            polled = await consumer.getmany(place, timeout_ms=0, max_records=APART_RECORDS)
            self._handle(polled)
            return bool(polled)
        for count in range(APART_RECORDS):
            polled = await consumer.getmany(place, timeout_ms=0, max_records=1)
            self._handle(polled)
            if not polled:
                return count > 0
        return True

    def _seek_back(self, consumer: AIOKafkaConsumer, *places: TopicPartition) -> None:
        """Read on from the first record not handled: where a poll fails, what it had unpacked by then is lost, and
        aiokafka has moved past it. A partition that nothing was read of is newer than this bridge.
        """
        for place in places:
            consumer.seek(place, self._next.get(place, 0))

    def _handle(self, polled: dict[TopicPartition, list[Record]]) -> None:
        dead_letters = self._config.topic(self._config.dead_letter_topic)
        for place, records in polled.items():
            for record in records:
                self._next[place] = record.offset + 1
                self._read(record, is_dead_letter=place.topic == dead_letters)

    def _read(self, record: Record, *, is_dead_letter: bool) -> None:
        try:
            if is_dead_letter:
                self._refuse(wire.decode_dead_letter(record.value), len(record.value or b""))
            elif self._calls.waits_for((record.key or b"").decode(errors="replace")):
                self._answer(wire.decode_response(record.value), len(record.value or b""))
        except InvalidRecordError as exc:
            event(
                log, logging.WARNING, "foreign record skipped", topic=record.topic, offset=record.offset, cause=str(exc)
            )
        except Exception:
            # A record that no decoder foresaw must not be read again and again, and the others never.
            log.exception("record failed", extra={"fields": {"topic": record.topic, "offset": record.offset}})

    def _answer(self, response: Response, size: int) -> None:
        place = Place.of(response.source)
        self._calls.take(Arrived(response, place, response.request_id, response.tenant, size))

    def _refuse(self, letter: DeadLetter, size: int) -> None:
        source = letter.source
        if source.topic != self._config.topic(self._config.requests_topic):
            return  # of an execution: its place is not its request's, and its key is no id
        # Where the id itself could not be read, the key we sent the record under tells whose it was.
        request_id = letter.request_id or (None if letter.key is None else letter.key.decode(errors="replace"))
        if request_id is not None and not self._calls.waits_for(request_id):
            return
        kind = REFUSALS.get(letter.code, InvalidRecordError)
        refused = kind(letter.reason, remedy=letter.remedy)
        refused.code = letter.code  # type: ignore[misc]  # a newer worker's code may be none of these classes'
        self._calls.take(Arrived(refused, Place.of(source), request_id, _tenant_in(letter), size))


def _tenant_of(draft: Draft) -> str:
    """As the worker will read it; what it will not take is refused, whatever this says."""
    tenant = draft.fields["context"].get("tenant")
    return Context().tenant if tenant is None else str(tenant)


def _tenant_in(letter: DeadLetter) -> str | None:
    """The tenant of the request in ``letter``, where it can be read."""
    try:
        found = check.json_object(letter.value, None, OWN_MAX_DEPTH)
        return wire.context_from(found.get("context") or {}, "$.context").tenant
    except InvalidRecordError:
        return None
