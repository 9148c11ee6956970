"""Where a request meets its like: the same words and vectors always, near-duplicates nearly always."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from stratarouter_runtime.engine.spread import bucket, meeting_key
from stratarouter_runtime.processors.partitioner import partitions_of
from stratarouter_runtime.records import Vector
from unit.engine_bench import execution

DIMENSION = 384
BUCKETS = 8
NEAR = 0.98
MEET = 0.80
"""Of pairs at a similarity of 0.98 with 8 buckets; measured 0.85 (ops/design/batching.md)."""


def _bucket(vector: Vector) -> int:
    return bucket(execution("id", "q", embedding=vector), BUCKETS)


def _units(count: int, seed: int) -> NDArray[np.float32]:
    rows = np.random.default_rng(seed).standard_normal((count, DIMENSION), dtype=np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_a_route_that_is_not_spread_meets_in_its_scope() -> None:
    [vector, other] = _units(2, 1)
    for embedding, query in ((vector, "q"), (other, "another question")):
        assert meeting_key(execution("id", query, embedding=embedding, scope="scope")) == b"scope"


def test_without_a_vector_the_same_words_meet_and_others_of_their_scope_go_everywhere() -> None:
    """One tenant of one route was one partition's, so one worker's, however many there were."""

    def key(request_id: str, query: str, scope: str = "scope") -> bytes:
        return meeting_key(execution(request_id, query, scope=scope))

    assert key("a", "q") == key("b", "q")
    asked = Counter(partitions_of([key("id", f"question {number}") for number in range(2000)], BUCKETS))
    assert len(asked) == BUCKETS
    assert max(asked.values()) < 2 * min(asked.values())


def test_the_same_words_meet_with_and_without_a_vector() -> None:
    [vector] = _units(1, 1)
    for embedding in (None, vector):
        asked = [
            replace(execution(name, "the same", embedding=embedding, scope="scope"), spread=BUCKETS) for name in "ab"
        ]
        assert meeting_key(asked[0]) == meeting_key(asked[1])
        assert meeting_key(asked[0]).startswith(b"scope/")


def test_near_duplicates_meet_nearly_always() -> None:
    asked = _units(2000, 2)
    noise = _units(2000, 3)
    noise -= np.sum(noise * asked, axis=1, keepdims=True) * asked
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    near = np.float32(NEAR) * asked + np.float32(np.sqrt(1 - NEAR**2)) * noise
    met = np.mean([_bucket(one) == _bucket(other) for one, other in zip(asked, near, strict=True)])
    assert met >= MEET


def test_every_bucket_is_used() -> None:
    for buckets in (_bucket(vector) for vector in [_units(1, 4)[0]]):
        assert 0 <= buckets < BUCKETS
    with_vectors = Counter(_bucket(vector) for vector in _units(2000, 5))
    without = Counter(bucket(execution("id", f"question {number}"), BUCKETS) for number in range(2000))
    for used in (with_vectors, without):
        assert set(used) == set(range(BUCKETS))
        assert max(used.values()) < 2 * 2000 / BUCKETS


@pytest.mark.parametrize("buckets", [1, 2, 3, 1000])
def test_any_number_of_buckets(buckets: int) -> None:
    assert all(0 <= bucket(execution("id", "q", embedding=one), buckets) < buckets for one in _units(50, 6))
