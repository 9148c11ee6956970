"""The journal's grouped writes against bare ``INSERT ... SELECT unnest(...) ON CONFLICT`` of the same rows."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from typing import TypeVar

import asyncpg

from bench.parts import database
from bench.result import Outcome
from bench.rounds import alternate
from stratarouter_runtime.embedded import StackAddresses
from stratarouter_runtime.journal.grouped import GroupedJournal
from stratarouter_runtime.journal.postgres import PostgresJournal
from stratarouter_runtime.journal.rows import pack
from stratarouter_runtime.port_values import Begin, Finish, JournalKey
from stratarouter_runtime.records import Answer, Attempt, Usage

T = TypeVar("T")

ROWS = 40_000
CALLERS = 4000
"""Callers that wait for one row each: what a busy worker has in flight."""
ROUNDS = 7
BARE = {"bare": (1, 200), "both": (2, 500)}
"""Connections of a bare loop, each with a group under way, and rows in a group: the plain way, and with as many as the
journal has. The second keeps both cores of a small machine busy with PostgreSQL alone."""
ANSWER_CHARS = 850
"""With the answer's other fields and its attempt about 1 kB of JSON a row."""

BARE_FINISH = """
INSERT INTO journal (tenant, request_id, state, answer, attempts, owner, starts, finished_at)
SELECT i.tenant, i.request_id, 'succeeded', i.answer, i.attempts, $5::uuid, 0, now()
FROM unnest($1::text[], $2::text[], $3::bytea[], $4::bytea[]) AS i (tenant, request_id, answer, attempts)
ON CONFLICT (tenant, request_id) DO NOTHING
"""
BARE_BEGIN = """
INSERT INTO journal (tenant, request_id, payload_hash, route_id, state, owner, starts, started_at)
SELECT i.tenant, i.request_id, i.payload_hash, i.route_id, 'started', $5::uuid, 1, now()
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[]) AS i (tenant, request_id, payload_hash, route_id)
ON CONFLICT (tenant, request_id) DO NOTHING
"""


async def measure(addresses: StackAddresses, rounds: int = ROUNDS) -> list[Outcome]:
    """Rows/s of each kind of write, alternating with the bare loop, into a table emptied before each."""
    async with database(addresses) as url:
        owner = str(uuid.uuid4())
        journal = PostgresJournal(url, owner=owner)
        await journal.start()
        grouped = GroupedJournal(journal)
        await grouped.start()
        bare = await asyncpg.create_pool(url, min_size=2, max_size=2)
        try:
            outcomes = []
            for kind in ("finish", "begin"):

                async def measured(side: str, kind: str = kind) -> float:
                    await bare.execute("TRUNCATE journal")
                    took_s = await (
                        _grouped(grouped, kind) if side == "ours" else _bare(bare, kind, owner, *BARE[side])
                    )
                    assert await bare.fetchval("SELECT count(*) FROM journal") == ROWS
                    # Rows that this process holds are no new ones to it: a worker's are finished by and by.
                    journal.release(map(_key, range(ROWS)))
                    return ROWS / took_s

                done = await alternate({side: partial(measured, side) for side in ("ours", *BARE)}, rounds)
                for side, (connections, group) in BARE.items():
                    name = f"journal: grouped {kind} rows against a bare INSERT of them"
                    outcomes.append(
                        done.against(
                            side,
                            name if connections == 1 else f"{name} on {connections} connections",
                            unit="rows/s",
                            at_least=0.8 if connections == 1 else None,
                            note=f"both made ready before; {connections} connection(s), {group} rows a group",
                        )
                    )
        finally:
            await bare.close()
            await grouped.stop()
            await journal.stop()
    return outcomes


def _key(number: int) -> JournalKey:
    return JournalKey("acme", f"request-{number:08d}")


def _answer() -> Answer:
    return Answer("x" * ANSWER_CHARS, "openai", "gpt-4o-mini", Usage(12, 300), cost_usd=0.0002)


PAYLOAD_HASH = "0123456789abcdef" * 2
ATTEMPTS = (Attempt("openai", "gpt-4o-mini", "ok", 31.2, 200),)


async def _grouped(journal: GroupedJournal, kind: str) -> float:
    # Made ready before the clock starts, as the bare loop's columns are.
    if kind == "finish":
        answer = _answer()
        finishes = [Finish(_key(number), answer, None, ATTEMPTS) for number in range(ROWS)]
        return await _timed(iter(finishes), journal.finish_one, CALLERS)
    begins = [Begin(_key(number), PAYLOAD_HASH, "support", source="requests-1@12345") for number in range(ROWS)]
    return await _timed(iter(begins), journal.begin_one, CALLERS)


async def _bare(pool: asyncpg.Pool, kind: str, owner: str, connections: int, group: int) -> float:
    # Made ready before the clock starts: the floor is what the database takes.
    groups = [_columns(kind, range(first, min(first + group, ROWS))) for first in range(0, ROWS, group)]
    statement = BARE_FINISH if kind == "finish" else BARE_BEGIN
    return await _timed(iter(groups), lambda group: pool.execute(statement, *group, owner), connections)


def _columns(kind: str, numbers: range) -> Sequence[list[object]]:
    keys = [_key(number) for number in numbers]
    if kind == "finish":
        last = [[pack(_answer())] * len(keys), [pack(ATTEMPTS)] * len(keys)]
    else:
        last = [[PAYLOAD_HASH] * len(keys), ["support"] * len(keys)]
    return [[key.tenant for key in keys], [key.request_id for key in keys], *last]


async def _timed(items: Iterator[T], write: Callable[[T], Awaitable[object]], at_once: int) -> float:
    async def loop() -> None:
        for item in items:
            await write(item)

    began = time.perf_counter()
    await asyncio.gather(*(loop() for _ in range(at_once)))
    return time.perf_counter() - began
