"""The index finds the nearest of one scope; the shelf keeps its bounds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import stratarouter_runtime.native  # noqa: F401 - here: the example that built the first graph would take too long
from stratarouter_runtime.cache.guard import create_guard
from stratarouter_runtime.cache.index import ScopedIndex, unit
from stratarouter_runtime.cache.shelf import NUMBER_BYTES, Item, Near, Shelf
from stratarouter_runtime.port_values import CacheMiss, CacheQuery
from stratarouter_runtime.records import Vector

DIMENSION = 8


def vectors(count: int, seed: int = 0, dimension: int = DIMENSION) -> list[Vector]:
    rows = np.random.default_rng(seed).standard_normal((count, dimension)).astype(np.float32)
    return [row / np.linalg.norm(row) for row in rows]


def item(name: str, *, scope: str = "s", expires_at: float = 100.0, size: int = 10) -> Item:
    return Item(name, scope, name, f"text {name}", expires_at, size)


def shelf(*, entries: int = 100, size: int = 10_000) -> Shelf:
    return Shelf(max_entries=entries, max_bytes=size)


def asks(name: str, *, scope: str = "s", vector: Vector | None = None, threshold: float = 0.9) -> CacheQuery:
    return CacheQuery(scope, name, f"text {name}", vector, threshold)


# -- index ------------------------------------------------------------------------------------------------------


def test_the_nearest_come_first_with_their_cosine() -> None:
    index: ScopedIndex[int] = ScopedIndex()
    rows = vectors(50)
    for key, row in enumerate(rows):
        index.add(key, "s", row)
    found = index.search("s", rows[7], 5)
    expected = sorted(range(50), key=lambda key: -float(rows[key] @ rows[7]))[:5]
    assert [key for key, _ in found] == expected
    assert found[0][1] == pytest.approx(1.0, abs=1e-6)


def test_a_scope_sees_only_its_own() -> None:
    index: ScopedIndex[str] = ScopedIndex()
    [row] = vectors(1)
    index.add("mine", "a", row)
    assert index.search("b", row, 5) == []
    assert index.search("a", vectors(1, dimension=4)[0], 5) == []


def test_a_key_stored_again_has_its_new_vector_only() -> None:
    index: ScopedIndex[str] = ScopedIndex()
    old, new = vectors(2)
    index.add("k", "s", old)
    index.add("k", "s", new)
    assert len(index) == 1
    [(key, similarity)] = index.search("s", new, 5)
    assert (key, round(similarity, 6)) == ("k", 1.0)


@pytest.mark.parametrize("wrong", [np.zeros(4), np.array([np.nan, 1.0]), np.array([np.inf, 1.0]), np.zeros(0)])
def test_a_vector_without_direction_is_not_indexed(wrong: Vector) -> None:
    index: ScopedIndex[str] = ScopedIndex()
    assert not index.add("k", "s", wrong)
    assert index.search("s", wrong, 5) == []


def test_a_vector_of_another_length_is_scaled() -> None:
    scaled = unit(np.array([3.0, 4.0], dtype=np.float32))
    assert scaled is not None
    assert scaled == pytest.approx([0.6, 0.8])


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 20)), max_size=80))
def test_any_order_of_adding_and_removing_finds_what_is_in(steps: list[tuple[bool, int]]) -> None:
    rows = vectors(21)
    index: ScopedIndex[int] = ScopedIndex(brute_force_max=8, graph_min=4)
    inside: set[int] = set()
    for adding, key in steps:
        if adding:
            index.add(key, "s", rows[key])
            inside.add(key)
        else:
            index.remove(key)
            inside.discard(key)
    assert len(index) == len(inside)
    for key in range(21):
        found = index.search("s", rows[key], 3)
        assert {name for name, _ in found} <= inside
        assert len(found) == min(3, len(inside))
        assert key not in inside or found[0][0] == key


def test_a_large_scope_finds_nearly_all_through_the_graph_after_all_entries_were_replaced() -> None:
    rows = vectors(1200, dimension=32)
    index: ScopedIndex[int] = ScopedIndex(brute_force_max=200, graph_min=100)
    for key, row in enumerate(rows):
        index.add(key, "s", row)
        index.remove(key - 600)
    live = range(600, 1200)
    assert index._scopes["s", 32]._graph is not None
    first = sum(index.search("s", rows[key], 5)[0][0] == key for key in live)
    assert first >= 0.99 * len(live)


def test_the_graph_goes_and_the_matrix_shrinks_when_a_scope_empties() -> None:
    rows = vectors(300)
    index: ScopedIndex[int] = ScopedIndex(brute_force_max=100, graph_min=50)
    for key, row in enumerate(rows):
        index.add(key, "s", row)
    for key in range(295):
        index.remove(key)
    left = index._scopes["s", DIMENSION]
    assert left._graph is None
    assert len(left._matrix) <= 6
    assert {key for key, _ in index.search("s", rows[0], 10)} == set(range(295, 300))


def held_bytes(index: ScopedIndex[int]) -> int:
    return sum(rows._matrix.nbytes for rows in index._scopes.values())


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 200), st.sampled_from([1, 3, 200])), max_size=300))
def test_no_more_memory_is_held_than_is_counted(steps: list[tuple[bool, int, int]]) -> None:
    """A prompt that names the user makes a scope of one entry: each had 16 rows, of which one was counted."""
    rows = vectors(201)
    index: ScopedIndex[int] = ScopedIndex()
    for adding, key, scopes in steps:
        if adding:
            index.add(key, f"s{key % scopes}", rows[key])
        else:
            index.remove(key)
        # A byte of each number is the graph's.
        assert held_bytes(index) <= len(index) * DIMENSION * (NUMBER_BYTES - 1)


def test_a_scope_grows_and_shrinks_in_few_steps() -> None:
    index: ScopedIndex[int] = ScopedIndex()
    [row] = vectors(1)
    capacities = []
    for key in range(4000):
        index.add(key, "s", row)
        capacities.append(len(index._scopes["s", DIMENSION]._matrix))
    assert len(set(capacities)) < 80
    for key in range(3999):
        index.remove(key)
        capacities.append(len(index._scopes["s", DIMENSION]._matrix))
    assert len(set(capacities)) < 160
    assert capacities[-1] == 1


# -- shelf ------------------------------------------------------------------------------------------------------


def test_the_least_recently_used_goes_first() -> None:
    kept = shelf(entries=2)
    kept.put(item("a"), None, 0.0)
    kept.put(item("b"), None, 0.0)
    assert kept.exact(asks("a"), 0.0) is not None
    kept.put(item("c"), None, 0.0)
    assert kept.exact(asks("b"), 0.0) is None
    assert kept.exact(asks("a"), 0.0) is not None
    assert kept.evicted == 1


def test_an_entry_larger_than_the_shelf_pushes_nothing_out() -> None:
    kept = shelf(size=100)
    kept.put(item("a"), None, 0.0)
    assert not kept.put(item("b", size=101), None, 0.0)
    assert kept.exact(asks("a"), 0.0) is not None


def test_what_goes_cannot_be_found_by_likeness() -> None:
    kept = shelf(entries=1)
    ours, theirs = vectors(2)
    kept.put(item("a"), ours, 0.0)
    kept.put(item("b"), theirs, 0.0)
    assert kept.indexed == 1
    assert not isinstance(kept.nearest(asks("a", vector=ours), create_guard(), 0.0), Near)


def test_time_runs_out_at_its_end_and_not_before() -> None:
    kept = shelf()
    [row] = vectors(1)
    kept.put(item("a", expires_at=10.0), row, 0.0)
    assert kept.exact(asks("a"), 9.99) is not None
    assert kept.exact(asks("a"), 10.0) is None
    assert (kept.indexed, kept.bytes, kept.expired) == (0, 0, 1)


def test_storing_again_starts_the_time_anew() -> None:
    kept = shelf()
    kept.put(item("a", expires_at=10.0), None, 0.0)
    kept.put(item("a", expires_at=20.0), None, 5.0)
    assert kept.exact(asks("a"), 15.0) is not None
    assert kept.bytes == 10


def test_old_expiries_do_not_pile_up() -> None:
    kept = shelf(entries=5)
    for round_ in range(1000):
        kept.put(item(str(round_ % 7), expires_at=1000.0 + round_), None, 0.0)
    assert len(kept._expiries) <= 2 * len(kept) + 17


def test_a_miss_tells_of_the_nearest_and_why() -> None:
    kept = shelf()
    kept.put(Item("e1", "s", "h1", "what is 2+2", 100.0, 10), np.array([1.0, 0.0], dtype=np.float32), 0.0)
    query = CacheQuery("s", "h2", "what is 2+3", np.array([1.0, 0.0], dtype=np.float32), 0.9)
    assert kept.nearest(query, create_guard(), 0.0) == CacheMiss("guard:number", 1.0, "e1")
    far = CacheQuery("s", "h2", "what is 2+3", np.array([0.6, 0.8], dtype=np.float32), 0.9)
    miss = kept.nearest(far, create_guard(), 0.0)
    assert isinstance(miss, CacheMiss)
    assert (miss.reason, round(miss.similarity or 0.0, 3), miss.entry_id) == ("below_threshold", 0.6, "e1")


def test_a_further_candidate_serves_where_the_guard_refuses_the_nearest() -> None:
    kept = shelf()
    kept.put(Item("near", "s", "h1", "what is 2+2", 100.0, 10), np.array([1.0, 0.0], dtype=np.float32), 0.0)
    kept.put(Item("far", "s", "h2", "what is 2+3?", 100.0, 10), np.array([0.96, 0.28], dtype=np.float32), 0.0)
    query = CacheQuery("s", "h3", "What is 2+3", np.array([1.0, 0.0], dtype=np.float32), 0.9)
    found = kept.nearest(query, create_guard(), 0.0)
    assert isinstance(found, Near)
    assert found.item.entry_id == "far"


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 60), st.integers(1, 50)), max_size=60))
def test_bounds_hold_whatever_comes(puts: list[tuple[int, int, int]]) -> None:
    kept = shelf(entries=4, size=100)
    rows = vectors(10)
    for now, (name, size, life) in enumerate(puts):
        kept.put(item(str(name), expires_at=now + life, size=size), rows[name], float(now))
        assert len(kept) <= 4
        assert kept.bytes <= 100
        assert kept.bytes == sum(one.size_bytes for one in kept._items.values())
        assert kept.indexed == len(kept)
