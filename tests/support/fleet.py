"""Worker processes for tests: started, killed and counted from outside."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import asyncpg
import httpx
import orjson

from stratarouter_runtime import wire
from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.processors import kafka_client
from stratarouter_runtime.processors.tail import Tail
from stratarouter_runtime.records import DeadLetter, Response


def free_port() -> int:
    """A port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def write_routes(path: Path, base_url: str) -> Path:
    """Routes ``support`` and ``billing`` on a simulated provider."""
    path.write_text(
        f"""
[providers.openai]
kind = "simulator"
base_url = "{base_url}"

[routes.support]
targets = [{{ provider = "openai", model = "gpt-4o-mini" }}]

[routes.billing]
targets = [{{ provider = "openai", model = "gpt-4o" }}]
min_confidence = 0.3
"""
    )
    return path


SIMULATOR_TIMEOUT_S = 30.0


@asynccontextmanager
async def simulator(*options: str) -> AsyncIterator[str]:
    """A simulated provider in a process of its own; its base URL, up to and with ``/v1``."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "stratarouter_runtime.testing.simulator", *options), stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        line = await asyncio.wait_for(process.stdout.readline(), timeout=SIMULATOR_TIMEOUT_S)
        yield str(orjson.loads(line)["base_url"])
    finally:
        process.terminate()
        await asyncio.wait_for(process.wait(), timeout=SIMULATOR_TIMEOUT_S)


PROGRAM = ("-m", "stratarouter_runtime.cli")
"""The command line, as the interpreter's arguments."""

STARTED: list[WorkerProcess] = []
"""Workers that the present test has started, so that a failed one leaves none behind."""


@dataclass
class WorkerProcess:
    """One worker, as an operator would start it."""

    config: RuntimeConfig
    routes: Path
    log: Path
    extra: dict[str, str] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    processors: str = "enrich,execute"
    program: tuple[str, ...] = PROGRAM
    process: asyncio.subprocess.Process | None = None

    async def start(self, *, ready: bool = True) -> None:
        """Start it, and wait until it is ready."""
        environment = {
            **os.environ,
            "KAFKA_BOOTSTRAP_SERVERS": self.config.bootstrap_servers,
            "DATABASE_URL": self.config.database_url,
            "REDIS_URL": self.config.redis_url,
            "PROMETHEUS_PORT": str(self.port),
            "STRATAROUTER_TOPIC_PREFIX": self.config.topic_prefix,
            "STRATAROUTER_GROUP_ID": self.config.group_id,
            "STRATAROUTER_ROUTES": str(self.routes),
            "STRATAROUTER_CACHE_BACKEND": self.config.cache_backend,
            "STRATAROUTER_CACHE_TIMEOUT_MS": str(self.config.cache_timeout_ms),
            "STRATAROUTER_SESSION_TIMEOUT_MS": str(self.config.session_timeout_ms),
            "STRATAROUTER_HEARTBEAT_TTL_S": str(self.config.heartbeat_ttl_s),
            **self.extra,
        }
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *(sys.executable, *self.program, "worker", "--processors", self.processors),
                env=environment,
                stdout=log,
                stderr=log,
            )
        STARTED.append(self)
        if ready:
            await self.wait_ready()

    async def wait_ready(self, timeout_s: float = 60.0) -> None:
        """Until /readyz says yes."""
        deadline = time.monotonic() + timeout_s
        async with httpx.AsyncClient(timeout=2.0) as client:
            while time.monotonic() < deadline:
                try:
                    reply = await client.get(f"http://127.0.0.1:{self.port}/readyz")
                except httpx.HTTPError as exc:
                    last = repr(exc)
                else:
                    if reply.status_code == httpx.codes.OK:
                        return
                    last = reply.text
                assert self.process is not None
                assert self.process.returncode is None, self.log.read_text()[-3000:]
                await asyncio.sleep(0.1)
        raise AssertionError(f"worker not ready: {last}\n{self.log.read_text()[-3000:]}")

    def kill(self) -> None:
        """SIGKILL."""
        assert self.process is not None
        self.process.kill()

    def kill_children(self) -> None:
        """SIGKILL for the processes that it keeps: that of usage."""
        assert self.process is not None
        pid = self.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        assert children
        for child in children:
            os.kill(int(child), signal.SIGKILL)

    async def stop(self, timeout_s: float = 45.0) -> int:
        """SIGTERM (unless it is gone) and its exit code."""
        assert self.process is not None
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
        return await asyncio.wait_for(self.process.wait(), timeout_s)


@dataclass
class Seen:
    """What a read_committed consumer saw."""

    responses: list[Response] = field(default_factory=list)
    written_ms: list[int] = field(default_factory=list)
    """When the worker wrote each of ``responses``, by its record, in epoch milliseconds."""
    dead_letters: list[DeadLetter] = field(default_factory=list)

    @property
    def by_id(self) -> Counter[str]:
        """How many responses each request id has."""
        return Counter(response.request_id for response in self.responses)


class Watch:
    """Follows the responses and the dead letters of one configuration."""

    def __init__(self, config: RuntimeConfig, *reply_topics: str) -> None:
        self.seen = Seen()
        self._responses = Tail(config, config.topic(config.responses_topic), *reply_topics, from_beginning=True)
        self._dead = Tail(config, config.topic(config.dead_letter_topic), from_beginning=True)

    async def __aenter__(self) -> Self:
        await self._responses.__aenter__()
        await self._dead.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._responses.__aexit__(None, None, None)
        await self._dead.__aexit__(None, None, None)

    async def poll(self) -> None:
        """Take what is there now."""
        for record in await self._responses.poll(0.05):
            self.seen.responses.append(wire.decode_response(record.value))
            self.seen.written_ms.append(record.timestamp)
        self.seen.dead_letters += [wire.decode_dead_letter(r.value) for r in await self._dead.poll(0.05)]

    async def until(self, count: int, timeout_s: float) -> Seen:
        """Until ``count`` responses and dead letters are in, or the time is up."""
        deadline = time.monotonic() + timeout_s
        while len(self.seen.responses) + len(self.seen.dead_letters) < count and time.monotonic() < deadline:
            await self.poll()
        return self.seen

    async def settle(self, seconds: float) -> Seen:
        """Watch on for ``seconds``, for what comes twice."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            await self.poll()
        return self.seen


async def produce(
    config: RuntimeConfig,
    values: Sequence[bytes | None],
    *,
    rate_per_s: float | None = None,
    headers: Sequence[tuple[str, bytes]] = (),
) -> None:
    """Write ``values`` to the requests topic, keyed by their number."""
    producer = kafka_client.producer(config)
    await producer.start()
    try:
        began, sent = time.monotonic(), []
        for number, value in enumerate(values):
            if rate_per_s is not None:
                await asyncio.sleep(max(0.0, began + number / rate_per_s - time.monotonic()))
            topic = config.topic(config.requests_topic)
            sent.append(await producer.send(topic, value, key=str(number).encode(), headers=list(headers)))
        await asyncio.gather(*sent)
    finally:
        await producer.stop()


def request(request_id: str, query: str, *, route: str = "support", tenant: str = "acme", **more: object) -> bytes:
    """A request record."""
    decision = {"route_id": route, "confidence": 0.9}
    return orjson.dumps(
        {"request_id": request_id, "decision": decision, "query": query, "context": {"tenant": tenant}, **more}
    )


async def ambiguous_calls(config: RuntimeConfig) -> int:
    """Calls of which nobody knows what came, by the journal: starts beyond the one whose result stands."""
    connection = await asyncpg.connect(config.database_url)
    try:
        known = "state IN ('succeeded', 'failed')"
        unknown = f"sum(starts) - count(*) FILTER (WHERE {known})"
        return int(await connection.fetchval(f"SELECT coalesce({unknown}, 0) FROM journal WHERE starts > 0"))
    finally:
        await connection.close()


async def command(
    config: RuntimeConfig, *arguments: str, timeout_s: float = 120.0, **environment: str
) -> tuple[int, str, str]:
    """Run the command line; its exit code, standard output and standard error."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, *PROGRAM, *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={
            "KAFKA_BOOTSTRAP_SERVERS": config.bootstrap_servers,
            "DATABASE_URL": config.database_url,
            "STRATAROUTER_TOPIC_PREFIX": config.topic_prefix,
            "STRATAROUTER_GROUP_ID": config.group_id,
            "PATH": "",
            **environment,
        },
    )
    out, err = await asyncio.wait_for(process.communicate(), timeout_s)
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()
