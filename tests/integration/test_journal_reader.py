"""What people read of the journal: by id, prefix, tenant, route and state, paged; and nothing can be written by it."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator

import asyncpg
import pytest

from stratarouter_runtime.errors import JournalUnavailableError, SchemaVersionError
from stratarouter_runtime.journal.migrations import migrate
from stratarouter_runtime.journal.postgres import PostgresJournal
from stratarouter_runtime.journal.reader import JournalReader
from stratarouter_runtime.port_values import Begin, Finish, JournalKey
from stratarouter_runtime.records import Answer, Attempt, ErrorInfo

pytestmark = pytest.mark.stack


@pytest.fixture
async def reader(postgres_url: str) -> AsyncIterator[JournalReader]:
    """Rows of two tenants: finished, failed, under way, following."""
    await migrate(postgres_url)
    journal = PostgresJournal(postgres_url, owner=str(uuid.uuid4()))
    await journal.start()
    keys = [JournalKey("acme", f"r_{n}") for n in range(6)] + [JournalKey("globex", "r_1"), JournalKey("globex", "x%1")]
    await journal.begin([Begin(key, "hash", "billing" if key.tenant == "acme" else "support") for key in keys])
    answer, attempt = Answer("said", "openai", "small"), Attempt("openai", "small", "ok", 5.0, 200)
    for key in keys[:4]:
        await journal.finish([Finish(key, answer, None, (attempt,))])
    await journal.finish([Finish(keys[4], None, ErrorInfo("provider_rejected", "no"))])
    await journal.finish([Finish(key, answer, None) for key in keys[6:]])
    await journal.begin([Begin(JournalKey("acme", "follows"), "hash", "billing", leader=keys[5])])
    opened = JournalReader(postgres_url)
    await opened.start()
    yield opened
    await opened.stop()
    await journal.stop()


def _ids(rows: list[dict[str, object]]) -> list[tuple[object, object]]:
    return [(row["tenant"], row["request_id"]) for row in rows]


async def test_one_row_with_its_result(reader: JournalReader) -> None:
    row = await reader.row("acme", "r_0")
    assert row is not None
    assert (row["state"], row["route_id"], row["starts"]) == ("succeeded", "billing", 1)
    assert row["answer"]["text"] == "said"
    assert row["attempts"][0]["outcome"] == "ok"
    failed = await reader.row("acme", "r_4")
    assert failed is not None
    assert (failed["answer"], failed["error"]["code"]) == (None, "provider_rejected")
    assert await reader.row("acme", "nobody") is None


async def test_an_id_is_found_without_its_tenant(reader: JournalReader) -> None:
    assert await reader.tenants_of("r_1") == ["acme", "globex"]
    assert await reader.tenants_of("x%1") == ["globex"]
    assert await reader.tenants_of("nobody") == []


async def test_search_by_every_filter_the_newest_first_and_paged(reader: JournalReader) -> None:
    everything = await reader.search()
    assert len(everything) == 7
    times = [row["finished_at"] for row in everything]
    assert times == sorted(times, reverse=True)
    assert set(_ids(await reader.search(tenant="globex"))) == {("globex", "r_1"), ("globex", "x%1")}
    assert _ids(await reader.search(route="billing", state="failed")) == [("acme", "r_4")]
    # LIKE's own signs are taken as they are.
    assert len(await reader.search(prefix="r_")) == 6
    assert _ids(await reader.search(prefix="x%")) == [("globex", "x%1")]
    assert await reader.search(prefix="%") == []
    assert _ids(await reader.search(state="started")) == [("acme", "r_5")]
    assert _ids(await reader.search(state="following", tenant="acme")) == [("acme", "follows")]
    page = await reader.search(tenant="acme", limit=2)
    rest = await reader.search(tenant="acme", before=page[-1]["finished_at"])
    assert len(_ids(page)) == 2
    assert {*_ids(page), *_ids(rest)} == {("acme", f"r_{n}") for n in range(5)}


async def test_followers_workers_and_health(reader: JournalReader) -> None:
    assert _ids(await reader.followers("acme", "r_5")) == [("acme", "follows")]
    [worker] = await reader.workers()
    assert worker["silent_s"] < 60
    version, now_s = await reader.health()
    assert version
    assert now_s > 1_700_000_000
    await reader.check_schema()


async def test_it_cannot_write_and_says_where_there_is_nothing(reader: JournalReader) -> None:
    async with reader._open().acquire() as connection:
        with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
            await connection.execute("DELETE FROM journal")
    stopped = JournalReader("postgresql://nobody@127.0.0.1:1/nothing")
    with pytest.raises(JournalUnavailableError):
        await stopped.start()
    with pytest.raises(JournalUnavailableError, match="not connected"):
        await stopped.health()


async def test_a_database_without_our_tables_is_said(postgres_url: str) -> None:
    empty = JournalReader(postgres_url)
    await empty.start()
    try:
        with pytest.raises(SchemaVersionError):
            await empty.check_schema()
    finally:
        await empty.stop()
