"""What a bound on wrong hits does to a stream of real questions, with the packaged embedder.

Customer queries with Zipf repeats; a hit is wrong where its answer was given to another intent, which is a harsh and
noisy judge (see ``test_cache_quality.py``): of the guarded hits some 5 % are wrong by it.
"""

from __future__ import annotations

import csv
import random
import sys
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from stratarouter_runtime.cache.guard import RuleGuard
from stratarouter_runtime.cache.memory import MemoryCache
from stratarouter_runtime.cache.normalise import content_key
from stratarouter_runtime.clock import SystemClock
from stratarouter_runtime.config import CONSIDERED_FROM
from stratarouter_runtime.embedders import LocalEmbedder, local_available
from stratarouter_runtime.port_values import CacheEntry, CacheHit, CacheQuery
from stratarouter_runtime.records import Answer
from stratarouter_runtime.state.error_bound import ErrorBound, Observation, wilson

pytestmark = pytest.mark.skipif(not local_available(), reason="needs the local-embedder extra")

STREAM = 13_000
ZIPF = 0.9
SHARE = 0.05


@dataclass
class Counts:
    """What became of a stream. ``alike``: served by likeness, aliases among them; ``wrong`` ones of these."""

    saved: int = 0
    alike: int = 0
    wrong: int = 0
    checks: int = 0
    compared: int = 0


@dataclass
class Stream:
    """Queries with their intents and vectors, and the order in which they come."""

    queries: list[tuple[str, str]]
    vectors: NDArray[np.float32]
    order: list[int]

    async def through(self, bound: float | None) -> Counts:
        """As the engine does it: what is not trusted is executed and compared."""
        cache, state, counts = MemoryCache(clock=SystemClock(), guard=RuleGuard()), ErrorBound(), Counts()
        draw = random.Random(17)
        for at in self.order:
            text, intent = self.queries[at]
            key = content_key("s", [{"role": "user", "content": text}])
            query = CacheQuery("s", key, text, self.vectors[at], CONSIDERED_FROM)
            found = cache.lookup_now([query])[0]
            entry = CacheEntry(key, "s", key, text, Answer(intent, "p", "m"), self.vectors[at])
            if not isinstance(found, CacheHit):
                await cache.store([entry])
                continue
            own, right = found.entry_id == key, found.answer.text == intent
            served = own or bound is None or state.trusts("s", found.likeness, bound)
            counts.saved += served
            counts.alike += served and not own
            counts.wrong += served and not right
            check = served and not own and bound is not None and draw.random() < SHARE
            counts.checks += check
            if bound is not None and (check or not served):
                counts.compared += 1
                state.observe(Observation("s", found.likeness, right, served, bound))
            if check or not served:
                await cache.store([entry])
            elif found.kind == "semantic":
                alias = CacheEntry(found.entry_id, "s", key, text, found.answer, likeness=found.likeness)
                await cache.store([alias])
        return counts


@pytest.fixture
async def stream(bench_data: Path) -> Stream:
    with (bench_data / "banking77/test.csv").open(encoding="utf-8", newline="") as file:
        queries = [(row["text"], row["category"]) for row in csv.DictReader(file)]
    texts = [text for text, _ in queries]
    embedder = LocalEmbedder(timeout_s=240)
    await embedder.start()
    try:
        rows = [row for at in range(0, len(texts), 64) for row in await embedder.embed(texts[at : at + 64])]
    finally:
        await embedder.stop()
    draw = random.Random(3)
    draw.shuffle(ranks := list(range(len(queries))))
    weights = list(accumulate(1 / (rank + 1) ** ZIPF for rank in range(len(queries))))
    return Stream(queries, np.stack(rows), draw.choices(ranks, cum_weights=weights, k=STREAM))


@pytest.mark.slow
async def test_the_bound_holds_on_customer_queries(stream: Stream) -> None:
    for bound in (None, 0.01, 0.02, 0.05, 0.1, 0.2):
        counts = await stream.through(bound)
        rate, low, high = wilson(counts.wrong, counts.alike) if counts.alike else (0.0, 0.0, 1.0)
        sys.stdout.write(
            f"\nbound {bound}: saved {counts.saved / STREAM:.4f}, less checks "
            f"{(counts.saved - counts.checks) / STREAM:.4f}; by likeness {counts.alike}, wrong {counts.wrong} "
            f"({rate:.4f}, {low:.4f} to {high:.4f}); compared {counts.compared}"
        )
        if bound is not None:
            assert low <= bound, "as many wrong ones come by chance"
