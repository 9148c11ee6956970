"""Asks every source what a run came to: responses, windows, the usage topic, the ledger, the journal's own rows."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import orjson

from stratarouter_runtime import wire
from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.journal.rows import unpack
from stratarouter_runtime.journal.usage import WINDOWS_S, UsageAccounts
from stratarouter_runtime.processors.tail import Tail
from stratarouter_runtime.records import Response
from stratarouter_runtime.usage_deltas import decode_usage, nano
from support.books import KINDS, Book, add_up, only_kinds
from support.fleet import ambiguous_calls, command

FIGURES = KINDS
WHAT_WAS = ("paid", "exact", "semantic", "coalesced")
SETTLE_S = 5.0
"""Without a record for so long a topic has been read to its end."""


async def counted(config: RuntimeConfig, requests: int, timeout_s: float) -> None:
    """Until the accounts hold ``requests`` responses. Raises AssertionError where they never do."""
    accounts = UsageAccounts(config.database_url)
    await accounts.start()
    try:
        deadline = time.monotonic() + timeout_s
        while (known := _total(await accounts.report(WINDOWS_S["day"], 0, 2**40, []))) < requests:
            if time.monotonic() > deadline:
                raise AssertionError(f"{known} of {requests} responses are counted after {timeout_s:.0f} s")
            await asyncio.sleep(0.5)
    finally:
        await accounts.stop()


def _total(rows: list[dict[str, Any]]) -> int:
    return sum(row["requests"] for row in rows)


async def collect(config: RuntimeConfig) -> dict[str, Any]:
    """What each source says, and how it differs from the responses."""
    times: Counter[tuple[str, str]] = Counter()
    responses: Book = {}
    async for some in _responses(config, times):
        for tenant, sums in add_up(some).items():
            responses.setdefault(tenant, Counter()).update(sums)
    books = {f"windows of a {window}": await _windows(config, window) for window in WINDOWS_S}
    books["usage topic"] = await _published(config)
    books["ledger"], unreconciled = await _ledger(config)
    calls, paid = await _journal(config)
    expected = only_kinds(responses)
    differ = {name: _differences(only_kinds(book), expected) for name, book in books.items()}
    differ["journal's rows"] = _differences(
        paid, {tenant: {name: sums[name] for name in ("paid", "paid_nano")} for tenant, sums in expected.items()}
    )
    totals = {"responses": responses, **books, "journal's rows": paid}
    return {
        "answers": sum(times.values()),
        "distinct": len(times),
        "kinds": {kind: sum(sums[kind] for sums in responses.values()) for kind in WHAT_WAS},
        "differ": differ,
        "unreconciled": unreconciled,
        "journal_calls": calls,
        "ambiguous": await ambiguous_calls(config),
        "totals": {
            name: dict(sum((Counter(one) for one in book.values()), Counter())) for name, book in totals.items()
        },
    }


def _differences(found: dict[str, dict[str, int]], expected: dict[str, dict[str, int]]) -> list[str]:
    return [
        f"{tenant} {name}: {found.get(tenant, {}).get(name, 0)}, not {number}"
        for tenant in sorted({*found, *expected})
        for name, number in expected.get(tenant, dict.fromkeys(KINDS, 0)).items()
        if found.get(tenant, {}).get(name, 0) != number
    ]


async def _responses(config: RuntimeConfig, times: Counter[tuple[str, str]]) -> AsyncIterator[list[Response]]:
    """Each response, as a read_committed reader sees it from the beginning; ``times`` counts how often."""
    async with Tail(config, config.topic(config.responses_topic), from_beginning=True) as tail:
        while records := await tail.poll(SETTLE_S):
            some = [wire.decode_response(record.value) for record in records]
            times.update((response.tenant, response.request_id) for response in some)
            yield some


async def _windows(config: RuntimeConfig, window: str) -> Book:
    """What the command prints."""
    code, out, err = await command(config, "usage", "--by", "tenant", "--window", window, "--since", "1d", "--json")
    assert code == 0, err
    return _by_tenant(orjson.loads(out)["windows"])


def _by_tenant(rows: list[dict[str, Any]]) -> Book:
    book: Book = {}
    for row in rows:
        sums = {name: number for name, number in row.items() if name not in {"start", "tenant"}}
        book.setdefault(row["tenant"], Counter()).update(sums)
    return book


async def _published(config: RuntimeConfig) -> Book:
    """The latest record of each day on the usage topic."""
    latest = {}
    async with Tail(config, config.topic(config.usage_topic), from_beginning=True) as tail:
        while records := await tail.poll(SETTLE_S):
            latest |= {record.key: decode_usage(record.value) for record in records}
    days = [one for one in latest.values() if one.type == "window" and one.window_s == WINDOWS_S["day"]]
    return _by_tenant([{"tenant": one.tenant, **one.sums} for one in days])


async def _ledger(config: RuntimeConfig) -> tuple[Book, list[str]]:
    """What the command prints, and where it does not reconcile."""
    code, out, err = await command(config, "ledger", "--window", "1d", "--settle", "0", "--json")
    assert code in {0, 1}, err
    lines = orjson.loads(out)
    book = {
        line["tenant"]: Counter(
            line["calls"] | {f"{kind}_nano": nano_usd for kind, nano_usd in line["nano_usd"].items()}
        )
        for line in lines
    }
    return book, [f"{line['tenant']}: {one}" for line in lines for one in line["differences"]]


async def _journal(config: RuntimeConfig) -> tuple[int, Book]:
    """Results in the journal, and what they cost by tenant: read row by row, by nothing of the accounts."""
    book: Book = {}
    connection = await asyncpg.connect(config.database_url)
    try:
        async with connection.transaction(readonly=True):
            rows = connection.cursor("SELECT tenant, answer FROM journal WHERE state = 'succeeded'", prefetch=1000)
            async for row in rows:
                answer = unpack(row["answer"], None, None).answer
                assert answer is not None
                book.setdefault(row["tenant"], Counter()).update(paid=1, paid_nano=nano(answer.cost_usd) or 0)
    finally:
        await connection.close()
    return sum(sums["paid"] for sums in book.values()), book
