"""How long a hit takes over Kafka at a calm rate: against two bare hops of the same guarantee, and Quix Streams."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from bench import peers
from bench.kafka_hits import QUERIES, requests
from bench.parts import database, simulator
from bench.result import Outcome, percentile
from bench.rounds import Rounds
from bench.stream import PARTITIONS, Pipe, Start, scripted, started
from stratarouter_runtime.embedded import StackAddresses
from stratarouter_runtime.processors import kafka_client
from stratarouter_runtime.processors.tail import Tail

RATE_PER_S = 100
ROUND_S = 6.0
ROUNDS = 5
ANSWER_TIMEOUT_S = 60.0
SETTLE_S = 2.0
"""After the first answers: assignments and producers of late partitions come to rest."""


async def measure(addresses: StackAddresses) -> list[Outcome]:
    """For each guarantee both sides alive, requests to one at a time, in turns."""
    pythons, missing = await peers.installed(peers.QUIX)
    outcomes: list[Outcome] = []
    async with database(addresses) as url, simulator() as base_url:
        for guarantee in ("exactly_once", "at_least_once"):
            sides: dict[str, Start] = {
                "ours": started(addresses, url, base_url, processing_guarantee=guarantee),
                "bare": scripted(addresses, "echo.py", guarantee),
            }
            if guarantee == "exactly_once" and "quix" in pythons:
                sides["quix"] = scripted(addresses, "quix_hits.py", "0.1", python=pythons["quix"])
            latencies = await _rounds(sides, missing)
            outcomes += _outcomes(guarantee, latencies, missing)
    return outcomes


async def _rounds(sides: dict[str, Start], missing: dict[str, str]) -> dict[str, list[list[float]]]:
    """Latencies in ms by side and round. A peer that does not come up is noted in ``missing``."""
    clients: dict[str, Client] = {}
    async with AsyncExitStack() as ends:
        for name, start in sides.items():
            try:
                clients[name] = await ends.enter_async_context(_client(start))
            except peers.PeerError as exc:
                missing[name] = str(exc)
        found: dict[str, list[list[float]]] = {name: [] for name in clients}
        for number in range(ROUNDS):
            for name in list(clients) if number % 2 == 0 else reversed(clients):
                found[name].append(await clients[name].paced(int(RATE_PER_S * ROUND_S)))
    return found


def _outcomes(guarantee: str, latencies: dict[str, list[list[float]]], missing: dict[str, str]) -> list[Outcome]:
    at = {
        share: Rounds({name: [percentile(one, share) for one in found] for name, found in latencies.items()}, missing)
        for share in (0.5, 0.99)
    }
    title = f"Kafka hit, {guarantee},"
    outcomes = [
        at[share].against(
            "bare",
            f"{title} p{share * 100:g} at {RATE_PER_S}/s, against two bare hops",
            unit="ms",
            at_least=round(1 / limit, 3),
            lower_is_better=True,
            note=f"at most {limit:g} times the bare hops",
        )
        for share, limit in ((0.5, 1.5), (0.99, 2.0))
    ]
    if guarantee == "exactly_once":
        outcomes.append(
            at[0.5].against(
                "quix",
                f"{title} p50 at {RATE_PER_S}/s, against Quix Streams committing every 0.1 s",
                unit="ms",
                at_least=3.0,
                lower_is_better=True,
            )
        )
    return outcomes


@asynccontextmanager
async def _client(start: Start) -> AsyncIterator[Client]:
    async with start() as pipe, AsyncExitStack() as ends:
        producer = kafka_client.producer(pipe.config)
        await producer.start()
        ends.push_async_callback(producer.stop)
        tail = await ends.enter_async_context(Tail(pipe.config, pipe.sink, from_beginning=True))
        client = Client(pipe, producer, tail)
        await client.paced(QUERIES)
        await asyncio.sleep(SETTLE_S)
        await client.paced(QUERIES * PARTITIONS)
        yield client


class Client:
    """Asks at a steady rate and hears the answers, in one process."""

    def __init__(self, pipe: Pipe, producer: kafka_client.AIOKafkaProducer, tail: Tail) -> None:
        self._pipe = pipe
        self._producer = producer
        self._tail = tail
        self._sent: dict[bytes, float] = {}
        self._asked = 0

    async def paced(self, count: int) -> list[float]:
        """Latencies in ms from just before a request is produced until its response is read. Raises TimeoutError."""
        latencies: list[float] = []
        values = requests(count)
        async with asyncio.timeout(count / RATE_PER_S + ANSWER_TIMEOUT_S), asyncio.TaskGroup() as group:
            group.create_task(self._hear(count, latencies))
            began = time.perf_counter()
            for number, value in enumerate(values):
                await asyncio.sleep(max(0.0, began + number / RATE_PER_S - time.perf_counter()))
                # The response's key is the request's id; an echo's is the request's key: here they are one.
                key = value.split(b'"', 4)[3]
                self._sent[key] = time.perf_counter()
                await self._producer.send(self._pipe.source, value, key=key)
        return latencies

    async def _hear(self, count: int, latencies: list[float]) -> None:
        while len(latencies) < count:
            for record in await self._tail.poll(0.1):
                assert record.key is not None
                latencies.append((time.perf_counter() - self._sent.pop(record.key)) * 1000)
