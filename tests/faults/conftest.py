"""What every test of a fault begins with: a provider that logs its paid calls, topics, tables and worker processes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from stratarouter_runtime import topics
from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.journal.migrations import migrate
from stratarouter_runtime.testing.simulator import Simulator, SimulatorSettings
from support.fleet import PROGRAM, Watch, WorkerProcess, write_routes


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    """A provider that answers after 100 ms."""
    async with Simulator(SimulatorSettings(latency_ms=100)) as running:
        yield running


class Bench:
    """A prepared configuration and its workers, which are ended with the test."""

    def __init__(self, config: RuntimeConfig, simulator: Simulator, folder: Path) -> None:
        self.config = config
        self.simulator = simulator
        self.folder = folder
        self.workers: list[WorkerProcess] = []
        self.routes: Path | None = None

    def new_worker(self, *, program: Sequence[str] = PROGRAM, **extra: str) -> WorkerProcess:
        """One more worker, not started; ``extra`` are environment variables."""
        routes = self.routes
        if routes is None:
            routes = write_routes(self.folder / "routes.toml", self.simulator.base_url)
        log = self.folder / f"worker-{len(self.workers)}.log"
        worker = WorkerProcess(self.config, routes, log, extra, program=tuple(program))
        self.workers.append(worker)
        return worker

    async def worker(self, *, program: Sequence[str] = PROGRAM, **extra: str) -> WorkerProcess:
        """Start one more worker and wait until it is ready."""
        worker = self.new_worker(program=program, **extra)
        await worker.start()
        return worker

    async def end(self) -> None:
        """Stop whatever still runs."""
        for worker in self.workers:
            if worker.process is not None and worker.process.returncode is None:
                await worker.stop()

    def check(self, watch: Watch, requests: int) -> None:
        """One response each, and nothing else."""
        assert len(watch.seen.by_id) == requests
        assert sum(watch.seen.by_id.values()) == requests
        assert {response.status for response in watch.seen.responses} == {"ok"}
        assert watch.seen.dead_letters == []


ONE_PARTITION = pytest.mark.parametrize("bench", [1], indirect=True)
"""All that is asked is one lane's."""


@pytest.fixture
async def bench(
    request: pytest.FixtureRequest, config: RuntimeConfig, simulator: Simulator, tmp_path: Path
) -> AsyncIterator[Bench]:
    """Four partitions (or the parameter), tables, no worker yet."""
    await topics.apply(config, partitions=getattr(request, "param", 4))
    await migrate(config.database_url)
    prepared = Bench(config, simulator, tmp_path)
    yield prepared
    await prepared.end()
