"""Cache hits over Kafka, one worker process: requests/s against an echo, a Faust agent, and the other guarantee."""

from __future__ import annotations

import base64
from functools import partial

import numpy as np

from bench import peers
from bench.parts import database, simulator
from bench.result import Outcome
from bench.rounds import alternate
from bench.stream import Start, rate, record, scripted, started
from stratarouter_runtime.embedded import StackAddresses

ROUNDS = 5
RECORDS = 40_000
"""Some seconds of them, of which the first quarter is the broker's waking up."""
SLOW_RECORDS = 15_000
"""For Faust, which needs longer for these, reads the first 4,000 into a buffer at once and is timed from there."""
QUERIES = 50
QUERY_CHARS = 300
DIMENSION = 384


async def measure(addresses: StackAddresses) -> list[Outcome]:
    """Every contender in each round, in turns; each a fresh process with its cache filled before the clock starts."""
    pythons, missing = await peers.installed(peers.FAUST)
    async with database(addresses) as url, simulator() as base_url:
        starts: dict[str, Start] = {
            "exactly_once": started(addresses, url, base_url, processing_guarantee="exactly_once"),
            "at_least_once": started(addresses, url, base_url, processing_guarantee="at_least_once"),
            "echo": scripted(addresses, "echo.py", "plain"),
        }
        if "faust" in pythons:
            starts["faust"] = scripted(addresses, "faust_hits.py", python=pythons["faust"])
        rounds = await alternate({name: partial(_rate, name, start) for name, start in starts.items()}, ROUNDS, missing)
    note = f"{len(requests(1)[0])} bytes a request, with a vector; one process each"
    return [
        rounds.against(
            other, f"Kafka hits, exactly_once, against {title}", unit="requests/s", at_least=at_least, note=note,
            ours="exactly_once",
        )
        for other, title, at_least in (
            ("echo", "an aiokafka echo", 0.35),
            ("faust", "a Faust agent", 5.0),
            ("at_least_once", "at_least_once", 0.8),
        )
    ]  # fmt: skip


async def _rate(name: str, start: Start) -> float:
    values = requests(SLOW_RECORDS if name == "faust" else RECORDS)
    return await rate(start, requests(QUERIES), values, committed=name != "faust")


def requests(count: int) -> list[bytes]:
    """Requests for ``QUERIES`` questions in turn, each with its vector, about 2.5 kB."""
    chance = np.random.default_rng(7)
    vectors = chance.standard_normal((QUERIES, DIMENSION)).astype("<f4")
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    coded = [base64.b64encode(vector.tobytes()).decode() for vector in vectors]
    words = [" ".join(chance.choice(WORDS, 60))[:QUERY_CHARS] for _ in range(QUERIES)]
    return [record(words[n % QUERIES], n, embedding=coded[n % QUERIES]) for n in range(count)]


WORDS = ["invoice", "refund", "parcel", "late", "address", "change", "account", "password", "order", "cancel", "price"]
