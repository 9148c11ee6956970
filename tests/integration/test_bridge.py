"""CoreRuntimeBridge in-process and over Kafka, on a real PostgreSQL, Redis and broker."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.record._crecords import default_records
from opentelemetry.context import attach, detach
from stratarouter.layer import RouteChoice
from stratarouter.types import RouteResult

from stratarouter_runtime import CoreRuntimeBridge, RuntimeConfig, topics
from stratarouter_runtime.bridge import RequestFailedError
from stratarouter_runtime.errors import (
    DeadlineExceededError,
    IdempotencyConflictError,
    InvalidRecordError,
    OutputRefusedError,
    SchemaViolationError,
)
from stratarouter_runtime.journal.migrations import migrate
from stratarouter_runtime.processors import kafka_client
from stratarouter_runtime.processors.request_reply import KafkaCarrier
from stratarouter_runtime.routes import RouteTable
from stratarouter_runtime.telemetry.tracing import context_of, parse_traceparent
from stratarouter_runtime.testing.simulator import FaultRule, Simulator, SimulatorSettings
from stratarouter_runtime.tools.ranges import RangeReader, Wanted
from stratarouter_runtime.worker import Worker
from support.cluster import admin, make_anew
from support.fleet import Watch, free_port

pytestmark = pytest.mark.stack

ROUTES = """
[providers.openai]
kind = "simulator"
base_url = "{base_url}"

[routes.billing]
targets = [{{ provider = "openai", model = "gpt-4o-mini" }}]
min_confidence = 0.3
"""


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with Simulator(SimulatorSettings(latency_ms=20)) as running:
        yield running


@pytest.fixture
def routes(simulator: Simulator) -> RouteTable:
    return RouteTable.from_toml(ROUTES.format(base_url=simulator.base_url))


@pytest.fixture
async def inline(config: RuntimeConfig, routes: RouteTable) -> AsyncIterator[CoreRuntimeBridge]:
    await migrate(config.database_url)
    async with CoreRuntimeBridge(config, routes) as bridge:
        yield bridge


@pytest.fixture
async def worker(config: RuntimeConfig, routes: RouteTable) -> AsyncIterator[Worker]:
    await migrate(config.database_url)
    await topics.apply(config, partitions=2)
    running = Worker(config.model_copy(update={"metrics_enabled": True, "prometheus_port": free_port()}), routes=routes)
    await running.start()
    async with asyncio.timeout(30):
        while not running.ready()[0]:
            await asyncio.sleep(0.05)
    yield running
    await running.stop()


def _choice() -> RouteChoice:
    return RouteChoice(name="billing", score=0.8, threshold=0.5, metadata={})


@pytest.mark.parametrize(
    "decision",
    [
        RouteResult(route_id="billing", confidence=0.9, scores={"billing": 0.9}, latency_ms=1.0, metadata={}),
        _choice(),
        {"route_id": "billing", "confidence": 0.9, "scores": {"billing": 0.9}, "latency_ms": 1.0, "metadata": {}},
        "billing",
    ],
    ids=["RouteResult", "RouteChoice", "raw dict", "route id"],
)
async def test_every_form_of_cores_decision_is_executed(inline: CoreRuntimeBridge, decision: object) -> None:
    result = await inline.execute(decision=decision, context={"user_id": "u1"}, query="where is invoice 7?")
    assert "where is invoice 7?" in result.response
    assert result.model == "gpt-4o-mini"
    assert result.cost_usd is not None
    assert result.cost_usd > 0


async def test_the_query_may_stand_in_the_context(inline: CoreRuntimeBridge) -> None:
    result = await inline.execute("billing", {"user_id": "u1", "query": "what do I owe?"})
    assert "what do I owe?" in result.response


async def test_no_query_is_a_clear_error(inline: CoreRuntimeBridge) -> None:
    with pytest.raises(SchemaViolationError) as caught:
        await inline.execute("billing", {"user_id": "u1"})
    assert "query=" in caught.value.remedy


async def test_repeats_hit_and_duplicates_in_flight_are_paid_for_once(
    inline: CoreRuntimeBridge, simulator: Simulator
) -> None:
    asked: list[dict[str, Any]] = [{"decision": "billing", "query": "one and the same"} for _ in range(20)]
    results = await inline.execute_many(asked)
    again = await inline.execute("billing", query="One and the same?")
    assert len(simulator.paid_calls) == 1
    assert len({result.response for result in results if not isinstance(result, BaseException)}) == 1
    assert again.cache.kind == "exact"
    assert again.cost_usd == 0


async def test_the_same_request_id_is_never_paid_for_twice(
    config: RuntimeConfig, routes: RouteTable, simulator: Simulator
) -> None:
    await migrate(config.database_url)
    without_cache = config.model_copy(update={"cache_enabled": False})
    answers = []
    for _ in range(2):
        async with CoreRuntimeBridge(without_cache, routes) as bridge:
            result = await bridge.execute("billing", query="pay me once", request_id="idem-1")
            answers.append(result.response)
    assert len(simulator.paid_calls) == 1
    assert answers[0] == answers[1]
    assert result.record.from_journal


async def test_a_failed_execution_raises_with_its_code_and_remedy(
    inline: CoreRuntimeBridge, simulator: Simulator
) -> None:
    simulator.set_faults([FaultRule("status", status=401)])
    with pytest.raises(RequestFailedError) as caught:
        await inline.execute("billing", query="no key")
    assert caught.value.code == "provider_auth"
    assert caught.value.remedy
    assert caught.value.result.record.attempts[0].status == 401


async def test_execute_many_puts_an_exception_in_its_place(inline: CoreRuntimeBridge) -> None:
    good, bad = await inline.execute_many(
        [{"decision": "billing", "query": "fine"}, {"decision": "nowhere", "query": "lost"}], return_exceptions=True
    )
    assert not isinstance(good, BaseException)
    assert isinstance(bad, InvalidRecordError)
    assert bad.code == "unknown_route"


async def test_over_kafka_the_answer_is_the_same_record(
    worker: Worker, config: RuntimeConfig, simulator: Simulator
) -> None:
    async with CoreRuntimeBridge(config.model_copy(update={"transport": "kafka"})) as bridge:
        result = await bridge.execute(_choice(), {"user_id": "u1", "tenant": "acme"}, query="over the wire 5")
        many = await bridge.execute_many([{"decision": "billing", "query": f"number {n}"} for n in range(50)])
        with pytest.raises(InvalidRecordError) as refused:
            await bridge.execute("nowhere", query="which way?")
    assert "over the wire 5" in result.response
    assert result.record.source is not None
    assert result.record.tenant == "acme"
    assert len(many) == 50
    assert refused.value.code == "unknown_route"
    assert len(simulator.paid_calls) == 51
    assert worker.ready()[0]


@pytest.mark.usefixtures("worker")
async def test_over_kafka_a_request_goes_on_in_its_callers_trace(config: RuntimeConfig) -> None:
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with CoreRuntimeBridge(config.model_copy(update={"transport": "kafka"})) as bridge:
        here = attach(context_of(parse_traceparent(parent)))
        try:
            await bridge.execute("billing", query="what do I owe?", timeout_s=30)
        finally:
            detach(here)
    async with RangeReader(config, config.topic(config.requests_topic)) as reader:
        spans = await reader.spans([Wanted(0), Wanted(1)])
        read = [record async for records in reader.read(spans) for record in records]
    assert [("traceparent", parent.encode())] == [header for record in read for header in record.headers]


@pytest.mark.usefixtures("worker")
async def test_over_kafka_a_request_too_large_for_its_topic_costs_the_next_one_nothing(config: RuntimeConfig) -> None:
    """aiokafka never takes the number of a record back: all that a bridge sent to that partition later was refused."""
    resource = ConfigResource(
        ConfigResourceType.TOPIC, config.topic(config.requests_topic), {"max.message.bytes": "10000"}
    )
    async with admin(config) as client:
        await client.alter_configs([resource])
    async with CoreRuntimeBridge(config.model_copy(update={"transport": "kafka"})) as bridge:

        async def ask(tenant: str, query: str) -> str:
            # One id, so that all go to one partition.
            answer = await bridge.execute("billing", {"tenant": tenant}, query=query, request_id="same", timeout_s=30)
            return answer.response

        large = "large " * 50_000
        assert "first" in await ask("a", "the first")
        for tenant in ("b", "c"):
            with pytest.raises(OutputRefusedError, match="MessageSizeTooLarge"):
                await ask(tenant, large)
        assert "next" in await ask("d", "the next")
        refused, beside = await asyncio.gather(ask("e", large), ask("f", "one beside it"), return_exceptions=True)
    assert isinstance(refused, OutputRefusedError)
    assert "beside" in str(beside)


@pytest.mark.usefixtures("worker")
async def test_over_kafka_an_id_is_its_tenants_own(config: RuntimeConfig) -> None:
    async with CoreRuntimeBridge(config.model_copy(update={"transport": "kafka"})) as bridge:
        asked = {f"tenant {n}": f"where is parcel {n}?" for n in range(10)}
        answers = await asyncio.gather(
            *(
                bridge.execute("billing", {"tenant": tenant}, query=query, request_id="order-1")
                for tenant, query in asked.items()
            )
        )
        same = [
            bridge.execute("billing", {"tenant": "tenant 0"}, query="of other words entirely", request_id="order-1"),
            bridge.execute("billing", {"tenant": "tenant 0"}, query=asked["tenant 0"], request_id="order-1"),
        ]
        conflict, again = await asyncio.gather(*same, return_exceptions=True)
    assert [
        (answer.record.tenant, query in answer.response) for answer, query in zip(answers, asked.values(), strict=True)
    ] == [(tenant, True) for tenant in asked]
    assert isinstance(conflict, IdempotencyConflictError), conflict
    assert not isinstance(again, BaseException), again
    assert again.response == answers[0].response


async def test_over_kafka_a_missing_worker_is_a_deadline_not_a_hang(config: RuntimeConfig) -> None:
    await topics.apply(config, partitions=1)
    async with CoreRuntimeBridge(config.model_copy(update={"transport": "kafka", "drain_timeout_s": 0.1})) as bridge:
        with pytest.raises(DeadlineExceededError):
            await bridge.execute("billing", query="anybody there?", timeout_s=0.3)


async def test_a_reply_topic_of_the_callers_gets_the_response(worker: Worker, config: RuntimeConfig) -> None:
    from support.fleet import produce, request

    prefix = config.topic(config.reply_topic_prefix)
    async with Watch(config) as watch:
        await produce(config, [request("r1", "here please", route="billing", reply_to=prefix)])
        seen = await watch.until(1, timeout_s=20)
    assert [response.request_id for response in seen.responses] == ["r1"]
    assert worker.ready()[0]


async def _write(config: RuntimeConfig, partition: int, *ages_s: float) -> None:
    """A response for each age."""
    topic = config.topic(config.responses_topic)
    async with kafka_client.producer(config) as producer:
        for age_s in ages_s:
            when_ms = int((time.time() - age_s) * 1000)
            await producer.send_and_wait(topic, b"{}", partition=partition, timestamp_ms=when_ms)


@pytest.fixture
async def following(config: RuntimeConfig, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[dict[int, list[int]]]:
    """What a bridge reads of the responses: offsets by partition. The one partition had 20 before it was started."""
    read: dict[int, list[int]] = defaultdict(list)
    await topics.apply(config, partitions=1)
    await _write(config, 0, *[0.0] * 20)
    monkeypatch.setattr(kafka_client, "METADATA_MAX_AGE_MS", 4000)
    carrier = KafkaCarrier(config)
    monkeypatch.setattr(carrier, "_read", lambda record, **_: read[record.partition].append(record.offset))
    await carrier.start()
    yield read
    await carrier.stop(0.0)


async def _until_read(read: dict[int, list[int]], wanted: dict[int, list[int]]) -> None:
    async with asyncio.timeout(30):
        while any(len(read[partition]) < len(offsets) for partition, offsets in wanted.items()):
            await asyncio.sleep(0.1)
    await asyncio.sleep(1.0)
    assert read == wanted


async def test_over_kafka_partitions_added_meanwhile_are_read_from_where_an_answer_may_stand(
    config: RuntimeConfig, following: dict[int, list[int]]
) -> None:
    """aiokafka forgets every position where partitions are added to what it is subscribed to: all were read anew."""
    await topics.apply(config, partitions=2)
    await _write(config, 1, *[3600.0] * 5, 0.0, 0.0)
    await _write(config, 0, 0.0)
    await _until_read(following, {0: [20], 1: [5, 6]})


async def test_over_kafka_answers_are_read_on_where_their_topic_was_made_anew(
    config: RuntimeConfig, following: dict[int, list[int]]
) -> None:
    await make_anew(config, config.topic(config.responses_topic), partitions=2)
    await _write(config, 0, 3600.0, 0.0, 0.0)
    await _write(config, 1, 0.0)
    await _until_read(following, {0: [1, 2], 1: [0]})


async def test_over_kafka_a_batch_that_cannot_be_unpacked_is_waited_for_and_read_in_the_end(
    config: RuntimeConfig,
    following: dict[int, list[int]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(_: bytes) -> bytes:
        raise RuntimeError("Invalid compression codec 0x03")

    with monkeypatch.context() as without:
        without.setattr(default_records, "lz4_decode", broken)
        await _write(config, 0, 0.0)
        async with AIOKafkaProducer(bootstrap_servers=config.bootstrap_servers, compression_type="lz4") as producer:
            await producer.send_and_wait(config.topic(config.responses_topic), b"x" * 1000, partition=0)
        await _write(config, 0, 0.0)
        async with asyncio.timeout(30):
            while "answers cannot be read" not in caplog.text:
                await asyncio.sleep(0.1)
        assert following == {0: [20]}
    await _until_read(following, {0: [20, 21, 22]})
