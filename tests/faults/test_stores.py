"""PostgreSQL and Redis in trouble under load: nothing unjournaled is paid for, no answer is wrong, all goes on."""

from __future__ import annotations

import asyncio
import faulthandler
import random
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from redis.asyncio import Redis

from faults.conftest import Bench
from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.records import Response
from stratarouter_runtime.testing.simulator_endpoints import expected_answer
from support import pg_faults
from support.containers import Stack
from support.fleet import Watch, WorkerProcess, produce, request
from support.pg_faults import Trouble

pytestmark = pytest.mark.stack

MODEL = "gpt-4o-mini"
MAX_IN_FLIGHT = 200
"""Of the workers here: small, so that intake has to pause within a second or two of trouble."""
MAX_GROWTH_BYTES = 64 * 1024 * 1024
"""Of a worker's memory while it waits for a store; it holds 200 requests of less than a kilobyte."""
PAUSED = "stratarouter_intake_paused_total"
IN_FLIGHT = "stratarouter_in_flight"
BYPASSED = "stratarouter_cache_bypass_total"


def _requests(count: int, first: int = 0) -> list[bytes | None]:
    numbers = range(first, first + count)
    return [request(f"r{n}", f"question {n} of order {n * 3}", tenant=f"t{n % 40}") for n in numbers]


async def _metric(worker: WorkerProcess, name: str, **labels: str) -> float:
    """The sum of the samples of ``name`` that have ``labels``, as the worker serves them."""
    async with httpx.AsyncClient(timeout=30) as client:
        page = await client.get(f"http://127.0.0.1:{worker.port}/metrics")
    samples = [sample for family in text_string_to_metric_families(page.text) for sample in family.samples]
    return sum(s.value for s in samples if s.name == name and labels.items() <= s.labels.items())


def _resident_bytes(worker: WorkerProcess) -> int:
    assert worker.process is not None
    status = Path(f"/proc/{worker.process.pid}/status").read_text()
    [line] = [line for line in status.splitlines() if line.startswith("VmRSS:")]
    return int(line.split()[1]) * 1024


# -- PostgreSQL killed and restarted ---------------------------------------------------------------------------------


async def _load(bench: Bench, rate_per_s: int, enough: asyncio.Event) -> int:
    """Requests second by second until there are ``enough``; how many."""
    sent = 0
    while not enough.is_set():
        await produce(bench.config, _requests(rate_per_s, first=sent), rate_per_s=rate_per_s)
        sent += rate_per_s
    return sent


async def _survives_restarts(bench: Bench, stack: Stack, gaps_s: Sequence[float], rate_per_s: int) -> None:
    """Kill PostgreSQL after each gap and start it at once, while two workers are under load."""
    await asyncio.gather(bench.worker(), bench.worker())
    enough = asyncio.Event()
    async with Watch(bench.config) as watch:
        producing = asyncio.create_task(_load(bench, rate_per_s, enough))
        for gap_s in gaps_s:
            await watch.settle(gap_s)
            stack.postgres.kill()
            await stack.postgres.start()
        await watch.settle(1)
        enough.set()
        requests = await producing
        await watch.until(requests, timeout_s=90)
        await watch.settle(2)
    bench.check(watch, requests)
    # No worker died: each was silent only because the database was, so nobody may pay for another's call again.
    assert set(bench.simulator.paid_by_request_id.values()) == {1}
    assert len(bench.simulator.paid_calls) == requests


@pytest.mark.row(21)
async def test_a_database_restarted_every_5_s_makes_no_worker_pay_for_anothers_call(bench: Bench, stack: Stack) -> None:
    await _survives_restarts(bench, stack, [5.0, 5.0, 5.0], rate_per_s=100)


@pytest.mark.slow
@pytest.mark.row(21)
async def test_a_database_restarted_at_random_makes_no_worker_pay_for_anothers_call(bench: Bench, stack: Stack) -> None:
    # Longer than the run's bound for a test that hangs; every wait in here has its own.
    faulthandler.cancel_dump_traceback_later()
    chance = random.Random(21)
    await _survives_restarts(bench, stack, [chance.uniform(5, 40) for _ in range(8)], rate_per_s=50)


# -- PostgreSQL full, exhausted, locked, slow ------------------------------------------------------------------------


async def _until_paused(watch: Watch, worker: WorkerProcess, before: float) -> None:
    async with asyncio.timeout(60):
        while await _metric(worker, PAUSED) <= before:
            await watch.settle(0.2)


async def _stays_bounded(watch: Watch, worker: WorkerProcess, resident: int, seconds: float) -> None:
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        await watch.settle(0.5)
        assert await _metric(worker, IN_FLIGHT, processor="execute") <= MAX_IN_FLIGHT
        assert _resident_bytes(worker) - resident <= MAX_GROWTH_BYTES


async def _goes_through(
    bench: Bench,
    trouble: Trouble,
    *,
    cause: str | None = None,
    stops_calls: bool = True,
    held_s: float = 4.0,
    workers: int = 1,
    requests: int = 1500,
    **extra: str,
) -> None:
    """Load at 150/s, with the database in ``trouble`` until intake has paused and ``held_s`` seconds more.

    Args:
        bench: the bench.
        trouble: begins and ends it.
        cause: what a worker's log calls it; None where nothing fails.
        stops_calls: no call can be permitted meanwhile, so none may be made.
        held_s: seconds.
        workers: how many share the load.
        requests: how many; load goes on for longer than the trouble.
        extra: the workers' environment.
    """
    fleet = [await bench.worker(STRATAROUTER_MAX_IN_FLIGHT=str(MAX_IN_FLIGHT), **extra) for _ in range(workers)]
    worker = fleet[0]
    async with Watch(bench.config) as watch:
        producing = asyncio.create_task(produce(bench.config, _requests(requests), rate_per_s=150))
        await watch.until(200, timeout_s=60)
        paused, resident = await _metric(worker, PAUSED), _resident_bytes(worker)
        async with trouble():
            # 1. Intake pauses by itself.
            async with asyncio.timeout(60):
                while await _metric(worker, PAUSED) <= paused:
                    await watch.settle(0.2)
            # 2. What is held stays bounded; calls permitted before the trouble have ended after half of it.
            await _stays_bounded(watch, worker, resident, held_s / 2)
            calls = len(bench.simulator.calls)
            await _stays_bounded(watch, worker, resident, held_s / 2)
            if stops_calls:
                # 3. No call without the journal's permission.
                assert len(bench.simulator.calls) == calls
            assert cause is None or any(cause in each.log.read_text() for each in fleet)
        # 4. It goes on by itself.
        await producing
        await watch.until(requests, timeout_s=120)
        await watch.settle(1)
    bench.check(watch, requests)
    assert set(bench.simulator.paid_by_request_id.values()) == {1}
    assert len(bench.simulator.paid_calls) == requests


@pytest.mark.row(22)
async def test_a_database_that_refuses_rows_for_want_of_disk_pauses_intake_until_there_is_room(bench: Bench) -> None:
    url = bench.config.database_url
    await _goes_through(bench, partial(pg_faults.disk_full, url), cause="DiskFullError")


@pytest.mark.row(22)
async def test_a_journal_on_a_disk_that_is_full_pauses_intake_until_there_is_room(bench: Bench) -> None:
    async with pg_faults.small_disk(bench.config.database_url) as full:
        # Pages that were begun take rows for a while yet.
        await _goes_through(bench, full, cause="DiskFullError", stops_calls=False)


@pytest.mark.row(22)
async def test_a_database_that_gives_no_connection_pauses_intake_until_it_does(bench: Bench) -> None:
    url = bench.config.database_url
    async with pg_faults.plain_role(url) as plain:
        exhausted = partial(pg_faults.no_connections, url)
        await _goes_through(bench, exhausted, cause="TooManyConnectionsError", DATABASE_URL=plain)


@pytest.mark.slow
@pytest.mark.row(22)
async def test_a_journal_that_another_session_locks_makes_no_worker_pay_for_anothers_call(bench: Bench) -> None:
    url = bench.config.database_url
    # Longer than a statement may take, and than a worker may be silent: every connection of both waits for the lock.
    await _goes_through(
        bench, partial(pg_faults.locked, url), cause="TimeoutError", held_s=15, workers=2, requests=3000
    )


@pytest.mark.row(22)
async def test_a_database_that_takes_a_second_for_each_write_bounds_what_is_held(bench: Bench) -> None:
    url = bench.config.database_url
    await _goes_through(bench, partial(pg_faults.slow_writes, url, 1.0), stops_calls=False, held_s=6)


# -- Redis -----------------------------------------------------------------------------------------------------------

QUESTIONS = 40


class Desk:
    """Asks the same questions again and again under new request ids, and checks each answer's words."""

    def __init__(self, bench: Bench, watch: Watch) -> None:
        self.tenant = f"redis-{uuid.uuid4().hex[:12]}"
        self._bench = bench
        self._watch = watch
        self._rounds = 0
        chance = random.Random(23)
        # A vector each, so that entries are kept for finding by likeness too; no two are alike.
        self._vectors = [[chance.gauss(0, 1) for _ in range(64)] for _ in range(QUESTIONS)]

    def _question(self, number: int) -> str:
        return f"what became of parcel {number} on street {number * 7}?"

    async def ask(self) -> list[Response]:
        """Every question once; the answers, each the right one."""
        self._rounds += 1
        numbers = {f"{self.tenant}-{self._rounds}-{n}": n for n in range(QUESTIONS)}
        values = [
            request(own, self._question(n), tenant=self.tenant, embedding=self._vectors[n])
            for own, n in numbers.items()
        ]
        await produce(self._bench.config, values)
        seen = await self._watch.until(QUESTIONS * self._rounds, timeout_s=60)
        answers = [response for response in seen.responses if response.request_id in numbers]
        assert Counter(response.request_id for response in answers) == Counter(list(numbers))
        for response in answers:
            question = self._question(numbers[response.request_id])
            assert response.text == expected_answer(MODEL, [{"role": "user", "content": question}])
        assert seen.dead_letters == []
        return answers


def _kinds(answers: Sequence[Response]) -> Counter[str]:
    return Counter(response.cache.kind for response in answers)


@asynccontextmanager
async def _client(url: str) -> AsyncIterator[Redis]:
    client = Redis.from_url(url, socket_timeout=30)
    try:
        yield client
    finally:
        await client.aclose()


async def _until_hits(desk: Desk) -> None:
    """Ask until the cache answers again."""
    async with asyncio.timeout(60):
        while _kinds(await desk.ask())["exact"] < QUESTIONS:
            await asyncio.sleep(0.2)


def _redis_worker(bench: Bench) -> dict[str, str]:
    default_ms = RuntimeConfig.model_fields["cache_timeout_ms"].default
    return {
        "STRATAROUTER_CACHE_BACKEND": "redis",
        "STRATAROUTER_CACHE_TIMEOUT_MS": str(default_ms),
        "REDIS_URL": bench.config.redis_url,
    }


@pytest.mark.row(23)
async def test_a_redis_that_is_killed_is_bypassed_and_counted_until_it_is_back(bench: Bench, stack: Stack) -> None:
    worker = await bench.worker(**_redis_worker(bench))
    async with Watch(bench.config) as watch:
        desk = Desk(bench, watch)
        await _until_hits(desk)
        # A busy machine may have passed it by before: a round trip has 150 ms.
        before = await _metric(worker, BYPASSED)
        stack.redis.kill()
        try:
            assert _kinds(await desk.ask()) == {"bypass": QUESTIONS}
            assert await _metric(worker, BYPASSED) >= before + QUESTIONS
        finally:
            await stack.redis.start()
        await _until_hits(desk)
    assert set(bench.simulator.paid_by_request_id.values()) == {1}


@pytest.mark.row(23)
async def test_a_redis_that_does_not_answer_is_bypassed_and_counted_until_it_does(bench: Bench, redis_url: str) -> None:
    worker = await bench.worker(**_redis_worker(bench))
    async with Watch(bench.config) as watch, _client(redis_url) as redis:
        desk = Desk(bench, watch)
        await _until_hits(desk)
        await redis.client_pause(10_000, all=True)
        # What the worker fetched before it may serve until it misses a sign of life.
        async with asyncio.timeout(8):
            while not _kinds(await desk.ask())["bypass"]:
                await asyncio.sleep(0.1)
        assert await _metric(worker, BYPASSED) > 0
        await _until_hits(desk)
    assert set(bench.simulator.paid_by_request_id.values()) == {1}


GARBAGE = (b"", b"\xff\xfe\x00", b"null", b"[]", b'{"v": 1}', b'{"v": 99, "answer": {"text": "wrong"}}', b"[" * 10_000)


async def _spoil(redis: Redis, tenant: str) -> int:
    """Overwrite every key of ``tenant``'s entries with something else: garbage of each kind, halves, the values of
    other entries, keys of another type. Returns how many.
    """
    names = [name async for name in redis.scan_iter(match="stratarouter:cache:*:answer", count=1000)]
    values = dict(zip(names, await redis.mget(names), strict=True))
    own = [name for name in names if values[name] is not None and tenant.encode() in values[name]]
    for index, name in enumerate(own):
        vector = name.removesuffix(b":answer") + b":vector"
        kinds = [*GARBAGE, values[name][: len(values[name]) // 2], values[own[index - 1]], None]
        for key in (name, vector):
            kind = kinds[index % len(kinds)]
            await redis.delete(key)
            await (redis.rpush(key, "of another type") if kind is None else redis.set(key, kind))
    return len(own)


@pytest.mark.row(23)
async def test_garbage_under_the_caches_keys_is_counted_and_never_served(bench: Bench, redis_url: str) -> None:
    # What is late is bypassed for that: here it is garbage alone that is counted, however slow the machine.
    patient = {**_redis_worker(bench), "STRATAROUTER_CACHE_TIMEOUT_MS": "5000"}
    first = await bench.worker(**patient)
    async with Watch(bench.config) as watch, _client(redis_url) as redis:
        desk = Desk(bench, watch)
        await _until_hits(desk)
        # 1. Under a worker that knows the entries.
        assert await _spoil(redis, desk.tenant) == QUESTIONS
        assert _kinds(await desk.ask())["exact"] == 0
        assert await _metric(first, BYPASSED, reason="garbage") == QUESTIONS
        await _until_hits(desk)
        assert await first.stop() == 0
        # 2. Under one that begins by reading them.
        assert await _spoil(redis, desk.tenant) == QUESTIONS
        await bench.worker(**patient)
        assert _kinds(await desk.ask())["exact"] == 0
        await _until_hits(desk)
    assert set(bench.simulator.paid_by_request_id.values()) == {1}
