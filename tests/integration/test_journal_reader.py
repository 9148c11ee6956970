"""What people read of the journal: by id, prefix, tenant, route and state, paged; and nothing can be written by it."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import asyncpg
import pytest

from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.console import api
from stratarouter_runtime.console.api import Asked, Sources
from stratarouter_runtime.errors import JournalUnavailableError, SchemaVersionError
from stratarouter_runtime.journal.migrations import migrate
from stratarouter_runtime.journal.postgres import PostgresJournal
from stratarouter_runtime.journal.reader import SCANNED, JournalReader, Place, _statements
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


def _place(row: dict[str, Any]) -> Place:
    return row["finished_at"], row["tenant"], row["request_id"]


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
    rest = await reader.search(tenant="acme", before=_place(page[-1]))
    assert len(_ids(page)) == 2
    assert {*_ids(page), *_ids(rest)} == {("acme", f"r_{n}") for n in range(5)}


async def test_pages_lose_nothing_of_what_one_write_finished(reader: JournalReader, postgres_url: str) -> None:
    """Rows of one write have one time; the keys of two tenants, and one with JSON's own signs, are told apart."""
    journal = PostgresJournal(postgres_url, owner=str(uuid.uuid4()))
    await journal.start()
    keys = [JournalKey(tenant, f"w_{n}") for tenant in ("acme", 'glo,"bex]') for n in range(60)]
    await journal.begin([Begin(key, "hash", "billing") for key in keys])
    await journal.finish([Finish(key, Answer("said", "openai", "small"), None) for key in keys])
    await journal.stop()
    sources = Sources(RuntimeConfig(database_url=postgres_url, state_backend="postgresql"), None)
    pages: list[list[dict[str, Any]]] = []
    following: str | None = ""
    while following is not None:
        assert len(pages) < 10, "paging has no end"
        found = await api.search(sources, Asked({"before": following, "id": "w_", "limit": "50"}))
        pages.append(found["rows"])
        following = found["next"]
    await sources.stop()
    assert [len(page) for page in pages] == [50, 50, 20]
    rows = [row for page in pages for row in page]
    assert len({row["finished_at"] for row in rows}) == 1
    assert set(_ids(rows)) == set(keys)
    # A time alone: all that was finished before it.
    earlier = _ids(await reader.search(before=(rows[0]["finished_at"], "", "")))
    assert len(earlier) == 7
    assert not {*earlier} & {*keys}


async def test_pages_are_found_by_the_index_on_the_time(reader: JournalReader) -> None:
    """No page sorts the table: only rows of one time are sorted, as they come from the index."""
    async with reader._open().acquire() as connection:
        place = (datetime.now(UTC), "acme", "r_3")
        await connection.execute("SET enable_seqscan = off")
        await connection.execute("SET enable_bitmapscan = off")
        explained = await connection.fetch(
            f"EXPLAIN {_statements()['finished']}", *place, None, None, None, None, 50, SCANNED
        )
    plan = "\n".join(row[0] for row in explained)
    assert "Incremental Sort" in plan, plan
    assert "Presorted Key: journal.finished_at" in plan, plan
    assert "Index Cond: (finished_at <=" in plan, plan


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
