"""What several benchmarks need: a simulated provider in a process of its own, and a bridge with a real journal."""

from __future__ import annotations

import asyncio
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import orjson

from stratarouter_runtime.bridge import CoreRuntimeBridge
from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.embedded import StackAddresses
from stratarouter_runtime.journal.migrations import migrate
from stratarouter_runtime.routes import RouteTable

START_TIMEOUT_S = 30.0


@asynccontextmanager
async def simulator(*options: str) -> AsyncIterator[str]:
    """A provider's base URL, up to and with ``/v1``."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "stratarouter_runtime.testing.simulator", *options), stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        line = await asyncio.wait_for(process.stdout.readline(), timeout=START_TIMEOUT_S)
        yield str(orjson.loads(line)["base_url"])
    finally:
        process.terminate()
        await asyncio.wait_for(process.wait(), timeout=START_TIMEOUT_S)


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
