"""The main job on a real broker and a real PostgreSQL, with worker processes that are killed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import NewTopic

from stratarouter_runtime import topics
from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.journal.migrations import migrate
from stratarouter_runtime.processors import kafka_client
from stratarouter_runtime.processors.tail import Tail
from stratarouter_runtime.testing.simulator import Simulator, SimulatorSettings
from support.fleet import Watch, WorkerProcess, ambiguous_calls, produce, request, write_routes

pytestmark = pytest.mark.stack

REQUESTS = 5000


@pytest.fixture
async def simulator(tmp_path: Path) -> AsyncIterator[Simulator]:
    """A provider that answers after 50 ms and logs what was paid for."""
    async with Simulator(SimulatorSettings(latency_ms=50, log_path=tmp_path / "calls.jsonl")) as running:
        yield running


@pytest.fixture
async def ready_config(config: RuntimeConfig) -> RuntimeConfig:
    """Topics and tables are there."""
    await topics.apply(config, partitions=4)
    await migrate(config.database_url)
    return config


def _worker(config: RuntimeConfig, simulator: Simulator, folder: Path, number: int) -> WorkerProcess:
    routes = write_routes(folder / "routes.toml", simulator.base_url)
    return WorkerProcess(config, routes, folder / f"worker-{number}.log")


async def test_5000_requests_through_two_workers_and_two_kills_get_one_response_each(
    ready_config: RuntimeConfig, simulator: Simulator, tmp_path: Path
) -> None:
    config = ready_config
    workers = [_worker(config, simulator, tmp_path, number) for number in range(2)]
    await asyncio.gather(*(worker.start() for worker in workers))
    values = [
        request(
            f"r{n}", f"question number {n} about order {n * 7}", tenant=f"t{n % 5}", route=("support", "billing")[n % 2]
        )
        for n in range(REQUESTS)
    ]
    async with Watch(config) as watch:
        producing = asyncio.create_task(produce(config, values, rate_per_s=400))
        for number, worker in enumerate(workers):
            await watch.until((number + 1) * REQUESTS // 4, timeout_s=60)
            worker.kill()
            await worker.process.wait()
            workers[number] = _worker(config, simulator, tmp_path, number + 2)
            await workers[number].start(ready=False)
        await producing
        await watch.until(REQUESTS, timeout_s=120)
        seen = await watch.settle(2)
    codes = [await worker.stop() for worker in workers]
    assert len(seen.by_id) == REQUESTS
    assert sum(seen.by_id.values()) == REQUESTS
    assert seen.dead_letters == []
    assert {response.status for response in seen.responses} == {"ok"}
    ambiguous = await ambiguous_calls(config)
    assert REQUESTS <= len(simulator.paid_calls) <= REQUESTS + ambiguous
    assert codes == [0, 0]


@pytest.mark.row(39)
async def test_sigterm_under_load_drains_and_exits_zero(
    ready_config: RuntimeConfig, simulator: Simulator, tmp_path: Path
) -> None:
    config = ready_config
    first, second = (_worker(config, simulator, tmp_path, number) for number in range(2))
    await first.start()
    async with Watch(config) as watch:
        producing = asyncio.create_task(
            produce(config, [request(f"r{n}", f"thing {n} costs {n}") for n in range(600)], rate_per_s=200)
        )
        await watch.until(150, timeout_s=60)
        assert await first.stop() == 0
        await second.start()
        await producing
        await watch.until(600, timeout_s=60)
        seen = await watch.settle(1)
    assert await second.stop() == 0
    assert sum(seen.by_id.values()) == len(seen.by_id) == 600
    assert len(simulator.paid_calls) == 600


@pytest.mark.row(32)
async def test_one_request_id_at_two_offsets_is_paid_for_once_and_answered_twice(
    ready_config: RuntimeConfig, simulator: Simulator, tmp_path: Path
) -> None:
    config = ready_config
    worker = _worker(config, simulator, tmp_path, 0)
    await worker.start()
    async with Watch(config) as watch:
        same = request("again", "what is the limit of 3 cards?", cache={"mode": "bypass"})
        await produce(config, [same, same])
        await watch.until(2, timeout_s=30)
        await produce(config, [same])
        seen = await watch.until(3, timeout_s=30)
    await worker.stop()
    assert seen.by_id == {"again": 3}
    assert len({response.text for response in seen.responses}) == 1
    assert len(simulator.paid_calls) == 1


@pytest.mark.row(33)
async def test_a_request_id_used_for_other_words_is_a_dead_letter_and_the_first_answer_stands(
    ready_config: RuntimeConfig, simulator: Simulator, tmp_path: Path
) -> None:
    config = ready_config
    worker = _worker(config, simulator, tmp_path, 0)
    await worker.start()
    async with Watch(config) as watch:
        await produce(config, [request("twice", "how do I pay invoice 12?")])
        await watch.until(1, timeout_s=30)
        await produce(config, [request("twice", "how do I close my account?")])
        seen = await watch.until(2, timeout_s=30)
    await worker.stop()
    assert seen.by_id == {"twice": 1}
    assert [letter.code for letter in seen.dead_letters] == ["idempotency_conflict"]
    assert b"close my account" in (seen.dead_letters[0].value or b"")
    assert len(simulator.paid_calls) == 1


@pytest.mark.parametrize("guarantee", ["exactly_once", "at_least_once"])
async def test_each_processor_runs_alone_under_either_guarantee(
    ready_config: RuntimeConfig, simulator: Simulator, tmp_path: Path, guarantee: str
) -> None:
    config = ready_config
    workers = [_worker(config, simulator, tmp_path, number) for number in range(2)]
    for worker, processors in zip(workers, ("enrich", "execute"), strict=True):
        worker.processors = processors
        worker.extra = {"STRATAROUTER_PROCESSING_GUARANTEE": guarantee}
    await asyncio.gather(*(worker.start() for worker in workers))
    async with Watch(config) as watch:
        await produce(config, [request(f"r{n}", f"thing {n} costs {n}") for n in range(300)])
        await watch.until(300, timeout_s=40)
        seen = await watch.settle(1)
    assert [await worker.stop() for worker in workers] == [0, 0]
    assert sum(seen.by_id.values()) == len(seen.by_id) == 300
    assert len(simulator.paid_calls) == 300


async def test_a_trace_goes_from_the_request_to_its_response(
    ready_config: RuntimeConfig, simulator: Simulator, tmp_path: Path
) -> None:
    config = ready_config
    worker = _worker(config, simulator, tmp_path, 0)
    await worker.start()
    parent = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    producer = kafka_client.producer(config)
    await producer.start()
    topic = config.topic(config.requests_topic)
    await producer.send_and_wait(topic, request("traced", "follow me 9"), headers=[("traceparent", parent)])
    await producer.stop()
    async with Tail(config, config.topic(config.responses_topic), from_beginning=True) as tail:
        async with asyncio.timeout(20):
            while not (records := await tail.poll(0.2)):
                continue
    assert await worker.stop() == 0
    headers = dict(records[0].headers)
    assert headers["traceparent"].split(b"-")[1] == parent.split(b"-")[1]


@pytest.mark.row(30)
async def test_an_answer_that_its_reply_topic_refuses_is_an_error_response_and_holds_nothing_up(
    ready_config: RuntimeConfig, simulator: Simulator, tmp_path: Path
) -> None:
    config = ready_config
    small = config.topic("responses.small")
    admin = kafka_client.admin(config)
    await admin.start()
    await admin.create_topics([NewTopic(small, 1, 1, topic_configs={"max.message.bytes": "400"})])
    await admin.close()
    worker = _worker(config, simulator, tmp_path, 0)
    await worker.start()
    values = [request(f"r{n}", f"number {n}") for n in range(40)]
    values[20] = request("refused", "number 20", reply_to=small)
    async with Watch(config) as watch:
        await produce(config, values)
        await watch.until(40, timeout_s=40)
        seen = await watch.settle(1)
    assert await worker.stop() == 0
    assert sum(seen.by_id.values()) == len(seen.by_id) == 40
    [refused] = [response for response in seen.responses if response.error is not None]
    assert refused.request_id == "refused"
    assert refused.error is not None
    assert refused.error.code == "response_too_large"
    assert len(simulator.paid_calls) == 40


async def test_records_of_every_compression_are_answered(
    ready_config: RuntimeConfig, simulator: Simulator, tmp_path: Path
) -> None:
    config = ready_config
    worker = _worker(config, simulator, tmp_path, 0)
    await worker.start()
    codecs = ("gzip", "lz4", "snappy", "zstd")
    async with Watch(config) as watch:
        for codec in codecs:
            async with AIOKafkaProducer(bootstrap_servers=config.bootstrap_servers, compression_type=codec) as producer:
                values = [request(f"{codec} {n}", f"question {n} packed by {codec} " + "x" * 500) for n in range(5)]
                for value in values:
                    await producer.send_and_wait(config.topic(config.requests_topic), value)
        seen = await watch.until(5 * len(codecs), timeout_s=60)
    assert await worker.stop() == 0
    assert sorted(seen.by_id) == sorted(f"{codec} {n}" for codec in codecs for n in range(5))
    assert set(seen.by_id.values()) == {1}
