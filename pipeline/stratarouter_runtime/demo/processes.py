"""The processes the demonstration starts: a simulated provider and the workers, one of which it kills."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import httpx
import orjson
from rich.console import Console

from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.embedders import local_available

WORKERS = 2
DIMENSION = 384
"""Of the local embedder's vectors; one bundled record has another."""
SIMULATED_LATENCY_MS = 300.0
SESSION_TIMEOUT_MS = 6000
"""Short, so that the killed worker's partitions move on soon. The broker's lower bound is 6 s."""
WORKER_START_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Provider:
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
async def provider(data_dir: Path, run_id: str, console: Console) -> AsyncIterator[Provider]:
    """The real provider where its key is set, else a simulator in a process of its own."""
    if os.environ.get("OPENAI_API_KEY"):
        console.print("[bold]2.[/] [yellow]OPENAI_API_KEY is set: the real provider is called, for real money[/]")
        yield Provider(None)
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
        yield Provider(base_url)
    finally:
        await _end(process, signal.SIGTERM)


@dataclass(slots=True)
class Fleet:
    """The worker processes."""

    workers: list[asyncio.subprocess.Process]

    def kill_one(self) -> int:
        """SIGKILL the first worker; returns its pid."""
        victim = self.workers[0]
        victim.kill()
        return victim.pid


@contextlib.asynccontextmanager
async def fleet(
    config: RuntimeConfig, provider: Provider, data_dir: Path, run_id: str, console: Console
) -> AsyncIterator[Fleet]:
    """Workers that are ready; ended with the context."""
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
        yield Fleet(workers)
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
