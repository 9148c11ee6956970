"""The accounts in PostgreSQL: deltas are counted once, in windows of a minute, an hour and a day.

One transaction takes a batch of deltas: what was counted before is known by its id, a request id counts its money once,
and the windows are raised by the rest. So it does not matter how often a delta is read. Where a crash lets a request be
answered twice, as a hit (or an error) and by the call that was paid, both have one id: whichever comes first, the paid
one stays and the other is taken back.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import asyncpg

from stratarouter_runtime.errors import JournalUnavailableError
from stratarouter_runtime.journal.asyncpg_errors import mapped, mapped_connect
from stratarouter_runtime.journal.migrations import check_schema
from stratarouter_runtime.journal.queries import parse
from stratarouter_runtime.journal.rows import unpack
from stratarouter_runtime.json_bytes import json_bytes
from stratarouter_runtime.ledger import Sources
from stratarouter_runtime.usage_deltas import (
    MINUTE_S,
    SUMS,
    Delta,
    Receipt,
    count_receipt,
    decode,
    encode,
    nano,
)

WINDOWS_S = {"minute": MINUTE_S, "hour": 3600, "day": 86_400}
"""Lengths of the windows in seconds; aligned to the epoch, so that days are UTC's."""
TIMEOUT_S = 30.0
"""For one batch, or one report over a day."""
PRUNE_ROWS = 5000
"""Rows deleted in one transaction, in 11 ms of an idle database: far below ``TIMEOUT_S`` on a busy one."""
FETCH_ROWS = 2000
"""Rows of the journal read at a time: about 2 MB of answers."""
HITS = ("exact", "semantic", "exact_nano", "semantic_nano")
TEXT, BIGINT = "text[]", "bigint[]"

Key = tuple[int, int, str, str, str]
"""Window in seconds, its start in epoch seconds, tenant, route, model."""


@dataclass(frozen=True, slots=True)
class Window:
    """One window as it stands: its key and its sums by the names in ``SUMS``."""

    key: Key
    sums: dict[str, int]


@dataclass(frozen=True, slots=True)
class Spending:
    """What is spent of one budget by one tenant in the present window. ``window_s``: of the longest that began then,
    where the budget's length was changed.
    """

    budget: str
    tenant: str
    window_start: int
    window_s: int
    nano_usd: int
    tokens: int


@cache
def statements() -> dict[str, str]:
    """The statements of ``sql/usage.sql`` by name."""
    return parse(files(__package__).joinpath("sql", "usage.sql").read_text(encoding="utf-8"))


def window_keys(delta: Delta) -> list[Key]:
    """The windows that ``delta`` counts in."""
    now_s = delta.at_ms // 1000
    return [
        (length, now_s - now_s % length, delta.tenant, delta.route, delta.model)
        for length in sorted(WINDOWS_S.values())
    ]


def minute_of(delta: Delta) -> int:
    """Start of the delta's minute, in epoch seconds."""
    now_s = delta.at_ms // 1000
    return now_s - now_s % MINUTE_S


def identities(delta: Delta) -> list[tuple[str, str]]:
    """Tenant and request id of each of the delta's receipts."""
    return [(delta.tenant, receipt.request_id) for receipt in delta.receipts]


def _answered(delta: Delta) -> set[tuple[str, str]]:
    """The same of receipts for an answer."""
    return {(delta.tenant, receipt.request_id) for receipt in delta.receipts if receipt.kind != "error"}


def fold(
    deltas: Iterable[Delta], first_ids: Iterable[tuple[str, str]], taken_back: Iterable[Delta] = ()
) -> dict[Key, Counter[str]]:
    """What ``deltas`` add to each window. ``first_ids``: (tenant, request id) that were never counted before; the first
    receipt of each is what its money counts by. ``taken_back``: what no longer counts.
    """
    unseen = set(first_ids)
    windows: dict[Key, Counter[str]] = {}
    for delta in deltas:
        sums = Counter(delta.sums)
        for receipt, identity in zip(delta.receipts, identities(delta), strict=True):
            count_receipt(sums, receipt, first=identity in unseen)
            if receipt.kind != "error":
                unseen.discard(identity)
        for key in window_keys(delta):
            windows.setdefault(key, Counter()).update(sums)
    for delta in taken_back:
        for key, sums in fold([delta], ()).items():
            windows.setdefault(key, Counter()).subtract(sums)
    return windows


def fold_errors(deltas: Iterable[Delta], taken_back: Iterable[Delta] = ()) -> Counter[tuple[int, int, str, str, str]]:
    """Error responses by window, tenant, route and code, without those ``taken_back``."""
    found: Counter[tuple[int, int, str, str, str]] = Counter()
    for delta in deltas:
        codes = Counter(delta.errors)
        codes.update(receipt.code for receipt in delta.receipts if receipt.code is not None)
        for length, start, tenant, route, _ in window_keys(delta):
            for code, number in codes.items():
                found[(length, start, tenant, route, code)] += number
    for delta in taken_back:
        found.subtract(fold_errors([delta]))
    return found


class UsageAccounts:
    """The accounts over a small pool of connections."""

    def __init__(self, database_url: str) -> None:
        self._database_url = database_url
        self._pool: asyncpg.Pool | None = None

    async def start(self) -> None:
        """Connect and check the schema. Raises ConfigurationError, SchemaVersionError, JournalUnavailableError."""
        with mapped_connect():
            pool = asyncpg.create_pool(
                self._database_url, min_size=1, max_size=2, timeout=TIMEOUT_S, command_timeout=TIMEOUT_S
            )
        try:
            with mapped_connect():
                async with asyncio.timeout(TIMEOUT_S):
                    await pool
            with mapped("check the schema"):
                async with asyncio.timeout(TIMEOUT_S), pool.acquire() as connection:
                    await check_schema(connection)
        except BaseException:
            pool.terminate()
            raise
        self._pool = pool

    async def stop(self) -> None:
        """Disconnect. Idempotent."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.terminate()

    def _open(self) -> asyncpg.Pool:
        if self._pool is None:
            raise JournalUnavailableError("the accounts are not connected")
        return self._pool

    # -- counting ----------------------------------------------------------------------------------------------

    async def count(self, deltas: Sequence[Delta]) -> list[Window]:
        """Count what was not counted before, and return every window of ``deltas`` as it stands now: also of those
        counted before, whose windows may not have been published. Raises JournalUnavailableError.
        """
        with mapped("count usage"):
            async with asyncio.timeout(TIMEOUT_S), self._open().acquire() as connection, connection.transaction():
                # 1. Each delta once; those that were there may still bring what was paid.
                fresh, again = await _insert_deltas(connection, deltas)
                # 2. Each request id's money once.
                first = await _insert_receipts(connection, [*fresh, *again])
                paid = [delta for delta in again if first & _answered(delta)]
                # 3. What a payment takes the place of.
                replaced = await _take_back(connection, paid)
                # 4. The windows and the errors, in the order of their keys.
                await _raise_windows(connection, fold([*fresh, *paid], first, replaced))
                await _raise_errors(connection, fold_errors([*fresh, *paid], replaced))
                keys = sorted({key for delta in (*deltas, *replaced) for key in window_keys(delta)})
                return await _standing(connection, keys)

    async def windows(self, keys: Sequence[Key]) -> list[Window]:
        """Those of ``keys`` as they stand now. Raises JournalUnavailableError."""
        with mapped("read usage"):
            return await _standing(self._open(), keys)

    async def prune(self, before_s: int) -> None:
        """Forget ids, receipts and minutes before ``before_s`` (epoch seconds), and alerts whose windows ended before.
        Hours and days are kept. Done in parts of ``PRUNE_ROWS``, which stay done where a later one fails.

        Raises JournalUnavailableError.
        """
        with mapped("prune usage"):
            for name in ("prune_deltas", "prune_receipts", "prune_windows", "prune_errors", "prune_alerts"):
                deleted = PRUNE_ROWS
                while deleted == PRUNE_ROWS:
                    deleted = len(await self._open().fetch(statements()[name], before_s, PRUNE_ROWS))

    # -- budgets -----------------------------------------------------------------------------------------------

    async def spending(self) -> list[Spending]:
        """What is spent of every budget in its present window. Raises JournalUnavailableError."""
        with mapped("read spending"):
            found = await self._open().fetch(statements()["spending_now"])
        return [Spending(*row) for row in found]

    async def alerted(self) -> dict[tuple[str, str, int, int], int]:
        """Alerts raised for the present windows, by budget, tenant, window's start and percent: the window's length."""
        with mapped("read alerts"):
            found = await self._open().fetch(statements()["alerted"])
        return {tuple(key): window_s for *key, window_s in found}

    async def note_alert(self, spent: Spending, percent: int) -> None:
        """Remember that the alert was raised. Raises JournalUnavailableError."""
        with mapped("note an alert"):
            await self._open().execute(
                statements()["insert_alert"],
                *(spent.budget, spent.tenant, spent.window_start, percent),
                *(spent.window_s, spent.nano_usd, spent.tokens),
            )

    # -- reports -----------------------------------------------------------------------------------------------

    async def report(self, window_s: int, since_s: int, until_s: int, by: Sequence[str]) -> list[dict[str, Any]]:
        """Sums of the windows of ``window_s`` that start within [since_s, until_s), by window and the columns ``by``
        (of tenant, route and model). Raises JournalUnavailableError.
        """
        columns = ", ".join(["start", *_columns_of(by)])
        query = f"{_sum_by(columns)} ORDER BY {columns}"
        with mapped("report usage"):
            return [dict(row) for row in await self._open().fetch(query, window_s, since_s, until_s)]

    async def largest(
        self, window_s: int, since_s: int, until_s: int, by: Sequence[str], limit: int
    ) -> list[dict[str, Any]]:
        """Sums of the same windows by the columns ``by`` (one at least) alone: the ``limit`` that paid the most. Raises
        JournalUnavailableError.
        """
        columns = ", ".join(_columns_of(by))
        query = f"{_sum_by(columns)} ORDER BY paid_nano DESC, {columns} LIMIT $4"
        with mapped("report usage"):
            return [dict(row) for row in await self._open().fetch(query, window_s, since_s, until_s, limit)]

    async def errors(self, window_s: int, since_s: int, until_s: int) -> list[dict[str, Any]]:
        """Error responses by tenant, route and code. Raises JournalUnavailableError."""
        with mapped("report errors"):
            found = await self._open().fetch(statements()["errors_between"], window_s, since_s, until_s)
        return [dict(row) for row in found]

    async def ledger(self, since_s: int, until_s: int, settled_s: int) -> Sources:
        """What every source says, as of one moment, of the responses counted within [since_s, until_s), whole minutes
        in epoch seconds; and the results finished within [since_s, settled_s) that nobody has counted.

        Raises JournalUnavailableError.
        """
        async with self._snapshot() as connection:
            windows = await connection.fetch(_sum_by_tenant(), since_s, until_s)
            hits = await connection.fetch(statements()["hits_between"], since_s, until_s)
            journal: dict[str, Counter[str]] = {}
            async for row in connection.cursor(statements()["receipts_between"], since_s, until_s, prefetch=FETCH_ROWS):
                _add(journal, row["tenant"], kind_of(row), row["answer"])
            async for row in connection.cursor(
                statements()["uncounted_between"], float(since_s), float(settled_s), prefetch=FETCH_ROWS
            ):
                _add(journal, row["tenant"], "uncounted" if row["streamed"] else "in_process", row["answer"])
        return Sources(_by_tenant(windows), _by_tenant(hits), journal)

    @asynccontextmanager
    async def _snapshot(self) -> AsyncIterator[asyncpg.Connection]:
        """A connection that sees the database as of one moment."""
        begin = {"isolation": "repeatable_read", "readonly": True}
        with mapped("read the ledger"):
            async with self._open().acquire() as connection, connection.transaction(**begin):
                yield connection


def _by_tenant(rows: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    return {row["tenant"]: {name: value for name, value in row.items() if name != "tenant"} for row in rows}


def _columns_of(by: Sequence[str]) -> list[str]:
    return [name for name in ("tenant", "route", "model") if name in by]


def _sum_by(columns: str) -> str:
    """The windows of $1 that start within [$2, $3). ``columns`` are names from our own lists, never values."""
    sums = ", ".join(f"sum({name})::bigint AS {name}" for name in SUMS)
    return (
        f"SELECT {columns}, {sums} FROM usage_windows "  # noqa: S608
        f"WHERE window_s = $1 AND start >= $2 AND start < $3 GROUP BY {columns}"
    )


@cache
def _sum_by_tenant() -> str:
    sums = ", ".join(f"sum({name})::bigint AS {name}" for name in SUMS)
    # Names of columns from our own list; the values are arguments.
    return (
        f"SELECT tenant, {sums} FROM usage_windows "  # noqa: S608
        f"WHERE window_s = {MINUTE_S} AND start >= $1 AND start < $2 GROUP BY tenant"
    )


def kind_of(row: Mapping[str, Any]) -> str | None:
    """What the journal makes of a receipt (its ``kind``) whose result is ``answer``, its own or (``follows``) its
    leader's; None for an error that cost nothing.
    """
    if row["kind"] == "error":
        # The caller's deadline passed, and the answer came all the same.
        return "late" if row["answer"] is not None and not row["follows"] else None
    if row["answer"] is None:
        return "gone"
    return "coalesced" if row["follows"] or row["kind"] == "coalesced" else "paid"


def _add(found: dict[str, Counter[str]], tenant: str, kind: str | None, answer: bytes | None) -> None:
    if kind is None:
        return
    sums = found.setdefault(tenant, Counter())
    sums[kind] += 1
    if answer is not None:
        read = unpack(answer, None, None).answer
        sums[f"{kind}_nano"] += (nano(read.cost_usd) if read is not None else None) or 0


def _replaceable(delta: Delta) -> bytes | None:
    """The delta as kept beside its id, if a later one of the same id may bring what was paid for the same request."""
    single = delta.first_offset == delta.last_offset and all(receipt.kind == "error" for receipt in delta.receipts)
    return encode(delta) if single else None


async def _standing(where: asyncpg.Connection | asyncpg.Pool, keys: Sequence[Key]) -> list[Window]:
    return [_window(row) for row in await where.fetch(statements()["windows"], *_columns(5, keys))]


async def _insert_deltas(connection: asyncpg.Connection, deltas: Sequence[Delta]) -> tuple[list[Delta], list[Delta]]:
    """Those that were not there before; and of the others those with an answer."""
    unique = {delta.id: delta for delta in reversed(deltas)}
    rows = [
        (
            d.id,
            minute_of(d),
            d.tenant,
            *(d.sums.get(n, 0) for n in ("exact", "semantic", "exact_nano", "semantic_nano")),
            _replaceable(d),
        )
        for _, d in sorted(unique.items())
    ]
    found = await connection.fetch(statements()["insert_deltas"], *_columns(8, rows))
    fresh = [unique[row["id"]] for row in found]
    counted = {identity for delta in fresh for identity in _answered(delta)}
    again = {d.id: d for d in reversed(deltas) if _answered(d) - counted}
    return fresh, list(again.values())


async def _insert_receipts(connection: asyncpg.Connection, deltas: Sequence[Delta]) -> set[tuple[str, str]]:
    """Tenant and request id of those whose money was not counted before."""
    unique: dict[tuple[str, str], tuple[Receipt, int]] = {}
    for delta in deltas:
        for identity, receipt in zip(identities(delta), delta.receipts, strict=True):
            if identity not in unique or unique[identity][0].kind == "error":
                unique[identity] = (receipt, minute_of(delta))
    rows = [(*key, r.kind, r.nano_usd, minute) for key, (r, minute) in sorted(unique.items(), key=lambda item: item[0])]
    found = await connection.fetch(statements()["insert_receipts"], *_columns(5, rows))
    return {(row["tenant"], row["request_id"]) for row in found}


async def _take_back(connection: asyncpg.Connection, deltas: Sequence[Delta]) -> list[Delta]:
    """What was counted under the ids of ``deltas`` and is not any more."""
    if not deltas:
        return []
    found = await connection.fetch(statements()["take_back"], sorted(delta.id for delta in deltas))
    return [decode(row["added"]) for row in found]


async def _raise_windows(connection: asyncpg.Connection, windows: Mapping[Key, Counter[str]]) -> None:
    rows = [(*key, *(sums[name] for name in SUMS)) for key, sums in sorted(windows.items())]
    await connection.execute(_upsert_windows(), *_columns(5 + len(SUMS), rows))


@cache
def _upsert_windows() -> str:
    types = [BIGINT, BIGINT, TEXT, TEXT, TEXT] + [BIGINT] * len(SUMS)
    arrays = ", ".join(f"${n}::{kind}" for n, kind in enumerate(types, 1))
    raised = ", ".join(f"{name} = w.{name} + excluded.{name}" for name in SUMS)
    # Names of columns from our own list; the values are arguments.
    return (
        f"INSERT INTO usage_windows AS w (window_s, start, tenant, route, model, {', '.join(SUMS)}) "  # noqa: S608
        f"SELECT * FROM unnest({arrays}) ON CONFLICT (window_s, start, tenant, route, model) DO UPDATE SET {raised}"
    )


async def _raise_errors(connection: asyncpg.Connection, found: Mapping[tuple[int, int, str, str, str], int]) -> None:
    rows = [(*key, number) for key, number in sorted(found.items())]
    await connection.execute(statements()["add_errors"], *_columns(6, rows))


def _columns(width: int, rows: Sequence[tuple[Any, ...]]) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)] if rows else [[] for _ in range(width)]


def _window(row: Mapping[str, Any]) -> Window:
    key = (row["window_s"], row["start"], row["tenant"], row["route"], row["model"])
    return Window(key, {name: row[name] for name in SUMS})


def window_record(window: Window) -> tuple[bytes, bytes]:
    """A window as the usage topic's key and value."""
    length, start, tenant, route, model = window.key
    value = {"type": "window", "tenant": tenant, "window_s": length, "start": start, "route": route, "model": model}
    return json_bytes(window.key), json_bytes(value | {"sums": window.sums})


def alert_record(spent: Spending, percent: int) -> tuple[bytes, bytes]:
    """An alert as the usage topic's key and value."""
    value = {
        "type": "alert",
        "tenant": spent.tenant,
        "window_s": spent.window_s,
        "start": spent.window_start,
        "budget": spent.budget,
        "percent": percent,
        "spent_nano": spent.nano_usd,
        "spent_tokens": spent.tokens,
    }
    return json_bytes(["alert", spent.budget, spent.tenant, spent.window_start, percent]), json_bytes(value)
