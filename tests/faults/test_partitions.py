"""One partition's progress: its map of finished offsets, gaps, a slow record, other owners, ids the broker forgot."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiokafka import TopicPartition

from faults.conftest import ONE_PARTITION, Bench
from stratarouter_runtime import topics
from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.embedded import EmbeddedStack
from stratarouter_runtime.journal.migrations import migrate
from stratarouter_runtime.processors import kafka_client
from stratarouter_runtime.processors.publisher import TransactionalPublisher
from stratarouter_runtime.testing.simulator import FaultRule, Simulator
from support.admin import until_forgotten
from support.cluster import committed, until_caught_up
from support.fleet import Watch, produce, request

pytestmark = pytest.mark.stack

MAP_CHARS = 256
SLOW = 120
"""Slow records, one after each of the first others: their offsets alone take most of the map."""


def _requests(count: int, name: str = "r", tenant: str | None = None) -> list[bytes | None]:
    return [
        request(f"{name}{n}", f"question {n} of {name} order {n * 3}", tenant=tenant or f"t{n % 40}")
        for n in range(count)
    ]


@pytest.mark.row(16)
@ONE_PARTITION
async def test_a_map_that_would_overflow_holds_intake_back_and_is_never_cut(bench: Bench) -> None:
    bench.simulator.set_faults([FaultRule("slow", slow_ms=8000, prompt="take your time")])
    await bench.worker(STRATAROUTER_OFFSET_METADATA_MAX_BYTES=str(MAP_CHARS))
    lengths: list[int] = []
    async with Watch(bench.config) as watch:
        values = _requests(3000, tenant="acme")
        slow = [request(f"slow{n}", f"take your time with {n}", tenant="acme") for n in range(SLOW)]
        values = [value for n, pair in enumerate(values) for value in (pair, *slow[n : n + 1])]
        producing = asyncio.create_task(produce(bench.config, values))
        while len(watch.seen.by_id) < 3000 + SLOW:
            await watch.settle(0.3)
            lengths += [len(entry.metadata or "") for entry in (await committed(bench.config, "execute")).values()]
            assert len(lengths) < 2000
        await producing
        answered = [response.request_id for response in watch.seen.responses]
        await watch.settle(1)
    bench.check(watch, 3000 + SLOW)
    assert len("srt1") < max(lengths) <= MAP_CHARS
    # Held back behind the slow ones, and not before the map was of some use.
    first_slow = next(index for index, name in enumerate(answered) if name.startswith("slow"))
    assert SLOW < first_slow < 2900
    assert len(bench.simulator.paid_calls) == 3000 + SLOW


@pytest.mark.row(36)
@pytest.mark.parametrize("call_s", [12, pytest.param(90, marks=pytest.mark.slow)])
async def test_one_slow_record_holds_up_none_of_the_others(bench: Bench, call_s: int) -> None:
    bench.simulator.set_faults([FaultRule("slow", slow_ms=call_s * 1000, prompt="take your time")])
    await bench.worker(STRATAROUTER_EXECUTION_TIMEOUT=str(call_s + 60))
    async with Watch(bench.config) as watch:
        await produce(bench.config, [request("slow", "take your time", tenant="acme")])
        values = _requests(int((call_s - 5) * 100), tenant="acme")
        await produce(bench.config, values, rate_per_s=100)
        await watch.until(len(values), timeout_s=30)
        assert "slow" not in watch.seen.by_id
        await watch.until(len(values) + 1, timeout_s=call_s + 30)
        await watch.settle(1)
    bench.check(watch, len(values) + 1)
    assert len(bench.simulator.paid_calls) == len(values) + 1


@pytest.mark.row(34)
async def test_gaps_of_aborted_records_and_markers_hold_no_watermark_up(bench: Bench) -> None:
    worker = await bench.worker()
    config = bench.config
    topic = config.topic(config.requests_topic)
    producer = kafka_client.producer(config, transactional_id=f"{config.group_id}-client")
    await producer.start()
    async with Watch(config) as watch:
        for batch in range(20):
            await producer.begin_transaction()
            for value in _requests(10, name=f"b{batch}-"):
                await producer.send_and_wait(topic, value)
            await (producer.commit_transaction() if batch % 2 == 0 else producer.abort_transaction())
        await producer.stop()
        await watch.until(100, timeout_s=60)
        for processor, name in (("enrich", config.requests_topic), ("execute", config.executions_topic)):
            await until_caught_up(config, processor, config.topic(name))
        assert await worker.stop() == 0
        await bench.worker()
        await produce(config, _requests(20, name="after"))
        await watch.until(120, timeout_s=60)
        await watch.settle(1)
    bench.check(watch, 120)
    assert not any(name.startswith(f"b{batch}-") for name in watch.seen.by_id for batch in range(1, 20, 2))
    assert len(bench.simulator.paid_calls) == 120


@pytest.mark.row(38)
async def test_a_second_instance_with_the_same_transactional_ids_fences_the_first_lane(bench: Bench) -> None:
    worker = await bench.worker()
    config = bench.config
    topic = config.topic(config.executions_topic)
    other = [TransactionalPublisher(config, f"{config.group_id}-execute", TopicPartition(topic, p)) for p in range(4)]
    async with Watch(config) as watch:
        producing = asyncio.create_task(produce(config, _requests(600), rate_per_s=60))
        await watch.until(100, timeout_s=30)
        for publisher in other:
            await publisher.open()
        async with asyncio.timeout(30):
            while "lane fenced" not in worker.log.read_text():
                await watch.settle(0.2)
        for publisher in other:
            await publisher.close()
        await producing
        await watch.until(600, timeout_s=60)
        await watch.settle(2)
    bench.check(watch, 600)
    assert "lane reopened" in worker.log.read_text()
    assert len(bench.simulator.paid_calls) == 600


@pytest.fixture(scope="module")
def forgetful(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedStack]:
    """A broker that forgets transactional ids after seconds instead of a week."""
    settings = {
        "transactional.id.expiration.ms": "4000",
        "transaction.remove.expired.transaction.cleanup.interval.ms": "1000",
        "producer.id.expiration.ms": "4000",
        "producer.id.expiration.check.interval.ms": "1000",
    }
    stack = EmbeddedStack(tmp_path_factory.mktemp("forgetful"), postgres=False, broker_settings=settings)
    stack.start_sync()
    yield stack
    stack.stop_sync()


@pytest.mark.row(15)
async def test_a_transactional_id_that_the_broker_forgot_is_taken_anew(
    forgetful: EmbeddedStack, config: RuntimeConfig, simulator: Simulator, tmp_path: Path
) -> None:
    servers = forgetful.start_sync().bootstrap_servers
    config = config.model_copy(update={"bootstrap_servers": servers})
    await topics.apply(config, partitions=2)
    await migrate(config.database_url)
    bench = Bench(config, simulator, tmp_path)
    await bench.worker()
    async with Watch(config) as watch:
        await produce(config, _requests(50, name="before"))
        await watch.until(50, timeout_s=30)
        await until_forgotten(config, least=4)
        await produce(config, _requests(50, name="after"))
        await watch.until(100, timeout_s=60)
        await watch.settle(1)
    bench.check(watch, 100)
    await bench.end()
    assert len(simulator.paid_calls) == 100
