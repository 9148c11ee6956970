"""Workers and usage processes under a load, killed at set shares of it, together with the broker and the database."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import count, cycle, islice
from pathlib import Path

import orjson
from aiokafka import AIOKafkaProducer

from chaos.load import records
from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.embedded import EmbeddedStack
from stratarouter_runtime.errors import BrokerError
from stratarouter_runtime.processors import kafka_client
from stratarouter_runtime.processors.tail import Tail
from support.fleet import WorkerProcess

FAULTS = ("worker", "usage process", "postgres", "usage worker", "broker", "other worker")
"""Who is killed, in turns. The first worker keeps a usage process of its own, the third runs nothing else."""
PROCESSORS = ("enrich,execute,usage", "enrich,execute", "usage")
AWAY_S = 1.0
SEND_TIMEOUT_MS = 90_000
"""Longer than any outage of the broker here: the load generator loses nothing."""
STUCK_S = 180.0
"""Without one more answer for so long, something is broken."""
READY_TIMEOUT_S = 240.0
"""Two usage processes that join one group at once took a minute and more on a machine with six busy neighbours."""
SAY_EVERY_S = 15.0


class Crowd:
    """Serves one load. ``faults`` says what was done after how many answers; ``exit_codes`` how the last ones left."""

    def __init__(self, config: RuntimeConfig, stack: EmbeddedStack, routes: Path, folder: Path) -> None:
        self.faults: list[tuple[int, str]] = []
        self.exit_codes: list[int] = []
        self._config = config
        self._stack = stack
        self._routes = routes
        self._folder = folder
        self._numbers = count()
        self._workers: list[WorkerProcess] = []
        self._answered: set[str] = set()
        self._sent = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Start all, and stop them at the end."""
        self._workers = [self._new(processors) for processors in PROCESSORS]
        await asyncio.gather(*(worker.start(ready=False) for worker in self._workers))
        try:
            for worker in self._workers:
                await worker.wait_ready(READY_TIMEOUT_S)
            yield
            for worker in self._workers:
                await worker.wait_ready(READY_TIMEOUT_S)  # one that is starting still knows no SIGTERM
        finally:
            self.exit_codes = [await worker.stop(timeout_s=90) for worker in self._workers]

    def _new(self, processors: str) -> WorkerProcess:
        log = self._folder / f"worker-{next(self._numbers)}.log"
        return WorkerProcess(self._config, self._routes, log, processors=processors)

    async def serve(self, requests: int, seed: int, *, faults: int, in_flight: int, say: Callable[[str], None]) -> None:
        """Send ``requests`` and strike ``faults`` times on the way; ends when all are answered."""
        async with (
            Tail(self._config, self._config.topic(self._config.responses_topic), from_beginning=True) as tail,
            asyncio.TaskGroup() as group,
        ):
            group.create_task(self._send(requests, seed, in_flight))
            group.create_task(self._strike(requests, faults, say))
            await self._read(tail, requests, say)

    async def _send(self, requests: int, seed: int, in_flight: int) -> None:
        producer = AIOKafkaProducer(
            **kafka_client.connection(self._config), enable_idempotence=True, request_timeout_ms=SEND_TIMEOUT_MS
        )
        await producer.start()
        try:
            last = None
            async for value in records(requests, seed):
                while self._sent - len(self._answered) >= in_flight:
                    await asyncio.sleep(0.01)
                last = await producer.send(self._config.topic(self._config.requests_topic), value)
                self._sent += 1
            await producer.flush()
            assert last is not None
            await last
        finally:
            await producer.stop()

    async def _read(self, tail: Tail, requests: int, say: Callable[[str], None]) -> None:
        began = heard = told = time.monotonic()
        while len(self._answered) < requests:
            try:
                got = await tail.poll(0.2)
            except BrokerError:
                # Away on purpose; asked again.
                await asyncio.sleep(0.2)
                continue
            now = time.monotonic()
            heard = now if got else heard
            self._answered.update(orjson.loads(record.value or b"{}")["request_id"] for record in got)
            if now - heard > STUCK_S:
                raise AssertionError(f"{len(self._answered)} of {requests} answered, no more for {STUCK_S:.0f} s")
            if now - told > SAY_EVERY_S:
                told = now
                say(f"  {now - began:5.0f} s  {self._sent:7d} sent  {len(self._answered):7d} answered")

    async def _strike(self, requests: int, faults: int, say: Callable[[str], None]) -> None:
        for number, kind in enumerate(islice(cycle(FAULTS), faults), 1):
            due = requests * number // (faults + 1)
            while len(self._answered) < due:
                await asyncio.sleep(0.05)
            self.faults.append((len(self._answered), kind))
            say(f"  {len(self._answered):7d} answered: SIGKILL for the {kind}")
            await self._kill(kind)

    async def _kill(self, kind: str) -> None:
        match kind:
            case "worker":
                await self._replace(0)
            case "other worker":
                await self._replace(1)
            case "usage worker":
                await self._replace(2)
            case "usage process":
                await self._workers[0].wait_ready(READY_TIMEOUT_S)
                self._workers[0].kill_children()
            case "postgres":
                self._stack.postgres.kill()
                await asyncio.sleep(AWAY_S)
                await self._stack.postgres.start()
            case "broker":
                self._stack.kafka.kill()
                await asyncio.sleep(AWAY_S)
                await self._stack.kafka.start()

    async def _replace(self, index: int) -> None:
        worker = self._workers[index]
        assert worker.process is not None
        if worker.process.returncode is not None:
            raise AssertionError(f"a worker died by itself: {worker.log.read_text()[-3000:]}")
        worker.kill()
        await worker.process.wait()
        self._workers[index] = self._new(worker.processors)
        await self._workers[index].start(ready=False)


def keep_logs(folder: Path, to: Path | None) -> None:
    """Copy the workers' logs out of ``folder``, where somebody wants them."""
    if to is not None:
        to.mkdir(parents=True, exist_ok=True)
        for log in folder.glob("*.log"):
            (to / log.name).write_bytes(log.read_bytes())
