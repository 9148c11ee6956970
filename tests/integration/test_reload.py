"""SIGHUP: the route table changes under load, and no request is lost to it."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from stratarouter_runtime import topics
from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.journal.migrations import migrate
from stratarouter_runtime.testing.simulator import Simulator, SimulatorSettings
from support.fleet import Watch, WorkerProcess, produce, request, write_routes

pytestmark = pytest.mark.stack


async def _reload(worker: WorkerProcess, said: str) -> None:
    assert worker.process is not None
    worker.process.send_signal(signal.SIGHUP)
    async with asyncio.timeout(15):
        while said not in worker.log.read_text():
            await asyncio.sleep(0.05)


async def test_a_changed_table_is_taken_up_under_load_and_a_wrong_one_is_not(
    config: RuntimeConfig, tmp_path: Path
) -> None:
    await topics.apply(config, partitions=2)
    await migrate(config.database_url)
    settings = SimulatorSettings(latency_ms=40)
    async with Simulator(settings) as old, Simulator(settings) as new, Watch(config) as watch:
        routes = write_routes(tmp_path / "routes.toml", old.base_url)
        worker = WorkerProcess(config, routes, tmp_path / "worker.log")
        await worker.start()
        values = [request(f"r{n}", f"thing {n} costs {n}") for n in range(600)]
        # The last of them once the table is taken up, however long that took.
        producing = asyncio.create_task(produce(config, values[:450], rate_per_s=150))
        await watch.until(150, timeout_s=30)
        routes.write_text("[routes\n")
        await _reload(worker, "route table not reloaded")
        text = write_routes(routes, new.base_url).read_text()
        routes.write_text(text + '\n[routes.fresh]\ntargets = [{ provider = "openai", model = "gpt-4o" }]\n')
        await _reload(worker, "route table reloaded")
        await produce(config, values[450:], rate_per_s=150)
        await producing
        await produce(config, [request("fresh", "who answers 77?", route="fresh")])
        seen = await watch.until(601, timeout_s=60)
        assert await worker.stop() == 0
    assert sum(seen.by_id.values()) == len(seen.by_id) == 601
    assert {response.status for response in seen.responses} == {"ok"}
    assert len(old.paid_calls) + len(new.paid_calls) == 601
    assert len(old.paid_calls) > 100
    assert len(new.paid_calls) > 100
