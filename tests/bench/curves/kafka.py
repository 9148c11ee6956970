"""Cache hits over Kafka by one worker process: along the number of partitions, and along the size of a request."""

from __future__ import annotations

from functools import partial

from bench.curves.curve import FLAT, LINEAR, Curve, Point
from bench.kafka_hits import QUERIES, requests
from bench.parts import database, simulator
from bench.rounds import alternate
from bench.stream import Start, rate, record, started
from stratarouter_runtime.embedded import StackAddresses

ROUNDS = 3
PARTITIONS = (1, 2, 4, 8, 16)
RECORDS = 15_000
PAYLOADS_KB = {0.2: 15_000, 2.0: 15_000, 20.0: 3000, 200.0: 500}
"""As many records as take some seconds."""
WORDS = "the invoice of last month did not come to the address that I gave and now the parcel is late as well, so "


async def partitions(addresses: StackAddresses) -> list[Curve]:
    """Requests/s of one worker that owns all partitions."""
    async with database(addresses) as url, simulator() as base_url:
        starts = {count: started(addresses, url, base_url, partitions=count) for count in PARTITIONS}
        found = await alternate({str(count): partial(_hits, start) for count, start in starts.items()}, ROUNDS)
    points = [Point.of(count, found.found[str(count)]) for count in PARTITIONS]
    note = "2.5 kB with a vector, exactly_once: each partition has its own producer and transactions"
    return [Curve("Kafka hits, one worker", "partitions", "requests/s", points, is_rate=True, at_most=FLAT, note=note)]


async def payload(addresses: StackAddresses) -> list[Curve]:
    """Requests/s by the length of the query."""
    async with database(addresses) as url, simulator() as base_url:
        start = started(addresses, url, base_url)
        found = await alternate(
            {str(size): partial(_sized, start, size, count) for size, count in PAYLOADS_KB.items()}, ROUNDS
        )
    points = [Point.of(size, found.found[str(size)]) for size in PAYLOADS_KB]
    note = "exact hits without a vector; a request ten times as large may cost ten times as much"
    return [Curve("Kafka hits, one worker", "kB", "requests/s", points, is_rate=True, at_most=LINEAR, note=note)]


async def _hits(start: Start) -> float:
    return await rate(start, requests(QUERIES), requests(RECORDS))


async def _sized(start: Start, size_kb: float, count: int) -> float:
    def made(many: int) -> list[bytes]:
        size = int(size_kb * 1000)
        queries = [f"{number} {WORDS * (size // len(WORDS) + 1)}"[:size] for number in range(QUERIES)]
        return [record(queries[number % len(queries)], number) for number in range(many)]

    return await rate(start, made(QUERIES), made(count))
