"""LiteLLM's ``Router.acompletion``: prints calls for each second of this process's processor time."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time

# No call home for prices: the package brings its own copy.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import litellm
import uvloop


async def main(base_url: str, at_once: int, calls: int) -> None:
    """A few calls to warm up, then ``calls`` with ``at_once`` under way."""
    litellm.telemetry = False
    litellm.suppress_debug_info = True
    parameters = {"model": "openai/gpt-4o-mini", "api_base": base_url, "api_key": "sk-none"}
    router = litellm.Router(model_list=[{"model_name": "bench", "litellm_params": parameters}], num_retries=0)

    async def call(number: int) -> None:
        messages = [{"role": "user", "content": f"{time.time_ns()} question {number}"}]
        await router.acompletion(model="bench", messages=messages, timeout=120)

    await asyncio.gather(*(call(number) for number in range(20)))
    numbers = iter(range(calls))

    async def loop() -> None:
        for number in numbers:
            await call(number)

    began, wall = time.process_time(), time.perf_counter()
    await asyncio.gather(*(loop() for _ in range(at_once)))
    used, took = time.process_time() - began, time.perf_counter() - wall
    sys.stdout.write(json.dumps({"calls_per_core_second": calls / used, "calls_per_s": calls / took}) + "\n")


if __name__ == "__main__":
    uvloop.install()
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
