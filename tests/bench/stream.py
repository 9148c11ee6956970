"""Contenders that read one topic and write another: started as processes, fed, timed by what they wrote, and ended.

All contenders are timed alike: records are made ready in an open transaction, its commit shows them all at once, and
the broker's own clock says when the last answer was appended.
"""

from __future__ import annotations

import asyncio
import math
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import orjson
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from bench.peers import SCRIPTS, PeerError
from stratarouter_runtime import topics
from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.embedded import StackAddresses
from stratarouter_runtime.processors import kafka_client
from support.fleet import WorkerProcess

PARTITIONS = 4
TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 45.0
WARM_UP_PART = 4
"""The first of so many parts of the answers; see ``rate``."""
APPEND_TIME = {"message.timestamp.type": "LogAppendTime"}


@dataclass(frozen=True, slots=True)
class Pipe:
    """Where a contender reads and where it writes."""

    config: RuntimeConfig
    source: str
    sink: str
    partitions: int = PARTITIONS


Start = Callable[[], AbstractAsyncContextManager[Pipe]]
"""Starts a contender on fresh topics; it has ended when the context has."""


def started(
    addresses: StackAddresses,
    database_url: str,
    base_url: str,
    *,
    max_concurrency: int = 10_000,
    partitions: int = PARTITIONS,
    workers: Sequence[str] = ("enrich,execute",),
    **settings: Any,
) -> Start:
    """Worker processes of this product, as an operator would start them; each one's processors in ``workers``."""

    @asynccontextmanager
    async def start() -> AsyncIterator[Pipe]:
        config = configured(addresses, database_url)
        await topics.apply(config, partitions=partitions)
        pipe = Pipe(config, config.topic(config.requests_topic), config.topic(config.responses_topic), partitions)
        async with kafka_admin(config) as admin:
            await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, pipe.sink, configs=APPEND_TIME)])
        extra = {"STRATAROUTER_LOG_LEVEL": "warning"}
        extra |= {f"STRATAROUTER_{name.upper()}": str(value) for name, value in settings.items()}
        async with AsyncExitStack() as ends:
            folder = Path(ends.enter_context(tempfile.TemporaryDirectory(prefix="bench-worker-")))
            routes = routes_file(folder / "routes.toml", base_url, max_concurrency)
            for number, processors in enumerate(workers):
                log = folder / f"worker-{number}.log"
                worker = WorkerProcess(config, routes, log, extra=extra, processors=processors)
                ends.push_async_callback(worker.stop, STOP_TIMEOUT_S)
                await worker.start()
            yield pipe

    return start


def scripted(addresses: StackAddresses, script: str, *options: str, python: str | None = None) -> Start:
    """A script of ``peers``: called with servers, source, sink, group and its options."""
    return program(addresses, (python or sys.executable, str(SCRIPTS / script)), *options, peer=python is not None)


def program(addresses: StackAddresses, command: Sequence[str], *options: str, peer: bool = True) -> Start:
    """A program called with servers, source, sink, group and its options. A ``peer`` that falls silent is no fault."""

    @asynccontextmanager
    async def start() -> AsyncIterator[Pipe]:
        config = configured(addresses, addresses.database_url)
        pipe = Pipe(config, f"{config.topic_prefix}in", f"{config.topic_prefix}out")
        new = [NewTopic(name, PARTITIONS, 1, topic_configs=APPEND_TIME) for name in (pipe.source, pipe.sink)]
        async with kafka_admin(config) as admin:
            await admin.create_topics(new)
        with tempfile.TemporaryDirectory(prefix="bench-peer-") as folder:
            log = Path(folder) / "log"
            arguments = (config.bootstrap_servers, pipe.source, pipe.sink, config.group_id, *options)
            with log.open("wb") as file:
                process = await asyncio.create_subprocess_exec(
                    *(*command, *arguments), stdout=file, stderr=file, cwd=folder
                )
            try:
                yield pipe
            except TimeoutError as exc:
                said = f"{command[-1]} fell silent; its last words: {log.read_text(errors='replace')[-600:]}"
                raise (PeerError if peer else AssertionError)(said) from exc
            finally:
                await end(process)

    return start


async def end(process: asyncio.subprocess.Process) -> None:
    """SIGTERM, and SIGKILL where that is not heard."""
    if process.returncode is not None:
        return
    process.terminate()
    try:
        await asyncio.wait_for(process.wait(), STOP_TIMEOUT_S)
    except TimeoutError:
        process.kill()
        await process.wait()


def configured(addresses: StackAddresses, database_url: str, **settings: Any) -> RuntimeConfig:
    """Topics and groups of its own."""
    name = f"bench-{uuid.uuid4().hex[:8]}"
    return RuntimeConfig(
        bootstrap_servers=addresses.bootstrap_servers,
        database_url=database_url,
        cache_backend="memory",
        topic_prefix=f"{name}.",
        group_id=name,
        **settings,
    )


@asynccontextmanager
async def kafka_admin(config: RuntimeConfig) -> AsyncIterator[Any]:
    """An admin client."""
    client = kafka_client.admin(config)
    await client.start()
    try:
        yield client
    finally:
        await client.close()


def routes_file(path: Path, base_url: str, max_concurrency: int = 10_000) -> Path:
    """Route ``bench`` to a simulated provider."""
    path.write_text(
        f'[providers.sim]\nkind = "simulator"\nbase_url = "{base_url}"\nmax_concurrency = {max_concurrency}\n'
        '[routes.bench]\ntargets = [{ provider = "sim", model = "gpt-4o-mini" }]\n'
    )
    return path


class Answers:
    """Reads what a contender has written since the last reading."""

    def __init__(self, pipe: Pipe) -> None:
        self._consumer: AIOKafkaConsumer = kafka_client.consumer(pipe.config, group=None)
        self._places = [TopicPartition(pipe.sink, number) for number in range(pipe.partitions)]
        self._unread: list[int] = []

    async def __aenter__(self) -> Self:
        await self._consumer.start()
        self._consumer.assign(self._places)
        self._consumer.pause(*self._places)
        await self._consumer.seek_to_beginning(*self._places)
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._consumer.stop()

    async def take(self, count: int) -> list[int]:
        """When each of the next ``count`` answers was appended, in epoch milliseconds. Raises TimeoutError."""
        async with asyncio.timeout(TIMEOUT_S):
            # Read once they are there: a reader at work would take its share of the machine. Offsets count the marks
            # of transactions too, so the few that are missing then are waited for with the reading.
            read = sum([await self._consumer.position(place) for place in self._places])
            while sum((await self._consumer.end_offsets(self._places)).values()) - read < count - len(self._unread):
                await asyncio.sleep(0.05)
            self._consumer.resume(*self._places)
            while len(self._unread) < count:
                for records in (await self._consumer.getmany(timeout_ms=100)).values():
                    self._unread += [record.timestamp for record in records]
            self._consumer.pause(*self._places)
        taken, self._unread = self._unread[:count], self._unread[count:]
        return taken


async def rate(
    start: Start,
    warm: Sequence[bytes],
    values: Sequence[bytes],
    *,
    committed: bool = True,
    share: float = 1.0,
    sustained: list[float] | None = None,
) -> float:
    """Answers a second to ``values``, after those to ``warm`` are in, until ``share`` of them are there.

    ``committed`` False: for a contender that reads uncommitted records, and so began before the commit. It is timed
    once the first part of its answers is there, which may have been held back in its buffers and come in one burst.
    ``sustained`` is given the rate timed so of the same run.
    """
    async with start() as pipe, AsyncExitStack() as ends:
        answers = await ends.enter_async_context(Answers(pipe))
        await send(pipe, warm)
        await answers.take(len(warm))
        shown_ms = await send(pipe, values)
        appended = sorted(await answers.take(len(values)))
        if not committed:
            return _after_the_first_part(appended)
        if sustained is not None:
            sustained.append(_after_the_first_part(appended))
        count = math.ceil(len(values) * share)
        return count / (appended[count - 1] - shown_ms) * 1000


def _after_the_first_part(appended: Sequence[int]) -> float:
    settled = appended[len(appended) // WARM_UP_PART :]
    return (len(settled) - 1) / (settled[-1] - settled[0]) * 1000


async def send(pipe: Pipe, values: Sequence[bytes]) -> float:
    """Write ``values`` in one transaction; returns when its commit was asked for, in epoch milliseconds."""
    producer = kafka_client.producer(pipe.config, transactional_id=f"{pipe.source}-feed")
    await producer.start()
    try:
        await producer.begin_transaction()
        sent = [await producer.send(pipe.source, value, key=b"%d" % n) for n, value in enumerate(values)]
        await asyncio.gather(*sent)
        shown_ms = time.time() * 1000
        await producer.commit_transaction()
    finally:
        await producer.stop()
    return shown_ms


def record(query: str, number: int, **more: object) -> bytes:
    """A request of route ``bench``."""
    fields = {"request_id": f"{uuid.uuid4().hex}-{number}", "decision": {"route_id": "bench", "confidence": 0.9}}
    return orjson.dumps(fields | {"query": query, "context": {"tenant": "acme"}} | more)
