"""How much this process grows by calls in flight: ``python -m bench.curves.flight_held <calls> <database> <provider>``.

The provider is slower than it takes to start them all.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import time
import uuid

import orjson

from bench.curves.process import resident_bytes
from bench.parts import bridge, routes
from stratarouter_runtime.bridge import CoreRuntimeBridge

WARM = 50
WAIT_S = 60.0
LOOK_S, IDLE_SHARE = 0.5, 0.1
"""How long a look at the processor's use takes, and under which share the process is at rest."""


async def held_bytes(size: int, url: str, base_url: str) -> float:
    """Resident bytes of each of ``size`` calls."""
    async with bridge(url, routes(base_url, max_concurrency=40_000), max_in_flight=40_000) as running:
        # What is loaded and made once is not a call's.
        warm = [asyncio.create_task(_call(running, number)) for number in range(WARM)]
        await _settled()
        gc.collect()
        before = resident_bytes()
        calls = [asyncio.create_task(_call(running, number)) for number in range(size)]
        try:
            async with asyncio.timeout(WAIT_S):
                await _settled()
            return (resident_bytes() - before) / size
        finally:
            for call in (*warm, *calls):
                call.cancel()
            await asyncio.gather(*warm, *calls, return_exceptions=True)


async def _settled() -> None:
    """Until this process has nothing to do: all calls are under way."""
    used = -1.0
    while time.process_time() - used > IDLE_SHARE * LOOK_S:
        used = time.process_time()
        await asyncio.sleep(LOOK_S)


async def _call(running: CoreRuntimeBridge, number: int) -> None:
    await running.execute("bench", query=f"{uuid.uuid4()} question {number}")


if __name__ == "__main__":
    sys.stdout.buffer.write(orjson.dumps(asyncio.run(held_bytes(int(sys.argv[1]), *sys.argv[2:4]))))
