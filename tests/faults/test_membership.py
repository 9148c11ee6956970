"""Groups in motion: members that come and go, and workers that are replaced while their calls take long."""

from __future__ import annotations

import asyncio
import itertools

import pytest
from aiokafka.errors import KafkaError

from faults.conftest import Bench
from stratarouter_runtime.processors import kafka_client
from stratarouter_runtime.testing.simulator import FaultRule
from support.fleet import Watch, ambiguous_calls, produce, request

pytestmark = pytest.mark.stack


def _requests(count: int, name: str = "r") -> list[bytes | None]:
    return [request(f"{name}{n}", f"question {n} of order {n * 3}", tenant=f"t{n % 40}") for n in range(count)]


async def _churn(bench: Bench, seconds: float) -> int:
    """Members of both groups join and leave every half second; they take partitions and answer nothing."""
    config, joined = bench.config, 0
    topics = {"enrich": config.topic(config.requests_topic), "execute": config.topic(config.executions_topic)}
    deadline = asyncio.get_running_loop().time() + seconds
    for processor in itertools.cycle(topics):
        if asyncio.get_running_loop().time() >= deadline:
            return joined
        member = kafka_client.consumer(config, topics[processor], group=f"{config.group_id}-{processor}")
        starting = asyncio.create_task(member.start())
        await asyncio.sleep(0.5)
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        try:
            async with asyncio.timeout(10):
                await member.stop()
        except (KafkaError, TimeoutError):
            # A member that was cut off while joining; the group forgets it.
            continue
        finally:
            joined += 1
    return joined


@pytest.mark.row(9)
async def test_a_storm_of_rebalances_loses_and_repeats_nothing(bench: Bench) -> None:
    await asyncio.gather(bench.worker(), bench.worker())
    async with Watch(bench.config) as watch:
        producing = asyncio.create_task(produce(bench.config, _requests(1200), rate_per_s=80))
        await watch.until(100, timeout_s=30)
        churning = asyncio.create_task(_churn(bench, 10))
        third = await bench.worker()
        assert await third.stop() == 0
        assert await churning >= 5
        await producing
        await watch.until(1200, timeout_s=90)
        await watch.settle(2)
    bench.check(watch, 1200)
    assert len(bench.simulator.paid_calls) <= 1200 + await ambiguous_calls(bench.config)


@pytest.mark.row(10)
@pytest.mark.parametrize("call_s", [12, pytest.param(60, marks=pytest.mark.slow)])
async def test_a_worker_replaced_while_its_calls_take_long_pays_for_none_twice(bench: Bench, call_s: int) -> None:
    bench.simulator.set_faults([FaultRule("slow", slow_ms=call_s * 1000)])
    # Nobody dies here: one whose heartbeat a busy machine keeps back for long would be taken for dead, and repeated.
    settings = {"STRATAROUTER_EXECUTION_TIMEOUT": str(call_s + 20), "STRATAROUTER_HEARTBEAT_TTL_S": "30"}
    first = await bench.worker(**settings)
    async with Watch(bench.config) as watch:
        await produce(bench.config, _requests(60))
        async with asyncio.timeout(30):
            while bench.simulator.active < 60:
                await asyncio.sleep(0.05)
        await bench.worker(**settings)
        stopping = asyncio.create_task(first.stop(timeout_s=call_s + 60))
        await watch.until(60, timeout_s=call_s + 60)
        await watch.settle(2)
        assert await stopping == 0
    bench.check(watch, 60)
    assert len(bench.simulator.paid_calls) == 60


@pytest.mark.row(10)
async def test_a_worker_that_joins_while_calls_take_long_waits_for_their_results(bench: Bench) -> None:
    bench.simulator.set_faults([FaultRule("slow", slow_ms=10_000)])
    await bench.worker()
    async with Watch(bench.config) as watch:
        await produce(bench.config, _requests(60))
        async with asyncio.timeout(30):
            while bench.simulator.active < 60:
                await asyncio.sleep(0.05)
        await bench.worker()
        await watch.until(60, timeout_s=60)
        await watch.settle(2)
    bench.check(watch, 60)
    assert len(bench.simulator.paid_calls) == 60


@pytest.mark.row(39)
async def test_sigterm_ends_in_time_though_the_provider_never_answers(bench: Bench) -> None:
    bench.simulator.set_faults([FaultRule("hang")])
    worker = await bench.worker(STRATAROUTER_DRAIN_TIMEOUT_S="3")
    await produce(bench.config, _requests(20))
    async with asyncio.timeout(30):
        while len(bench.simulator.calls) < 20:
            await asyncio.sleep(0.05)
    began = asyncio.get_running_loop().time()
    assert await worker.stop(timeout_s=60) == 0
    assert asyncio.get_running_loop().time() - began < 30


async def test_a_named_worker_that_is_back_in_time_moves_no_partition_of_the_others(bench: Bench) -> None:
    settings = {"STRATAROUTER_SESSION_TIMEOUT_MS": "45000"}
    first = await bench.worker(**settings, STRATAROUTER_GROUP_INSTANCE_ID="worker-0")
    second = await bench.worker(**settings, STRATAROUTER_GROUP_INSTANCE_ID="worker-1")

    def lanes_taken() -> int:
        return second.log.read_text().count('"lane ready"')

    async with Watch(bench.config) as watch:
        producing = asyncio.create_task(produce(bench.config, _requests(900), rate_per_s=60))
        await watch.until(200, timeout_s=60)
        before = lanes_taken()
        assert before > 0
        assert await first.stop() == 0
        await first.start()
        await producing
        await watch.until(900, timeout_s=120)
        await watch.settle(2)
    assert lanes_taken() == before
    bench.check(watch, 900)
    assert len(bench.simulator.paid_calls) == 900


@pytest.mark.row(10)
async def test_a_rolling_update_of_named_workers_pays_for_no_call_twice(bench: Bench) -> None:
    """As ops/kubernetes does it: pods keep their names and are replaced one by one, with calls under way in all."""
    bench.simulator.set_faults([FaultRule("slow", slow_ms=3000)])
    settings = {"STRATAROUTER_SESSION_TIMEOUT_MS": "30000"}
    workers = [await bench.worker(**settings, STRATAROUTER_GROUP_INSTANCE_ID=f"execute-{n}") for n in range(3)]
    async with Watch(bench.config) as watch:
        producing = asyncio.create_task(produce(bench.config, _requests(600), rate_per_s=15))
        for worker in workers:
            await watch.settle(4)
            assert await worker.stop() == 0
            await worker.start()
        await producing
        await watch.until(600, timeout_s=180)
        await watch.settle(2)
    bench.check(watch, 600)
    assert len(bench.simulator.paid_calls) == 600
