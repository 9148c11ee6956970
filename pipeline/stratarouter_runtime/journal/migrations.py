"""The journal's schema: applied forward only from ``sql/migrations``, checked before anything is written."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import asyncpg

from stratarouter_runtime.errors import SchemaVersionError
from stratarouter_runtime.journal.asyncpg_errors import mapped, mapped_connect
from stratarouter_runtime.journal.queries import sql

ADVISORY_LOCK = 0x73747261_746A6E6C
""""stratjnl" in ASCII: one migrator at a time in a database; no other program of ours takes it."""

CONNECT_TIMEOUT_S = 10.0
MIGRATE_TIMEOUT_S = 300.0
"""Long enough for an index over a large journal, or for another migrator that holds the lock."""

_FILE = re.compile(r"(\d{4})_(\w+)\.sql")


@dataclass(frozen=True, slots=True)
class Migration:
    """One file: its number, name, statements, and the SHA-256 of its text (line feeds as line ends)."""

    version: int
    name: str
    statements: str

    @property
    def checksum(self) -> str:
        """Hex digest by which a changed file is told from the applied one."""
        return hashlib.sha256(self.statements.encode()).hexdigest()


@cache
def migrations() -> tuple[Migration, ...]:
    """All migrations of this version, numbered from 1 without a gap."""
    found = [
        Migration(int(match[1]), match[2], "\n".join(each.read_text(encoding="utf-8").splitlines()))
        for each in files(__package__).joinpath("sql", "migrations").iterdir()
        if (match := _FILE.fullmatch(each.name))
    ]
    return tuple(sorted(found, key=lambda migration: migration.version))


def pending(ours: Sequence[Migration], applied: Mapping[int, str]) -> list[Migration]:
    """Those of ``ours`` that ``applied`` (checksums by version) lacks.

    Raises:
        SchemaVersionError: the database is newer, or an applied migration is not the one we know.
    """
    newest = max((migration.version for migration in ours), default=0)
    if max(applied, default=0) > newest:
        raise SchemaVersionError(
            f"the journal's schema is version {max(applied)}, this version knows {newest}",
            remedy="upgrade stratarouter-runtime",
        )
    for migration in ours:
        if applied.get(migration.version, migration.checksum) != migration.checksum:
            raise SchemaVersionError(
                f"migration {migration.version} ({migration.name}) was applied with another content",
                remedy="restore the schema from a backup, or install the release that applied it",
            )
    return [migration for migration in ours if migration.version not in applied]


async def check_schema(connection: asyncpg.Connection) -> None:
    """Raise SchemaVersionError unless the database is at exactly this version. Needs only SELECT."""
    applied = await _applied(connection) if await connection.fetchval(sql("has_schema_migrations")) else {}
    missing = pending(migrations(), applied)
    if missing:
        raise SchemaVersionError(
            f"the journal's schema is version {max(applied, default=0)}, this version needs {missing[-1].version}"
        )


async def migrate(database_url: str) -> list[str]:
    """Bring the schema to this version: all that is missing, or nothing, in one transaction.

    Returns:
        The names of the migrations applied now; empty where there was nothing to do.

    Raises:
        SchemaVersionError: the database is newer, or holds a changed migration.
        ConfigurationError: the URL cannot be read.
        JournalUnavailableError: the database is away, or refused a statement.
    """
    with mapped_connect():
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            connection = await asyncpg.connect(database_url, timeout=CONNECT_TIMEOUT_S)
    try:
        with mapped("migrate"):
            async with asyncio.timeout(MIGRATE_TIMEOUT_S), connection.transaction():
                applied = await _apply_missing(connection)
            await connection.close(timeout=CONNECT_TIMEOUT_S)
        return applied
    finally:
        connection.terminate()


async def _apply_missing(connection: asyncpg.Connection) -> list[str]:
    # 1. Alone: the lock goes with the transaction, however it ends.
    await connection.execute(sql("lock_migrations"), ADVISORY_LOCK)
    # 2. What is there.
    await connection.execute(sql("create_schema_migrations"))
    missing = pending(migrations(), await _applied(connection))
    # 3. What is missing, each with the mark that it is there.
    for migration in missing:
        await connection.execute(migration.statements)
        await connection.execute(sql("record_migration"), migration.version, migration.name, migration.checksum)
    return [f"{migration.version:04}_{migration.name}" for migration in missing]


async def _applied(connection: asyncpg.Connection) -> dict[int, str]:
    return {row["version"]: row["checksum"] for row in await connection.fetch(sql("applied_migrations"))}
