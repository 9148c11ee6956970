"""Three brokers, two of which must hold each record: one goes, then two. The servers are this module's own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager

import httpx
import pytest
from aiokafka.admin import AIOKafkaAdminClient

from faults.conftest import Bench
from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.embedded import EmbeddedStack, StackAddresses
from stratarouter_runtime.processors import kafka_client
from support.fleet import Watch, WorkerProcess, ambiguous_calls, produce, request

pytestmark = pytest.mark.stack

RECOVERY_S = 60.0
"""Within this a request that was made after a broker went must be answered, with the broker still away."""
GROUP_COORDINATOR, TRANSACTION_COORDINATOR = 0, 1
"""What FindCoordinator may be asked for."""


@pytest.fixture(scope="module")
def three_brokers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedStack]:
    """Three brokers, a PostgreSQL and a Redis."""
    embedded = EmbeddedStack(tmp_path_factory.mktemp("three-brokers"), redis=True, kafka_brokers=3)
    embedded.start_sync()
    yield embedded
    embedded.stop_sync()


@pytest.fixture
async def addresses(three_brokers: EmbeddedStack) -> StackAddresses:
    """Takes the place of the run's one stack; brokers that an earlier test left dead are started first."""
    await three_brokers.kafka.start()
    return three_brokers.start_sync()


def _requests(first: int, count: int) -> list[bytes | None]:
    numbers = range(first, first + count)
    return [request(f"r{n}", f"question {n} of order {n * 3}", tenant=f"t{n % 40}") for n in numbers]


# -- which broker does what ------------------------------------------------------------------------------------------


@asynccontextmanager
async def _admin(config: RuntimeConfig) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = kafka_client.admin(config)
    await admin.start()
    try:
        yield admin
    finally:
        await admin.close()


async def _group_coordinator(config: RuntimeConfig) -> int:
    """The broker that coordinates the execute group."""
    async with _admin(config) as admin:
        return int(await admin.find_coordinator(f"{config.group_id}-execute", GROUP_COORDINATOR))


async def _transaction_coordinator(config: RuntimeConfig) -> int:
    """The broker that coordinates the transactions of the first execute lane."""
    name = f"{config.group_id}-execute.{config.topic(config.executions_topic)}.0"
    async with _admin(config) as admin:
        return int(await admin.find_coordinator(name, TRANSACTION_COORDINATOR))


async def _partition_leader(config: RuntimeConfig) -> int:
    """The leader of a partition of the executions, one that coordinates nothing above where there is such a one."""
    others = {await _group_coordinator(config), await _transaction_coordinator(config)}
    async with _admin(config) as admin:
        [topic] = await admin.describe_topics([config.topic(config.executions_topic)])
    leaders = sorted({int(partition["leader"]) for partition in topic["partitions"]})
    return min(leaders, key=lambda leader: (leader in others, leader))


# -- one broker of three ---------------------------------------------------------------------------------------------

FindBroker = Callable[[RuntimeConfig], Awaitable[int]]


async def _answered(watch: Watch, first: int, last: int, timeout_s: float) -> float:
    """Seconds until every request from ``first`` to before ``last`` has its response."""
    began = time.monotonic()
    wanted = {f"r{n}" for n in range(first, last)}
    while missing := wanted - set(watch.seen.by_id):
        assert time.monotonic() - began < timeout_s, f"{len(missing)} of {len(wanted)} not answered in {timeout_s} s"
        await watch.poll()
    return time.monotonic() - began


ROLES = {
    "group coordinator": _group_coordinator,
    "transaction coordinator": _transaction_coordinator,
    "partition leader": _partition_leader,
}


def _each_way() -> Iterator[object]:
    for role, find in ROLES.items():
        for clean in (False, True):
            quick = role == "group coordinator" and not clean
            name = f"{role} {'stopped' if clean else 'killed'}"
            yield pytest.param(find, clean, id=name, marks=() if quick else pytest.mark.slow)


@pytest.mark.row(11)
@pytest.mark.parametrize(("find", "clean"), list(_each_way()))
async def test_a_broker_of_three_goes_under_load_and_all_is_answered_without_it(
    bench: Bench, three_brokers: EmbeddedStack, find: FindBroker, clean: bool
) -> None:
    kafka = three_brokers.kafka
    await bench.worker()
    async with Watch(bench.config) as watch:
        await produce(bench.config, _requests(0, 100))
        await _answered(watch, 0, 100, RECOVERY_S)
        # 1. It goes while requests come in.
        broker = await find(bench.config)
        producing = asyncio.create_task(produce(bench.config, _requests(100, 400), rate_per_s=100))
        await watch.settle(1)
        if clean:
            await kafka.stop(broker)
        else:
            kafka.kill(broker)
        assert len(kafka.pids) == 2
        # 2. What was under way and what comes now is answered by the other two.
        began = time.monotonic()
        await producing
        await produce(bench.config, _requests(500, 100))
        await _answered(watch, 100, 600, RECOVERY_S - (time.monotonic() - began))
        # 3. It comes back while requests come in.
        producing = asyncio.create_task(produce(bench.config, _requests(600, 300), rate_per_s=100))
        await kafka.start(broker)
        await producing
        await _answered(watch, 600, 900, RECOVERY_S)
        await watch.settle(2)
    bench.check(watch, 900)
    assert 900 <= len(bench.simulator.paid_calls) <= 900 + await ambiguous_calls(bench.config)


# -- two brokers of three --------------------------------------------------------------------------------------------


async def _readiness(worker: WorkerProcess) -> tuple[int, str]:
    async with httpx.AsyncClient(timeout=30) as client:
        reply = await client.get(f"http://127.0.0.1:{worker.port}/readyz")
    return reply.status_code, reply.text


async def _says_why_it_is_not_ready(watch: Watch, worker: WorkerProcess, timeout_s: float) -> str:
    began = time.monotonic()
    while True:
        status, text = await _readiness(worker)
        if status == httpx.codes.SERVICE_UNAVAILABLE:
            return text
        assert time.monotonic() - began < timeout_s, f"still ready after {timeout_s} s: {text}"
        await watch.settle(1)


@pytest.mark.slow
@pytest.mark.row(12)
async def test_below_the_least_in_sync_replicas_a_worker_stalls_and_says_so_and_loses_nothing(
    bench: Bench, three_brokers: EmbeddedStack
) -> None:
    kafka = three_brokers.kafka
    # Few calls at once, so that most of the requests are still to be answered when the brokers go.
    worker = await bench.worker(STRATAROUTER_PROVIDER_CONCURRENCY="10")
    async with Watch(bench.config) as watch:
        await produce(bench.config, _requests(0, 1500))
        await watch.until(200, timeout_s=60)
        busy = {await _group_coordinator(bench.config), await _partition_leader(bench.config)}
        kept = min({1, 2, 3} - busy)
        gone = sorted({1, 2, 3} - {kept})
        for number in gone:
            kafka.kill(number)
        # 1. It says so.
        reason = await _says_why_it_is_not_ready(watch, worker, timeout_s=60)
        assert "lane" in reason or "brokers do not answer" in reason
        # 2. It stalls, and lives.
        stalled = len((await watch.settle(3)).responses)
        assert stalled < 1500
        assert len((await watch.settle(5)).responses) == stalled
        assert worker.process is not None
        assert worker.process.returncode is None
        # 3. It goes on by itself.
        await asyncio.gather(*(kafka.start(number) for number in gone))
        await worker.wait_ready(timeout_s=90)
        await _answered(watch, 0, 1500, 120)
        await watch.settle(2)
    bench.check(watch, 1500)
    assert 1500 <= len(bench.simulator.paid_calls) <= 1500 + await ambiguous_calls(bench.config)
