"""Encrypted ways to Kafka, PostgreSQL and Redis, the wrong certificate on each, and the least that a worker needs."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import numpy as np
import pytest
from redis.asyncio import Redis
from redis.exceptions import NoPermissionError

from stratarouter_runtime import RuntimeConfig, topics
from stratarouter_runtime.acls import required
from stratarouter_runtime.cache import create_cache
from stratarouter_runtime.clock import SystemClock
from stratarouter_runtime.embedded.kafka_jars import user_cache_dir
from stratarouter_runtime.errors import BrokerError, ConfigurationError, JournalUnavailableError
from stratarouter_runtime.journal.migrations import migrate
from stratarouter_runtime.journal.postgres import PostgresJournal
from stratarouter_runtime.port_values import (
    Begin,
    BudgetWindow,
    CacheEntry,
    CacheHit,
    CacheMiss,
    CacheQuery,
    Checkpoint,
    Finish,
    JournalKey,
    Spent,
)
from stratarouter_runtime.records import Answer
from stratarouter_runtime.testing.simulator import Simulator
from support import containers
from support.encrypted import Encrypted, fronts, servers
from support.fleet import Watch, WorkerProcess, produce, request, write_routes
from support.secure_kafka import SecureKafka, secure_kafka
from support.tls import Authority

pytestmark = pytest.mark.stack

PASSWORD = "canary-password-4711"
WORKER, CLIENT, STRANGER = "worker", "client", "stranger"
OWNER = "11111111-1111-4111-8111-111111111111"
LEFT_BY_AIOKAFKA = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
"""The socket of a client that was not let in, and a producer that was not granted an id."""
OPS = Path(__file__).parents[2] / "ops"
ROLE = OPS / "postgres" / "least-privilege.sql"
REDIS_USER = OPS / "redis" / "least-privilege.acl"


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """An authority that nobody here trusts."""
    return Authority.make(tmp_path_factory.mktemp("stranger"), "another authority")


@pytest.fixture(scope="module")
def tls_servers(authority: Authority) -> Iterator[Encrypted]:
    if containers.engine() is None:
        pytest.skip("no container engine answers: the embedded servers speak TLS through a front alone")
    with servers(authority) as running:
        yield running


@pytest.fixture(params=["front", "servers"])
async def encrypted(
    request: pytest.FixtureRequest, config: RuntimeConfig, authority: Authority
) -> AsyncIterator[Encrypted]:
    """PostgreSQL and Redis over TLS: a front before the stack's, and servers of their own where an engine answers."""
    if request.param == "servers":
        yield request.getfixturevalue("tls_servers")
    else:
        async with fronts(config, authority) as running:
            yield running


# --- Kafka -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def broker(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureKafka]:
    certificate = authority.issue("localhost", name="broker")
    users = dict.fromkeys((WORKER, CLIENT, STRANGER), PASSWORD)
    folder = tmp_path_factory.mktemp("secure-kafka")
    with secure_kafka(folder, user_cache_dir(), certificate, "localhost", users) as running:
        yield running


def _secured(config: RuntimeConfig, broker: SecureKafka, authority: Authority, **changes: object) -> RuntimeConfig:
    return broker.settings(config, authority, WORKER, PASSWORD, **changes)


async def test_a_worker_answers_over_tls_on_every_side_with_the_least_rights(
    config: RuntimeConfig, broker: SecureKafka, encrypted: Encrypted, authority: Authority, tmp_path: Path
) -> None:
    plain = config.model_copy(update={"bootstrap_servers": broker.plain})
    stores = {"database_url": encrypted.database(authority), "redis_url": encrypted.redis(authority)}
    secured = _secured(config, broker, authority, cache_backend="redis", **stores)
    await topics.apply(plain, partitions=2)
    await migrate(secured.database_url)
    await broker.grant(WORKER, required(config, ["enrich", "execute"]))
    async with Simulator() as simulator, Watch(plain) as watch:
        worker = WorkerProcess(
            secured,
            write_routes(tmp_path / "routes.toml", simulator.base_url),
            tmp_path / "worker.log",
            extra={
                "STRATAROUTER_SECURITY_PROTOCOL": "SASL_SSL",
                "STRATAROUTER_SASL_USERNAME": WORKER,
                "STRATAROUTER_SASL_PASSWORD": PASSWORD,
                "STRATAROUTER_SSL_CAFILE": str(authority.cert),
            },
        )
        await worker.start()
        values = [request(f"secure-{number}", f"question {number}") for number in range(40)]
        await produce(plain, [*values, b"not json"])
        await watch.until(41, 90)
        assert await worker.stop() == 0
    assert len(watch.seen.dead_letters) == 1
    assert len(watch.seen.by_id) == 40
    assert all(response.status == "ok" for response in watch.seen.responses)
    log = worker.log.read_text()
    assert PASSWORD not in log
    assert str(urlsplit(secured.database_url).password) not in log


@LEFT_BY_AIOKAFKA
@pytest.mark.usefixtures("collected")
async def test_rights_end_where_they_were_granted(
    config: RuntimeConfig, broker: SecureKafka, authority: Authority
) -> None:
    plain = config.model_copy(update={"bootstrap_servers": broker.plain})
    await topics.apply(plain, partitions=1)
    await broker.grant(CLIENT, required(config, ["clients"]))
    # A client may ask and read answers; what goes on between the processors is none of its business.
    client = _secured(config, broker, authority, sasl_username=CLIENT)
    await produce(client, [request("asked", "a question")])
    with pytest.raises(Exception, match=r"(?i)authoriz"):
        await produce(client.model_copy(update={"requests_topic": "executions"}), [b"{}"])
    with pytest.raises(Exception, match=r"(?i)authoriz"):
        await produce(_secured(config, broker, authority, sasl_username=STRANGER), [request("stranger", "a question")])


@LEFT_BY_AIOKAFKA
@pytest.mark.usefixtures("collected")
@pytest.mark.parametrize("wrong", ["password", "authority", "name", "plaintext"])
async def test_a_broker_that_is_not_who_it_says_is_not_spoken_to(
    config: RuntimeConfig, broker: SecureKafka, authority: Authority, stranger: Authority, wrong: str
) -> None:
    changes: dict[str, dict[str, object]] = {
        "password": {"sasl_password": "another"},
        "authority": {"ssl_cafile": stranger.cert},
        # The certificate is for localhost alone.
        "name": {"bootstrap_servers": broker.secure.replace("localhost", "127.0.0.1")},
        "plaintext": {"bootstrap_servers": broker.plain},
    }
    with pytest.raises(BrokerError) as caught:
        async with asyncio.timeout(60):
            await topics.check(_secured(config, broker, authority, **changes[wrong]))
    assert PASSWORD not in repr(caught.value)


# --- PostgreSQL ------------------------------------------------------------------------------------------------


async def _connect(url: str) -> None:
    journal = PostgresJournal(url, owner=OWNER)
    await journal.start()
    await journal.stop()


async def test_the_journal_is_reached_over_tls_and_only_who_proves_its_name(
    config: RuntimeConfig, encrypted: Encrypted, authority: Authority, stranger: Authority
) -> None:
    trusted = encrypted.database(authority)
    await migrate(trusted)
    await _connect(trusted)
    for url in (encrypted.database(authority, "127.0.0.1"), encrypted.database(stranger)):
        with pytest.raises((JournalUnavailableError, ConfigurationError)) as caught:
            await _connect(url)
        assert str(urlsplit(url).password) not in repr(caught.value)
    # A server without TLS, where TLS is demanded.
    with pytest.raises((JournalUnavailableError, ConfigurationError)):
        await _connect(f"{config.database_url.partition('?')[0]}?sslmode=require")


async def _work(url: str) -> None:
    """All that a worker does with its journal."""
    journal = PostgresJournal(url, owner=OWNER)
    await journal.start()
    try:
        key = JournalKey("acme", "limited")
        assert [begun.state for begun in await journal.begin([Begin(key, "hash", "support")])] == ["granted"]
        answer = Answer("the answer", "openai", "m", cost_usd=0.01)
        window = BudgetWindow("daily", "acme", 0, 86_400)
        charges = ((window, Spent(10_000_000, 3)),)
        [recorded] = await journal.finish([Finish(key, answer, None, (), charges)])
        assert recorded.answer == answer
        assert [found and found.answer for found in await journal.lookup([key])] == [answer]
        assert await journal.spent([window]) == [Spent(10_000_000, 3)]
        await journal.heartbeat()
        await journal.save_checkpoints([Checkpoint("group", "topic", 0, 7, "")])
        assert await journal.load_checkpoint("group", "topic", 0) is not None
        await journal.drop_checkpoint("group", "topic", 0)
        await journal.purge(3600.0)
    finally:
        await journal.stop()


async def test_the_journals_role_can_do_its_work_and_no_more(config: RuntimeConfig) -> None:
    await migrate(config.database_url)
    owner = await asyncpg.connect(config.database_url)
    try:
        name = f"runtime_{urlsplit(config.database_url).path.strip('/')}"[:60]
        await owner.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}'")
        for statement in ROLE.read_text().replace("stratarouter_runtime", name).split(";"):
            if "GRANT" in statement or "REVOKE" in statement:
                await owner.execute(statement)
        parts = urlsplit(config.database_url)
        url = f"postgresql://{name}:{PASSWORD}@127.0.0.1:{parts.port}{parts.path}"
        await _work(url)
        limited = await asyncpg.connect(url)
        try:
            for forbidden in (
                "CREATE TABLE mine (n integer)",
                "DROP TABLE journal",
                "ALTER TABLE journal ADD COLUMN mine integer",
                "TRUNCATE journal",
                "CREATE ROLE other",
            ):
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await limited.execute(forbidden)
        finally:
            await limited.close()
    finally:
        await owner.execute(f"DROP OWNED BY {name}")
        await owner.execute(f"DROP ROLE {name}")
        await owner.close()


# --- Redis -----------------------------------------------------------------------------------------------------


def _cache(config: RuntimeConfig, url: str) -> RuntimeConfig:
    return config.model_copy(update={"cache_backend": "redis", "redis_url": url})


async def _reaches(config: RuntimeConfig, within_s: float) -> bool:
    """Whether a cache finds its server within ``within_s`` seconds: a busy machine shakes hands slowly."""
    cache = create_cache(config, clock=SystemClock())
    await cache.start()
    deadline = time.monotonic() + within_s
    try:
        while time.monotonic() < deadline:
            [found] = await cache.lookup([CacheQuery("scope", "hash", "text")])
            assert isinstance(found, CacheMiss)
            if not found.bypassed:
                return True
            await asyncio.sleep(0.1)
    finally:
        await cache.stop()
    return False


async def test_the_cache_is_reached_over_tls_and_is_a_bypass_where_the_server_is_another(
    config: RuntimeConfig, encrypted: Encrypted, authority: Authority, stranger: Authority
) -> None:
    assert await _reaches(_cache(config, encrypted.redis(authority)), 60)
    assert config.redis_url is not None
    for url in (
        encrypted.redis(authority, "127.0.0.1"),
        encrypted.redis(stranger),
        # A server without TLS, where TLS is demanded.
        f"{config.redis_url.replace('redis://', 'rediss://')}?ssl_ca_certs={authority.cert}",
    ):
        assert not await _reaches(_cache(config, url), 3)


async def test_the_caches_user_can_do_its_work_and_no_more(config: RuntimeConfig, tmp_path: Path) -> None:
    assert config.redis_url is not None
    line = REDIS_USER.read_text().replace("change-me", PASSWORD).split()
    async with Redis.from_url(config.redis_url) as admin:
        await admin.execute_command("ACL", "SETUSER", *line[1:])
        try:
            parts = urlsplit(config.redis_url)
            url = f"redis://stratarouter:{PASSWORD}@127.0.0.1:{parts.port}/0"
            await _fill_and_find(_cache(config, url))
            async with Redis.from_url(url) as limited:
                for forbidden in (("SET", "other", "1"), ("FLUSHALL",), ("CONFIG", "GET", "*"), ("KEYS", "*")):
                    with pytest.raises(NoPermissionError):
                        await limited.execute_command(*forbidden)
        finally:
            await admin.execute_command("ACL", "DELUSER", line[1])


async def _fill_and_find(config: RuntimeConfig) -> None:
    """What a worker does with its cache: keep an answer, find it by its words and by likeness, from another worker."""
    answer = Answer("the answer", "openai", "m")
    vector = np.zeros(8, dtype=np.float32)
    vector[0] = 1.0
    entry = CacheEntry("hash", uuid.uuid4().hex, "hash", "the question", answer, vector=vector, ttl=60)
    ours, other = (create_cache(config, clock=SystemClock()) for _ in range(2))
    await ours.start()
    await other.start()
    try:
        await ours.store([entry])
        exact = CacheQuery(entry.scope, "hash", "the question")
        alike = CacheQuery(entry.scope, "another", "the question", vector=vector)
        async with asyncio.timeout(60):
            for query, kind in ((exact, "exact"), (alike, "semantic")):
                [found] = await other.lookup([query])
                while not isinstance(found, CacheHit):
                    await asyncio.sleep(0.05)
                    [found] = await other.lookup([query])
                assert found.kind == kind
            # It is told what changes, so that it may keep copies of what it fetched.
            while other.lookup_now([exact]) is None:
                await asyncio.sleep(0.05)
                await other.lookup([exact])
    finally:
        await ours.stop()
        await other.stop()
