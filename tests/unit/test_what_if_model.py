"""The model of a configuration decides as the product does where recorded answers speak against each other."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from stratarouter_runtime.cache.votes import UNSAID
from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.records import Decision, Request
from stratarouter_runtime.routes import RouteTable
from stratarouter_runtime.tools.what_if_model import Kind, Observed, World

TABLE = RouteTable.from_dict(
    {
        "providers": {"sim": {"kind": "simulator", "base_url": "http://127.0.0.1:1/v1"}},
        "default": {"targets": [{"provider": "sim", "model": "m"}]},
    }
)
APART = ((1.0, 0.3), (1.0, -0.3), (-1.0, 0.1), (1.0, 0.01))
"""Two that the last one is near to, on either side, and one far off."""
TEXTS = (
    "How do I top up my card",
    "How do I top up a new card?",
    "Please close the account",
    "How do I top up a card?",
)


@pytest.mark.parametrize(
    ("said", "kind"), [((1, 2, 2), "paid"), ((1, 2, 3), "semantic"), ((UNSAID, UNSAID, UNSAID), "semantic")]
)
async def test_a_hit_that_recorded_answers_speak_against_is_paid_for(said: tuple[int, ...], kind: Kind) -> None:
    config = RuntimeConfig(batch_enabled=False, cache_similarity_threshold=0.9)
    world = World(config, TABLE, lambda *_: 0.001, lambda _: 0.1)
    for number, (text, place, says) in enumerate(zip(TEXTS, APART, (*said, UNSAID), strict=True)):
        row = np.array(place, dtype=np.float32)
        messages = ({"role": "user", "content": text},)
        request = Request(f"r{number}", Decision("support"), messages, embedding=row / np.linalg.norm(row))
        await world.take(Observed(request, float(number), says=says))
    assert world.sums.kinds == Counter(["paid"] * 3 + [kind])
