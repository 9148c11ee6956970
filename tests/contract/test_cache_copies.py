"""A repeated hit costs Redis nothing, and what Redis no longer holds is served for some milliseconds at most."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

import numpy as np
import orjson
import pytest
from redis.asyncio import Redis

from stratarouter_runtime.cache.guard import create_guard
from stratarouter_runtime.cache.keys import Keys
from stratarouter_runtime.cache.redis import RedisCache
from stratarouter_runtime.cache.watch import HEARTBEAT_S
from stratarouter_runtime.clock import SystemClock
from stratarouter_runtime.embedded import EmbeddedStack
from stratarouter_runtime.port_values import CacheEntry, CacheHit, CacheMiss, CacheQuery
from stratarouter_runtime.records import Answer, Vector
from support.waits import until

pytestmark = pytest.mark.stack


def towards(x: float, y: float) -> Vector:
    row = np.array([x, y], dtype=np.float32)
    scaled: Vector = row / np.float32(np.linalg.norm(row))
    return scaled


ENTRY = CacheEntry("e1", "s", "h1", "What is the capital of France?", Answer("Paris", "openai", "m"), towards(1.0, 0.0))
SAME = CacheQuery("s", "h1", "What is the capital of France?", towards(1.0, 0.0))
ALIKE = CacheQuery("s", "h2", "what is the capital city of France", towards(1.0, 0.05))


@pytest.fixture
async def redis(url: str) -> AsyncIterator[Redis]:
    async with Redis.from_url(url) as client:
        yield client


@pytest.fixture
def keys() -> Keys:
    return Keys(uuid.uuid4().hex)


@pytest.fixture
async def start(url: str, keys: Keys) -> AsyncIterator[Callable[..., Awaitable[RedisCache]]]:
    """Starts workers' caches of one prefix, and stops them."""
    caches: list[RedisCache] = []

    async def starting(address: str = url) -> RedisCache:
        cache = RedisCache(address, clock=SystemClock(), guard=create_guard(), prefix=keys.prefix, timeout_s=5.0)
        caches.append(cache)
        await cache.start()
        return cache

    yield starting
    for cache in caches:
        await cache.stop()


Starting = Callable[..., Awaitable[RedisCache]]


async def copied(cache: RedisCache, query: CacheQuery = SAME) -> CacheHit:
    """The hit, once this cache needs no round trip for it."""
    hits: list[CacheHit] = []

    async def without_a_trip() -> bool:
        before = cache.counters.copied
        [hit] = await cache.lookup([query])
        assert isinstance(hit, CacheHit)
        hits.append(hit)
        return cache.counters.copied > before

    await until(without_a_trip, "a hit without a round trip")
    return hits[-1]


def now(cache: RedisCache, query: CacheQuery = SAME) -> CacheHit | CacheMiss | None:
    found = cache.lookup_now([query])
    return None if found is None else found[0]


async def gets(redis: Redis) -> int:
    stats = await redis.info("commandstats")
    return int(stats["cmdstat_get"]["calls"]) if "cmdstat_get" in stats else 0


async def test_a_repeated_hit_asks_redis_nothing(start: Starting, redis: Redis) -> None:
    cache = await start()
    await cache.store([ENTRY])
    fetched = await copied(cache)
    before = await gets(redis)
    for _ in range(100):
        [same, alike] = await cache.lookup([SAME, ALIKE])
        assert same == fetched == now(cache)
        assert isinstance(alike, CacheHit)
        assert (alike.kind, alike.entry_id, alike.answer) == ("semantic", "e1", ENTRY.answer)
        assert alike.likeness == alike.similarity < 1.0
    assert await gets(redis) == before
    assert cache.held.copied >= 300
    assert (cache.held.entries, cache.held.evicted) == (1, 0)


async def test_what_has_no_copy_is_asked_beside_what_has(start: Starting) -> None:
    cache = await start()
    other = replace(ENTRY, entry_id="e3", content_hash="h3", text="Who wrote Faust?", vector=towards(0.0, 1.0))
    await cache.store([ENTRY, other])
    await copied(cache)
    queries = [replace(SAME, content_hash="h3"), SAME, replace(SAME, scope="t", vector=None)]
    assert cache.lookup_now(queries) is None
    first, second, third = await cache.lookup(queries)
    assert isinstance(first, CacheHit)
    assert isinstance(second, CacheHit)
    assert (first.entry_id, second.entry_id, third) == ("e3", "e1", CacheMiss())


async def test_another_workers_newer_answer_takes_the_place_of_the_copy(start: Starting) -> None:
    one, other = await start(), await start()
    await one.store([ENTRY])
    await copied(one)
    await other.store([replace(ENTRY, entry_id="e2", answer=Answer("Lyon", "openai", "m"))])

    async def is_newer() -> bool:
        [hit] = await one.lookup([SAME])
        return isinstance(hit, CacheHit) and hit.answer.text == "Lyon"

    await until(is_newer, "the newer answer")


async def test_an_answer_of_ones_own_takes_the_place_of_the_copy_at_once(start: Starting) -> None:
    cache = await start()
    for number in range(20):
        await cache.store([replace(ENTRY, entry_id=f"e{number}")])
        [hit] = await cache.lookup([SAME])
        assert isinstance(hit, CacheHit)
        assert hit.entry_id == f"e{number}"
        await copied(cache)
    await cache.discard([("s", "h1")])
    [miss] = await cache.lookup([SAME])
    assert isinstance(miss, CacheMiss)


async def test_what_changed_while_it_was_on_its_way_is_not_copied(
    start: Starting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its change is told of before the old value is read here, and never again."""
    one, other = await start(), await start()
    await one.store([ENTRY])
    await copied(one)
    await one.store([replace(ENTRY, entry_id="e2")])
    ask = one._ask

    async def outrun(commands: Sequence[tuple[Any, ...]]) -> list[Any] | None:
        replies = await ask(commands)
        changes = one._copies.changes
        await other.store([replace(ENTRY, entry_id="e3")])

        async def is_told() -> bool:
            return one._copies.changes > changes

        await until(is_told, "the change to be told of")
        return replies

    with monkeypatch.context() as patched:
        patched.setattr(one, "_ask", outrun)
        [old] = await one.lookup([SAME])
    [new] = await one.lookup([SAME])
    assert isinstance(old, CacheHit)
    assert isinstance(new, CacheHit)
    assert (old.entry_id, new.entry_id) == ("e2", "e3")


@pytest.mark.parametrize("how", ["delete", "expire", "flush", "spoil"])
async def test_what_redis_lost_is_soon_served_no_more(start: Starting, redis: Redis, keys: Keys, how: str) -> None:
    cache = await start()
    await cache.store([ENTRY])
    await copied(cache)
    name = keys.answer(("s", "h1"))
    ways: dict[str, tuple[Any, ...]] = {
        "delete": ("DEL", name),
        "expire": ("PEXPIRE", name, 1),
        "flush": ("FLUSHDB",),
        "spoil": ("SET", name, b"junk"),
    }
    execute: Any = redis.execute_command  # the client's own type says nothing
    await execute(*ways[how])

    async def is_gone() -> bool:
        return isinstance((await cache.lookup([SAME]))[0], CacheMiss)

    await until(is_gone, "the miss")


async def test_a_copy_lives_no_longer_than_its_entry(start: Starting, redis: Redis) -> None:
    """By this process's own clock too: Redis tells of an entry whose time is over only when it comes across it."""
    cache = await start()
    await cache.store([replace(ENTRY, ttl=1)])
    await copied(cache)
    await redis.client_pause(3000, all=True)  # it tells nothing
    ends = time.monotonic() + 1.5
    while time.monotonic() < ends:
        await asyncio.sleep(0.05)
    assert now(cache) is None


async def test_without_somebody_who_listens_nothing_is_copied_and_then_again(start: Starting, redis: Redis) -> None:
    cache = await start()
    await cache.store([ENTRY])
    await copied(cache)
    await redis.client_kill_filter(_type="pubsub")

    async def is_dropped() -> bool:
        return now(cache) is None

    await until(is_dropped, "the copies to be dropped")
    assert isinstance((await cache.lookup([SAME]))[0], CacheHit)
    await copied(cache)
    assert cache.counters.failures == 0


async def test_a_server_that_falls_silent_leaves_no_copies_behind(start: Starting, valkey: EmbeddedStack) -> None:
    cache = await start()
    await cache.store([ENTRY])
    await copied(cache)
    pid = valkey.redis.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    began = time.monotonic()
    try:

        async def is_dropped() -> bool:
            return now(cache) is None

        assert isinstance(now(cache), CacheHit)
        await until(is_dropped, "the copies to be dropped")
        assert time.monotonic() - began > HEARTBEAT_S / 2, "dropped before anybody can have noticed"
    finally:
        os.kill(pid, signal.SIGCONT)
    await copied(cache)


async def test_a_copy_goes_with_the_connection_that_read_it(start: Starting, redis: Redis) -> None:
    """Redis tells nobody of the keys of a client that has gone, and hits without a trip never saw that it had."""
    one, other = await start(), await start()
    await one.store([ENTRY])
    await copied(one)
    await redis.client_kill_filter(_type="normal", skipme=True)
    await other.store([replace(ENTRY, entry_id="e2", answer=Answer("Lyon", "openai", "m"))])

    async def is_newer() -> bool:
        [hit] = await one.lookup([SAME])
        return isinstance(hit, CacheHit) and hit.answer.text == "Lyon"

    await until(is_newer, "the newer answer")
    assert await copied(one) == now(one)
    assert (one.counters.failures, one.counters.bypassed) == (0, 0)


class Network:
    """Between a worker and Redis: ``forget`` lets go of the connections that read, and tells the worker nothing."""

    def __init__(self, url: str) -> None:
        self._host, _, port = url.rpartition("@")[2].partition("/")[0].partition(":")
        self._port = int(port)
        self._reading: list[asyncio.StreamWriter] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._url = url

    async def __aenter__(self) -> str:
        """Its address, in place of the server's."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        return self._url.replace(f"{self._host}:{self._port}", f"127.0.0.1:{port}")

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def forget(self) -> None:
        for towards_redis in self._reading:
            towards_redis.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, towards_redis = await asyncio.open_connection(self._host, self._port)
        self._tasks += [
            asyncio.create_task(self._pass(reader, towards_redis)),
            asyncio.create_task(self._pass(there, writer)),
        ]

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while some := await reader.read(65536):
                if b"TRACKING" in some:
                    self._reading.append(writer)
                writer.write(some)
            await asyncio.Event().wait()  # who is behind this hears of no end
        except OSError:
            await asyncio.Event().wait()
        finally:
            writer.transport.abort()


async def test_a_copy_goes_with_a_connection_that_was_lost_without_a_word(start: Starting, url: str) -> None:
    other = await start()
    async with AsyncExitStack() as parts:
        network = Network(url)
        one = await start(await parts.enter_async_context(network))
        parts.push_async_callback(one.stop)
        await one.store([ENTRY])
        await copied(one)
        network.forget()
        await other.store([replace(ENTRY, entry_id="e2", answer=Answer("Lyon", "openai", "m"))])

        async def is_newer() -> bool:
            [hit] = await one.lookup([SAME])
            return isinstance(hit, CacheHit) and hit.answer.text == "Lyon"

        began = time.monotonic()
        await until(is_newer, "the newer answer")
        assert time.monotonic() - began > HEARTBEAT_S / 4, "found out before anybody can have noticed"


@pytest.mark.parametrize("lacking", ["subscribe", "client|tracking", "client|id"])
async def test_a_user_who_may_not_listen_has_a_cache_without_copies(
    start: Starting, redis: Redis, url: str, lacking: str
) -> None:
    user = f"u{uuid.uuid4().hex[:8]}"
    execute: Any = redis.execute_command  # the client's own type says nothing
    await execute("ACL", "SETUSER", user, "on", ">secret", "~*", "&*", "+@all", f"-{lacking}")
    cache = await start(f"redis://{user}:secret@{url.rpartition('@')[2]}")
    await cache.store([ENTRY])
    for _ in range(50):
        [hit] = await cache.lookup([SAME])
        assert isinstance(hit, CacheHit)
        await asyncio.sleep(0.002)
    assert (cache.counters.copied, cache.counters.failures) == (0, 0)
    assert now(cache) is None


@pytest.mark.parametrize("seed", range(3))
async def test_whatever_comes_between_reading_and_writing_the_last_answer_wins_everywhere(
    start: Starting, redis: Redis, keys: Keys, seed: int
) -> None:
    dice = random.Random(seed)
    caches = [await start() for _ in range(3)]
    names = [f"n{number}" for number in range(3)]
    queries = [CacheQuery("s", name, name) for name in names]

    async def write(number: int) -> None:
        name = dice.choice(names)
        entry = CacheEntry(f"{name}-{number}", "s", name, name, Answer("a", "p", "m"))
        await dice.choice(caches).store([entry])

    async def read() -> None:
        await dice.choice(caches).lookup(dice.sample(queries, 2))

    for number in range(150):
        await asyncio.gather(*([write(number)] + [read() for _ in range(dice.randrange(12))]))
    raws = [await redis.get(keys.answer(("s", name))) for name in names]
    truth = [orjson.loads(raw)["entry_id"] for raw in raws if raw is not None]

    async def agree() -> bool:
        found = [await cache.lookup(queries) for cache in caches]
        return all([hit.entry_id for hit in hits if isinstance(hit, CacheHit)] == truth for hits in found)

    await until(agree, "all to serve what Redis holds")
    for _ in range(20):
        assert await agree()
    assert sum(cache.counters.copied for cache in caches) > 0
