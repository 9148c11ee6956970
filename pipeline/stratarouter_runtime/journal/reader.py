"""Reads the journal for people: bounded in rows and in time, and changes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from typing import Any

import asyncpg

from stratarouter_runtime.errors import JournalUnavailableError
from stratarouter_runtime.journal.asyncpg_errors import mapped, mapped_connect
from stratarouter_runtime.journal.migrations import check_schema
from stratarouter_runtime.journal.queries import parse
from stratarouter_runtime.journal.rows import load

TIMEOUT_S = 10.0
"""For connecting, and for each read."""
MAX_ROWS = 200
SCANNED = 50_000
"""Rows of the journal, the newest first, that filters are tried on: some tenths of a second."""
Place = tuple[datetime, str, str]
"""Where a page of finished rows ends: the last one's time, tenant and id. Rows that one write finished share a time."""
NEWEST: Place = (datetime.max.replace(tzinfo=UTC), "", "")
STATES = ("started", "following", "succeeded", "failed")


class JournalReader:
    """Read-only. Not registered as a worker; needs only SELECT."""

    def __init__(self, database_url: str) -> None:
        self._database_url = database_url
        self._pool: asyncpg.Pool | None = None

    async def start(self) -> None:
        """Connect. Raises ConfigurationError, JournalUnavailableError."""
        with mapped_connect():
            pool = asyncpg.create_pool(
                self._database_url,
                min_size=1,
                max_size=2,
                timeout=TIMEOUT_S,
                command_timeout=TIMEOUT_S,
                server_settings={"default_transaction_read_only": "on"},
            )
            try:
                async with asyncio.timeout(TIMEOUT_S):
                    await pool
            except BaseException:
                pool.terminate()
                raise
        self._pool = pool

    async def stop(self) -> None:
        """Disconnect. Idempotent."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.terminate()

    async def check_schema(self) -> None:
        """Raise SchemaVersionError unless the schema is this version's."""
        with mapped("check the schema"):
            async with asyncio.timeout(TIMEOUT_S), self._open().acquire() as connection:
                await check_schema(connection)

    async def health(self) -> tuple[str, float]:
        """The server's version, and its clock in epoch seconds."""
        [row] = await self._fetch("health")
        return row["version"], row["now_s"]

    async def workers(self) -> list[dict[str, Any]]:
        """Registered workers, the newest first; ``silent_s`` since their last heartbeat."""
        return _plain(await self._fetch("workers", MAX_ROWS))

    async def checkpoints(self, groups: Sequence[str]) -> list[dict[str, Any]]:
        """The checkpoints of ``groups``."""
        return _plain(await self._fetch("checkpoints", list(groups), 10 * MAX_ROWS))

    async def row(self, tenant: str, request_id: str) -> dict[str, Any] | None:
        """One request as the journal knows it, with its (or its leader's) answer, error and attempts as objects."""
        rows = await self._fetch("row", tenant, request_id)
        if not rows:
            return None
        [found] = _plain(rows)
        for name in ("answer", "error", "attempts"):
            found[name] = None if found[name] is None else load(found[name])
        return found

    async def tenants_of(self, request_id: str) -> list[str]:
        """Whose ``request_id`` there are: two tenants may use the same one."""
        return [row["tenant"] for row in await self._fetch("tenants_of", request_id, MAX_ROWS)]

    async def followers(self, tenant: str, request_id: str) -> list[dict[str, Any]]:
        """Who waits for this request's answer, or was answered with it and has no result of its own yet."""
        return _plain(await self._fetch("followers", tenant, request_id, MAX_ROWS))

    async def search(
        self,
        *,
        tenant: str | None = None,
        route: str | None = None,
        state: str | None = None,
        prefix: str | None = None,
        before: Place = NEWEST,
        limit: int = 50,
    ) -> list[dict[str, Any]]:
        """Rows, the newest first, of which request ids begin with ``prefix``; the last one's place as ``before`` pages
        on. Finished ones have the ``model`` and the ``cost_usd`` of their answer.

        Finished ones by default, of the last SCANNED; ``state`` ``started`` or ``following`` for those under way.
        """
        like = None if prefix is None else _escaped(prefix) + "%"
        limit = min(limit, MAX_ROWS)
        if state in {"started", "following"}:
            return _plain(await self._fetch("unfinished", state, tenant, route, like, limit))
        rows = _plain(await self._fetch("finished", *before, tenant, route, state, like, limit, SCANNED))
        for row in rows:
            answer = load(row.pop("answer") or b"{}")
            row["model"], row["cost_usd"] = answer.get("model"), answer.get("cost_usd")
        return rows

    async def _fetch(self, name: str, *arguments: Any) -> list[Any]:
        with mapped("read"):
            async with asyncio.timeout(TIMEOUT_S), self._open().acquire() as connection:
                rows: list[Any] = await connection.fetch(_statements()[name], *arguments)
        return rows

    def _open(self) -> asyncpg.Pool:
        if self._pool is None:
            raise JournalUnavailableError("the journal's reader is not connected")
        return self._pool


@cache
def _statements() -> dict[str, str]:
    return parse(files(__package__).joinpath("sql", "reader.sql").read_text(encoding="utf-8"))


def _plain(rows: Sequence[Any]) -> list[dict[str, Any]]:
    return [dict(row) for row in rows]


def _escaped(prefix: str) -> str:
    """``prefix`` with LIKE's own signs taken as they are."""
    return prefix.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
