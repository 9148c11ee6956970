"""The demonstration: real requests on a real broker, two workers, one of them killed half way, everything counted."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import signal
import socket
import statistics
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import orjson
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from stratarouter_runtime import topics, wire
from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.embedded import EmbeddedStack, StackAddresses
from stratarouter_runtime.embedders import local_available
from stratarouter_runtime.journal.migrations import migrate
from stratarouter_runtime.processors import kafka_client
from stratarouter_runtime.processors.tail import Tail
from stratarouter_runtime.records import Response

PARTITIONS = 8
DIMENSION = 384
"""Of the local embedder's vectors; one bundled record has another."""
WORKERS = 2
SIMULATED_LATENCY_MS = 300.0
SESSION_TIMEOUT_MS = 6000
"""Short, so that the killed worker's partitions move on soon. The broker's lower bound is 6 s."""
RATE_PER_S = 60.0
"""Requests produced each second: a stream rather than a heap, so that the kill falls among calls in flight."""
OVERSIZE_BYTES = 2 * 1024 * 1024
TIMEOUT_S = 120.0
SETTLE_S = 2.0
"""How long the topics are watched on after the last response is in, for duplicates."""
WORKER_START_TIMEOUT_S = 60.0


@dataclass(slots=True)
class Tally:
    """What came out, by request."""

    responses: Counter[str] = field(default_factory=Counter)
    dead_letters: Counter[str] = field(default_factory=Counter)
    dead_sources: Counter[str] = field(default_factory=Counter)
    hits: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    coalesced: int = 0
    from_journal: int = 0
    cost_usd: float = 0.0
    saved_usd: float = 0.0
    latencies_ms: list[float] = field(default_factory=list)
    undisturbed_ms: list[float] = field(default_factory=list)
    killed: bool = False

    def add(self, response: Response, latency_ms: float) -> None:
        """Count one response."""
        self.responses[response.request_id] += 1
        self.hits[response.cache.kind] += 1
        self.coalesced += response.batch.role == "follower"
        self.from_journal += response.from_journal
        self.cost_usd += response.cost_usd or 0.0
        self.saved_usd += response.saved_usd or 0.0
        self.latencies_ms.append(latency_ms)
        if not self.killed:
            self.undisturbed_ms.append(latency_ms)
        if response.error is not None:
            self.errors[response.error.code] += 1

    @property
    def settled(self) -> int:
        """Requests that have come out, one way or the other."""
        return len(self.responses) + len(self.dead_sources)

    @property
    def duplicates(self) -> int:
        """Records too many."""
        extra = sum(self.responses.values()) - len(self.responses)
        return extra + sum(self.dead_sources.values()) - len(self.dead_sources)


async def run_demo(data_dir: Path, report_path: Path, console: Console) -> bool:
    """Run it all; True where nothing was lost and nothing came twice."""
    began = time.monotonic()
    console.print("[bold]1.[/] the embedded stack: Kafka, PostgreSQL, Redis", highlight=False)
    stack = EmbeddedStack(data_dir, redis=True, progress=lambda line: console.print(f"   {line}", highlight=False))
    async with stack, contextlib.AsyncExitStack() as cleanup:
        addresses = await stack.start()
        run_id = time.strftime("%Y%m%d%H%M%S")
        config = await _prepare(addresses, run_id)
        provider = await cleanup.enter_async_context(_provider(data_dir, run_id, console))
        fleet = await cleanup.enter_async_context(_fleet(config, provider, data_dir, run_id, console))
        records = list(_records())
        console.print(f"[bold]3.[/] {len(records)} records onto topic {config.topic(config.requests_topic)}")
        tally, took_s = await _stream(config, records, fleet, console)
        report = _report(tally, records, await provider.paid_calls(), await _ambiguous(config))
    report["seconds"] = round(time.monotonic() - began, 1)
    report["stream_seconds"] = round(took_s, 1)
    report_path.write_bytes(orjson.dumps(report, option=orjson.OPT_INDENT_2))
    _print(report, console, report_path)
    return not report["lost"] and not report["duplicates"]


async def _prepare(addresses: StackAddresses, run_id: str) -> RuntimeConfig:
    """A database, topics and a group of this run's own, so that one run's answers do not serve the next."""
    admin = await asyncpg.connect(addresses.database_url)
    try:
        await admin.execute(f"CREATE DATABASE demo_{run_id}")
    finally:
        await admin.close()
    base, _, _ = addresses.database_url.partition("?")
    config = RuntimeConfig(
        bootstrap_servers=addresses.bootstrap_servers,
        database_url=f"{base.rsplit('/', 1)[0]}/demo_{run_id}",
        redis_url=addresses.redis_url,
        topic_prefix=f"demo-{run_id}.",
        group_id=f"demo-{run_id}",
    )
    await migrate(config.database_url)
    await topics.apply(config, partitions=PARTITIONS)
    return config


# --- the provider ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Provider:
    """Where calls go: the simulator's base URL, or None for the real one."""

    base_url: str | None

    async def paid_calls(self) -> int | None:
        """As the simulator itself counted; None for a real provider, which tells nobody."""
        if self.base_url is None:
            return None
        async with httpx.AsyncClient(timeout=10.0) as client:
            reply = await client.get(self.base_url.removesuffix("/v1") + "/sim/calls")
        return int(reply.raise_for_status().json()["paid_calls"])


@contextlib.asynccontextmanager
async def _provider(data_dir: Path, run_id: str, console: Console) -> AsyncIterator[_Provider]:
    if os.environ.get("OPENAI_API_KEY"):
        console.print("[bold]2.[/] [yellow]OPENAI_API_KEY is set: the real provider is called, for real money[/]")
        yield _Provider(None)
        return
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "stratarouter_runtime.testing.simulator",
        "--port",
        "0",
        "--latency-ms",
        str(SIMULATED_LATENCY_MS),
        "--log-path",
        str(data_dir.resolve() / f"calls-{run_id}.jsonl"),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        line = await asyncio.wait_for(process.stdout.readline(), timeout=30.0)
        base_url = str(orjson.loads(line)["base_url"])
        console.print(
            f"[bold]2.[/] no OPENAI_API_KEY: a local simulator answers after {SIMULATED_LATENCY_MS:.0f} ms "
            "(its texts are made up; the money is what the real models would cost)",
            highlight=False,
        )
        yield _Provider(base_url)
    finally:
        await _end(process, signal.SIGTERM)


# --- the workers -----------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Fleet:
    workers: list[asyncio.subprocess.Process]

    def kill_one(self) -> int:
        """SIGKILL the first worker; returns its pid."""
        victim = self.workers[0]
        victim.kill()
        return victim.pid


@contextlib.asynccontextmanager
async def _fleet(
    config: RuntimeConfig, provider: _Provider, data_dir: Path, run_id: str, console: Console
) -> AsyncIterator[_Fleet]:
    routes = _routes_file(data_dir, run_id, provider.base_url)
    workers: list[asyncio.subprocess.Process] = []
    ports = [_free_port() for _ in range(WORKERS)]
    try:
        for number, port in enumerate(ports):
            log = (data_dir / f"worker-{run_id}-{number}.log").open("wb")
            with log:
                workers.append(
                    await asyncio.create_subprocess_exec(
                        sys.executable,
                        "-m",
                        "stratarouter_runtime.cli",
                        "worker",
                        env=_environment(config, routes, port),
                        stdout=log,
                        stderr=log,
                    )
                )
        await asyncio.wait_for(asyncio.gather(*(_ready(port) for port in ports)), WORKER_START_TIMEOUT_S)
        console.print(f"   {WORKERS} workers ready (pids {', '.join(str(w.pid) for w in workers)})", highlight=False)
        yield _Fleet(workers)
    finally:
        await asyncio.gather(*(_end(worker, signal.SIGTERM) for worker in workers))


def _environment(config: RuntimeConfig, routes: Path, port: int) -> dict[str, str]:
    return {
        **os.environ,
        "KAFKA_BOOTSTRAP_SERVERS": config.bootstrap_servers,
        "DATABASE_URL": config.database_url,
        "REDIS_URL": config.redis_url,
        "PROMETHEUS_PORT": str(port),
        "STRATAROUTER_TOPIC_PREFIX": config.topic_prefix,
        "STRATAROUTER_GROUP_ID": config.group_id,
        "STRATAROUTER_ROUTES": str(routes),
        "STRATAROUTER_SESSION_TIMEOUT_MS": str(SESSION_TIMEOUT_MS),
        "STRATAROUTER_EMBEDDER": "local" if local_available() else "none",
        "STRATAROUTER_EMBEDDING_DIMENSION": str(DIMENSION),
        "STRATAROUTER_CACHE_SIMILARITY_THRESHOLD": "0.85",
        "STRATAROUTER_BATCH_SIMILARITY_THRESHOLD": "0.9",
    }


def _routes_file(data_dir: Path, run_id: str, base_url: str | None) -> Path:
    """The bundled route table, with its provider pointed at the simulator where that is what answers."""
    text = resources.files("stratarouter_runtime").joinpath("demo_data/routes.toml").read_text()
    if base_url is not None:
        text = text.replace('base_url = "https://api.openai.com/v1"', f'base_url = "{base_url}"')
        text = "\n".join(line for line in text.splitlines() if not line.startswith("api_key_env"))
    path = data_dir.resolve() / f"routes-{run_id}.toml"
    path.write_text(text)
    return path


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def _ready(port: int) -> None:
    async with httpx.AsyncClient(timeout=2.0) as client:
        while True:
            with contextlib.suppress(httpx.HTTPError):  # not listening yet
                if (await client.get(f"http://127.0.0.1:{port}/readyz")).status_code == httpx.codes.OK:
                    return
            await asyncio.sleep(0.1)


async def _end(process: asyncio.subprocess.Process, how: signal.Signals) -> None:
    if process.returncode is not None:
        return
    process.send_signal(how)
    try:
        await asyncio.wait_for(process.wait(), timeout=40.0)
    except TimeoutError:
        process.kill()
        await process.wait()


# --- the stream ------------------------------------------------------------------------------------------------


def _records() -> Iterator[bytes]:
    """The bundled records' values, in order."""
    source = resources.files("stratarouter_runtime").joinpath("demo_data/queries.jsonl")
    for line in source.read_bytes().splitlines():
        item: dict[str, Any] = orjson.loads(line)
        if item.get("generate") == "oversize":
            yield b'{"query": "' + b"x" * OVERSIZE_BYTES + b'"}'
        elif "raw_base64" in item:
            yield base64.b64decode(item["raw_base64"])
        else:
            yield str(item["raw"]).encode()


async def _stream(config: RuntimeConfig, records: list[bytes], fleet: _Fleet, console: Console) -> tuple[Tally, float]:
    tally = Tally()
    began = time.monotonic()
    bar = Progress(
        TextColumn("   {task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console
    )
    async with (
        Tail(config, config.topic(config.responses_topic), from_beginning=True) as responses,
        Tail(config, config.topic(config.dead_letter_topic), from_beginning=True) as dead,
    ):
        with bar:
            shown = bar.add_task("answered", total=len(records))
            producing = asyncio.create_task(_produce(config, records))
            deadline = began + TIMEOUT_S
            while tally.settled < len(records) and time.monotonic() < deadline:
                await _collect(responses, dead, tally)
                bar.update(shown, completed=tally.settled)
                if not tally.killed and tally.settled >= len(records) // 2:
                    tally.killed = True
                    bar.console.print(f"   [red]SIGKILL[/] to worker {fleet.kill_one()}, half way", highlight=False)
            await producing
            took_s = time.monotonic() - began
        settle = time.monotonic() + SETTLE_S
        while time.monotonic() < settle:
            await _collect(responses, dead, tally)
    return tally, took_s


async def _produce(config: RuntimeConfig, records: list[bytes]) -> None:
    producer = kafka_client.producer(config)
    await producer.start()
    try:
        topic = config.topic(config.requests_topic)
        began, sent = time.monotonic(), []
        for number, value in enumerate(records):
            await asyncio.sleep(max(0.0, began + number / RATE_PER_S - time.monotonic()))
            sent.append(await producer.send(topic, value, key=str(number).encode()))
        await asyncio.gather(*sent)
    finally:
        await producer.stop()


async def _collect(responses: Tail, dead: Tail, tally: Tally) -> None:
    for record in await responses.poll(0.1):
        response = wire.decode_response(record.value)
        asked_ms = response.source.timestamp_ms if response.source else record.timestamp
        tally.add(response, float(record.timestamp - asked_ms))
    for record in await dead.poll(0.01):
        letter = wire.decode_dead_letter(record.value)
        tally.dead_letters[letter.code] += 1
        tally.dead_sources[f"{letter.source.partition}@{letter.source.offset}"] += 1


async def _ambiguous(config: RuntimeConfig) -> int:
    """Calls that were started more than once, as the journal counted them."""
    connection = await asyncpg.connect(config.database_url)
    try:
        return int(await connection.fetchval("SELECT coalesce(sum(starts - 1), 0) FROM journal WHERE starts > 1"))
    finally:
        await connection.close()


# --- the report ------------------------------------------------------------------------------------------------


def _report(tally: Tally, records: list[bytes], paid: int | None, ambiguous: int) -> dict[str, Any]:
    return {
        "requests": len(records),
        "responses": len(tally.responses),
        "lost": len(records) - tally.settled,
        "duplicates": tally.duplicates,
        "dead_letters": sum(tally.dead_letters.values()),
        "dead_letters_by_code": dict(sorted(tally.dead_letters.items())),
        "provider_calls": paid,
        "ambiguous_calls": ambiguous,
        "hits": {"exact": tally.hits["exact"], "semantic": tally.hits["semantic"]},
        "coalesced": tally.coalesced,
        "from_journal": tally.from_journal,
        "errors": dict(tally.errors),
        "cost_usd": round(tally.cost_usd, 6),
        "saved_usd": round(tally.saved_usd, 6),
        "latency_ms": _percentiles(tally.latencies_ms),
        "latency_before_kill_ms": _percentiles(tally.undisturbed_ms),
    }


def _percentiles(values: list[float]) -> dict[str, float]:
    """p50 and p99, in milliseconds."""
    ordered = sorted(values) or [0.0]
    return {"p50": round(statistics.median(ordered), 1), "p99": round(ordered[int(0.99 * (len(ordered) - 1))], 1)}


def _print(report: dict[str, Any], console: Console, path: Path) -> None:
    table = Table(title="one request, one answer", show_header=False)
    hits, latency, before = report["hits"], report["latency_ms"], report["latency_before_kill_ms"]
    calls = "not counted (real provider)" if report["provider_calls"] is None else str(report["provider_calls"])
    rows = [
        ("requests", report["requests"]),
        ("responses", report["responses"]),
        ("lost / duplicates", f"{report['lost']} / {report['duplicates']}"),
        ("hits exact / semantic", f"{hits['exact']} / {hits['semantic']}"),
        ("coalesced", report["coalesced"]),
        ("republished from the journal", report["from_journal"]),
        ("provider calls, as it counted", calls),
        ("of unknown outcome, repeated", report["ambiguous_calls"]),
        ("paid / saved", f"${report['cost_usd']:.4f} / ${report['saved_usd']:.4f}"),
        ("latency p50 / p99, to the kill", f"{before['p50']:.0f} / {before['p99']:.0f} ms"),
        ("latency p50 / p99, all", f"{latency['p50']:.0f} / {latency['p99']:.0f} ms"),
        ("dead letters", report["dead_letters"]),
        *((f"  {code}", count) for code, count in report["dead_letters_by_code"].items()),
        *((f"error responses: {code}", count) for code, count in report["errors"].items()),
        ("seconds, stack included", report["seconds"]),
    ]
    for name, value in rows:
        table.add_row(name, str(value))
    console.print(table)
    console.print(f"written to {path}")
    if report["lost"] or report["duplicates"]:
        console.print("[bold red]requests were lost or answered twice[/]: see the workers' logs beside the data")
