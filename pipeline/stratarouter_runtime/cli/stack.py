"""``up`` runs the embedded stack, ``demo`` the main job, ``simulator`` a provider without a key, ``smoke`` a test."""

from __future__ import annotations

from pathlib import Path

import orjson
import typer
from rich.console import Console
from rich.markup import escape

from stratarouter_runtime.cli.common import ConfigOption, configure, run, stop_signal
from stratarouter_runtime.json_bytes import json_bytes

DATA_DIR = Path(".stratarouter")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(up)
    app.command()(demo)
    app.command()(simulator)
    app.command()(smoke)


def up(
    data_dir: Path = typer.Option(DATA_DIR, help="Where the servers keep their data and logs."),
    kafka: bool = typer.Option(True, help="Start a Kafka broker."),
    postgres: bool = typer.Option(True, help="Start a PostgreSQL."),
    redis: bool = typer.Option(False, help="Start a Redis-compatible server."),
    *,
    as_json: bool = typer.Option(False, "--json", help="Print the addresses as one line of JSON when all of it runs."),
) -> None:
    """Start a real Kafka, PostgreSQL and Redis from packages, print how to reach them, stop them on Ctrl-C."""
    run(_up(data_dir, kafka=kafka, postgres=postgres, redis=redis, as_json=as_json))


async def _up(data_dir: Path, *, kafka: bool, postgres: bool, redis: bool, as_json: bool) -> None:
    from stratarouter_runtime.embedded import EmbeddedStack

    console = Console(stderr=as_json, emoji=False)
    stop = stop_signal()
    stack = EmbeddedStack(
        data_dir, kafka=kafka, postgres=postgres, redis=redis, progress=lambda line: console.print(f"  {escape(line)}")
    )
    async with stack:
        addresses = await stack.start()
        lines = {
            "KAFKA_BOOTSTRAP_SERVERS": addresses.bootstrap_servers,
            "DATABASE_URL": addresses.database_url,
            "REDIS_URL": addresses.redis_url,
        }
        known = {name: value for name, value in lines.items() if value}
        if as_json:
            typer.echo(json_bytes(known).decode())
        else:
            for name, value in known.items():
                console.print(f"export {name}={value}", markup=False, highlight=False, soft_wrap=True)
        console.print("Ctrl-C stops it.")
        await stop.wait()
        console.print("stopping")


def demo(
    data_dir: Path = typer.Option(DATA_DIR, help="Where the servers keep their data and logs."),
    report: Path = typer.Option(Path("demo-report.json"), help="Where the counts are written."),
    *,
    as_json: bool = typer.Option(False, "--json", help="Print the counts as JSON too."),
) -> None:
    """Run several hundred requests through two workers on a real broker, killing one of them half way."""
    from stratarouter_runtime.demo.run import run_demo

    console = Console(stderr=as_json)
    try:
        whole = run(run_demo(data_dir, report, console))
    except KeyboardInterrupt:
        # Everything that was started has been stopped on the way here.
        console.print("\ninterrupted; workers and servers are stopped, their data is kept")
        return
    if as_json:
        typer.echo(report.read_text(encoding="utf-8").rstrip())
    if not whole:
        raise typer.Exit(1)


def simulator(
    port: int = typer.Option(8080, min=0, max=65535, help="Port; 0 for a free one."),
    host: str = typer.Option("127.0.0.1", help="Address to listen on; 0.0.0.0 lets other machines in."),
    latency_ms: float = typer.Option(200.0, min=0.0, help="How long each answer takes."),
    log_path: Path | None = typer.Option(None, help="Append each paid call to this file, as JSON lines."),
    *,
    as_json: bool = typer.Option(False, "--json", help="Print the address as one line of JSON."),
) -> None:
    """Run a local server that speaks OpenAI's wire shape and answers without a model or a key."""
    run(_simulate(host, port, latency_ms, log_path, as_json=as_json))


async def _simulate(host: str, port: int, latency_ms: float, log_path: Path | None, *, as_json: bool) -> None:
    from stratarouter_runtime.testing.simulator import Simulator, SimulatorSettings

    stop = stop_signal()
    simulated = Simulator(SimulatorSettings(latency_ms=latency_ms, log_path=log_path))
    base_url = await simulated.start(port, host)
    if as_json:
        typer.echo(json_bytes({"base_url": base_url}).decode())
    else:
        Console(soft_wrap=True).print(f"simulated provider at {base_url} (no model, no key, no cost); Ctrl-C stops it")
    await stop.wait()
    await simulated.stop()


def smoke(
    config: Path | None = ConfigOption,
    bootstrap_servers: str | None = typer.Option(None, help="Kafka's bootstrap servers."),
    requests: int = typer.Option(1000, min=1, help="How many to send."),
    rate: float = typer.Option(200.0, min=0.1, help="Requests produced each second."),
    route: str = typer.Option("default", help="The decision's route id, of all of them."),
    tenant: str = typer.Option("smoke-test", help="Whose requests they are."),
    timeout_s: float = typer.Option(120.0, min=1.0, help="Seconds until every response has to be in."),
    *,
    as_json: bool = typer.Option(False, "--json", help="Print JSON."),
) -> None:
    """Send sample requests through a running deployment and wait for each response. The route's provider is paid.

    Exits 1 where a response is missing, came twice or is an error.
    """
    from stratarouter_runtime.demo.smoke import SmokeTest, passed, print_report, smoke_test

    settings = configure(config, bootstrap_servers=bootstrap_servers)
    test = SmokeTest(requests=requests, rate_per_s=rate, route=route, tenant=tenant, timeout_s=timeout_s)
    report = run(smoke_test(settings, test, Console(stderr=True)))
    if as_json:
        typer.echo(json_bytes(report, option=orjson.OPT_INDENT_2).decode())
    else:
        print_report(report, Console())
    if not passed(report):
        raise typer.Exit(1)
