"""Who goes when the cache is full, and what that saves against the least recently used."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from stratarouter_runtime.cache.guard import create_guard
from stratarouter_runtime.cache.memory import MemoryCache
from stratarouter_runtime.cache.shelf import Item, Near, Place, Shelf
from stratarouter_runtime.clock import SystemClock
from stratarouter_runtime.port_values import CacheEntry, CacheHit, CacheQuery
from stratarouter_runtime.records import Answer
from stratarouter_runtime.state.eviction import CostAware


def test_who_saves_least_for_its_size_goes_first() -> None:
    eviction: CostAware[str] = CostAware()
    eviction.add("dear", 0.10, 1000)
    eviction.add("cheap", 0.01, 1000)
    eviction.add("dear but large", 0.10, 100_000)
    assert eviction.victim() == "dear but large"
    eviction.remove("dear but large")
    assert eviction.victim() == "cheap"
    for _ in range(20):
        eviction.use("cheap")
    assert eviction.victim() == "dear"


def test_what_was_dear_grows_old() -> None:
    eviction: CostAware[int] = CostAware()
    eviction.add(-1, 0.05, 1000)
    for number in range(100):
        eviction.add(number, 0.01, 1000)
        if eviction.victim() == -1:
            return
        eviction.remove(eviction.victim())
    pytest.fail("an entry that nobody uses stayed for ever")


def test_an_unknown_price_is_neither_nothing_nor_a_fortune() -> None:
    eviction: CostAware[str] = CostAware()
    eviction.add("unknown", None, 1000)
    eviction.add("free", 0.0, 1000)
    eviction.add("dear", 0.10, 1000)
    assert [_gone(eviction), _gone(eviction), _gone(eviction)] == ["free", "unknown", "dear"]
    with pytest.raises(LookupError):
        eviction.victim()


def _gone(eviction: CostAware[str]) -> str:
    victim = eviction.victim()
    eviction.remove(victim)
    return victim


@pytest.mark.parametrize("eviction", [None, CostAware()], ids=["the least recently used", "by what it saves"])
def test_a_hit_by_likeness_or_by_the_same_words_keeps_an_entry(eviction: CostAware[Place] | None) -> None:
    shelf = Shelf(max_entries=3, max_bytes=10_000, eviction=eviction)
    for name, direction in (("likeness", (1.0, 0.0)), ("words", (0.0, 1.0)), ("nothing", (-1.0, 0.0))):
        answer = Answer("text", "p", "m", cost_usd=0.01)
        shelf.put(Item(name, "s", name, "text", 100.0, 10, answer), np.array(direction, dtype=np.float32), 0.0)
    asked = CacheQuery("s", "asked", "text", np.array([1.0, 0.0], dtype=np.float32), 0.9)
    assert isinstance(shelf.nearest(asked, create_guard(), 0.0), Near)
    assert shelf.exact(replace(asked, content_hash="words"), 0.0) is not None
    shelf.put(Item("new", "s", "new", "text", 100.0, 10, Answer("text", "p", "m", cost_usd=0.05)), None, 0.0)
    assert {item.entry_id for item in shelf.items()} == {"likeness", "words", "new"}


def test_on_a_full_shelf_the_dear_answer_outlasts_the_cheap_one() -> None:
    shelf = Shelf(max_entries=2, max_bytes=10_000, eviction=CostAware())
    for name, cost_usd in (("dear", 0.10), ("cheap", 0.001), ("new", 0.05)):
        shelf.put(Item(name, "s", name, "text", 100.0, 10, Answer("text", "p", "m", cost_usd=cost_usd)), None, 0.0)
    assert {item.entry_id for item in shelf.items()} == {"dear", "new"}


class EvictionLife(RuleBasedStateMachine):
    """Any order of arrivals, uses and departures: the victim is always somebody who is here."""

    def __init__(self) -> None:
        super().__init__()
        self.eviction: CostAware[int] = CostAware()
        self.here: set[int] = set()

    @rule(key=st.integers(0, 9), worth=st.one_of(st.none(), st.floats(0, 1)), size=st.integers(1, 10_000))
    def add(self, key: int, worth: float | None, size: int) -> None:
        self.eviction.add(key, worth, size)
        self.here.add(key)

    @rule(key=st.integers(0, 9))
    def use(self, key: int) -> None:
        self.eviction.use(key)

    @rule(key=st.integers(0, 9))
    def remove(self, key: int) -> None:
        self.eviction.remove(key)
        self.here.discard(key)

    @precondition(lambda self: self.here)
    @invariant()
    def victim_is_here(self) -> None:
        assert self.eviction.victim() in self.here


EvictionLife.TestCase.settings = settings(max_examples=100, deadline=None)
TestEvictionLife = EvictionLife.TestCase


def _saved_usd(eviction: str) -> float:
    """What a small cache saves over a stream of Zipf-distributed questions of very different prices."""
    chance = random.Random(3)
    prices = [chance.choice((0.0002, 0.002, 0.05)) for _ in range(600)]
    lengths = [chance.choice((200, 4000, 20_000)) for _ in range(600)]
    stream = chance.choices(range(600), [1 / rank for rank in range(1, 601)], k=6000)
    cache = MemoryCache(
        clock=SystemClock(), guard=create_guard(), max_bytes=600_000, eviction="cost" if eviction == "cost" else "lru"
    )
    saved = 0.0
    for number in stream:
        [found] = cache.lookup_now([CacheQuery("s", str(number), "q")])
        if isinstance(found, CacheHit):
            saved += prices[number]
        else:
            answer = Answer("a" * lengths[number], "p", "m", cost_usd=prices[number])
            item = CacheEntry(str(number), "s", str(number), "q", answer)
            # In the order of the stream; nothing here waits.
            coroutine = cache.store([item])
            with pytest.raises(StopIteration):
                coroutine.send(None)
    return saved


def test_it_saves_more_money_than_the_least_recently_used_in_the_same_room() -> None:
    assert _saved_usd("cost") > 1.1 * _saved_usd("lru")
