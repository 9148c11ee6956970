"""Kafka, PostgreSQL and a Redis-compatible server as child processes: no Docker, no root, nothing to install first."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

from stratarouter_runtime.embedded.data_dir import DataDir
from stratarouter_runtime.embedded.errors import EmbeddedStackError
from stratarouter_runtime.embedded.kafka import KafkaCluster
from stratarouter_runtime.embedded.kafka_jars import user_cache_dir
from stratarouter_runtime.embedded.postgres import PostgresServer
from stratarouter_runtime.embedded.valkey import ValkeyServer

T = TypeVar("T")
P = TypeVar("P")


class _Part(Protocol):
    """What the stack asks of each of its servers."""

    @property
    def port_names(self) -> list[str]: ...
    @property
    def pids(self) -> tuple[int, ...]: ...
    async def prepare(self) -> None: ...
    def assign(self, ports: dict[str, int]) -> None: ...
    async def start(self) -> None: ...
    async def stop(self) -> None: ...
    def kill(self) -> None: ...


@dataclass(frozen=True)
class StackAddresses:
    """Where the running servers are; database_url and redis_url hold passwords. A part left out is empty or None."""

    bootstrap_servers: str
    database_url: str
    redis_url: str | None


class EmbeddedStack:
    """Servers for development and tests, with their data, logs and remembered ports in ``data_dir``.

    Bound to no event loop: start in one and stop in another, or use ``start_sync`` and ``stop_sync``. On Linux
    the servers die with this process in whatever way it ends.

    Args:
        data_dir: made where missing; one living stack at a time.
        kafka: run Kafka, ``kafka_brokers`` nodes of it.
        postgres: run PostgreSQL.
        redis: run Valkey.
        progress: called with one line at a time, from the thread that runs ``start``.
        cache_dir: where Kafka's jars are kept; by default the user's cache folder.
        kafka_brokers: 1, or 3 for replication factor 3 with two in sync.
        broker_settings: Kafka settings that win over ours.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        kafka: bool = True,
        postgres: bool = True,
        redis: bool = False,
        progress: Callable[[str], None] | None = None,
        cache_dir: Path | None = None,
        kafka_brokers: int = 1,
        broker_settings: Mapping[str, str] | None = None,
    ) -> None:
        if kafka_brokers < 1:
            raise EmbeddedStackError(f"kafka_brokers is {kafka_brokers}", remedy="ask for 1 or 3")
        report = progress or _say_nothing
        self._data_dir = DataDir(data_dir)
        cache = (cache_dir or user_cache_dir()).absolute()
        settings = broker_settings or {}
        self._kafka = KafkaCluster(self._data_dir, kafka_brokers, settings, cache, report) if kafka else None
        self._postgres = PostgresServer(self._data_dir, report) if postgres else None
        self._redis = ValkeyServer(self._data_dir, report) if redis else None
        parts: tuple[_Part | None, ...] = (self._kafka, self._postgres, self._redis)
        self._parts = [part for part in parts if part is not None]
        self._addresses: StackAddresses | None = None

    @property
    def kafka(self) -> KafkaCluster:
        """The brokers; raises EmbeddedStackError where the stack was made without."""
        return _present(self._kafka, "kafka")

    @property
    def postgres(self) -> PostgresServer:
        """PostgreSQL; raises EmbeddedStackError where the stack was made without."""
        return _present(self._postgres, "postgres")

    @property
    def redis(self) -> ValkeyServer:
        """Valkey; raises EmbeddedStackError where the stack was made without."""
        return _present(self._redis, "redis")

    @property
    def pids(self) -> tuple[int, ...]:
        """All living servers' processes."""
        return tuple(pid for part in self._parts for pid in part.pids)

    async def start(self) -> StackAddresses:
        """Start all parts at once and wait until each serves; a started stack just answers.

        Raises:
            EmbeddedStackError: one of its kinds; whatever had been started is gone again.
        """
        if self._addresses is not None:
            return self._addresses
        self._data_dir.acquire()
        try:
            await _all(*(part.prepare() for part in self._parts))
            # Only now: what an earlier stack left has ended, so its ports are free again.
            ports = self._data_dir.ports(name for part in self._parts for name in part.port_names)
            for part in self._parts:
                part.assign(ports)
            await _all(*(part.start() for part in self._parts))
        except BaseException:
            # Cancelled or failed: nothing here may wait on the loop.
            self._kill()
            raise
        self._addresses = StackAddresses(
            bootstrap_servers=self._kafka.bootstrap_servers if self._kafka else "",
            database_url=self._postgres.url if self._postgres else "",
            redis_url=self._redis.url if self._redis else None,
        )
        return self._addresses

    def _kill(self) -> None:
        with contextlib.ExitStack() as each:
            each.callback(self._data_dir.release)
            for part in self._parts:
                each.callback(part.kill)

    async def stop(self) -> None:
        """Stop all parts at once, each within its bound (at most about 10 s, 45 the first time); the data stay."""
        try:
            await _all(*(part.stop() for part in self._parts))
        finally:
            # A part whose stop was cancelled or failed must not outlive the lock.
            self._addresses = None
            self._kill()

    def start_sync(self) -> StackAddresses:
        """``start`` for callers without a loop; blocks a caller that has one."""
        return _run(self.start())

    def stop_sync(self) -> None:
        """``stop`` for callers without a loop; blocks a caller that has one."""
        _run(self.stop())

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()


async def _all(*steps: Coroutine[Any, Any, None]) -> None:
    """Run ``steps`` at once; the first failure cancels the others and is raised as itself, not in a group."""
    try:
        async with asyncio.TaskGroup() as group:
            for step in steps:
                group.create_task(step)
    except BaseExceptionGroup as failures:
        raise _first(failures) from None


def _first(failures: BaseExceptionGroup) -> BaseException:
    first = failures.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first


def _run(work: Coroutine[Any, Any, T]) -> T:
    """Run ``work`` to its end in a thread of its own, so that a loop in this thread is no hindrance."""
    with concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="embedded-stack") as pool:
        return pool.submit(asyncio.run, work).result()


def _present(part: P | None, option: str) -> P:
    if part is None:
        raise EmbeddedStackError(f"this stack was made with {option}=False", remedy=f"make it with {option}=True")
    return part


def _say_nothing(_: str) -> None:
    """The progress callback of a caller that wants none."""
