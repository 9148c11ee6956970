"""The journal along its number of rows, with the retention job running: rows/s written meanwhile, and rows/s purged.

Old rows are made in SQL. At each size a tenth of all rows is past retention when the clock starts.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import asyncpg

from bench.curves.curve import FLAT, Curve, Point
from bench.parts import database
from stratarouter_runtime.embedded import StackAddresses
from stratarouter_runtime.journal.grouped import GroupedJournal
from stratarouter_runtime.journal.postgres import PostgresJournal
from stratarouter_runtime.port_values import Begin, Finish, JournalKey
from stratarouter_runtime.records import Answer, Attempt, Usage

SIZES = (10_000, 100_000, 1_000_000, 10_000_000)
WRITTEN = 20_000
"""Begun and finished in each round."""
CALLERS = 2000
RETENTION_S = 1_209_600.0
ROUNDS = 3
SHARE_OLD = 0.1
LARGEST_PURGE = 200_000
"""Rows past retention at most: the job's rate shows by then."""
ANSWER = Answer("x" * 850, "openai", "gpt-4o-mini", Usage(12, 300), cost_usd=0.0002)
ATTEMPTS = (Attempt("openai", "gpt-4o-mini", "ok", 31.2, 200),)

# Keys in no order, as request ids come. The answers are short, so that ten million rows fill a small disk.
FILL = """
INSERT INTO journal (tenant, request_id, payload_hash, route_id, state, owner, starts, answer, attempts, source,
                     created_at, started_at, finished_at)
SELECT 'acme', md5(n::text || $4), md5(n::text), 'support', 'succeeded', $3::uuid, 1, '{}'::bytea, '[]'::bytea,
       'requests-' || n % 16 || '@' || n, t.at, t.at, t.at
FROM generate_series($1::bigint, $2::bigint) AS n,
     LATERAL (SELECT now() - make_interval(secs => $5::float8 + n % 100000) AS at) AS t
"""


@dataclass(slots=True)
class Found:
    """Rates of the rounds at one size."""

    written: list[float] = field(default_factory=list)
    purged: list[float] = field(default_factory=list)


async def measure(addresses: StackAddresses) -> list[Curve]:
    """One database that grows from size to size."""
    found: dict[int, Found] = {}
    async with database(addresses) as url:
        for size in SIZES:
            old = min(int(size * SHARE_OLD), LARGEST_PURGE)
            found[size] = await purged_and_written(url, size, old, WRITTEN, rounds=ROUNDS)
    note = f"{CALLERS} callers; a request is two rows' writes; PostgreSQL, the callers and the purge share the machine"
    return [
        Curve("journal writes while the purge runs", "rows", "requests/s",
              [Point.of(size, each.written) for size, each in found.items()], is_rate=True, at_most=FLAT, note=note),
        Curve("journal purge", "rows", "rows/s",
              [Point.of(size, each.purged) for size, each in found.items()], is_rate=True, at_most=FLAT,
              note=f"a tenth of the rows, at most {LARGEST_PURGE}, past retention"),
    ]  # fmt: skip


async def purged_and_written(url: str, size: int, old: int, written: int, *, rounds: int = 1) -> Found:
    """Fill up to ``size`` rows, ``old`` of them past retention; purge these while others are written."""
    found, owner = Found(), str(uuid.uuid4())
    async with AsyncExitStack() as ends:
        journal = PostgresJournal(url, owner=owner)
        await journal.start()
        ends.push_async_callback(journal.stop)
        grouped = GroupedJournal(journal)
        await grouped.start()
        ends.push_async_callback(grouped.stop)
        bare = await asyncpg.connect(url)
        ends.push_async_callback(bare.close)
        for _ in range(rounds):
            there = await bare.fetchval("SELECT count(*) FROM journal")
            await _fill(bare, size - there - old, owner, age_s=3600.0)
            await _fill(bare, old, owner, age_s=RETENTION_S + 100.0)
            # As autovacuum would have done by the time that so many rows came by themselves.
            await bare.execute("VACUUM ANALYZE journal")
            await bare.execute("CHECKPOINT")
            purge_s, write_s = await asyncio.gather(_purge(journal, old), _write(grouped, written))
            found.purged.append(old / purge_s)
            found.written.append(written / write_s)
    return found


async def _fill(bare: asyncpg.Connection, rows: int, owner: str, *, age_s: float) -> None:
    if rows > 0:
        await bare.execute(FILL, 1, rows, owner, uuid.uuid4().hex, age_s, timeout=600)


async def _purge(journal: PostgresJournal, old: int) -> float:
    began = time.perf_counter()
    gone = await journal.purge(RETENTION_S)
    assert gone == old, f"{gone} rows were purged, not {old}"
    return time.perf_counter() - began


async def _write(grouped: GroupedJournal, written: int) -> float:
    numbers = iter(range(written))
    run = uuid.uuid4().hex

    async def caller() -> None:
        for number in numbers:
            key = JournalKey("acme", f"{run}-{number}")
            await grouped.begin_one(Begin(key, "0123456789abcdef" * 2, "support", source="requests-1@12345"))
            await grouped.finish_one(Finish(key, ANSWER, None, ATTEMPTS))

    began = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    return time.perf_counter() - began
