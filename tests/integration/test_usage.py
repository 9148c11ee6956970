"""Under load, with workers and the usage process killed in the middle, the accounts agree with the journal exactly."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from stratarouter_runtime import topics
from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.journal.migrations import migrate
from stratarouter_runtime.journal.usage import UsageAccounts
from stratarouter_runtime.processors.tail import Tail
from stratarouter_runtime.records import Response
from stratarouter_runtime.testing.simulator import Simulator, SimulatorSettings
from stratarouter_runtime.usage_deltas import UsageRecord, decode_usage, nano
from support.fleet import Seen, Watch, WorkerProcess, produce, request, write_routes

pytestmark = pytest.mark.stack

DAY_S = 86_400


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    """A provider that answers after 50 ms."""
    async with Simulator(SimulatorSettings(latency_ms=50)) as running:
        yield running


@pytest.fixture
async def ready_config(config: RuntimeConfig) -> RuntimeConfig:
    """Topics and tables are there."""
    await topics.apply(config, partitions=4)
    await migrate(config.database_url)
    return config


def _worker(
    config: RuntimeConfig, simulator: Simulator, folder: Path, number: int, processors: str = "enrich,execute"
) -> WorkerProcess:
    routes = write_routes(folder / "routes.toml", simulator.base_url)
    return WorkerProcess(config, routes, folder / f"worker-{number}.log", processors=processors)


def _load(count: int) -> list[bytes]:
    """Requests of three tenants; every third repeats the words of an earlier one."""
    return [
        request(
            f"r{n}",
            f"question {n - 2 if n % 3 == 2 else n} about order {7 * (n - 2 if n % 3 == 2 else n)}",
            tenant=f"t{n // 3 % 3}",
            route=("support", "billing")[n // 3 % 2],
        )
        for n in range(count)
    ]


def _kind(response: Response) -> str:
    if response.cache.kind in {"exact", "semantic"}:
        return response.cache.kind
    return "coalesced" if response.saved_usd else "paid"


def _expected(responses: list[Response]) -> dict[str, Counter[str]]:
    """What the responses that a client saw add up to, by tenant."""
    found: dict[str, Counter[str]] = {}
    for response in responses:
        sums, kind = found.setdefault(response.tenant, Counter()), _kind(response)
        sums[kind] += 1
        sums[f"{kind}_nano"] += nano(response.cost_usd if kind == "paid" else response.saved_usd) or 0
    return found


KINDS = tuple(f"{kind}{end}" for kind in ("paid", "exact", "semantic", "coalesced") for end in ("", "_nano"))


async def _counted(config: RuntimeConfig, requests: int, timeout_s: float = 120.0) -> dict[str, Counter[str]]:
    """The day's windows by tenant, once they hold ``requests`` or the time is up."""
    accounts = UsageAccounts(config.database_url)
    await accounts.start()
    try:
        deadline = time.monotonic() + timeout_s
        while True:
            rows = await accounts.report(DAY_S, 0, 2**40, ["tenant"])
            sums: dict[str, Counter[str]] = {}
            for row in rows:
                numbers = {name: value for name, value in row.items() if name not in {"start", "tenant"}}
                sums.setdefault(row["tenant"], Counter()).update(numbers)
            if sum(tenant["requests"] for tenant in sums.values()) >= requests or time.monotonic() > deadline:
                return sums
            await asyncio.sleep(0.2)
    finally:
        await accounts.stop()


def _same(windows: dict[str, Counter[str]], seen: Seen) -> None:
    expected = _expected(seen.responses)
    assert {tenant: {name: sums[name] for name in KINDS} for tenant, sums in windows.items()} == {
        tenant: {name: sums[name] for name in KINDS} for tenant, sums in expected.items()
    }


async def _published(config: RuntimeConfig, wanted: int, timeout_s: float = 60.0) -> dict[bytes, UsageRecord]:
    """The latest record of each key on the usage topic, once its days hold ``wanted`` requests."""
    latest: dict[bytes, UsageRecord] = {}
    deadline = time.monotonic() + timeout_s
    async with Tail(config, config.topic(config.usage_topic), from_beginning=True) as tail:
        while time.monotonic() < deadline:
            latest |= {record.key or b"": decode_usage(record.value) for record in await tail.poll(0.2)}
            days = [record for record in latest.values() if record.window_s == DAY_S]
            if sum(record.sums["requests"] for record in days) >= wanted:
                break
    return latest


async def test_windows_journal_and_responses_agree_although_workers_and_the_usage_process_are_killed(
    ready_config: RuntimeConfig, simulator: Simulator, tmp_path: Path
) -> None:
    config, count = ready_config, 1500
    workers = [_worker(config, simulator, tmp_path, number) for number in range(2)]
    usage = _worker(config, simulator, tmp_path, 9, "usage")
    await asyncio.gather(*(worker.start() for worker in (*workers, usage)))
    async with Watch(config) as watch:
        producing = asyncio.create_task(produce(config, _load(count), rate_per_s=200))
        await watch.until(count // 4, timeout_s=60)
        workers[0].kill()
        usage.kill()
        workers[0] = _worker(config, simulator, tmp_path, 2)
        usage = _worker(config, simulator, tmp_path, 10, "usage")
        await asyncio.gather(workers[0].start(ready=False), usage.start(ready=False))
        await watch.until(count // 2, timeout_s=60)
        workers[1].kill()
        workers[1] = _worker(config, simulator, tmp_path, 3)
        await workers[1].start(ready=False)
        await producing
        await watch.until(count, timeout_s=120)
        seen = await watch.settle(1)
    assert sum(seen.by_id.values()) == len(seen.by_id) == count
    windows = await _counted(config, count)
    latest = await _published(config, count)
    assert [await worker.stop() for worker in (*workers, usage)] == [0, 0, 0]
    _same(windows, seen)
    days = [record for record in latest.values() if record.window_s == DAY_S]
    assert sum(record.sums["requests"] for record in days) == count
    assert sum(record.sums["paid_nano"] for record in days) == sum(sums["paid_nano"] for sums in windows.values())
