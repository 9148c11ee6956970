"""Troubles of a real PostgreSQL, each a context: within it the server answers with its own errors, after it no more."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from stratarouter_runtime.embedded.unprivileged import account_for_root

Trouble = Callable[[], AbstractAsyncContextManager[None]]

STATEMENT_TIMEOUT_S = 60.0
"""A change of the table waits for what runs on it."""
SMALL_DISK_BYTES = 4 * 1024 * 1024
MIB = 1024 * 1024


async def execute(url: str, *statements: str) -> None:
    """Run ``statements`` one by one on a connection of their own."""
    connection = await asyncpg.connect(url, timeout=STATEMENT_TIMEOUT_S)
    try:
        for statement in statements:
            await connection.execute(statement, timeout=STATEMENT_TIMEOUT_S)
    finally:
        await connection.close()


@asynccontextmanager
async def _trigger(url: str, events: str, each: str, body: str) -> AsyncIterator[None]:
    await execute(
        url,
        f"CREATE FUNCTION trouble() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} RETURN NEW; END $$",
        f"CREATE TRIGGER trouble BEFORE {events} ON journal FOR EACH {each} EXECUTE FUNCTION trouble()",
    )
    try:
        yield
    finally:
        await execute(url, "DROP TRIGGER trouble ON journal", "DROP FUNCTION trouble")


def disk_full(url: str) -> AbstractAsyncContextManager[None]:
    """Every row that is written is refused as by a server whose disk is full (53100)."""
    body = "RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = '53100';"
    return _trigger(url, "INSERT OR UPDATE", "ROW", body)


def slow_writes(url: str, seconds: float) -> AbstractAsyncContextManager[None]:
    """Every statement that writes to the journal takes ``seconds`` longer."""
    return _trigger(url, "INSERT", "STATEMENT", f"PERFORM pg_sleep({seconds});")


@asynccontextmanager
async def locked(url: str) -> AsyncIterator[None]:
    """Another session holds the journal's table for itself."""
    connection = await asyncpg.connect(url, timeout=STATEMENT_TIMEOUT_S)
    try:
        async with connection.transaction():
            await connection.execute("LOCK TABLE journal", timeout=STATEMENT_TIMEOUT_S)
            yield
    finally:
        await connection.close()


@asynccontextmanager
async def plain_role(url: str) -> AsyncIterator[str]:
    """The URL of a role that owns nothing and may read and write rows, as a worker should have. A superuser, which
    the embedded server's own user is, is bound by no limit on connections.
    """
    name, parts = f"worker_{uuid.uuid4().hex[:12]}", urlsplit(url)
    await execute(
        url,
        f"CREATE ROLE {name} LOGIN PASSWORD '{name}'",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {name}",
    )
    try:
        yield urlunsplit(parts._replace(netloc=f"{name}:{name}@{parts.hostname}:{parts.port}"))
    finally:
        await execute(url, f"DROP OWNED BY {name}", f"DROP ROLE {name}")


@asynccontextmanager
async def no_connections(url: str) -> AsyncIterator[None]:
    """Nobody but a superuser gets a connection (53300), and those there are end."""
    database = urlsplit(url).path.removeprefix("/")
    others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
    await execute(url, f"ALTER DATABASE {database} CONNECTION LIMIT 0", f"{others} AND pid <> pg_backend_pid()")
    try:
        yield
    finally:
        await execute(url, f"ALTER DATABASE {database} CONNECTION LIMIT -1")


@asynccontextmanager
async def small_disk(url: str) -> AsyncIterator[Trouble]:
    """The journal's table on a file system of a few megabytes; yields the trouble of its being full.

    Skips the test where this process may not mount one, or the server runs where it would not see it.
    """
    connection = await asyncpg.connect(url, timeout=STATEMENT_TIMEOUT_S)
    try:
        folder = await connection.fetchval("SHOW data_directory")
    finally:
        await connection.close()
    if not Path(folder, "PG_VERSION").exists():
        pytest.skip("the server is in a container, which does not see what is mounted here: --stack embedded")
    account = account_for_root()
    if account is None:
        pytest.skip("mounting a file system needs root")
    # PostgreSQL runs as another user, which cannot reach the test's own folder.
    mount = Path(tempfile.mkdtemp(prefix="small-disk-"))
    mount.chmod(0o755)
    try:
        options = f"size={SMALL_DISK_BYTES},mode=0700,uid={account.uid},gid={account.gid}"
        _run("mount", "-t", "tmpfs", "-o", options, "tmpfs", str(mount))
        try:
            async with _tablespace(url, mount):
                yield lambda: _filled(mount)
        finally:
            _run("umount", str(mount))
    finally:
        mount.rmdir()


@asynccontextmanager
async def _tablespace(url: str, folder: Path) -> AsyncIterator[None]:
    name = f"small_{uuid.uuid4().hex[:12]}"
    await execute(url, f"CREATE TABLESPACE {name} LOCATION '{folder}'", f"ALTER TABLE journal SET TABLESPACE {name}")
    try:
        yield
    finally:
        # Room for the copy that moving the table back makes elsewhere is not the small disk's.
        await execute(url, "ALTER TABLE journal SET TABLESPACE pg_default", f"DROP TABLESPACE {name}")


@asynccontextmanager
async def _filled(folder: Path) -> AsyncIterator[None]:
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        while shutil.disk_usage(folder).free:
            file.write(bytes(min(MIB, shutil.disk_usage(folder).free)))
    try:
        yield
    finally:
        ballast.unlink()


def _run(*words: str) -> None:
    """Run a program of the system; skip the test where it is refused."""
    done = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)
    if done.returncode != 0 and words[0] == "mount":
        pytest.skip(f"a file system cannot be mounted here: {done.stderr.strip()}")
    if done.returncode != 0:
        raise OSError(done.returncode, f"{words[0]}: {done.stderr.strip()}", os.fspath(words[-1]))
