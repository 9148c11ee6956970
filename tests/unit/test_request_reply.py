"""Whose answer it is, over Kafka.

A caller of one tenant was handed another tenant's answer to the same request id, and of two calls with one id and
different words both were handed the first one's: answers were told apart by the id alone.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiokafka import AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaConnectionError
from opentelemetry.context import attach, detach

from stratarouter_runtime import wire
from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.drafts import Draft
from stratarouter_runtime.errors import (
    BrokerError,
    DeadlineExceededError,
    IdempotencyConflictError,
    InvalidRecordError,
    RecordTooLargeError,
    ShuttingDownError,
)
from stratarouter_runtime.processors import request_reply
from stratarouter_runtime.processors.renewed_producer import Line
from stratarouter_runtime.processors.request_reply import KafkaCarrier
from stratarouter_runtime.records import Coordinates, DeadLetter, Response
from stratarouter_runtime.telemetry.tracing import context_of, parse_traceparent

CONFIG = RuntimeConfig(transport="kafka")
REQUESTS, EXECUTIONS, RESPONSES, LETTERS = (
    CONFIG.topic(name)
    for name in (CONFIG.requests_topic, CONFIG.executions_topic, CONFIG.responses_topic, CONFIG.dead_letter_topic)
)
FIRST, BAD, LAST = (TopicPartition(RESPONSES, number) for number in range(3))
LONG_S = 5.0


class Broker:
    """Gives each request the next offset of one partition; ``held`` keeps the producer from telling it."""

    def __init__(self) -> None:
        self.offset = 0
        self.held = asyncio.Event()
        self.held.set()
        self.tells = True
        self.failure: Exception | None = None
        self.headers: list[list[tuple[str, bytes]]] = []
        self.values: list[bytes] = []

    async def start(self) -> None:
        """Nothing to do."""

    async def stop(self) -> None:
        """Nothing to do."""

    async def send_and_wait(
        self,
        topic: str,
        value: bytes,
        key: bytes,  # noqa: ARG002
        partition: int | None,  # noqa: ARG002
        headers: list[tuple[str, bytes]],
    ) -> object:
        # As aiokafka has it, whose builder of records takes no tuple.
        assert type(headers) is list
        self.headers.append(headers)
        self.values.append(value)
        offset, self.offset = self.offset, self.offset + 1
        await self.held.wait()
        if self.failure is not None:
            raise self.failure
        return SimpleNamespace(topic=topic, partition=0, offset=offset if self.tells else -1)


class Asking:
    """A carrier over ``Broker``, whose records the test writes."""

    def __init__(self) -> None:
        self.broker = Broker()
        self.carrier = KafkaCarrier(CONFIG)
        self.carrier._producer._line = Line(cast("AIOKafkaProducer", self.broker))
        self.tasks: list[asyncio.Task[Response]] = []

    async def ask(
        self, request_id: str | None, query: str = "q", *, tenant: str | None = "acme", bound_s: float = LONG_S
    ) -> Any:
        given = {"query": query, "messages": None, "embedding": None, "params": None, "cache": None}
        draft = Draft.of("chat", {} if tenant is None else {"tenant": tenant}, request_id, given)
        self.tasks.append(asyncio.create_task(self.carrier.carry(draft, bound_s)))
        await turns()
        return self.tasks[-1]

    def hear(self, request_id: str, text: str, *, at: int | None, tenant: str = "acme") -> None:
        self.carrier._read(answer(request_id, text, at=at, tenant=tenant), is_dead_letter=False)

    def refuse(self, request_id: str | None, *, at: int, topic: str = REQUESTS, **fields: Any) -> None:
        letter = DeadLetter(
            "idempotency_conflict", "another payload", "a new id", Coordinates(topic, 0, at), "execute",
            **{"key": None, "value": None, "request_id": request_id} | fields,
        )  # fmt: skip
        value = wire.encode_dead_letter(letter)
        self.carrier._read(record(TopicPartition(LETTERS, 0), 0, None, value), is_dead_letter=True)

    @property
    def held(self) -> int:
        return len(self.carrier._calls._early)


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def record(place: TopicPartition, offset: int, key: bytes | None, value: bytes) -> Any:
    return ConsumerRecord(place.topic, place.partition, offset, 1, 0, key, value, None, 0, len(value), ())


def answer(request_id: str, text: str, *, at: int | None, tenant: str = "acme", place: TopicPartition = FIRST) -> Any:
    source = None if at is None else Coordinates(REQUESTS, 0, at, 5)
    response = Response(request_id=request_id, status="ok", text=text, tenant=tenant, source=source)
    return record(place, 0, request_id.encode(), wire.encode_response(response))


@pytest.fixture
async def asking() -> AsyncIterator[Asking]:
    made = Asking()
    yield made
    for task in made.tasks:
        task.cancel()
    await asyncio.gather(*made.tasks, return_exceptions=True)
    assert not made.carrier._calls.all()
    assert not made.held


# --- whose answer it is ----------------------------------------------------------------------------------------


async def test_another_tenants_answer_to_the_same_id_is_not_ours(asking: Asking) -> None:
    ours = await asking.ask("order-1", tenant="acme")
    asking.hear("order-1", "of globex", at=7, tenant="globex")
    await turns()
    assert not ours.done()
    asking.hear("order-1", "of acme", at=0)
    assert (await ours).text == "of acme"


async def test_another_tenants_answer_that_names_no_source_is_not_ours(asking: Asking) -> None:
    ours, plain = await asking.ask("order-1"), await asking.ask("order-1", tenant=None)
    asking.hear("order-1", "of globex", at=None, tenant="globex")
    await turns()
    assert not ours.done()
    asking.hear("order-1", "of acme", at=None)
    assert (await ours).text == "of acme"
    asking.hear("order-1", "of nobody", at=None, tenant="default")
    assert (await plain).text == "of nobody"


async def test_of_one_id_with_other_words_the_second_is_a_conflict(asking: Asking) -> None:
    first, second = await asking.ask("id-2", "first words"), await asking.ask("id-2", "OTHER words")
    asking.hear("id-2", "to the first words", at=0)
    await turns()
    assert not second.done()
    asking.refuse("id-2", at=1, key=b"id-2")
    assert (await first).text == "to the first words"
    with pytest.raises(IdempotencyConflictError, match="another payload") as caught:
        await second
    assert caught.value.code == "idempotency_conflict"
    assert caught.value.remedy == "a new id"


async def test_a_refusal_before_the_first_answer_is_still_the_seconds(asking: Asking) -> None:
    first, second = await asking.ask("id-2", "first words"), await asking.ask("id-2", "OTHER words")
    asking.refuse("id-2", at=1, key=b"id-2")
    asking.hear("id-2", "to the first words", at=0)
    assert (await first).text == "to the first words"
    with pytest.raises(IdempotencyConflictError):
        await second


async def test_another_tenants_refusal_is_not_ours(asking: Asking) -> None:
    ours = await asking.ask("order-1")
    asking.refuse("order-1", at=9, key=b"order-1")
    asking.refuse(None, at=9, key=b"order-1")
    asking.refuse("order-1", at=0, key=b"order-1", topic="stratarouter.executions")
    await turns()
    assert not ours.done()
    asking.hear("order-1", "of acme", at=0)
    assert (await ours).text == "of acme"


@pytest.mark.parametrize("key", [b"order-1", None])
async def test_a_refusal_without_a_readable_id_is_known_by_its_place(asking: Asking, key: bytes | None) -> None:
    ours = await asking.ask("order-1")
    asking.refuse(None, at=0, key=key)
    with pytest.raises(InvalidRecordError):
        await ours


async def test_a_code_of_a_newer_worker_keeps_its_name(asking: Asking) -> None:
    ours = await asking.ask("order-1")
    letter = DeadLetter("made_up_later", "why", "", Coordinates(REQUESTS, 0, 0), "enrich", None, None)
    value = wire.encode_dead_letter(letter)
    asking.carrier._read(record(TopicPartition(LETTERS, 0), 0, None, value), is_dead_letter=True)
    with pytest.raises(InvalidRecordError) as caught:
        await ours
    assert caught.value.code == "made_up_later"
    assert InvalidRecordError.code == "invalid_record"


# --- before it is known where the request stands ---------------------------------------------------------------


async def test_answers_that_come_before_the_offset_are_held_until_it_is_known(asking: Asking) -> None:
    asking.broker.held.clear()
    first, second = await asking.ask("id-2", "first words"), await asking.ask("id-2", "OTHER words")
    asking.hear("id-2", "of globex", at=7, tenant="globex")
    asking.refuse("id-2", at=1, key=b"id-2")
    asking.hear("id-2", "to the first words", at=0)
    await turns()
    assert not first.done()
    assert not second.done()
    asking.broker.held.set()
    assert (await first).text == "to the first words"
    with pytest.raises(IdempotencyConflictError):
        await second
    assert asking.held == 0


async def test_a_refusal_that_names_nothing_but_its_place_is_held_too(asking: Asking) -> None:
    asking.broker.held.clear()
    ours = await asking.ask("order-1")
    asking.refuse(None, at=0)
    asking.broker.held.set()
    with pytest.raises(InvalidRecordError):
        await ours


async def test_what_is_held_has_bounds(asking: Asking, monkeypatch: pytest.MonkeyPatch) -> None:
    asking.hear("order-1", "nobody is sending", at=3)
    asking.broker.held.clear()
    await asking.ask("order-1")
    asking.hear("other", "another id", at=4)
    assert asking.held == 0
    monkeypatch.setattr(request_reply, "MAX_EARLY", 3)
    for offset in range(100, 110):
        asking.hear("order-1", "of globex", at=offset, tenant="globex")
    assert asking.held == 3
    monkeypatch.setattr(request_reply, "MAX_EARLY_BYTES", 10_000)
    asking.hear("order-1", "x" * 9_000, at=200, tenant="globex")
    assert asking.held <= 2
    assert asking.carrier._calls._early_bytes <= 10_000
    asking.broker.held.set()
    await turns()
    assert asking.held == 0
    assert asking.carrier._calls._early_bytes == 0


async def test_what_is_held_goes_with_the_oldest_request_it_may_be_for(asking: Asking) -> None:
    asking.broker.held.clear()
    first = await asking.ask("id-2", bound_s=0.01)
    asking.hear("id-2", "of nobody here", at=50)
    await asking.ask("id-3")
    assert asking.held == 1
    with pytest.raises(DeadlineExceededError):
        await first
    assert asking.held == 0


async def test_where_no_offset_is_told_tenant_and_id_decide(asking: Asking) -> None:
    """A broker that has forgotten the first of two sends of a record says that it has it, and not where."""
    asking.broker.tells = False
    asking.broker.held.clear()
    early, later = await asking.ask("early"), await asking.ask("later")
    asking.hear("early", "of globex", at=7, tenant="globex")
    asking.hear("early", "of acme", at=0)
    asking.broker.held.set()
    assert (await early).text == "of acme"
    asking.refuse("later", at=8, value=b'{"request_id": "later", "context": {"tenant": "globex"}}')
    asking.hear("later", "of globex", at=7, tenant="globex")
    await turns()
    assert not later.done()
    asking.refuse("later", at=1, value=b'{"request_id": "later", "context": {"tenant": "acme"}}')
    with pytest.raises(IdempotencyConflictError):
        await later


async def test_a_failed_send_is_the_error_even_where_an_answer_came(asking: Asking) -> None:
    asking.broker.held.clear()
    asking.broker.failure = KafkaConnectionError("gone")
    ours = await asking.ask("order-1")
    asking.hear("order-1", "early", at=0)
    asking.hear("order-1", "early", at=None)
    asking.broker.held.set()
    with pytest.raises(BrokerError):
        await ours


async def test_a_request_above_the_limit_is_refused_and_not_sent(asking: Asking) -> None:
    with pytest.raises(RecordTooLargeError, match="more than 1048576"):
        await (await asking.ask("order-1", "q" * CONFIG.max_request_bytes))
    assert asking.broker.offset == 0


async def test_nobody_hangs_without_an_answer_or_at_the_end(asking: Asking) -> None:
    late, stopped = await asking.ask("late", bound_s=0.01), await asking.ask("stopped")
    asking.hear("late", "of somebody", at=77)
    with pytest.raises(DeadlineExceededError):
        await late
    await asking.carrier.stop(0.0)
    with pytest.raises(ShuttingDownError):
        await stopped


async def test_answers_matter_since_the_oldest_call_that_waits(asking: Asking) -> None:
    began = time.time()
    assert asking.carrier._calls.oldest_s() >= began
    first = await asking.ask("order-1")
    await asyncio.sleep(0.02)
    await asking.ask("order-2")
    assert began <= asking.carrier._calls.oldest_s() < began + 0.02
    asking.hear("order-1", "of acme", at=0)
    await first
    assert asking.carrier._calls.oldest_s() >= began + 0.02


# --- answers that cannot be read -------------------------------------------------------------------------------


async def test_an_execution_that_cannot_be_decoded_is_its_requests_refusal(asking: Asking) -> None:
    first, second = await asking.ask("order-1"), await asking.ask("order-2")
    execution = {"request": {"request_id": "order-2"}, "source": {"topic": REQUESTS, "partition": 0, "offset": 1}}
    asking.refuse(None, at=77, topic=EXECUTIONS, key=b"scope", value=json.dumps(execution).encode())
    with pytest.raises(IdempotencyConflictError):
        await second
    assert not first.done()


@pytest.mark.parametrize(
    "execution",
    [
        None,
        b"no json",
        b"[]",
        b'{"source": null}',
        b'{"source": {"topic": "stratarouter.requests", "partition": -1, "offset": 0}}',
        b'{"source": {"topic": "elsewhere", "partition": 0, "offset": 0}, "request": {"request_id": "order-1"}}',
        b'{"source": {"topic": "stratarouter.requests", "partition": 0, "offset": 0}, "request": {"request_id": "b"}}',
        b'{"source": {"topic": "stratarouter.requests", "partition": 0, "offset": 0}, "request": 1}',
        (
            b'{"source": {"topic": "stratarouter.requests", "partition": 0, "offset": 0}, '
            b'"request": {"request_id": "order-1"}, "shadow": true}'
        ),
    ],
)
async def test_an_execution_that_names_no_request_of_ours_refuses_none(asking: Asking, execution: bytes | None) -> None:
    ours = await asking.ask("order-1")
    asking.refuse(None, at=0, topic=EXECUTIONS, key=b"order-1", value=execution)
    await turns()
    assert not ours.done()


async def test_a_response_that_cannot_be_decoded_fails_its_call_at_once(asking: Asking) -> None:
    first, second = await asking.ask("order-1"), await asking.ask("order-1")
    found = json.loads(answer("order-1", "of a newer worker", at=1).value)
    found["status"] = "made_up_later"
    asking.carrier._read(record(FIRST, 0, b"order-1", json.dumps(found).encode()), is_dead_letter=False)
    with pytest.raises(BrokerError, match=r"responses-0@0.*status"):
        await second
    assert not first.done()


async def test_a_record_that_no_decoder_foresaw_is_skipped(
    asking: Asking, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ours = await asking.ask("order-1")

    def decode(_: bytes | None) -> Response:
        raise RecursionError

    with monkeypatch.context() as broken:
        broken.setattr(wire, "decode_response", decode)
        asking.hear("order-1", "of acme", at=0)
    assert "record failed" in caplog.text
    asking.hear("order-1", "of acme", at=0)
    assert (await ours).text == "of acme"


async def test_a_request_goes_on_in_its_callers_trace(asking: Asking) -> None:
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    here = attach(context_of(parse_traceparent(parent)))
    traced = await asking.ask("r1")
    detach(here)
    plain = await asking.ask("r2")
    assert asking.broker.headers == [[("traceparent", parent.encode())], []]
    for number, waiting in enumerate((traced, plain)):
        asking.hear(f"r{number + 1}", "yes", at=number)
        assert (await waiting).text == "yes"


# --- what nobody can ask for again -----------------------------------------------------------------------------


async def test_a_request_that_nobody_can_ask_for_again_says_until_when_its_answer_is_worth_paying_for(
    asking: Asking,
) -> None:
    """A worker that came minutes later paid for what its caller had given up, and could not ask for any more."""
    before_ms = int(time.time() * 1000)
    await asking.ask(None, bound_s=5.0)
    await asking.ask("known", bound_s=5.0)
    made_up, known = (wire.decode_request(value) for value in asking.broker.values)
    assert made_up.deadline_ms is not None
    late_ms = made_up.deadline_ms - before_ms - 5_000
    assert 0 <= late_ms - request_reply.DEADLINE_MARGIN_S * 1000 < 1_000
    assert known.deadline_ms is None
