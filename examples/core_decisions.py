"""Decisions of StrataRouter Core, as PyPI ships it, executed by the runtime. Runs without a key or a server:

python examples/core_decisions.py
"""

from __future__ import annotations

import asyncio
import hashlib

import numpy as np
import stratarouter
from stratarouter import _core

from stratarouter_runtime import CoreRuntimeBridge, RuntimeConfig
from stratarouter_runtime.routes import RouteTable
from stratarouter_runtime.testing.simulator import Simulator, SimulatorSettings

DIMENSION = 64
EXAMPLES = {
    "billing": ["Where is my invoice?", "I was charged twice", "refund my payment"],
    "support": ["The app crashes at start", "I cannot log in", "error 500 on upload"],
}
ROUTES = """
[providers.openai]
kind = "simulator"
base_url = "{base_url}"

[routes.billing]
targets = [{{ provider = "openai", model = "gpt-4o-mini" }}]

[routes.support]
targets = [{{ provider = "openai", model = "gpt-4o" }}]
"""


def embed(text: str) -> list[float]:
    """A stand-in for a real encoder: words hashed into a vector of length one."""
    vector = np.zeros(DIMENSION, dtype=np.float32)
    for word in text.lower().split():
        vector[int.from_bytes(hashlib.blake2b(word.encode(), digest_size=4).digest()) % DIMENSION] += 1.0
    return [float(x) for x in vector / np.linalg.norm(vector)]


def build_core() -> _core.PyRouter:
    """Core's Rust router, filled and indexed."""
    core = _core.PyRouter(dimension=DIMENSION, threshold=0.3)
    for name, examples in EXAMPLES.items():
        route = _core.PyRoute(name)
        route.examples = examples
        core.add_route(route)
    core.build_index([embed(examples[0]) for examples in EXAMPLES.values()])
    return core


async def main() -> None:
    """Route three queries with Core, execute the decisions, show what each came to."""
    core = build_core()
    print(f"stratarouter {stratarouter.__version__}")
    async with Simulator(SimulatorSettings(latency_ms=45)) as simulator:
        routes = RouteTable.from_toml(ROUTES.format(base_url=simulator.base_url))
        config = RuntimeConfig(cache_backend="memory", state_backend="memory", metrics_enabled=False)
        async with CoreRuntimeBridge(config, routes) as bridge:
            for query in ("Where is my invoice?", "The app crashes at start", "where is my invoice"):
                embedding = embed(query)
                decision = core.route(query, embedding)
                result = await bridge.execute(
                    decision=decision, context={"user_id": "u1"}, query=query, embedding=embedding
                )
                print(f"{decision['route_id']:8} {result.cache.kind:6} ${result.cost_usd:.6f}  {result.response}")


if __name__ == "__main__":
    asyncio.run(main())
