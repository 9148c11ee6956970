"""The cache in memory along its number of entries: a lookup's time, an entry's bytes, what storing one takes.

In one scope, where a search has all entries before it, up to the default's 50,000; and in scopes of 1,000, as many
tenants have them, up to a million. Each size is a process of its own, whose memory is then its own.
"""

from __future__ import annotations

from bench.curves.curve import FLAT, LINEAR, Curve, Point
from bench.curves.process import said
from stratarouter_runtime.cache.index import BRUTE_FORCE_MAX
from stratarouter_runtime.embedded import StackAddresses

ONE_SCOPE = (1000, 10_000, 50_000)
"""To what a cache holds by default; the graph takes 0.3 ms and more for each addition."""
SCOPES = (1000, 10_000, 100_000, 1_000_000)
SCOPE_ENTRIES = 1000
"""As many as the smallest cache has, so that a search has as much before it at every size."""


async def measure(addresses: StackAddresses) -> list[Curve]:
    """Four curves: exact and semantic hits, and bytes an entry, in scopes; semantic hits in one scope."""
    del addresses
    scopes = {size: await _process(size, SCOPE_ENTRIES) for size in SCOPES}
    one = {size: await _process(size, size) for size in ONE_SCOPE}
    graphs = {size: found for size, found in one.items() if size > BRUTE_FORCE_MAX}

    def curve(name: str, unit: str, found: dict[int, dict[str, list[float]]], key: str, at_most: float) -> Curve:
        points = [Point.of(size, each[key]) for size, each in found.items()]
        return Curve(name, "entries", unit, points, is_rate=False, at_most=at_most)

    return [
        curve("exact hit in memory", "us", scopes, "exact", FLAT),
        curve(f"semantic hit, scopes of {SCOPE_ENTRIES}", "us", scopes, "semantic", FLAT),
        curve("semantic hit, one scope", "us", one, "semantic", LINEAR),
        curve("resident memory of an entry", "bytes", scopes, "bytes", FLAT),
        curve("storing an entry, one scope with a graph", "us", graphs, "store", FLAT),
    ]


async def _process(size: int, scope_entries: int) -> dict[str, list[float]]:
    return dict(await said("bench.curves.cache_filled", size, scope_entries))
