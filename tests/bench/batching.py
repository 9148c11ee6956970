"""Batching on against off: a provider that takes 32 calls of 200 ms at once, and questions that come again in other
words. In-process, requests coming as fast as the process takes them; the cache is off in both, so that only what is in
flight can be shared.

The questions are grade-school problems, each with its paraphrase (``$BENCH_DATA/gsm8k``), and what people put around
a question. Which question and which wording comes is drawn by Zipf's law.
"""

from __future__ import annotations

import asyncio
import os
import random
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import orjson
from numpy.typing import NDArray

from bench.parts import bridge, database, routes, simulator
from bench.result import NotRun, Outcome, compare
from stratarouter_runtime.bridge import CoreRuntimeBridge
from stratarouter_runtime.cache.guard import STRICT
from stratarouter_runtime.embedded import StackAddresses
from stratarouter_runtime.embedders import LocalEmbedder, local_available

ROUNDS = 5
AT_ONCE = 32
LATENCY_MS = 200
QUESTIONS = 600
ARRIVALS = 2400
"""Four for each question: 75 % of them ask what was asked before."""
LOOP_CALLS = 40
LONE = 30
"""Requests one after the other, for the latency where nothing has to wait."""
TIMEOUT_S = 120.0
EMBEDDED = 64
"""Texts in one call of the embedder, which has a deadline for each."""
SEED = 7
DATA = Path(os.environ.get("BENCH_DATA", "../shared/data")) / "gsm8k"


@dataclass(frozen=True, slots=True)
class Asked:
    """One arrival: its words and their vector."""

    text: str
    vector: NDArray[np.float32]


async def measure(addresses: StackAddresses) -> list[Outcome]:
    """Not run where the data or the embedder is missing."""
    if not DATA.exists() or not local_available():
        return [NotRun("batching on against off", f"needs the local embedder, and {DATA}: set BENCH_DATA")]
    near, distinct = await _arrivals()
    rates: dict[tuple[str, bool], list[float]] = {}
    idle: dict[bool, list[float]] = {True: [], False: []}
    settings: dict[str, Any] = {"cache_enabled": False, "batch_similarity_threshold": STRICT.floor}
    options = ("--latency-ms", str(LATENCY_MS), "--max-concurrency", str(AT_ONCE))
    async with database(addresses) as url, simulator(*options) as base_url:
        table = routes(base_url, max_concurrency=AT_ONCE)
        async with (
            bridge(url, table, **settings, batch_enabled=True) as on,
            bridge(url, table, **settings, batch_enabled=False) as off,
        ):
            for number in range(ROUNDS):
                for batched in (True, False) if number % 2 == 0 else (False, True):
                    running = on if batched else off
                    for name, asked in (("near", near), ("distinct", distinct)):
                        rates.setdefault((name, batched), []).append(await _rate(running, asked))
                    idle[batched].append(await _one_by_one(running, distinct[:LONE]))
        loop = [await _loop(base_url, near[:LOOP_CALLS]) for _ in range(ROUNDS)]
    note = f"batch_similarity_threshold {STRICT.floor} under the strict guard; vectors in the requests"
    return [
        compare("batching on against off, 75 % near-duplicates", rates["near", True], rates["near", False],
                unit="requests/s", at_least=3.5, note=note),
        compare("batching on against off, no duplicates", rates["distinct", True], rates["distinct", False],
                unit="requests/s", at_least=0.97),
        compare("median latency of lone requests, batching on against off", idle[True], idle[False], unit="ms",
                at_least=round(1 / 1.03, 3), lower_is_better=True),
        compare("batching on against a loop that awaits one call a record", rates["near", True], loop,
                unit="requests/s", at_least=1.0),
    ]  # fmt: skip


async def _rate(running: CoreRuntimeBridge, arrivals: list[Asked]) -> float:
    """Requests/s from the first arrival to the last answer."""
    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for one in arrivals:
            group.create_task(running.execute("bench", query=one.text, embedding=one.vector, timeout_s=TIMEOUT_S))
            # What has arrived goes its way before the next one comes.
            await asyncio.sleep(0)
    return len(arrivals) / (time.perf_counter() - began)


async def _arrivals() -> tuple[list[Asked], list[Asked]]:
    """Those with near-duplicates in their order, and the questions once each."""
    chance = random.Random(SEED)
    asked = [orjson.loads(line)["question"] for line in (DATA / "test.jsonl").read_text().splitlines()]
    again = [_paraphrase(orjson.loads(line)["text"]) for line in (DATA / "rephrase.jsonl").read_text().splitlines()]
    families = [_wordings(asked[number], again[number]) for number in range(QUESTIONS)]
    ranks = [1 / rank for rank in range(1, QUESTIONS + 1)]
    wanted = [*range(QUESTIONS), *chance.choices(range(QUESTIONS), ranks, k=ARRIVALS - QUESTIONS)]
    chance.shuffle(wanted)
    wordings = [1 / rank for rank in range(1, len(families[0]) + 1)]
    near = [chance.choices(families[number], wordings)[0] for number in wanted]
    distinct = asked[:QUESTIONS]
    embedder = LocalEmbedder()
    await embedder.start()
    try:
        texts = list({*near, *distinct})
        vectors = {
            text: vector
            for start in range(0, len(texts), EMBEDDED)
            for text, vector in zip(
                texts[start : start + EMBEDDED], await embedder.embed(texts[start : start + EMBEDDED]), strict=True
            )
        }
    finally:
        await embedder.stop()
    return [Asked(text, vectors[text]) for text in near], [Asked(text, vectors[text]) for text in distinct]


def _paraphrase(line: str) -> str:
    return str(line).removeprefix("Question: ").partition("\nAnswer")[0]


def _wordings(question: str, paraphrase: str) -> list[str]:
    """The ways in which one question comes, the most usual first; some lines of the set hold no paraphrase."""
    paraphrase = paraphrase.strip() or question
    return [question, paraphrase, f"Please help me: {question}", f"{question} Thanks!", f"Hi! {paraphrase}"]


async def _one_by_one(running: CoreRuntimeBridge, arrivals: list[Asked]) -> float:
    """Median milliseconds of a request that is alone."""
    latencies = []
    for one in arrivals:
        began = time.perf_counter()
        await running.execute("bench", query=one.text, embedding=one.vector)
        latencies.append((time.perf_counter() - began) * 1000)
    return statistics.median(latencies)


async def _loop(base_url: str, arrivals: list[Asked]) -> float:
    """Requests/s of what tutorials show: take a record, await its call, take the next."""
    began = time.perf_counter()
    async with aiohttp.ClientSession() as session:
        for one in arrivals:
            body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": one.text}]}
            async with session.post(f"{base_url}/chat/completions", json=body) as reply:
                assert reply.status == 200
                await reply.read()
    return len(arrivals) / (time.perf_counter() - began)
