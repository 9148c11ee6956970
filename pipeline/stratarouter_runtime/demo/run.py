"""The demonstration: real requests on a real broker, two workers, one of them killed half way, everything counted."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import asyncpg
import orjson
from redis.asyncio import Redis
from rich.console import Console

from stratarouter_runtime import topics
from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.demo.processes import fleet, provider
from stratarouter_runtime.demo.stream import read_records, stream
from stratarouter_runtime.demo.tally import build_report, print_report
from stratarouter_runtime.embedded import EmbeddedStack, StackAddresses
from stratarouter_runtime.errors import ConfigurationError
from stratarouter_runtime.journal.migrations import migrate
from stratarouter_runtime.json_bytes import json_bytes

PARTITIONS = 8
REDIS_DATABASE = 15
"""Of the 16 that a Redis has by default."""
REDIS_TIMEOUT_S = 5.0


async def run_demo(data_dir: Path, report_path: Path, console: Console) -> bool:
    """Run it all; True where nothing was lost and nothing came twice.

    Raises ConfigurationError at once where the report cannot be written.
    """
    try:
        report_path.open("ab").close()
    except OSError as exc:
        raise ConfigurationError(
            f"--report {report_path} cannot be written: {exc.strerror}", remedy="name a file in a folder that is there"
        ) from exc
    began = time.monotonic()
    console.print("[bold]1.[/] the embedded stack: Kafka, PostgreSQL, Redis", highlight=False)
    stack = EmbeddedStack(data_dir, redis=True, progress=lambda line: console.print(f"   {line}", highlight=False))
    async with stack, contextlib.AsyncExitStack() as cleanup:
        addresses = await stack.start()
        run_id = time.strftime("%Y%m%d%H%M%S")
        config = await _prepare(addresses, run_id)
        calls = await cleanup.enter_async_context(provider(data_dir, run_id, console))
        workers = await cleanup.enter_async_context(fleet(config, calls, data_dir, run_id, console))
        records = list(read_records())
        console.print(f"[bold]3.[/] {len(records)} records onto topic {config.topic(config.requests_topic)}")
        tally, took_s = await stream(config, records, workers, console)
        report = build_report(tally, records, await calls.paid_calls(), await _ambiguous(config))
    report["seconds"] = round(time.monotonic() - began, 1)
    report["stream_seconds"] = round(took_s, 1)
    report_path.write_bytes(json_bytes(report, option=orjson.OPT_INDENT_2))
    print_report(report, console, report_path)
    return not report["lost"] and not report["duplicates"]


async def _prepare(addresses: StackAddresses, run_id: str) -> RuntimeConfig:
    """A database, an empty cache, topics and a group of this run's own: one run's answers do not serve the next."""
    admin = await asyncpg.connect(addresses.database_url)
    try:
        await admin.execute(f"CREATE DATABASE demo_{run_id}")
    finally:
        await admin.close()
    base, _, _ = addresses.database_url.partition("?")
    config = RuntimeConfig(
        bootstrap_servers=addresses.bootstrap_servers,
        database_url=f"{base.rsplit('/', 1)[0]}/demo_{run_id}",
        redis_url=await _emptied(addresses.redis_url),
        topic_prefix=f"demo-{run_id}.",
        group_id=f"demo-{run_id}",
    )
    await migrate(config.database_url)
    await topics.apply(config, partitions=PARTITIONS)
    return config


async def _emptied(redis_url: str | None) -> str:
    """The demonstration's own database in the stack's Redis, emptied; what others keep in the first stays."""
    assert redis_url is not None
    own = f"{redis_url.rsplit('/', 1)[0]}/{REDIS_DATABASE}"
    client = Redis.from_url(own, socket_timeout=REDIS_TIMEOUT_S, socket_connect_timeout=REDIS_TIMEOUT_S)
    try:
        await client.flushdb()
    finally:
        await client.aclose()
    return own


async def _ambiguous(config: RuntimeConfig) -> int:
    """Calls that were started more than once, as the journal counted them."""
    connection = await asyncpg.connect(config.database_url)
    try:
        return int(await connection.fetchval("SELECT coalesce(sum(starts - 1), 0) FROM journal WHERE starts > 1"))
    finally:
        await connection.close()
