"""What the engine owes to what was said on the cache-control topic."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from stratarouter_runtime.cache.controlled import ControlledCache
from stratarouter_runtime.cache.memory import MemoryCache
from stratarouter_runtime.clock import SystemClock
from stratarouter_runtime.engine import lookup
from stratarouter_runtime.journal.memory import MemoryStore
from stratarouter_runtime.records import CacheCommand, CacheOptions
from stratarouter_runtime.state.cache_control import BEFORE_ALL, CacheControl, label
from unit.engine_bench import SECOND, Bench, EqualGuard, Provider, execution, vector

TTL_S = 3600
NEAR, NEARER = vector(1, 0.01), vector(1, 0.02)


def controlled(bench: Bench) -> CacheControl:
    """Give the engine a cache under a topic that is followed."""
    clock, control = SystemClock(), CacheControl()
    control.followed = True
    control.heard(clock.monotonic())
    bench.engine_with(ControlledCache(MemoryCache(clock=clock, guard=EqualGuard()), control, clock), control=control)
    return control


def say(control: CacheControl, action: Any = "invalidate", **fields: Any) -> None:
    control.apply(CacheCommand(action, "ann", "because", 0, **fields), control.position + 1, 0, TTL_S)


def stale(bench: Bench, where: str) -> float:
    return float(bench.metrics.cache_stale_total.labels(where)._value.get())


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0)


async def test_a_call_under_way_when_it_is_invalidated_is_neither_joined_nor_kept() -> None:
    provider = Provider()
    provider.gate.clear()
    async with Bench(provider) as bench:
        control = controlled(bench)
        old = bench.engine.submit(execution("old", "same words"))
        await _until(lambda: len(provider.calls) == 1)
        say(control, tenant="acme")
        new = bench.engine.submit(execution("new", "same words"))
        follower = bench.engine.submit(execution("follower", "same words"))
        await _until(lambda: len(provider.calls) == 2)
        provider.gate.set()
        roles = [(await task).batch.role for task in (old, new, follower)]
        await _until(lambda: not bench.engine._tasks)
        hit = await bench.engine.submit(execution("later", "same words"))
    assert roles == ["leader", "leader", "follower"]
    assert (hit.cache.kind, hit.cache.key) == ("exact", "s:same words")
    assert (len(provider.calls), stale(bench, "store")) == (2, 1)
    assert stale(bench, "join") == 1


async def test_a_question_does_not_follow_the_one_it_was_marked_wrong_for() -> None:
    provider = Provider()
    provider.gate.clear()
    async with Bench(provider) as bench:
        control = controlled(bench)
        say(control, "mark_wrong", key="s:cancel it", answered_by="s:change it")
        lead = bench.engine.submit(execution("lead", "change it", embedding=NEAR))
        marked = bench.engine.submit(execution("marked", "cancel it", embedding=NEARER))
        other = bench.engine.submit(execution("other", "alter it", embedding=NEARER))
        await _until(lambda: len(provider.calls) == 2)
        provider.gate.set()
        roles = [(await task).batch.role for task in (lead, marked, other)]
        verdict = (await other).batch
    assert roles == ["leader", "leader", "follower"]
    assert verdict.leader_key in {"s:change it", "s:cancel it"}


async def test_a_followers_alias_goes_with_the_answer_of_its_leader() -> None:
    provider = Provider()
    provider.gate.clear()
    async with Bench(provider) as bench:
        control = controlled(bench)
        lead = bench.engine.submit(execution("lead", "change it", embedding=NEAR))
        await _until(lambda: len(provider.calls) == 1)
        follow = bench.engine.submit(execution("follow", "alter it", embedding=NEARER))
        await _until(lambda: bench.metrics.coalesced_total._value.get() == 1)
        provider.gate.set()
        assert (await lead).batch.role == "leader"
        assert (await follow).batch.leader_key == "s:change it"
        await _until(lambda: not bench.engine._tasks)
        hit = await bench.engine.submit(execution("again", "alter it"))
        assert (hit.cache.kind, hit.cache.entry_id, hit.cache.key) == ("exact", "s:change it", "s:alter it")
        say(control, key="s:change it")
        paid = await bench.engine.submit(execution("once more", "alter it"))
    assert (paid.cache.kind, paid.cache.reason) == ("miss", "invalidated")
    assert stale(bench, "lookup") == 1


async def test_an_answer_out_of_the_journal_is_older_than_every_invalidation() -> None:
    provider, store = Provider(), MemoryStore()
    async with Bench(provider, store=store) as bench:
        await bench.engine.submit(execution("r", "q"))
    async with Bench(provider, store=store, owner=SECOND) as bench:
        control = controlled(bench)
        say(control, tenant="acme")
        again = await bench.engine.submit(execution("r", "q"))
        assert again.from_journal
        await _until(lambda: not bench.engine._tasks)
        paid = await bench.engine.submit(execution("r2", "q"))
    assert paid.cache.kind == "miss"
    assert len(provider.calls) == 2


def test_an_answer_can_be_named_by_all_that_it_hangs_on() -> None:
    asked = replace(execution("r", "q", cache=CacheOptions(tags=("doc-7",))), cache_tags=("handbook", "doc-7"))
    assert set(lookup.origin(asked, BEFORE_ALL).labels) == {
        label("key", "s:q"),
        label("request", "acme", "r"),
        label("tenant", "acme"),
        label("route", "support"),
        label("tag", "handbook"),
        label("tag", "doc-7"),
    }
