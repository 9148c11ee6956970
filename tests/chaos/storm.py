"""The storm: workers answer a steady load while they, the broker and the database are killed, frozen and restarted."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from aiokafka import AIOKafkaProducer
from rich.console import Console

from chaos.schedule import Fault, draw
from chaos.tally import Observed
from stratarouter_runtime import topics, wire
from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.embedded import EmbeddedStack
from stratarouter_runtime.errors import BrokerError
from stratarouter_runtime.journal.migrations import migrate
from stratarouter_runtime.processors import kafka_client
from stratarouter_runtime.processors.tail import Tail
from stratarouter_runtime.testing.simulator import Simulator, SimulatorSettings
from support.fleet import WorkerProcess, ambiguous_calls, request, write_routes

FREEZE_S = 9.0
"""Longer than the session, so that the frozen worker is taken for dead and wakes as a zombie."""
BROKER_AWAY_S = 1.0
ANSWERS_TIMEOUT_S = 120.0
"""For the last answers, once the load has ended."""
SETTLE_S = 6.0
"""Then the topics are watched on, for what comes twice."""
SEND_TIMEOUT_MS = 90_000
"""Longer than any outage of the broker here: the load generator loses nothing."""
MEMORY_EVERY_S = 1.0
REPEATS = 4
"""Every so manieth request may be answered by the cache; the others pass it by, and each is a call."""
QUESTIONS = 500
"""Different ones that the cache is asked: it knows them all long before the half, so that what grows then is a leak."""
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Plan:
    """How hard it blows: seconds, requests a second, workers, partitions, and the seed of all chance."""

    seconds: float
    rate_per_s: float
    workers: int
    partitions: int
    seed: int


class Storm:
    """One run over an empty database and topics of its own."""

    def __init__(self, plan: Plan, stack: EmbeddedStack, config: RuntimeConfig, folder: Path, console: Console) -> None:
        self.plan = plan
        self.seen = Observed()
        self._stack = stack
        self._config = config
        self._folder = folder
        self._console = console
        self._workers: list[WorkerProcess] = []
        self._started = 0
        self._frozen: dict[int, asyncio.Task[None]] = {}
        self._began = 0.0

    async def run(self) -> Observed:
        """Blow, let everything be answered, count."""
        await topics.apply(self._config, partitions=self.plan.partitions)
        await migrate(self._config.database_url)
        settings = SimulatorSettings(latency_ms=80, latency_p99_ms=600, seed=self.plan.seed)
        async with (
            Simulator(settings) as simulator,
            Tail(
                self._config,
                *(self._config.topic(name) for name in (self._config.responses_topic, self._config.dead_letter_topic)),
                from_beginning=True,
            ) as tail,
        ):
            routes = write_routes(self._folder / "routes.toml", simulator.base_url)
            self._workers = [self._new_worker(routes) for _ in range(self.plan.workers)]
            await asyncio.gather(*(worker.start() for worker in self._workers))
            self._began = time.monotonic()
            async with _running(self._read(tail)), _running(self._watch_memory()), _running(self._say()):
                await asyncio.gather(self._produce(), self._blow(routes))
                await self._settle()
            for worker in self._workers:
                self.seen.exit_codes.append(await worker.stop(timeout_s=90))
            self.seen.paid = simulator.paid_by_request_id
        self.seen.on_topic = await self._count_requests()
        self.seen.ambiguous = await ambiguous_calls(self._config)
        return self.seen

    def _new_worker(self, routes: Path) -> WorkerProcess:
        self._started += 1
        return WorkerProcess(self._config, routes, self._folder / f"worker-{self._started}.log")

    def _now(self) -> float:
        return time.monotonic() - self._began

    # -- load --------------------------------------------------------------------------------------------------

    async def _produce(self) -> None:
        producer = AIOKafkaProducer(
            **kafka_client.connection(self._config), enable_idempotence=True, request_timeout_ms=SEND_TIMEOUT_MS
        )
        await producer.start()
        topic = self._config.topic(self._config.requests_topic)
        try:
            sent = []
            for number in range(int(self.plan.seconds * self.plan.rate_per_s)):
                await asyncio.sleep(max(0.0, number / self.plan.rate_per_s - self._now()))
                value = _request(number)
                future = await producer.send(topic, value, key=str(number).encode())
                future.add_done_callback(self._produced(f"r{number}"))
                sent.append(future)
            await asyncio.gather(*sent)
        finally:
            await producer.stop()

    def _produced(self, name: str) -> Callable[[asyncio.Future[object]], None]:
        def done(future: asyncio.Future[object]) -> None:
            if not future.cancelled() and future.exception() is None:
                self.seen.produced_s[name] = self._now()

        return done

    async def _read(self, tail: Tail) -> None:
        responses = self._config.topic(self._config.responses_topic)
        while True:
            try:
                records = await tail.poll(0.2)
            except BrokerError:
                # Away on purpose; asked again.
                await asyncio.sleep(0.2)
                continue
            now = self._now()
            for record in records:
                if record.topic != responses:
                    self.seen.dead_letters += 1
                    continue
                response = wire.decode_response(record.value)
                self.seen.answered[response.request_id] += 1
                self.seen.first_answer_s.setdefault(response.request_id, now)
                self.seen.failed += response.error is not None

    async def _settle(self) -> None:
        deadline = time.monotonic() + ANSWERS_TIMEOUT_S
        while len(self.seen.answered) < len(self.seen.produced_s) and time.monotonic() < deadline:
            await asyncio.sleep(0.2)
        await asyncio.sleep(SETTLE_S)

    async def _count_requests(self) -> Counter[str]:
        """What really stands on the requests topic, whatever the load generator believes."""
        counted: Counter[str] = Counter()
        async with Tail(self._config, self._config.topic(self._config.requests_topic), from_beginning=True) as tail:
            while records := await tail.poll(3.0):
                for record in records:
                    assert record.value is not None
                    counted[str(orjson.loads(record.value)["request_id"])] += 1
        return counted

    # -- faults ------------------------------------------------------------------------------------------------

    async def _blow(self, routes: Path) -> None:
        for fault in draw(self.plan.seconds, self.plan.workers, self.plan.seed):
            await asyncio.sleep(max(0.0, fault.at_s - self._now()))
            self.seen.faults.append(Fault(self._now(), fault.kind, fault.worker))
            await self._strike(fault, routes)
        await asyncio.gather(*self._frozen.values())

    async def _strike(self, fault: Fault, routes: Path) -> None:
        match fault.kind:
            case "kill":
                await self._kill(fault.worker, routes)
            case "freeze":
                self._frozen[fault.worker] = asyncio.create_task(self._freeze(self._workers[fault.worker]))
            case "broker_kill":
                self._stack.kafka.kill()
                await asyncio.sleep(BROKER_AWAY_S)
                await self._stack.kafka.start()
            case "broker_restart":
                await self._stack.kafka.restart()
            case "postgres_kill":
                self._stack.postgres.kill()
                await asyncio.sleep(BROKER_AWAY_S)
                await self._stack.postgres.start()
            case "postgres_restart":
                await self._stack.postgres.restart()

    async def _kill(self, index: int, routes: Path) -> None:
        worker = self._workers[index]
        assert worker.process is not None
        if worker.process.returncode is not None:
            raise AssertionError(f"a worker died by itself: {worker.log.read_text()[-3000:]}")
        worker.kill()
        await worker.process.wait()
        self._workers[index] = self._new_worker(routes)
        await self._workers[index].start(ready=False)

    async def _freeze(self, worker: WorkerProcess) -> None:
        assert worker.process is not None
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker.process.pid, signal.SIGSTOP)
            await asyncio.sleep(FREEZE_S)
            # It may have been killed meanwhile, as any process may.
            os.kill(worker.process.pid, signal.SIGCONT)

    # -- watching ----------------------------------------------------------------------------------------------

    async def _watch_memory(self) -> None:
        while True:
            await asyncio.sleep(MEMORY_EVERY_S)
            if self._now() < self.plan.seconds / 2:
                continue
            process = self._workers[-1].process
            if self._now() <= self.plan.seconds and process is not None and process.returncode is None:
                resident = Path(f"/proc/{process.pid}/statm").read_text(encoding="ascii").split()[1]
                self.seen.memory.append(int(resident) * PAGE_BYTES)

    async def _say(self) -> None:
        while True:
            await asyncio.sleep(15)
            kills = sum(fault.kind == "kill" for fault in self.seen.faults)
            self._console.print(
                f"  {self._now():5.0f} s  {len(self.seen.produced_s):6d} produced  {len(self.seen.answered):6d} "
                f"answered  {kills:3d} kills  {len(self.seen.faults) - kills} other faults",
                highlight=False,
            )


def _request(number: int) -> bytes:
    if number % REPEATS == 0:
        asked = number // REPEATS % QUESTIONS
        return request(f"r{number}", f"question {asked} about order {asked * 7}", tenant=f"t{asked % 7}")
    query = f"what became of order {number * 7}?"
    return request(f"r{number}", query, tenant=f"t{number % 7}", cache={"mode": "bypass"})


@contextlib.asynccontextmanager
async def _running(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run ``work`` beside the block; what it raises ends the block."""
    async with asyncio.TaskGroup() as group:
        task = group.create_task(work)
        yield
        task.cancel()
