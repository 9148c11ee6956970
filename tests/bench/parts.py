"""What several benchmarks need: a simulated provider in a process of its own, and a bridge with a real journal."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from stratarouter_runtime.bridge import CoreRuntimeBridge
from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.embedded import StackAddresses
from stratarouter_runtime.journal.migrations import migrate
from stratarouter_runtime.routes import RouteTable
from support.fleet import simulator

__all__ = ["bridge", "database", "routes", "simulator"]


@asynccontextmanager
async def database(addresses: StackAddresses) -> AsyncIterator[str]:
    """An empty database with the journal's tables."""
    name = f"bench_{uuid.uuid4().hex[:10]}"
    admin = await asyncpg.connect(addresses.database_url)
    try:
        await admin.execute(f"CREATE DATABASE {name}")
        base, _, _ = addresses.database_url.partition("?")
        url = f"{base.rsplit('/', 1)[0]}/{name}"
        await migrate(url)
        yield url
        await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    finally:
        await admin.close()


def routes(base_url: str, *, max_concurrency: int = 10_000) -> RouteTable:
    """One route, ``bench``, to the simulated provider."""
    return RouteTable.from_dict(
        {
            "providers": {"sim": {"kind": "simulator", "base_url": base_url, "max_concurrency": max_concurrency}},
            "routes": {"bench": {"targets": [{"provider": "sim", "model": "gpt-4o-mini"}]}},
        }
    )


@asynccontextmanager
async def bridge(database_url: str, table: RouteTable, **settings: Any) -> AsyncIterator[CoreRuntimeBridge]:
    """A bridge in this process over a journal in PostgreSQL."""
    config = RuntimeConfig(
        **{
            "database_url": database_url,
            "cache_backend": "memory",
            "metrics_enabled": False,
            "max_in_flight": 20_000,
            **settings,
        }
    )
    async with CoreRuntimeBridge(config, table) as running:
        yield running
