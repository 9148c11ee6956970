"""Cache hits over Kafka, one worker process: requests/s against an echo, a Faust agent, and the other guarantee."""

from __future__ import annotations

import base64

import numpy as np

from bench import peers
from bench.parts import database, simulator
from bench.result import Result, compare
from bench.stream import Start, rate, record, scripted, started
from stratarouter_runtime.embedded import StackAddresses

ROUNDS = 3
RECORDS = 20_000
SLOW_RECORDS = 5000
"""For Faust, which needs seconds for these."""
QUERIES = 50
QUERY_CHARS = 300
DIMENSION = 384


async def measure(addresses: StackAddresses) -> list[Result]:
    """Every contender in each round, in turns; each a fresh process with its cache filled before the clock starts."""
    python = await peers.python()
    async with database(addresses) as url, simulator() as base_url:
        contenders: dict[str, Start] = {
            "exactly_once": started(addresses, url, base_url, processing_guarantee="exactly_once"),
            "at_least_once": started(addresses, url, base_url, processing_guarantee="at_least_once"),
            "echo": scripted(addresses, "echo.py", "plain"),
            "faust": scripted(addresses, "faust_hits.py", python=python),
        }
        rates: dict[str, list[float]] = {name: [] for name in contenders}
        for number in range(ROUNDS):
            for name in list(contenders) if number % 2 == 0 else reversed(contenders):
                values = requests(SLOW_RECORDS if name == "faust" else RECORDS)
                warm = requests(QUERIES)
                rates[name].append(await rate(contenders[name], warm, values, committed=name != "faust"))
    ours, note = rates["exactly_once"], f"{len(requests(1)[0])} bytes a request, with a vector; one process each"
    unit = "requests/s"
    return [
        compare(
            "Kafka hits, exactly_once, against an aiokafka echo",
            ours,
            rates["echo"],
            unit=unit,
            at_least=0.35,
            note=note,
        ),
        compare("Kafka hits, exactly_once, against a Faust agent", ours, rates["faust"], unit=unit, at_least=5.0),
        compare(
            "Kafka hits, exactly_once against at_least_once", ours, rates["at_least_once"], unit=unit, at_least=0.8
        ),
    ]


def requests(count: int) -> list[bytes]:
    """Requests for ``QUERIES`` questions in turn, each with its vector, about 2.5 kB."""
    chance = np.random.default_rng(7)
    vectors = chance.standard_normal((QUERIES, DIMENSION)).astype("<f4")
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    coded = [base64.b64encode(vector.tobytes()).decode() for vector in vectors]
    words = [" ".join(chance.choice(WORDS, 60))[:QUERY_CHARS] for _ in range(QUERIES)]
    return [record(words[n % QUERIES], n, embedding=coded[n % QUERIES]) for n in range(count)]


WORDS = ["invoice", "refund", "parcel", "late", "address", "change", "account", "password", "order", "cancel", "price"]
