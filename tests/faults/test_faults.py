"""Things that die in mid-flight, on real servers; every count of calls is the provider's own."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest
from aiokafka import TopicPartition
from aiokafka.structs import OffsetAndMetadata

from faults.conftest import Bench
from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.processors import kafka_client
from stratarouter_runtime.testing.simulator import FaultRule
from support.containers import Stack
from support.fleet import Watch, ambiguous_calls, produce, request

pytestmark = pytest.mark.stack


def _requests(count: int) -> list[bytes | None]:
    return [request(f"r{n}", f"question {n} of order {n * 3}", tenant=f"t{n % 40}") for n in range(count)]


@pytest.mark.row(7)
async def test_a_worker_frozen_past_its_session_is_fenced_and_repeats_nothing(bench: Bench) -> None:
    first, _ = await bench.worker(), await bench.worker()
    assert first.process is not None
    async with Watch(bench.config) as watch:
        producing = asyncio.create_task(produce(bench.config, _requests(1500), rate_per_s=150))
        await watch.until(200, timeout_s=30)
        os.kill(first.process.pid, signal.SIGSTOP)
        await watch.settle(9)
        os.kill(first.process.pid, signal.SIGCONT)
        await producing
        await watch.until(1500, timeout_s=60)
        await watch.settle(2)
    bench.check(watch, 1500)
    assert len(bench.simulator.paid_calls) <= 1500 + await ambiguous_calls(bench.config)


@pytest.mark.row(11)
async def test_a_broker_killed_under_load_loses_and_repeats_nothing(bench: Bench, stack: Stack) -> None:
    await bench.worker()
    async with Watch(bench.config) as watch:
        producing = asyncio.create_task(produce(bench.config, _requests(800), rate_per_s=100))
        await watch.until(200, timeout_s=30)
        stack.kafka.kill()
        await asyncio.sleep(1)
        await stack.kafka.start()
        await producing
        await watch.until(800, timeout_s=90)
        await watch.settle(2)
    bench.check(watch, 800)
    assert len(bench.simulator.paid_calls) == 800 + await ambiguous_calls(bench.config)


@pytest.mark.row(21)
async def test_a_database_killed_under_load_starts_no_unjournaled_call(bench: Bench, stack: Stack) -> None:
    await bench.worker()
    async with Watch(bench.config) as watch:
        producing = asyncio.create_task(produce(bench.config, _requests(800), rate_per_s=100))
        await watch.until(200, timeout_s=30)
        stack.postgres.kill()
        await asyncio.sleep(2)
        await stack.postgres.start()
        await producing
        await watch.until(800, timeout_s=90)
        await watch.settle(1)
    bench.check(watch, 800)
    assert len(bench.simulator.paid_calls) == 800


@pytest.mark.row(2, 3)
@pytest.mark.parametrize("policy", ["retry", "fail"])
async def test_a_kill_between_the_call_and_its_record_follows_the_ambiguity_policy(bench: Bench, policy: str) -> None:
    bench.simulator.set_faults([FaultRule("slow", slow_ms=2500)])
    worker = await bench.worker(STRATAROUTER_ON_AMBIGUOUS=policy)
    async with Watch(bench.config) as watch:
        await produce(bench.config, [request("slow", "take your time")])
        async with asyncio.timeout(20):
            while not bench.simulator.active:
                await asyncio.sleep(0.02)
        worker.kill()
        await bench.worker(STRATAROUTER_ON_AMBIGUOUS=policy)
        await watch.until(1, timeout_s=30)
        seen = await watch.settle(1)
    [response] = seen.responses
    assert len(bench.simulator.paid_calls) == (2 if policy == "retry" else 1)
    if policy == "fail":
        assert response.error is not None
        assert response.error.code == "ambiguous"
    else:
        assert response.status == "ok"


async def _commit(config: RuntimeConfig, offset: int, metadata: str, *partitions: int) -> None:
    """Write the execute group's offsets, as a tool would while the group is stopped."""
    group = f"{config.group_id}-execute"
    topic = config.topic(config.executions_topic)
    consumer = kafka_client.consumer(config, group=group)
    places = [TopicPartition(topic, partition) for partition in partitions]
    consumer.assign(places)
    await consumer.start()
    await consumer.commit({place: OffsetAndMetadata(offset, metadata) for place in places})
    await consumer.stop()


@pytest.mark.row(18)
async def test_offsets_reset_by_an_operator_replay_answers_without_a_call(bench: Bench) -> None:
    worker = await bench.worker()
    async with Watch(bench.config) as watch:
        await produce(bench.config, _requests(100))
        await watch.until(100, timeout_s=30)
        assert await worker.stop() == 0
        await _commit(bench.config, 0, "", 0, 1, 2, 3)
        await bench.worker()
        await watch.until(200, timeout_s=30)
        seen = await watch.settle(1)
    assert set(seen.by_id.values()) == {2}
    assert all(response.from_journal for response in seen.responses[100:])
    assert len(bench.simulator.paid_calls) == 100


@pytest.mark.row(17)
async def test_foreign_metadata_halts_its_lane_alone_and_says_how_to_mend_it(bench: Bench) -> None:
    await _commit(bench.config, 0, "written by another program", 0)
    worker = bench.new_worker()
    await worker.start(ready=False)
    async with Watch(bench.config) as watch:
        await produce(bench.config, _requests(200))
        await watch.until(1, timeout_s=60)
        seen = await watch.settle(5)
    log = worker.log.read_text()
    assert 0 < len(seen.by_id) < 200
    assert "lane halted" in log
    assert "reset-offsets" in log
    with pytest.raises(AssertionError, match="halted"):
        await worker.wait_ready(timeout_s=1)


async def test_a_worker_that_starts_before_its_servers_waits_for_them_and_can_be_stopped_meanwhile(
    bench: Bench, stack: Stack
) -> None:
    stack.kafka.kill()
    stack.postgres.kill()
    patient, stopped = bench.new_worker(), bench.new_worker()
    await asyncio.gather(patient.start(ready=False), stopped.start(ready=False))
    for worker in (patient, stopped):
        async with asyncio.timeout(30):
            while "waiting to start" not in worker.log.read_text():
                await asyncio.sleep(0.1)
    with pytest.raises(AssertionError, match="journal"):
        await patient.wait_ready(timeout_s=1)
    assert await stopped.stop(timeout_s=10) == 0
    await asyncio.gather(stack.postgres.start(), stack.kafka.start())
    await patient.wait_ready()
    async with Watch(bench.config) as watch:
        await produce(bench.config, _requests(20))
        await watch.until(20, timeout_s=30)
    bench.check(watch, 20)
