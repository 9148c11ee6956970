"""Who follows a leader at odd moments: after its own row was finished or left, as the leader ends, on a slow cache."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, cast

import pytest

from stratarouter_runtime.cache.guard import create_guard
from stratarouter_runtime.cache.memory import MemoryCache
from stratarouter_runtime.clock import SystemClock
from stratarouter_runtime.engine.asking import Looked
from stratarouter_runtime.errors import ProviderUnavailableError
from stratarouter_runtime.journal.memory import MemoryJournal, MemoryStore
from stratarouter_runtime.port_values import Begin, CacheEntry, CacheMiss, CacheQuery, JournalKey, ProviderCall
from stratarouter_runtime.ports import Cache
from stratarouter_runtime.records import Answer, CacheOptions, Usage
from unit.engine_bench import SECOND, Bench, Provider, SteppedClock, execution, until, vector

X = JournalKey("acme", "x")
KEPT_STEADY_S = (20.0, 22.0, 24.0, 26.0, 28.0, 30.0)
"""When the living worker beats: long after the dead one's last beat, and as often as it should."""


class Speaking(Provider):
    """Says half of each answer at once, and the rest when the gate opens."""

    async def call(
        self, provider: str, call: ProviderCall, *, on_text: Callable[[str], None] | None = None, **_: Any
    ) -> Answer:
        self.calls.append(call)
        halves = (f"[{len(self.calls)}] first half ", "second half")
        if on_text is not None:
            on_text(halves[0])
        await self.gate.wait()
        if on_text is not None:
            on_text(halves[1])
        return Answer("".join(halves), provider, call.model, Usage(1, 1), cost_usd=0.01)


class SlowCache:
    """A shared cache that holds nothing and keeps no answer before it may."""

    shared = True

    def __init__(self) -> None:
        self.may_store = asyncio.Event()
        self.stored: list[CacheEntry] = []

    def lookup_now(self, queries: Sequence[CacheQuery]) -> None:  # noqa: ARG002
        return None

    async def lookup(self, queries: Sequence[CacheQuery]) -> list[CacheMiss]:
        return [CacheMiss() for _ in queries]

    async def store(self, entries: Sequence[CacheEntry]) -> None:
        await self.may_store.wait()
        self.stored += entries

    async def claim(self, place: object) -> bool:  # noqa: ARG002
        return True

    async def release(self, place: object) -> None:
        """Nothing is held."""


async def test_an_id_that_was_answered_hears_nothing_of_another_call_of_the_same_words() -> None:
    provider = Speaking()
    async with Bench(provider) as bench:
        first = await bench.engine.submit(execution("x", "same"))
        provider.gate.clear()
        others: list[str] = []
        heard: list[str] = []
        other = bench.engine.submit(execution("y", "same"), on_text=others.append)
        await until(lambda: bool(others))
        again = await bench.engine.submit(execution("x", "same"), on_text=heard.append)
        provider.gate.set()
        await other
        assert (again.text, again.from_journal) == (first.text, True)
        assert heard == []
        assert "".join(others) == "[2] first half second half"


async def test_who_follows_still_hears_an_answer_from_its_beginning() -> None:
    provider = Speaking()
    provider.gate.clear()
    async with Bench(provider) as bench:
        led: list[str] = []
        heard: list[str] = []
        leader = bench.engine.submit(execution("y", "same"), on_text=led.append)
        await until(lambda: bool(led))
        follower = bench.engine.submit(execution("x", "same"), on_text=heard.append)
        await until(lambda: bool(heard))
        provider.gate.set()
        assert (await follower).text == (await leader).text == "".join(heard)
        assert len(provider.calls) == 1


async def test_words_whose_leader_ends_between_the_look_and_the_call_are_paid_for_once() -> None:
    provider = Provider()
    provider.gate.clear()
    async with Bench(provider) as bench:
        engine = bench.engine_with(MemoryCache(clock=SystemClock(), guard=create_guard()))
        leader = engine.submit(execution("a", "same"))
        await until(lambda: bool(provider.calls))
        looked = engine.look_now(execution("b", "same"))
        assert isinstance(looked, Looked)
        provider.gate.set()
        await leader
        served = await engine.submit(execution("b", "same"), looked=looked)
        assert (len(provider.calls), served.status, served.cost_usd) == (1, "ok", 0.0)
        # Once each, though the second was looked up twice.
        assert bench.metrics.cache_lookups_total.labels("miss")._value.get() == 2
        assert bench.metrics.cache_lookups_total.labels("exact")._value.get() == 0


async def test_a_miss_of_words_that_nobody_led_is_not_looked_up_again() -> None:
    async with Bench(Provider()) as bench:
        engine = bench.engine_with(MemoryCache(clock=SystemClock(), guard=create_guard()))
        looked = engine.look_now(execution("b", "same"))
        assert isinstance(looked, Looked)
        await engine.submit(execution("b", "same"), looked=looked)
        assert bench.metrics.cache_lookups_total.labels("miss")._value.get() == 1


async def test_a_follower_with_its_answer_does_not_wait_for_a_slow_cache() -> None:
    provider = Provider()
    provider.gate.clear()
    cache = SlowCache()
    async with Bench(provider) as bench:
        engine = bench.engine_with(cast("Cache", cache))
        leader = engine.submit(execution("lead", "one 1", embedding=vector(1, 0)))
        await until(lambda: bool(provider.calls))
        late_ms = int(time.time() * 1000) + 3000
        follower = engine.submit(execution("f", "uno 1", embedding=vector(1, 0.01), deadline_ms=late_ms))
        await asyncio.sleep(0.05)
        provider.gate.set()
        assert (await leader).status == "ok"
        response = await follower
        assert (response.status, response.batch.role) == ("ok", "follower")
        cache.may_store.set()
        await _until_stored(cache, 2)


async def _until_stored(cache: SlowCache, count: int) -> None:
    async with asyncio.timeout(5):
        while len(cache.stored) < count:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("policy", ["fail", "retry"])
async def test_a_row_that_a_dead_worker_left_is_ambiguous_for_a_follower_too(policy: str) -> None:
    now = [0.0]
    store = MemoryStore(clock=lambda: now[0])
    dead = MemoryJournal(store, owner=SECOND)
    await dead.start()
    left = execution("x", "same")
    await dead.begin([Begin(X, left.payload_hash, "support")])
    provider = Provider()
    provider.gate.clear()
    async with Bench(provider, store=store, on_ambiguous=policy) as bench:
        for now[0] in KEPT_STEADY_S:
            await bench.journal.heartbeat()
        leader = bench.engine.submit(execution("y", "same"))
        await until(lambda: bool(provider.calls))
        response = bench.engine.submit(left, check_journal=True)
        await asyncio.sleep(0.05)
        provider.gate.set()
        told, _ = await response, await leader
        bypassing = execution("x", "same", cache=CacheOptions(mode="bypass"))
        again = await bench.engine.submit(bypassing, check_journal=True)
        code = "ambiguous" if policy == "fail" else None
        assert [told.error and told.error.code, again.error and again.error.code] == [code, code]
        assert len(provider.calls) == 1


class OneByOne(Provider):
    """Holds each call for itself."""

    def __init__(self) -> None:
        super().__init__()
        self.gates: list[asyncio.Event] = []

    async def call(self, provider: str, call: ProviderCall, **_: Any) -> Answer:
        self.calls.append(call)
        self.gates.append(gate := asyncio.Event())
        await gate.wait()
        return Answer("an answer", provider, call.model, Usage(1, 1), cost_usd=0.01)


async def test_who_passes_the_cache_by_takes_the_leaders_place_from_nobody() -> None:
    provider = OneByOne()
    async with Bench(provider) as bench:
        leader = bench.engine.submit(execution("a", "same"))
        await until(lambda: len(provider.gates) == 1)
        passing = bench.engine.submit(execution("b", "same", cache=CacheOptions(mode="bypass")))
        await until(lambda: len(provider.gates) == 2)
        provider.gates[1].set()
        await passing
        follower = bench.engine.submit(execution("c", "same"))
        await asyncio.sleep(0.01)
        for gate in provider.gates:
            gate.set()
        await leader
        assert (await follower).batch.leader_id == "a"
    assert len(provider.calls) == 2


# --- behind one whose row is written after its answer -------------------------------------------------------------


async def test_an_answer_to_an_id_is_durable_before_it_is_seen_whomever_it_follows() -> None:
    store, provider = MemoryStore(), Provider()
    provider.gate.clear()
    async with Bench(provider, store=store) as bench:
        leader = bench.engine.submit(execution("made-up", "same"), deferred=True)
        await until(lambda: bool(provider.calls))
        own = bench.engine.submit(execution("x", "same"))
        await until(lambda: X in store.rows)
        provider.gate.set()
        response = await own
        # The process is killed now.
        kept = MemoryStore(rows=dict(store.rows))
        assert (response.batch.role, (await leader).status) == ("follower", "ok")
    async with Bench(provider, store=kept, owner=SECOND) as after:
        again = await after.engine.submit(execution("x", "same"))
    assert (again.text, again.from_journal, again.cost_usd) == (response.text, True, 0.0)
    assert len(provider.calls) == 1


async def test_who_follows_without_an_id_of_its_own_waits_for_no_row() -> None:
    store, provider = MemoryStore(), Provider()
    provider.gate.clear()
    async with Bench(provider, store=store) as bench:
        leader = bench.engine.submit(execution("made-up", "same"), deferred=True)
        await until(lambda: bool(provider.calls))
        follower = bench.engine.submit(execution("made-up-too", "same"), deferred=True)
        await asyncio.sleep(0)
        provider.gate.set()
        assert [(await one).status for one in (leader, follower)] == ["ok", "ok"]
        assert store.rows == {}


# --- until when, and how often ------------------------------------------------------------------------------------


class Lasting(Provider):
    """Fails after ``lasts`` seconds of the clock."""

    def __init__(self, clock: SteppedClock, lasts: float) -> None:
        super().__init__()
        self._clock = clock
        self._lasts = lasts

    async def call(self, provider: str, call: ProviderCall, **_: Any) -> Answer:  # noqa: ARG002
        self.calls.append(call)
        await self.gate.wait()
        await self._clock.sleep(self._lasts)
        raise ProviderUnavailableError("503")


class Elsewhere(SlowCache):
    """What is asked is another process' to bring, which never does."""

    async def claim(self, place: object) -> bool:  # noqa: ARG002
        return False


ONE = [("openai", "small")]


@pytest.mark.parametrize("due", [None, 1100.0], ids=["as configured", "as its caller says"])
async def test_who_has_waited_for_another_process_to_its_end_makes_no_call(due: float | None) -> None:
    clock, provider = SteppedClock(), Provider()
    async with Bench(provider, clock=clock, execution_timeout=60.0) as bench:
        engine = bench.engine_with(cast("Cache", Elsewhere()))
        response = await engine.submit(replace(execution("r", "same"), cache_ttl=60), due=due)
    assert response.error is not None
    assert (response.error.code, provider.calls) == ("deadline_exceeded", [])
    assert clock.now == pytest.approx(due or 1060.0, abs=0.1)


@pytest.mark.parametrize(("lasts", "calls"), [(61.0, 1), (59.0, 2)])
async def test_who_has_followed_one_that_failed_calls_while_somebody_waits_for_it(lasts: float, calls: int) -> None:
    clock = SteppedClock()
    provider = Lasting(clock, lasts)
    provider.gate.clear()
    async with Bench(provider, clock=clock, execution_timeout=60.0, max_retries=0) as bench:
        leader = bench.engine.submit(execution("a", "same", targets=ONE))
        await until(lambda: bool(provider.calls))
        follower = bench.engine.submit(execution("b", "same", targets=ONE))
        await asyncio.sleep(0)
        provider.gate.set()
        assert [(await one).status for one in (leader, follower)] == ["error", "error"]
    assert len(provider.calls) == calls


async def test_a_leader_that_failed_who_followed_in_its_callers_task_counts() -> None:
    provider = Lasting(SteppedClock(), 0.0)
    provider.gate.clear()
    async with Bench(provider, max_retries=0) as bench:
        first = bench.engine.submit(execution("a", "same", targets=ONE))
        await until(lambda: bool(provider.calls))
        following = asyncio.create_task(bench.engine.follow(execution("c", "same", targets=ONE), None))
        second = bench.engine.submit(execution("b", "same", targets=ONE))
        await asyncio.sleep(0)
        provider.gate.set()
        await first
        provider.gate.clear()
        failed = await following
        assert failed == 1
        await until(lambda: len(provider.calls) == 2)
        third = bench.engine.submit(execution("c", "same", targets=ONE), deferred=True, failed_leaders=failed)
        await asyncio.sleep(0)
        provider.gate.set()
        assert [(await one).batch.role for one in (second, third)] == ["leader", "follower"]
    assert len(provider.calls) == 2


class Leased(SlowCache):
    """As another process sees it: whose words are leased to this one."""

    def __init__(self) -> None:
        super().__init__()
        self.leased: set[object] = set()
        self.may_claim = asyncio.Event()
        self.may_claim.set()

    async def claim(self, place: object) -> bool:
        await self.may_claim.wait()
        if place in self.leased:
            return False
        self.leased.add(place)
        return True

    async def release(self, place: object) -> None:
        self.leased.discard(place)


BYPASS = CacheOptions("bypass")


async def test_a_call_that_passes_the_cache_by_gives_back_no_lease_of_one_under_way() -> None:
    """A bypass that ended beside a call took the lease from its words: another process paid for them as well."""
    provider, cache = Provider(), Leased()
    provider.gate.clear()
    async with Bench(provider) as bench:
        engine = bench.engine_with(cast("Cache", cache))
        leader = engine.submit(replace(execution("a", "same"), cache_ttl=60))
        await until(lambda: len(provider.calls) == 1)
        first_gate, provider.gate = provider.gate, asyncio.Event()
        provider.gate.set()
        await engine.submit(replace(execution("b", "same", cache=BYPASS), cache_ttl=60))
        await asyncio.sleep(0)
        assert len(cache.leased) == 1
        first_gate.set()
        cache.may_store.set()
        await leader
        await until(lambda: not cache.leased)


async def test_a_lease_goes_back_where_who_got_it_follows_one_that_fills_nothing() -> None:
    provider, cache = Provider(), Leased()
    provider.gate.clear()
    cache.may_claim.clear()
    async with Bench(provider) as bench:
        engine = bench.engine_with(cast("Cache", cache))
        follower = engine.submit(replace(execution("a", "same"), cache_ttl=60))
        leader = engine.submit(replace(execution("b", "same", cache=BYPASS), cache_ttl=60))
        await until(lambda: len(provider.calls) == 1)
        cache.may_claim.set()
        await until(lambda: bench.metrics.coalesced_total._value.get() == 1)
        await until(lambda: not cache.leased)
        provider.gate.set()
        assert (await follower).text == (await leader).text
        assert len(provider.calls) == 1
