"""Request and reply over Kafka: produce a request, await the response (or dead letter) to the very record.

An id is its tenant's own, and may be said twice: what tells whose answer it is, is where the request stands.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Self, TypeAlias

from stratarouter_runtime import topics, wire
from stratarouter_runtime import validation as check
from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.drafts import Draft
from stratarouter_runtime.errors import (
    REFUSALS,
    BrokerError,
    InvalidRecordError,
    RecordTooLargeError,
    ShuttingDownError,
    TopicContractError,
)
from stratarouter_runtime.processors.answers import Answers
from stratarouter_runtime.processors.cache_control import ControlWriter
from stratarouter_runtime.processors.find_response import find_response
from stratarouter_runtime.processors.kafka_client import CLIENT_ERRORS, Record, mapped
from stratarouter_runtime.processors.renewed_producer import RenewedProducer
from stratarouter_runtime.records import CacheCommand, Context, Coordinates, DeadLetter, Response
from stratarouter_runtime.telemetry.logs import event
from stratarouter_runtime.telemetry.spans import current_traceparent
from stratarouter_runtime.telemetry.tracing import trace_headers
from stratarouter_runtime.wire_results import OWN_MAX_DEPTH, coordinates

log = logging.getLogger("stratarouter.request_reply")

START_TIMEOUT_S = 30.0
LOOK_AGAIN_S = 0.5
"""Before a topic that was not found is looked for once more: a broker may hear of a new one a moment later."""
DEADLINE_MARGIN_S = 60.0
"""Seconds between the end of a caller's wait and the deadline its request carries where nobody can ask for the answer
again: as far as a worker's clock may be ahead of ours. Smaller, such a worker refuses what is waited for; larger,
workers that come late pay longer for what nobody hears."""
TOPICS_REMEDY = (
    "run `stratarouter-runtime topics apply`; where it is there, check topic_prefix, and that this user may see it "
    "(`stratarouter-runtime topics acls`)"
)
MAX_EARLY = 1_000
MAX_EARLY_BYTES = 64 * 1024**2
"""Answers that are held because they came before their request's offset did: a few milliseconds' worth, and only those
whose id is being sent. Beyond this the oldest is dropped, and who it was for waits until its timeout."""


Outcome: TypeAlias = Response | InvalidRecordError | BrokerError


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
    since_s: float = field(default_factory=time.time)
    """Epoch seconds."""

    def settle(self, outcome: Outcome) -> None:
        """Hand over what became of the request, unless something else was."""
        if self.answer.done():
            return
        if isinstance(outcome, Response):
            self.answer.set_result(outcome)
        else:
            self.answer.set_exception(outcome)


class Asked(NamedTuple):
    """A request, as far as its refusal says which it is."""

    place: Place | None
    request_id: str | None
    tenant: str | None


@dataclass(frozen=True, slots=True)
class Arrived:
    """An answer as it was read: to which request, as far as it says, and of how many bytes."""

    outcome: Outcome
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

    def oldest_s(self) -> float:
        """Since when the oldest call waits, in epoch seconds; now, where none does."""
        return min((call.since_s for call in self.all()), default=time.time())

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

    registry = None
    http_port = None
    """Each worker has metrics of its own."""

    def __init__(self, config: RuntimeConfig) -> None:
        self._config = config
        self._calls = Calls()
        self._producer = RenewedProducer(config)
        self._writer = ControlWriter(config)
        self._dead_letters = config.topic(config.dead_letter_topic)
        self._answers = Answers(
            config,
            [config.topic(config.responses_topic), self._dead_letters],
            handle=lambda record: self._read(record, is_dead_letter=record.topic == self._dead_letters),
            since=self._calls.oldest_s,
        )

    async def start(self) -> None:
        """Connect, and stand at the end of the answers before the first request goes out.

        Raises TopicContractError where a topic is missing, BrokerError.
        """
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                await self._check_topics()
                await self._producer.start()
                await self._answers.start()
        except CLIENT_ERRORS as exc:
            await self.stop(0.0)
            raise mapped(exc, "connecting the bridge") from exc
        except BaseException:
            await self.stop(0.0)
            raise

    async def _check_topics(self) -> None:
        """The clients wait for a topic that is not there until their timeout, and may have the broker make it."""
        config = self._config
        names = (config.requests_topic, config.responses_topic, config.dead_letter_topic)
        missing = {config.topic(name) for name in names}
        doing = "looking for the bridge's topics"
        missing -= await topics.names(config, doing, START_TIMEOUT_S)
        if missing:
            await asyncio.sleep(LOOK_AGAIN_S)
            missing -= await topics.names(config, doing, START_TIMEOUT_S)
        if missing:
            said = ", ".join(map(repr, sorted(missing)))
            raise TopicContractError(f"missing at {config.bootstrap_servers}: topic {said}", remedy=TOPICS_REMEDY)

    async def stop(self, grace_s: float) -> None:
        """Wait for answers that are due, then disconnect."""
        waiting = [call.answer for call in self._calls.all()]
        if waiting:
            await asyncio.wait(waiting, timeout=grace_s)
        for future in waiting:
            if not future.done():
                future.set_exception(ShuttingDownError("the bridge was closed before the answer came"))
        await self._answers.stop()
        await self._writer.stop()
        await self._producer.stop()

    async def abandon(self) -> None:
        """Nothing: its connections close once nothing refers to them any more."""

    async def carry(
        self,
        draft: Draft,
        bound_s: float,
        on_text: Callable[[str], None] | None = None,  # noqa: ARG002 - a response is one record
    ) -> Response:
        """Produce and wait."""
        try:
            async with asyncio.timeout(bound_s):
                return await self._request(draft, bound_s)
        except TimeoutError as exc:
            raise draft.late(bound_s) from exc

    async def _request(self, draft: Draft, bound_s: float) -> Response:
        # An id that its caller knows can be asked for again: its answer is worth paying for later too.
        until_ms = int((time.time() + bound_s + DEADLINE_MARGIN_S) * 1000) if draft.made_up else None
        value, request_id = draft.record(until_ms), draft.request_id
        limit = self._config.max_request_bytes
        if len(value) > limit:
            raise RecordTooLargeError(f"the request has {len(value)} bytes, more than {limit}")
        answer: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        call = self._calls.expect(request_id, _tenant_of(draft), answer)
        try:
            metadata = await self._producer.send(
                self._config.topic(self._config.requests_topic),
                value,
                key=request_id.encode(),
                headers=trace_headers(current_traceparent()),
            )
            self._calls.stands(call, Place.sent(metadata))
            return await answer
        finally:
            self._calls.forget(call)
            if answer.done() and not answer.cancelled():
                answer.exception()  # its caller may have left with another error, and then nobody else looks

    async def command(self, command: CacheCommand) -> None:
        """Write to the cache-control topic; every worker applies it within moments."""
        await self._writer.send(command)

    async def response_to(self, request_id: str, tenant: str | None = None) -> Response | None:
        """The last response on the responses topic (to ``tenant``'s request, where given)."""
        return await find_response(self._config, request_id, tenant)

    def _read(self, record: Record, *, is_dead_letter: bool) -> None:
        try:
            if is_dead_letter:
                self._refuse(wire.decode_dead_letter(record.value), len(record.value or b""))
            elif self._calls.waits_for((record.key or b"").decode(errors="replace")):
                self._answer(record)
        except InvalidRecordError as exc:
            _skip(record, exc)
        except Exception:
            # A record that no decoder foresaw must not be read again and again, and the others never.
            log.exception("record failed", extra={"fields": {"topic": record.topic, "offset": record.offset}})

    def _answer(self, record: Record) -> None:
        size = len(record.value or b"")
        try:
            response = wire.decode_response(record.value)
        except InvalidRecordError as exc:
            _skip(record, exc)
            self._unreadable_answer(record, exc, size)
            return
        self._calls.take(Arrived(response, Place.of(response.source), response.request_id, response.tenant, size))

    def _unreadable_answer(self, record: Record, exc: InvalidRecordError, size: int) -> None:
        """Tell the caller at once, where the record still names the place of its request: no other answer comes."""
        place = _place_in(_object_in(record.value))
        if place is None:
            return
        where = f"{record.topic}-{record.partition}@{record.offset}"
        error = BrokerError(
            f"the response at {where} cannot be read: {exc}",
            remedy="bring this bridge to the workers' version; the response stays on its topic",
        )
        request_id = (record.key or b"").decode(errors="replace")
        self._calls.take(Arrived(error, place, request_id, None, size))

    def _refuse(self, letter: DeadLetter, size: int) -> None:
        asked = self._asked_in(letter)
        if asked is None:
            return
        # The same error as in-process.
        kind = REFUSALS.get(letter.code, InvalidRecordError)
        refused = kind(letter.reason, remedy=letter.remedy)
        refused.code = letter.code  # type: ignore[misc]  # a newer worker's code may be none of these classes'
        self._calls.take(Arrived(refused, asked.place, asked.request_id, asked.tenant, size))

    def _asked_in(self, letter: DeadLetter) -> Asked | None:
        """The request that ``letter`` refuses; None where nobody here can wait for it."""
        if letter.source.topic == self._config.topic(self._config.requests_topic):
            # Where the id itself could not be read, the key we sent the record under tells whose it was.
            request_id = letter.request_id or (None if letter.key is None else letter.key.decode(errors="replace"))
            if request_id is not None and not self._calls.waits_for(request_id):
                return None
            return Asked(Place.of(letter.source), request_id, _tenant_in(_object_in(letter.value)))
        if letter.source.topic == self._config.topic(self._config.executions_topic) and self._calls.all():
            return self._asked_by_execution(_object_in(letter.value))
        return None

    def _asked_by_execution(self, execution: dict[str, Any]) -> Asked | None:
        """By what can still be read of an execution that could not be: its letter's place and key are its own, not its
        request's. A hit's check has no answer of its own, and its request has another.
        """
        place, request = _place_in(execution), execution.get("request")
        if place is None or place.topic != self._config.topic(self._config.requests_topic):
            return None
        if not isinstance(request, dict) or execution.get("shadow"):
            return None
        request_id = request.get("request_id")
        return Asked(place, request_id if isinstance(request_id, str) else None, _tenant_in(request))


def _skip(record: Record, exc: InvalidRecordError) -> None:
    event(log, logging.WARNING, "foreign record skipped", topic=record.topic, offset=record.offset, cause=str(exc))


def _object_in(value: bytes | None) -> dict[str, Any]:
    """The JSON object in ``value``; empty where it holds none."""
    try:
        return check.json_object(value, None, OWN_MAX_DEPTH)
    except InvalidRecordError:
        return {}


def _place_in(found: dict[str, Any]) -> Place | None:
    """Where the request stands, of a response or an execution that may be wrong elsewhere."""
    try:
        return Place.of(coordinates(found.get("source"), "$.source"))
    except InvalidRecordError:
        return None


def _tenant_in(request: dict[str, Any]) -> str | None:
    """The tenant of ``request``, where it can be read."""
    try:
        return wire.context_from(request.get("context") or {}, "$.context").tenant
    except InvalidRecordError:
        return None


def _tenant_of(draft: Draft) -> str:
    """As the worker will read it; what it will not take is refused, whatever this says."""
    tenant = draft.fields["context"].get("tenant")
    return Context().tenant if tenant is None else str(tenant)
