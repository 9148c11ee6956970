"""Kafka, PostgreSQL and Redis in containers, behind the face that the embedded stack has."""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import docker
import pytest
import yaml
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError
from redis.asyncio import Redis
from redis.exceptions import RedisError

from stratarouter_runtime.embedded import EmbeddedStack, StackAddresses
from stratarouter_runtime.embedded.kafka_settings import QUICK, SMALL_MACHINE, replication
from support.fleet import free_port

ROOT = Path(__file__).parents[2]
LOOPBACK = "127.0.0.1"
OWNER = "stratarouter.owner"
"""The label of our containers: the process whose tests they serve."""

ENGINE_TIMEOUT_S = 60
START_TIMEOUT_S = 120.0
TRY_S = 5.0
NAME = "stratarouter"
TOPIC = "__ready"

NOT_YET = (KafkaError, RedisError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError)


def images() -> dict[str, str]:
    """The images of docker-compose.yml, by service: what is tested is what is run there."""
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    return {name: services[name]["image"] for name in ("kafka", "postgres", "redis")}


def engine() -> str | None:
    """The version of the container engine of this machine; None where none answers."""
    address = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    if not address.startswith("unix://") or not Path(address.removeprefix("unix://")).exists():
        return None  # a remote engine's ports are not ours
    try:
        client = docker.from_env(timeout=ENGINE_TIMEOUT_S)
    except docker.errors.DockerException:
        return None
    try:
        return str(client.version()["Version"])
    except docker.errors.DockerException:
        return None
    finally:
        client.close()


@dataclass
class ContainerPart:
    """One server. Its port on the loopback address stays the same through kills and starts."""

    name: str
    container: Any
    answers: Callable[[], Any]
    started: bool = False

    def _inner(self) -> Any:
        return self.container.get_wrapped_container()

    async def start(self) -> None:
        """Start unless it runs, and wait until it serves."""
        if not self.started:
            self.started = True
            await asyncio.to_thread(self.container.start)
        else:
            await asyncio.to_thread(lambda: self._inner().start())
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                async with asyncio.timeout(TRY_S):
                    await self.answers()
            except NOT_YET as exc:
                log = await asyncio.to_thread(lambda: self._inner().logs(tail=20).decode(errors="replace"))
                if time.monotonic() > deadline:
                    pytest.fail(f"{self.name} does not serve ({exc!r}):\n{log}")
                await asyncio.sleep(0.1)
            else:
                return

    def kill(self) -> None:
        """SIGKILL, as a crash would; returns when it is gone."""
        inner = self._inner()
        inner.kill()
        inner.wait(timeout=ENGINE_TIMEOUT_S)

    async def stop(self) -> None:
        """SIGTERM, and SIGKILL after a while."""
        await asyncio.to_thread(lambda: self._inner().stop(timeout=10))

    async def restart(self) -> None:
        """Stop, and start on the same port."""
        await self.stop()
        await self.start()

    def remove(self) -> None:
        """The container and its volumes are gone."""
        if self.started:
            self.container.stop()


def use_loopback() -> None:
    """What testcontainers reads when it is imported."""
    # Its reaper's image comes from a registry; what a killed run leaves, the next run removes.
    os.environ.setdefault("TESTCONTAINERS_RYUK_DISABLED", "true")
    # Where the tests run in a container themselves it would try the bridge's address; our ports are on ours.
    os.environ.setdefault("TESTCONTAINERS_CONNECTION_MODE", "docker_host")
    os.environ.setdefault("TESTCONTAINERS_HOST_OVERRIDE", LOOPBACK)


class ContainerStack:
    """Started once a run; the face of EmbeddedStack as far as tests use it."""

    def __init__(self) -> None:
        use_loopback()
        names = images()
        ports = {name: free_port() for name in names}
        password = secrets.token_hex(12)
        self._addresses = StackAddresses(
            bootstrap_servers=f"{LOOPBACK}:{ports['kafka']}",
            database_url=f"postgresql://{NAME}:{password}@{LOOPBACK}:{ports['postgres']}/{NAME}",
            redis_url=f"redis://:{password}@{LOOPBACK}:{ports['redis']}/0",
        )
        self.kafka = ContainerPart("Kafka", _kafka(names["kafka"], ports["kafka"]), self._kafka_answers)
        self.postgres = ContainerPart(
            "PostgreSQL", _postgres(names["postgres"], ports["postgres"], password), self._postgres_answers
        )
        self.redis = ContainerPart("Redis", _redis(names["redis"], ports["redis"], password), self._redis_answers)

    def start_sync(self) -> StackAddresses:
        """Start all at once, once."""
        parts = (self.kafka, self.postgres, self.redis)
        if not all(part.started for part in parts):
            remove_leftovers()

            async def start() -> None:
                await asyncio.gather(*(part.start() for part in parts))

            asyncio.run(start())
        return self._addresses

    def stop_sync(self) -> None:
        """Nothing is left."""
        for part in (self.kafka, self.postgres, self.redis):
            part.remove()

    async def _kafka_answers(self) -> None:
        """A record is taken."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self._addresses.bootstrap_servers, request_timeout_ms=2000)
        try:
            await admin.start()
            if TOPIC not in await admin.list_topics():
                await admin.create_topics([NewTopic(TOPIC, 1, 1)])
        finally:
            await admin.close()
        producer = AIOKafkaProducer(bootstrap_servers=self._addresses.bootstrap_servers, request_timeout_ms=2000)
        try:
            await producer.start()
            await producer.send_and_wait(TOPIC, b"")
        finally:
            await producer.stop()

    async def _postgres_answers(self) -> None:
        connection = await asyncpg.connect(self._addresses.database_url, timeout=TRY_S)
        await connection.close(timeout=TRY_S)

    async def _redis_answers(self) -> None:
        assert self._addresses.redis_url is not None
        client = Redis.from_url(self._addresses.redis_url, socket_timeout=TRY_S, socket_connect_timeout=TRY_S)
        try:
            await client.ping()
        finally:
            await client.aclose()


Stack = EmbeddedStack | ContainerStack
"""What the run's servers are."""


def owned(container: Any, inside: int, port: int, **more: Any) -> Any:
    """``container`` on a loopback port of its own, with our label and what ``more`` the engine is asked for."""
    container.ports = {f"{inside}/tcp": (LOOPBACK, port)}
    return container.with_kwargs(labels={OWNER: str(os.getpid())}, **more)


def _kafka(image: str, port: int) -> Any:
    """One node; what it advertises is known before it starts, because the port is."""
    from testcontainers.core.container import DockerContainer  # it reads its settings when imported

    settings = {
        "node.id": "1",
        "process.roles": "broker,controller",
        "controller.quorum.voters": "1@localhost:9093",
        "controller.listener.names": "CONTROLLER",
        "listeners": "OUTSIDE://:9092,INSIDE://localhost:19092,CONTROLLER://:9093",
        # Transactions are verified over a connection to itself, which knows nothing of the host's port.
        "advertised.listeners": f"OUTSIDE://{LOOPBACK}:{port},INSIDE://localhost:19092",
        "listener.security.protocol.map": "OUTSIDE:PLAINTEXT,INSIDE:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "INSIDE",
        "log.dirs": "/var/lib/kafka/data",
        **replication(1),
        **SMALL_MACHINE,
        **QUICK,
    }
    container = DockerContainer(image).with_env("KAFKA_HEAP_OPTS", "-Xmx256m")
    for key, value in settings.items():
        container = container.with_env("KAFKA_" + key.replace(".", "_").upper(), value)
    return owned(container, 9092, port)


def _postgres(image: str, port: int, password: str) -> Any:
    from testcontainers.community.postgres import PostgresContainer

    return owned(PostgresContainer(image, username=NAME, password=password, dbname=NAME, driver=None), 5432, port)


def _redis(image: str, port: int, password: str) -> Any:
    from testcontainers.community.redis import RedisContainer

    return owned(RedisContainer(image, password=password), 6379, port)


def remove_leftovers() -> None:
    """Containers whose tests' process has ended."""
    client = docker.from_env(timeout=ENGINE_TIMEOUT_S)
    try:
        for container in client.containers.list(all=True, filters={"label": OWNER}, ignore_removed=True):
            if not Path(f"/proc/{container.labels[OWNER]}").exists():
                container.remove(force=True, v=True)
    except docker.errors.NotFound:
        pass  # another process of this run removed it
    finally:
        client.close()
