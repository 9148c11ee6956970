"""The journal's schema from nothing to now, and what stops a process that does not fit it."""

import asyncio
import re
import uuid
from importlib.resources import files

import asyncpg
import pytest

from stratarouter_runtime.errors import JournalUnavailableError, SchemaVersionError
from stratarouter_runtime.journal import queries
from stratarouter_runtime.journal.migrations import Migration, migrate, migrations, pending
from stratarouter_runtime.journal.postgres import PostgresJournal
from stratarouter_runtime.port_values import Begin, Finish, JournalKey
from stratarouter_runtime.records import Answer

ONE, TWO = Migration(1, "one", "SELECT 1"), Migration(2, "two", "SELECT 2")


def journal(url: str) -> PostgresJournal:
    return PostgresJournal(url, owner=str(uuid.uuid4()))


async def run(url: str, statement: str) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(url)
    try:
        return list(await connection.fetch(statement))
    finally:
        await connection.close()


async def table_names(url: str) -> set[str]:
    found = await run(url, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    return {row["tablename"] for row in found}


MIGRATIONS = ["0001_journal", "0002_steady_workers", "0003_spending", "0004_usage", "0005_superseded"]


@pytest.mark.stack
async def test_migrate_makes_the_schema_once(postgres_url: str) -> None:
    assert await migrate(postgres_url) == MIGRATIONS
    assert await migrate(postgres_url) == []
    usage = {f"usage_{name}" for name in ("alerts", "deltas", "errors", "receipts", "windows")}
    journal = {"journal", "workers", "checkpoints", "spending", "schema_migrations"}
    assert await table_names(postgres_url) == journal | usage


@pytest.mark.stack
async def test_migrators_at_the_same_time_apply_each_migration_once(postgres_url: str) -> None:
    applied = await asyncio.gather(*(migrate(postgres_url) for _ in range(4)))
    assert sorted(applied) == [[], [], [], MIGRATIONS]


@pytest.mark.stack
async def test_failed_migration_leaves_nothing(postgres_url: str) -> None:
    await run(postgres_url, "CREATE TABLE checkpoints (of_another_program int)")
    with pytest.raises(JournalUnavailableError, match="already exists"):
        await migrate(postgres_url)
    assert await table_names(postgres_url) == {"checkpoints"}


@pytest.mark.stack
async def test_database_without_schema_is_refused_with_the_remedy(postgres_url: str) -> None:
    with pytest.raises(SchemaVersionError, match="is version 0, this version needs 5") as caught:
        await journal(postgres_url).start()
    assert "migrate" in caught.value.remedy


@pytest.mark.stack
async def test_newer_schema_is_refused_with_the_remedy(postgres_url: str) -> None:
    await migrate(postgres_url)
    await run(postgres_url, "INSERT INTO schema_migrations (version, name, checksum) VALUES (99, 'later', '')")
    for attempt in (journal(postgres_url).start, lambda: migrate(postgres_url)):
        with pytest.raises(SchemaVersionError, match="is version 99") as caught:
            await attempt()
        assert "upgrade" in caught.value.remedy


@pytest.mark.stack
async def test_changed_migration_is_refused(postgres_url: str) -> None:
    await migrate(postgres_url)
    await run(postgres_url, "UPDATE schema_migrations SET checksum = 'other'")
    for attempt in (journal(postgres_url).start, lambda: migrate(postgres_url)):
        with pytest.raises(SchemaVersionError, match="another content"):
            await attempt()


@pytest.mark.stack
async def test_role_without_rights_to_change_the_schema_can_do_all_the_work(postgres_url: str) -> None:
    await migrate(postgres_url)
    role = f"worker_{uuid.uuid4().hex[:8]}"
    await run(postgres_url, f"CREATE ROLE {role} LOGIN PASSWORD 'pw'")
    await run(
        postgres_url, f"GRANT SELECT, INSERT, UPDATE, DELETE ON journal, workers, checkpoints, spending TO {role}"
    )
    await run(postgres_url, f"GRANT SELECT ON schema_migrations TO {role}")
    me = journal(re.sub(r"//[^@]*@", f"//{role}:pw@", postgres_url))
    key = JournalKey("acme", "r1")
    await me.start()
    begun = await me.begin([Begin(key, "p", "billing")])
    await me.finish([Finish(key, Answer("42", "p", "m"), None)])
    purged = await me.purge(-1)
    await me.stop()
    await run(postgres_url, f"DROP OWNED BY {role}")
    await run(postgres_url, f"DROP ROLE {role}")
    assert (begun[0].state, purged) == ("granted", 1)


def test_pending_are_those_not_applied_in_order() -> None:
    assert pending([ONE, TWO], {}) == [ONE, TWO]
    assert pending([ONE, TWO], {1: ONE.checksum}) == [TWO]
    assert pending([ONE, TWO], {1: ONE.checksum, 2: TWO.checksum}) == []


def test_migrations_are_numbered_without_a_gap() -> None:
    assert [migration.version for migration in migrations()] == list(range(1, len(migrations()) + 1))


def test_checksum_is_of_the_text_and_not_of_its_line_ends() -> None:
    shipped = files("stratarouter_runtime.journal").joinpath("sql", "migrations", "0001_journal.sql").read_text("utf-8")
    assert migrations()[0].statements == "\n".join(shipped.replace("\n", "\r\n").splitlines())


def test_every_statement_is_used_and_every_used_one_exists() -> None:
    sources = [
        each.read_text("utf-8")
        for each in files("stratarouter_runtime.journal").iterdir()
        if each.name.endswith(".py") and each.name not in {"queries.py", "reader.py"}
    ]
    used = {name for source in sources for name in re.findall(r'(?:\bsql|\b_fetch|\b_execute)\(\s*"(\w+)"', source)}
    assert used == set(queries.load())


def test_every_statement_of_the_reader_is_used_and_every_used_one_exists() -> None:
    folder = files("stratarouter_runtime.journal")
    read = re.findall(r'_fetch\(\s*"(\w+)"', folder.joinpath("reader.py").read_text("utf-8"))
    assert set(read) == set(queries.parse(folder.joinpath("sql", "reader.sql").read_text("utf-8")))


def test_statements_are_split_at_their_names() -> None:
    assert queries.parse("-- head\n-- name: a\nSELECT 1;\n\n-- name: b\n-- why\nSELECT 2;\n") == {
        "a": "SELECT 1;",
        "b": "-- why\nSELECT 2;",
    }


def test_statement_named_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="twice"):
        queries.parse("-- name: a\nSELECT 1;\n-- name: a\nSELECT 2;\n")


def test_unknown_statement_is_refused() -> None:
    with pytest.raises(KeyError):
        queries.sql("missing")
