"""Misses over Kafka: each is a call. Against the provider's limit and other ways to do it."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Mapping
from functools import partial

import orjson

from bench import peers
from bench.parts import database, simulator
from bench.peers.java import parallel_consumer
from bench.result import Outcome
from bench.rounds import Measure, Rounds, alternate
from bench.stream import Start, program, rate, record, scripted, started
from stratarouter_runtime.embedded import StackAddresses
from stratarouter_runtime.port_values import HttpCall
from stratarouter_runtime.providers import create_transport

ROUNDS = 3
LATENCY_MS, AT_ONCE = 30, 200
RECORDS = {
    "ours": 20_000,
    "apart": 100_000,
    "client": 10_000,
    "gather": 10_000,
    "parallel": 6000,
    "faust": 2000,
    "quix": 100,
}
"""As many as each does in a few seconds; two workers, whose first one goes by while their room fills, in twenty."""
APART = ("enrich", "execute")
"""A worker process for each core; one of the two makes all calls."""
REACHED_LATENCY_MS, REACHED_RECORDS = 200, 20_000
"""With as many at once: a limit that the machine has room for beside the broker, PostgreSQL and the provider."""
SLOW_LATENCY_MS = 1000
SLOW_RECORDS = {"ours": 10_000, "loop": 4}
CROWD = 5000
"""In flight in one worker."""
WARM = 40
ROOM = {"max_in_flight": CROWD, "lane_max_in_flight": CROWD, "provider_concurrency": 10_000}


async def measure(addresses: StackAddresses) -> list[Outcome]:
    """A quick provider that takes 200 at once, and one whose limit can be reached here."""
    pythons, missing = await peers.installed(peers.FAUST, peers.QUIX)
    async with database(addresses) as url:
        quick = await _quick(addresses, url, pythons, missing)
        reached = await _reached(addresses, url)
    title = f"Kafka misses, provider {LATENCY_MS} ms with {AT_ONCE} at once, against"
    note = f"the provider's {_limit(LATENCY_MS):.0f}/s, or what the HTTP client alone reaches"
    return [
        *(
            quick.against(
                "limit", f"{title} the limit, {who}", ours=ours, unit="requests/s", at_least=at_least, note=note
            )
            for ours, who, at_least in (
                ("ours", "one worker", None),
                ("apart", "a worker that enriches and one that executes", 0.95),
                ("sustained", "the same two after their first quarter, as the limit knows no start either", None),
            )
        ),
        *(
            quick.against(other, f"{title} {words}", unit="requests/s", at_least=at_least, note=note)
            for other, words, at_least, note in (
                ("gather", "gathered aiohttp calls, no journal", 0.5, ""),
                ("parallel", "Confluent's Parallel Consumer, 1,000 at once", 1.5, "at least once, and no journal"),
                ("faust", "a Faust agent, concurrency 100", 2.0, ""),
                ("quix", "Quix Streams' apply", 50.0, ""),
            )
        ),
        *(
            reached.against(
                "limit",
                f"Kafka misses, provider {REACHED_LATENCY_MS} ms with {AT_ONCE} at once, against the limit{more}",
                ours=ours,
                unit="requests/s",
                at_least=at_least,
                note=f"as above; the provider's is {_limit(REACHED_LATENCY_MS):.0f}/s",
            )
            for ours, more, at_least in (
                ("ours", "", 0.95),
                ("told", f", max_concurrency = {AT_ONCE}: none waits at the provider", None),
            )
        ),
    ]


def _limit(latency_ms: int) -> float:
    """Calls/s that a provider with ``AT_ONCE`` places answers."""
    return AT_ONCE / (latency_ms / 1000)


async def _with_limit(contenders: dict[str, Measure], latency_ms: int, missing: dict[str, str] | None = None) -> Rounds:
    """As ``alternate``, and what may be reached: the provider's limit, or the client's where that is lower."""
    rounds = await alternate(contenders, ROUNDS, missing)
    rounds.found["limit"] = [min(_limit(latency_ms), one) for one in rounds.found["client"]]
    return rounds


async def crowd(addresses: StackAddresses) -> list[Outcome]:
    """A slow provider that takes what comes."""
    async with database(addresses) as url:
        slow = await _slow(addresses, url)
    title = f"Kafka misses, provider {SLOW_LATENCY_MS} ms, {CROWD} in flight, against a loop that awaits each"
    return [slow.against("loop", title, unit="requests/s", at_least=1000.0)]


async def _quick(addresses: StackAddresses, url: str, pythons: Mapping[str, str], missing: dict[str, str]) -> Rounds:
    async with simulator("--latency-ms", str(LATENCY_MS), "--max-concurrency", str(AT_ONCE)) as base_url:
        starts = {
            "ours": started(addresses, url, base_url, **ROOM),
            "apart": started(addresses, url, base_url, workers=APART, **ROOM),
            "gather": scripted(addresses, "aiohttp_calls.py", base_url, "1000"),
        }
        if "faust" in pythons:
            starts["faust"] = scripted(addresses, "faust_calls.py", base_url, "100", python=pythons["faust"])
        if "quix" in pythons:
            starts["quix"] = scripted(addresses, "quix_calls.py", base_url, python=pythons["quix"])
        try:
            starts["parallel"] = program(addresses, await parallel_consumer(), base_url, "1000")
        except peers.PeerError as exc:
            missing["parallel"] = str(exc)
        contenders: dict[str, Measure] = {"client": partial(_client, base_url, RECORDS["client"])}
        sustained: list[float] = []
        contenders |= {
            name: partial(_rate, start, RECORDS[name], committed=name != "faust") for name, start in starts.items()
        }
        contenders["apart"] = partial(_rate, starts["apart"], RECORDS["apart"], sustained=sustained)
        rounds = await _with_limit(contenders, LATENCY_MS, missing)
        rounds.found["sustained"] = sustained
        return rounds


async def _rate(
    start: Start, count: int, *, warm: int = WARM, committed: bool = True, sustained: list[float] | None = None
) -> float:
    return await rate(start, misses(warm), misses(count), committed=committed, sustained=sustained)


async def _reached(addresses: StackAddresses, url: str) -> Rounds:
    async with simulator("--latency-ms", str(REACHED_LATENCY_MS), "--max-concurrency", str(AT_ONCE)) as base_url:
        starts = {
            "ours": started(addresses, url, base_url, **ROOM),
            "told": started(addresses, url, base_url, max_concurrency=AT_ONCE, **ROOM),
        }
        contenders: dict[str, Measure] = {"client": partial(_client, base_url, REACHED_RECORDS // 5)}
        contenders |= {name: partial(_rate, start, REACHED_RECORDS) for name, start in starts.items()}
        return await _with_limit(contenders, REACHED_LATENCY_MS)


async def _slow(addresses: StackAddresses, url: str) -> Rounds:
    async with simulator("--latency-ms", str(SLOW_LATENCY_MS)) as base_url:
        starts = {
            "ours": started(addresses, url, base_url, **ROOM),
            "loop": scripted(addresses, "aiohttp_calls.py", base_url, "1"),
        }
        return await alternate(
            {name: partial(_rate, start, SLOW_RECORDS[name], warm=1) for name, start in starts.items()}, ROUNDS
        )


def misses(count: int) -> list[bytes]:
    """No two alike."""
    return [record(f"{uuid.uuid4()} what does parcel {number} cost", number) for number in range(count)]


async def _client(base_url: str, calls: int) -> float:
    """Calls/s of the product's HTTP client with nothing around it."""
    transport = create_transport()
    await transport.start()
    numbers = iter(range(calls))

    async def loop() -> None:
        for number in numbers:
            messages = [{"role": "user", "content": f"{uuid.uuid4()} question {number}"}]
            body = orjson.dumps({"model": "gpt-4o-mini", "messages": messages})
            headers = {"content-type": "application/json"}
            reply = await transport.send(HttpCall("POST", f"{base_url}/chat/completions", headers, body, 30.0))
            assert reply.status == 200

    try:
        began = time.perf_counter()
        await asyncio.gather(*(loop() for _ in range(AT_ONCE)))
        return calls / (time.perf_counter() - began)
    finally:
        await transport.stop()
