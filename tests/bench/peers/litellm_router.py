"""LiteLLM's ``Router.acompletion``: for each number that is read, so many calls are made and a line is printed."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Iterator

# No call home for prices: the package brings its own copy.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import litellm
import uvloop


async def main(base_url: str, at_once: int) -> None:
    """Says calls for each second of this process's processor time, with ``at_once`` under way, until the input ends.

    As many go before and are not timed.
    """
    litellm.telemetry = False
    litellm.suppress_debug_info = True
    parameters = {"model": "openai/gpt-4o-mini", "api_base": base_url, "api_key": "sk-none"}
    router = litellm.Router(model_list=[{"model_name": "bench", "litellm_params": parameters}], num_retries=0)

    async def call(number: int) -> None:
        messages = [{"role": "user", "content": f"{time.time_ns()} question {number}"}]
        await router.acompletion(model="bench", messages=messages, timeout=120)

    async def loop(numbers: Iterator[int]) -> None:
        for number in numbers:
            await call(number)

    async def calls(count: int) -> None:
        numbers = iter(range(count))
        await asyncio.gather(*(loop(numbers) for _ in range(at_once)))

    for line in sys.stdin:
        count = int(line)
        await calls(at_once)
        began = time.process_time()
        await calls(count)
        used = time.process_time() - began
        sys.stdout.write(json.dumps({"calls_per_core_second": count / used}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    uvloop.install()
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
