"""What is asked: few questions often and many seldom, some in other words, some that no cache may answer."""

from __future__ import annotations

import base64
import random
from collections.abc import AsyncIterator
from itertools import accumulate

from stratarouter_runtime.embedders.hashing import HashingEmbedder
from support.fleet import request

TENANTS = 7
ASKED_EACH = 8
"""Requests for each different question, in the mean."""
SKEW = 0.8
"""Exponent of Zipf's law over the questions."""
BYPASS, REWORDED = 0.08, 0.15
"""Shares of requests past the cache, and in other words."""
ALIKE = 0.85
"""Asked of a hit by those in other words: the embedder here puts them at 0.88 and more."""
WORDINGS = ("Tell me: {}", "{} Thank you.", "Please, {}", "{} please?")
TOPICS = ("the invoice", "a refund", "the delivery", "my password", "the second seat", "an export", "the contract")


async def records(count: int, seed: int) -> AsyncIterator[bytes]:
    """``count`` requests with vectors, ids r0, r1, ...; the same ones for the same seed."""
    chance, embedder = random.Random(seed), HashingEmbedder()
    vectors: dict[str, str] = {}
    questions = max(1, count // ASKED_EACH)
    weights = list(accumulate((rank + 1) ** -SKEW for rank in range(questions)))
    for number in range(count):
        asked = chance.choices(range(questions), cum_weights=weights)[0]
        text = f"What about {TOPICS[asked % len(TOPICS)]} of customer {1000 + asked}?"
        more: dict[str, object] = {}
        if chance.random() < REWORDED:
            text = chance.choice(WORDINGS).format(text)
            more["cache"] = {"threshold": ALIKE}
        if text not in vectors:
            [vector] = await embedder.embed([text])
            vectors[text] = base64.b64encode(vector.astype("<f4").tobytes()).decode()
        more["embedding"] = vectors[text]
        if chance.random() < BYPASS:
            more["cache"] = {"mode": "bypass"}
        route = "billing" if asked % 3 == 0 else "support"
        yield request(f"r{number}", text, route=route, tenant=f"t{asked % TENANTS}", **more)
