"""The accounts in PostgreSQL forget what is over, and alert of budgets whose windows have changed."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator

import asyncpg
import pytest

from stratarouter_runtime.journal.migrations import migrate
from stratarouter_runtime.journal.postgres import PostgresJournal
from stratarouter_runtime.journal.usage import Spending, UsageAccounts
from stratarouter_runtime.port_values import Begin, BudgetWindow, Finish, JournalKey, Spent
from stratarouter_runtime.processors.usage import due_alerts
from stratarouter_runtime.records import Answer
from stratarouter_runtime.route_file import Budget

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
