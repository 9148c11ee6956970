"""What control promises over every backend."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from redis.asyncio import Redis

from stratarouter_runtime.cache.controlled import ControlledCache
from stratarouter_runtime.cache.guard import create_guard
from stratarouter_runtime.cache.keys import Keys
from stratarouter_runtime.cache.memory import MemoryCache
from stratarouter_runtime.cache.redis import RedisCache
from stratarouter_runtime.clock import SystemClock
from stratarouter_runtime.embedded import EmbeddedStack
from stratarouter_runtime.port_values import CacheEntry, CacheHit, CacheMiss, CacheQuery
from stratarouter_runtime.records import Answer, CacheCommand, Vector
from stratarouter_runtime.state.cache_control import MAX_SILENCE_S, CacheControl, Origin, label
from support.waits import until

TTL_S = 3600


class Clock(SystemClock):
    """Real, and set forward at will."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead_s

    def wall_ms(self) -> int:
        return super().wall_ms() + int(1000 * self.ahead_s)


class Bench:
    """A controlled cache; ``another`` makes a second worker on the same Redis, or one of its own in memory."""

    def __init__(self, url: str | None) -> None:
        self.url = url
        self.prefix = f"t{uuid.uuid4().hex[:8]}"
        self.clock = Clock()
        self.control = CacheControl()
        self.cache = self.another(self.control)

    def another(self, control: CacheControl) -> ControlledCache:
        control.followed = True
        control.heard(self.clock.monotonic())
        guard = create_guard()
        if self.url is None:
            return ControlledCache(MemoryCache(clock=self.clock, guard=guard), control, self.clock)
        backend = RedisCache(self.url, clock=self.clock, guard=guard, prefix=self.prefix, timeout_s=5.0)
        return ControlledCache(backend, control, self.clock)

    async def say(self, action: Any = "invalidate", **fields: Any) -> None:
        """As the reader does it."""
        command = CacheCommand(action, "ann", "because", 0, **fields)
        self.control.apply(command, self.control.position + 1, self.clock.wall_ms(), TTL_S)
        await self.cache.drop_stale()

    async def ask(self, query: CacheQuery) -> CacheHit | CacheMiss:
        return await ask(self.cache, query)


async def ask(cache: ControlledCache, query: CacheQuery) -> CacheHit | CacheMiss:
    found = cache.lookup_now([query])
    [one] = await cache.lookup([query]) if found is None else found
    return one


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.stack)])
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    url = None if request.param == "memory" else request.getfixturevalue("valkey").start_sync().redis_url
    made = Bench(url)
    await made.cache.start()
    yield made
    await made.cache.stop()


def vector(*numbers: float) -> Vector:
    row = np.array(numbers, dtype=np.float32)
    scaled: Vector = row / np.float32(np.linalg.norm(row))
    return scaled


def origin(key: str, begun: int = -1, *, tenant: str = "acme", tags: tuple[str, ...] = ()) -> Origin:
    labels = (
        label("key", key),
        label("request", tenant, f"r-{key}"),
        label("tenant", tenant),
        label("route", "billing"),
        *(label("tag", tag) for tag in tags),
    )
    return Origin(begun, labels)


def entry(key: str, text: str, begun: int = -1, *, near: Vector | None = None, **more: Any) -> CacheEntry:
    answer = Answer(f"answer to {text}", "openai", "m", cost_usd=0.01)
    return CacheEntry(key, "s1", key, text, answer, near, origin=origin(key, begun, **more))


PARIS = "What is the capital of France?"
CITY = "what is the capital city of France"
SAME = CacheQuery("s1", "h1", PARIS, vector(1.0, 0.0))
ALIKE = CacheQuery("s1", "h2", CITY, vector(1.0, 0.05))


@pytest.mark.parametrize(
    "named",
    [
        {"key": "h1"},
        {"request_id": "r-h1", "tenant": "acme"},
        {"tag": "doc-7"},
        {"route_id": "billing"},
        {"tenant": "acme"},
        {"everything": True},
    ],
    ids=lambda named: next(iter(named)),
)
async def test_what_is_named_is_served_no_more_by_words_or_likeness(bench: Bench, named: dict[str, Any]) -> None:
    stored = entry("h1", PARIS, near=vector(1.0, 0.0), tags=("doc-7",))
    await bench.cache.store([stored])
    assert isinstance(await bench.ask(SAME), CacheHit)
    assert isinstance(await bench.ask(ALIKE), CacheHit)
    await bench.say(**named)
    assert isinstance(await bench.ask(SAME), CacheMiss)
    assert isinstance(await bench.ask(ALIKE), CacheMiss)
    assert bench.cache.kept_out.dropped == 1
    # What is asked for afterwards is kept again.
    await bench.cache.store([replace(stored, origin=replace(stored.origin, begun=bench.control.position))])
    assert isinstance(await bench.ask(SAME), CacheHit)


async def test_what_is_not_named_stays(bench: Bench) -> None:
    await bench.cache.store([entry("h1", PARIS, tags=("doc-7",))])
    for named in ({"key": "h2"}, {"request_id": "r-h1"}, {"tag": "doc-8"}, {"route_id": "b"}, {"tenant": "globex"}):
        await bench.say(**named)
    assert isinstance(await bench.ask(SAME), CacheHit)


async def test_an_answer_asked_for_before_the_invalidation_is_not_kept_after_it(bench: Bench) -> None:
    begun = bench.control.position
    await bench.say(tag="doc-7")
    await bench.cache.store([entry("h1", PARIS, begun, tags=("doc-7",)), entry("h9", "another question", begun)])
    assert isinstance(await bench.ask(SAME), CacheMiss)
    assert isinstance(await bench.ask(CacheQuery("s1", "h9", "another question")), CacheHit)
    assert bench.cache.kept_out.stored == 1


@pytest.mark.stack
async def test_an_old_answer_that_a_slower_worker_puts_into_redis_is_not_served(valkey: EmbeddedStack) -> None:
    # The slower worker has not heard of the invalidation: only its answer's position tells.
    bench = Bench(valkey.start_sync().redis_url)
    await bench.cache.start()
    slower = bench.another(CacheControl())
    await slower.start()
    begun = bench.control.position
    await bench.say(tenant="acme")
    await slower.store([entry("h1", PARIS, begun, near=vector(1.0, 0.0))])
    assert isinstance(await ask(slower, SAME), CacheHit)
    found = await bench.ask(SAME)
    assert isinstance(found, CacheMiss)
    assert (found.reason, bench.cache.kept_out.served) == ("invalidated", 1)

    async def is_gone() -> bool:
        return isinstance(await ask(slower, SAME), CacheMiss)

    # The slower worker serves its copy until Redis has told it.
    await until(is_gone, "it to be taken out on the way")
    await slower.stop()
    await bench.cache.stop()


@pytest.mark.stack
async def test_one_worker_tidies_redis_up_for_all(valkey: EmbeddedStack) -> None:
    url = valkey.start_sync().redis_url
    assert url is not None
    bench = Bench(url)
    await bench.cache.start()
    other_control = CacheControl()
    other = bench.another(other_control)
    await other.start()
    await bench.cache.store(
        [entry(f"h{n}", f"question {n}", near=vector(1.0, n), tags=("odd",) if n % 2 else ()) for n in range(500)]
    )
    other_control.apply(CacheCommand("invalidate", "a", "b", 0, tag="odd"), 0, 0, TTL_S)
    await bench.say(tag="odd")
    assert await other.drop_stale() == 0
    assert bench.cache.kept_out.dropped == 250
    redis = Redis.from_url(url)
    names = [name async for name in redis.scan_iter(match=f"{bench.prefix}:s1:*")]
    assert len(names) == 500, "250 answers and what finds them"
    assert await redis.pttl(Keys(bench.prefix).turn("0")) > 0
    await redis.aclose()
    await other.stop()
    await bench.cache.stop()


async def test_an_alias_goes_with_the_entry_whose_answer_it_is(bench: Bench) -> None:
    stored = entry("h1", PARIS, near=vector(1.0, 0.0))
    both = Origin(-1, (label("key", "h2"), label("key", "h1")))
    await bench.cache.store([stored, replace(stored, content_hash="h2", text=CITY, vector=None, origin=both)])
    hit = await bench.ask(replace(ALIKE, vector=None))
    assert isinstance(hit, CacheHit)
    assert (hit.kind, hit.entry_id) == ("exact", "h1")
    await bench.say(key="h1")
    assert isinstance(await bench.ask(replace(ALIKE, vector=None)), CacheMiss)


async def test_a_corrected_answer_is_served_for_its_words_and_for_like_ones(bench: Bench) -> None:
    await bench.cache.store([entry("h1", PARIS, near=vector(1.0, 0.0))])
    await bench.say("correct", key="h1", text="Paris, of course.")
    for query, kind in ((SAME, "exact"), (ALIKE, "semantic")):
        hit = await bench.ask(query)
        assert isinstance(hit, CacheHit)
        assert (hit.answer.text, hit.kind, hit.reason) == ("Paris, of course.", kind, "corrected")
        assert hit.answer.cost_usd == 0.01
    # A later answer of the provider's does not undo it, an invalidation does.
    await bench.cache.store([entry("h1", PARIS, bench.control.position, near=vector(1.0, 0.0))])
    hit = await bench.ask(SAME)
    assert isinstance(hit, CacheHit)
    assert hit.answer.text == "Paris, of course."
    await bench.say(key="h1")
    assert isinstance(await bench.ask(SAME), CacheMiss)


async def test_a_correction_is_served_where_no_entry_is_left(bench: Bench) -> None:
    await bench.say("correct", key="h1", text="Paris.")
    hit = await bench.ask(SAME)
    assert isinstance(hit, CacheHit)
    assert (hit.answer.text, hit.entry_id, hit.answer.cost_usd) == ("Paris.", "h1", None)


@pytest.mark.parametrize("followed", [True, False])
async def test_what_was_corrected_is_served_no_more_once_the_correction_is_over(bench: Bench, followed: bool) -> None:
    """An entry may be kept for longer, by its route's ``cache.ttl`` or its request's."""
    bench.control.followed = followed
    kept = replace(entry("h1", PARIS, near=vector(1.0, 0.0)), ttl=3 * TTL_S)
    await bench.cache.store([kept, replace(entry("h9", "another question"), ttl=3 * TTL_S)])
    await bench.say("correct", key="h1", text="Paris, of course.")
    for query in (SAME, ALIKE):
        hit = await bench.ask(query)
        assert isinstance(hit, CacheHit)
        assert hit.answer.text == "Paris, of course."
    bench.clock.ahead_s = TTL_S + 1
    bench.control.heard(bench.clock.monotonic())
    for query in (SAME, ALIKE, SAME):
        assert isinstance(await bench.ask(query), CacheMiss)
    assert bench.cache.kept_out.served == 1, "it is taken out on the way"
    assert isinstance(await bench.ask(CacheQuery("s1", "h9", "another question")), CacheHit)
    # What is asked for from then on is kept as ever; what was asked for before the correction is not.
    await bench.cache.store([kept])
    assert isinstance(await bench.ask(SAME), CacheMiss)
    fresh = replace(kept, origin=replace(kept.origin, begun=bench.control.position))
    await bench.cache.store([fresh])
    for query in (SAME, ALIKE):
        hit = await bench.ask(query)
        assert isinstance(hit, CacheHit)
        assert (hit.answer, hit.reason) == (kept.answer, None)


async def test_a_counter_example_is_refused_and_the_next_candidate_is_looked_at(bench: Bench) -> None:
    await bench.say("mark_wrong", key="h2", answered_by="h1")
    begun = bench.control.position
    await bench.cache.store([entry("h1", PARIS, begun, near=vector(1.0, 0.0))])
    miss = await bench.ask(ALIKE)
    assert isinstance(miss, CacheMiss)
    assert (miss.reason, miss.entry_id) == ("guard:marked_wrong", "h1")
    assert isinstance(await bench.ask(replace(ALIKE, content_hash="h4")), CacheHit), "another question is not concerned"
    await bench.cache.store([entry("h3", "What's the capital of France?", begun, near=vector(1.0, 0.2))])
    hit = await bench.ask(replace(ALIKE, threshold=0.9))
    assert isinstance(hit, CacheHit)
    assert hit.entry_id == "h3"


async def test_nothing_is_served_while_the_topic_is_out_of_reach(bench: Bench) -> None:
    await bench.cache.store([entry("h1", PARIS)])
    bench.clock.ahead_s = MAX_SILENCE_S + 1.0
    assert await bench.ask(SAME) == CacheMiss("control", bypassed=True)
    assert await bench.cache.lookup([SAME]) == [CacheMiss("control", bypassed=True)]
    bench.control.heard(bench.clock.monotonic())
    assert isinstance(await bench.ask(SAME), CacheHit)


async def test_a_topic_made_anew_empties_the_cache(bench: Bench) -> None:
    await bench.say(tag="x")
    await bench.cache.store([entry("h1", PARIS, bench.control.position)])
    assert await bench.cache.drop_everything() == 1
    assert isinstance(await bench.ask(SAME), CacheMiss)


async def test_who_follows_no_topic_takes_out_what_it_names_itself(bench: Bench) -> None:
    bench.control.followed = False
    stored = entry("h1", PARIS, tags=("doc-7",))
    await bench.cache.store([stored, entry("h9", "another question")])
    command = CacheCommand("invalidate", "ann", "because", 0, tag="doc-7")
    bench.control.apply(command, 0, 0, TTL_S)
    assert await bench.cache.drop_covered(command) == 1
    assert isinstance(await bench.ask(SAME), CacheMiss)
    assert isinstance(await bench.ask(CacheQuery("s1", "h9", "another question")), CacheHit)
    await bench.cache.store([stored])
    assert isinstance(await bench.ask(SAME), CacheMiss), "it was asked for before"
    await bench.cache.store([replace(stored, origin=replace(stored.origin, begun=0))])
    assert isinstance(await bench.ask(SAME), CacheHit)


@pytest.mark.stack
@pytest.mark.parametrize("given_up", [False, True], ids=["awaited", "given up"])
async def test_what_is_on_its_way_into_redis_is_taken_out_too_where_nobody_judges_it_later(
    valkey: EmbeddedStack, given_up: bool
) -> None:
    """The answer left before the command and was written after the walk: it was served for its whole time to live."""
    url = valkey.start_sync().redis_url
    assert url is not None
    bench = Bench(url)
    bench.control.followed = False
    await bench.cache.start()
    await bench.ask(SAME)
    async with Redis.from_url(url) as redis:
        await redis.execute_command("CLIENT", "PAUSE", 10_000, "WRITE")
        try:
            storing = asyncio.create_task(bench.cache.store([entry("h1", PARIS, near=vector(1.0, 0.0), tags=("t",))]))

            async def is_held() -> bool:
                return "cmd=set" in str(await redis.execute_command("CLIENT", "LIST"))

            await until(is_held, "Redis to have the answer")
            if given_up:
                storing.cancel()
                await asyncio.wait([storing])
            command = CacheCommand("invalidate", "ann", "because", 0, tag="t")
            bench.control.apply(command, 0, 0, TTL_S)
            dropping = asyncio.create_task(bench.cache.drop_covered(command))
            # Long enough for a walk over everything, which reads alone.
            await asyncio.wait([dropping], timeout=0.2)
        finally:
            await redis.execute_command("CLIENT", "UNPAUSE")
    await asyncio.wait([storing])
    assert await dropping == 1
    assert isinstance(await bench.ask(SAME), CacheMiss)
    await bench.cache.stop()
