"""``bridge.execute`` along the number of calls in flight: requests by second of this process's processor, and bytes.

For the memory each size is held in flight at once by a slow provider, in a process of its own; what that has grown by,
for each call, is its memory.
"""

from __future__ import annotations

import contextlib
import resource
import time
from collections.abc import Sequence

from bench.curves.curve import FLAT, Curve, Point
from bench.curves.process import said
from bench.in_flight import throughput
from bench.parts import bridge, database, routes, simulator
from stratarouter_runtime.embedded import StackAddresses

SIZES = (10, 100, 1000, 5000, 20_000)
ROUNDS = 3
CALLS = 4000
"""At least; as many as are in flight where that is more."""
QUICK_MS = 30
HELD = (1000, 5000, 15_000)
HELD_MS = 25_000
"""Longer than it takes to start them all."""
FILES, OTHER_FILES = 40_000, 500


async def measure(addresses: StackAddresses) -> list[Curve]:
    """The rates in turns; the memory once a size."""
    sizes, held = _allowed(SIZES), _allowed(HELD)
    per_core: dict[int, list[float]] = {size: [] for size in sizes}
    per_s: dict[int, list[float]] = {size: [] for size in sizes}
    async with database(addresses) as url:
        async with simulator("--latency-ms", str(QUICK_MS)) as base_url:
            for number in range(ROUNDS):
                for size in sizes if number % 2 == 0 else reversed(sizes):
                    async with bridge(url, routes(base_url, max_concurrency=40_000), max_in_flight=40_000) as running:
                        await throughput(running, size, size)
                        used = time.process_time()
                        calls = max(CALLS, size)
                        per_s[size].append(await throughput(running, size, calls))
                        per_core[size].append(calls / (time.process_time() - used))
        async with simulator("--latency-ms", str(HELD_MS)) as base_url:
            memory = {size: await said("bench.curves.flight_held", size, url, base_url) for size in held}
    note = f"provider of {QUICK_MS} ms on the same cores; a few in flight wait for it"
    return [
        Curve("bridge.execute", "in flight", "requests per core second",
              [Point.of(size, found) for size, found in per_core.items()], is_rate=True, at_most=FLAT),
        Curve("bridge.execute", "in flight", "requests/s",
              [Point.of(size, found) for size, found in per_s.items()], is_rate=True, at_most=FLAT, note=note),
        Curve("memory of a request in flight", "in flight", "bytes",
              [Point.of(size, [found]) for size, found in memory.items()], is_rate=False, at_most=FLAT,
              note="resident, with its connection to the provider; the least is the steadiest"),
    ]  # fmt: skip


def _allowed(sizes: Sequence[int]) -> list[int]:
    """The sizes, none above what this process may have files for: each call in flight is a connection."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most != resource.RLIM_INFINITY and most < FILES:
        with contextlib.suppress(ValueError, OSError):  # only root may lift it
            resource.setrlimit(resource.RLIMIT_NOFILE, (FILES, FILES))
    soft, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    room = FILES if most == resource.RLIM_INFINITY else most
    if soft < room:
        resource.setrlimit(resource.RLIMIT_NOFILE, (room, most))
    return sorted({min(size, room - OTHER_FILES) for size in sizes})
