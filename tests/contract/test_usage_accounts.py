"""The accounts in PostgreSQL forget what is over, and alert of budgets whose windows have changed."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from random import Random

import asyncpg
import pytest

from stratarouter_runtime.errors import JournalUnavailableError
from stratarouter_runtime.journal import usage
from stratarouter_runtime.journal.migrations import migrate
from stratarouter_runtime.journal.postgres import PostgresJournal
from stratarouter_runtime.journal.usage import Spending, UsageAccounts
from stratarouter_runtime.port_values import Begin, BudgetWindow, Finish, JournalKey, Spent
from stratarouter_runtime.processors.usage import due_alerts
from stratarouter_runtime.records import Answer
from stratarouter_runtime.route_file import Budget
from stratarouter_runtime.usage_deltas import (
    MAX_COUNT,
    MAX_ID_BYTES,
    MAX_NAME_BYTES,
    MAX_SUM,
    SUMS,
    Delta,
    Receipt,
    decode,
    encode,
)

pytestmark = pytest.mark.stack

BEFORE_S = 1_000_000


@pytest.fixture
async def accounts(postgres_url: str) -> AsyncIterator[UsageAccounts]:
    await migrate(postgres_url)
    made = UsageAccounts(postgres_url)
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
async def journal(postgres_url: str, accounts: UsageAccounts) -> AsyncIterator[PostgresJournal]:
    made = PostgresJournal(postgres_url, owner=str(uuid.uuid4()))
    await made.start()
    yield made
    await made.stop()


async def test_alerts_are_forgotten_with_their_windows_and_none_before(
    postgres_url: str, accounts: UsageAccounts
) -> None:
    """Nothing deleted them: of each budget, tenant and window two rows for ever."""
    for budget, start, length in (
        ("over", 996_400, 3599),
        ("at its end", 996_400, 3600),
        ("long", 990_000, 86_400),
    ):
        await accounts.note_alert(Spending(budget, "acme", start, length, 10, 0), 80)
    await accounts.prune(BEFORE_S)
    connection = await asyncpg.connect(postgres_url)
    try:
        left = await connection.fetch("SELECT budget FROM usage_alerts ORDER BY budget")
    finally:
        await connection.close()
    assert [row["budget"] for row in left] == ["at its end", "long"]


OLD, KEPT = 5, 2
TABLES = ("usage_deltas", "usage_receipts", "usage_windows", "usage_errors", "usage_alerts")


async def _fill(connection: asyncpg.Connection, old: int) -> None:
    """``old`` rows in each table from before ``BEFORE_S``, a minute apart, and ``KEPT`` that stay."""
    starts = [BEFORE_S - 60 * number for number in range(1, old + 1)] + [BEFORE_S] * KEPT
    rows = [(start, f"n{number}") for number, start in enumerate(starts)]
    columns, zeros = ", ".join(SUMS), ", ".join("0" for _ in SUMS)
    into = "INSERT INTO usage_windows (window_s, start, tenant, route, model,"
    for query in (
        "INSERT INTO usage_deltas VALUES ($2, $1, 'acme', 0, 0, 0, 0)",
        "INSERT INTO usage_receipts VALUES ('acme', $2, 'paid', 1, $1)",
        f"{into} {columns}) VALUES (60, $1, '', $2, '', {zeros})",
        "INSERT INTO usage_errors VALUES (60, $1, 'acme', $2, 'C', 1)",
        "INSERT INTO usage_alerts VALUES ($2, 'acme', $1 - 60, 80, 60, 1, 1)",
    ):
        await connection.executemany(query, rows)


async def _left(connection: asyncpg.Connection) -> dict[str, int]:
    return {table: await connection.fetchval(f"SELECT count(*) FROM {table}") for table in TABLES}


@pytest.mark.parametrize("rows", [1, 2, 5, 100])
async def test_everything_that_is_over_is_forgotten_however_many_parts_it_takes(
    postgres_url: str, accounts: UsageAccounts, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    monkeypatch.setattr(usage, "PRUNE_ROWS", rows)
    connection = await asyncpg.connect(postgres_url)
    try:
        await _fill(connection, OLD)
        await accounts.prune(BEFORE_S)
        assert await _left(connection) == dict.fromkeys(TABLES, KEPT)
    finally:
        await connection.close()


async def test_what_is_forgotten_stays_forgotten_where_the_rest_cannot_be(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One statement took it all or, after 30 s, nothing: once that far behind, tables grew for ever."""
    await migrate(postgres_url)
    monkeypatch.setattr(usage, "PRUNE_ROWS", 2)
    monkeypatch.setattr(usage, "TIMEOUT_S", 1.0)
    accounts, connection = UsageAccounts(postgres_url), await asyncpg.connect(postgres_url)
    await accounts.start()
    try:
        await _fill(connection, OLD)
        async with connection.transaction():
            await connection.execute("SELECT 1 FROM usage_receipts WHERE minute = $1 FOR UPDATE", BEFORE_S - 60)
            with pytest.raises(JournalUnavailableError, match="prune usage"):
                await accounts.prune(BEFORE_S)
        left = await _left(connection)
        assert (left["usage_deltas"], left["usage_receipts"]) == (KEPT, KEPT + 1)
        await accounts.prune(BEFORE_S)
        assert await _left(connection) == dict.fromkeys(TABLES, KEPT)
    finally:
        await connection.close()
        await accounts.stop()


def _letters(count: int, wide: bool = False) -> str:
    """Letters that do not compress; ``wide`` ones have four bytes."""
    found = Random(count)
    return "".join(chr(found.randrange(0x20000, 0x2A000) if wide else found.randrange(33, 127)) for _ in range(count))


async def test_the_largest_delta_that_is_read_can_be_counted_and_counted_again(accounts: UsageAccounts) -> None:
    """What PostgreSQL refused was tried for ever, and everything behind it waited: names beyond an index entry, a NUL,
    sums beyond 64 bits.
    """
    name = _letters(MAX_NAME_BYTES)
    receipt = Receipt("", "error", MAX_COUNT, MAX_COUNT, MAX_COUNT, name)
    largest = Delta(
        *("", _letters(MAX_ID_BYTES), MAX_SUM, MAX_SUM, MAX_SUM, MAX_SUM, _letters(256, wide=True), name, name),
        sums=dict.fromkeys(SUMS, MAX_COUNT),
        errors={name: MAX_COUNT},
    )
    deltas = [
        decode(
            encode(
                replace(
                    largest,
                    id=f"{number}{_letters(MAX_ID_BYTES - 1)}",
                    receipts=(replace(receipt, request_id=f"{number}{_letters(255, wide=True)}"),),
                )
            )
        )
        for number in range(5)
    ]
    for _ in range(2):
        windows = await accounts.count(deltas)
    assert {window.sums["exact_nano"] for window in windows} == {5 * MAX_COUNT}


def _charged(budget: Budget, at_s: int, usd: int, name: str) -> Finish:
    """A call of ``usd`` at ``at_s``."""
    window = BudgetWindow(budget.name, "acme", at_s - at_s % budget.window_s, budget.window_s)
    answer = Answer("42", "openai", "gpt-4o-mini")
    return Finish(JournalKey("acme", name), answer, None, charges=((window, Spent(usd * 10**9, 10)),))


@pytest.mark.parametrize("how", ["finish", "record_new", "at once"])
async def test_a_budget_whose_window_was_made_longer_raises_its_alerts_once(
    journal: PostgresJournal, accounts: UsageAccounts, how: str
) -> None:
    """Its window began where an hour's had begun, long over, and went by that one's length."""
    hourly, monthly = Budget("team", window_s=3600, usd=10.0), Budget("team", window_s=31 * 86_400, usd=10.0)
    now_s = int(time.time())
    start = now_s - now_s % monthly.window_s
    old, new = _charged(hourly, start + 60, 9, "old"), _charged(monthly, now_s, 11, "new")
    await accounts.note_alert(Spending("team", "acme", start, hourly.window_s, 9 * 10**9, 10), 80)
    if how == "at once":
        # As the table is read anew: results under both lengths in one statement.
        await journal.finish([old, new])
    elif how == "finish":
        await journal.finish([old])
        await journal.finish([new])
    else:
        for each in (old, new):
            await journal.record_new([(Begin(each.key, "p", "billing"), each)])
    [(window, _)] = new.charges
    assert await journal.spent([window]) == [Spent(20 * 10**9, 20)]
    due = due_alerts(await accounts.spending(), [monthly], await accounts.alerted(), now_s)
    assert [(alert.window_start, alert.window_s, percent) for alert, percent in due] == [
        (start, monthly.window_s, percent) for percent in (80, 100)
    ]
    for alert, percent in due:
        await accounts.note_alert(alert, percent)
    assert due_alerts(await accounts.spending(), [monthly], await accounts.alerted(), now_s) == []
    # A worker that has not read the changed table yet takes nothing of it back.
    await journal.finish([_charged(hourly, start + 70, 1, "late")])
    [spent] = await accounts.spending()
    assert (spent.window_s, spent.nano_usd) == (monthly.window_s, 21 * 10**9)
