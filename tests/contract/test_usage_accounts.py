"""The accounts in PostgreSQL forget what is over."""

from __future__ import annotations

import asyncpg
import pytest

from stratarouter_runtime.journal.migrations import migrate
from stratarouter_runtime.journal.usage import Spending, UsageAccounts

pytestmark = pytest.mark.stack

BEFORE_S = 1_000_000


async def test_alerts_are_forgotten_with_their_windows_and_none_before(postgres_url: str) -> None:
    """Nothing deleted them: of each budget, tenant and window two rows for ever."""
    await migrate(postgres_url)
    accounts = UsageAccounts(postgres_url)
    await accounts.start()
    try:
        for budget, start, length in (
            ("over", 996_400, 3599),
            ("at its end", 996_400, 3600),
            ("long", 990_000, 86_400),
        ):
            await accounts.note_alert(Spending(budget, "acme", start, length, 10, 0), 80)
        await accounts.prune(BEFORE_S)
    finally:
        await accounts.stop()
    connection = await asyncpg.connect(postgres_url)
    try:
        left = await connection.fetch("SELECT budget FROM usage_alerts ORDER BY budget")
    finally:
        await connection.close()
    assert [row["budget"] for row in left] == ["at its end", "long"]
