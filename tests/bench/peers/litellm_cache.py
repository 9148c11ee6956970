"""A hit in LiteLLM's cache in this process: for each line that comes in, the median seconds of so many calls."""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import sys
import time

# No call home for prices: the package brings its own copy.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import litellm
import uvloop
from litellm.caching.caching import Cache

FILL_S = 10.0


async def main(base_url: str) -> None:
    """One question, asked again and again."""
    litellm.telemetry = False
    litellm.suppress_debug_info = True
    litellm.cache = Cache(type="local")

    async def ask() -> str:
        messages = [{"role": "user", "content": "Where is the invoice of last month?"}]
        reply = await litellm.acompletion(
            model="openai/gpt-4o-mini", api_base=base_url, api_key="sk-none", messages=messages, caching=True
        )
        return str(reply.id)

    async def timed() -> float:
        began = time.perf_counter()
        assert await ask() == kept
        return time.perf_counter() - began

    async with asyncio.timeout(FILL_S):
        kept = await ask()
        while (found := await ask()) != kept:  # the cache is filled by a task of its own
            kept = found
    say("ready")
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        say(statistics.median([await timed() for _ in range(int(line))]))


def say(what: object) -> None:
    """One line of JSON."""
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    uvloop.install()
    asyncio.run(main(sys.argv[1]))
