"""What a process keeps of the cache is in its metrics."""

from __future__ import annotations

import asyncio

from stratarouter_runtime.assembly import Assembly
from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.port_values import CacheEntry
from stratarouter_runtime.records import Answer
from stratarouter_runtime.routes import RouteTable

ROUTES = {
    "providers": {"sim": {"kind": "simulator", "base_url": "http://127.0.0.1:1/v1"}},
    "default": {"targets": [{"provider": "sim", "model": "m"}]},
}


def _entry(number: int) -> CacheEntry:
    return CacheEntry(f"e{number}", "s", f"h{number}", f"question {number}", Answer("yes", "sim", "m"), None)


def _shown(assembly: Assembly) -> tuple[float | None, float | None, float | None]:
    found = assembly.metrics.registry.get_sample_value
    names = ("cache_entries", "cache_evicted_total", "cache_copied_hits_total")
    entries, evicted, copied = (found(f"stratarouter_{name}") for name in names)
    return entries, evicted, copied


async def test_the_room_of_the_cache_is_shown_with_every_heartbeat() -> None:
    config = RuntimeConfig(
        state_backend="memory", cache_backend="memory", cache_control="off", cache_max_entries=3, heartbeat_ttl_s=1.0
    )
    assembly = Assembly(config, RouteTable.from_dict(ROUTES))
    await assembly.start()
    try:
        assert assembly.cache is not None
        await assembly.cache.store([_entry(number) for number in range(5)])
        async with asyncio.timeout(10):
            while _shown(assembly) != (3.0, 2.0, 0.0):
                await asyncio.sleep(0.05)
        size = assembly.metrics.registry.get_sample_value("stratarouter_cache_bytes")
        assert size == assembly.cache.backend.held.bytes > 0
    finally:
        await assembly.stop(0.0)
