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


async def main(base_url: str) -> None:
    """One question, asked again and again."""
    litellm.telemetry = False
    litellm.suppress_debug_info = True
    litellm.cache = Cache(type="local")

    async def call() -> float:
        messages = [{"role": "user", "content": "Where is the invoice of last month?"}]
        began = time.perf_counter()
        await litellm.acompletion(
            model="openai/gpt-4o-mini", api_base=base_url, api_key="sk-none", messages=messages, caching=True
        )
        return time.perf_counter() - began

    first = await call()
    await asyncio.sleep(0.2)  # the cache is filled by a task of its own
    assert await call() < first
    say("ready")
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        say(statistics.median([await call() for _ in range(int(line))]))


def say(what: object) -> None:
    """One line of JSON."""
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    uvloop.install()
    asyncio.run(main(sys.argv[1]))
