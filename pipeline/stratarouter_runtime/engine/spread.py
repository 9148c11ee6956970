"""Where a request meets its like: the key of its execution, which chooses the partition and so the worker. Pure."""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2b, shake_256

import numpy as np
from numpy.typing import NDArray

from stratarouter_runtime.records import Execution

CACHED_SHAPES = 64
"""Sets of directions kept: one for each (buckets, dimension) in use."""


def meeting_key(execution: Execution) -> bytes:
    """The key of ``execution`` on its topic.

    The scope alone, so that all meet that may be alike; or, where the route is spread, the scope and a bucket of it.
    Without a vector only the same words are alike: these meet, and others of their scope go to every partition.
    """
    if execution.spread > 1:
        return f"{execution.scope}/{bucket(execution, execution.spread)}".encode()
    if execution.request.embedding is None:
        return f"{execution.scope}/{execution.content_hash}".encode()
    return execution.scope.encode()


def bucket(execution: Execution, buckets: int) -> int:
    """Which of ``buckets`` (0 to buckets - 1) a request goes to.

    With a vector: the one whose direction it points to most, so that near-duplicates go to the same one nearly always
    and equal vectors always. Without: by its words' hash, so that the same words meet.
    """
    vector = execution.request.embedding
    if vector is None:
        return int.from_bytes(blake2b(execution.content_hash.encode(), digest_size=8).digest()) % buckets
    return int(np.argmax(_directions(buckets, len(vector)) @ vector))


@lru_cache(maxsize=CACHED_SHAPES)
def _directions(buckets: int, dimension: int) -> NDArray[np.float32]:
    """Shape (buckets, dimension), of 1 and -1: the same in every worker, whatever its libraries' random numbers."""
    size = buckets * dimension
    stream = shake_256(f"stratarouter {buckets} {dimension}".encode()).digest(-(-size // 8))
    signs = np.unpackbits(np.frombuffer(stream, dtype=np.uint8))[:size].astype(np.float32) * 2 - 1
    return signs.reshape(buckets, dimension)
