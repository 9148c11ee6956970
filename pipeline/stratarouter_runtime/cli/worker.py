"""``worker`` runs the stream processors; ``migrate`` makes the journal's tables."""

from __future__ import annotations

import asyncio
from pathlib import Path

import typer
from rich.console import Console

from stratarouter_runtime.cli.common import ConfigOption, among, configure, run
from stratarouter_runtime.json_bytes import json_bytes

FEW = 100
"""Requests in flight beside which a worker may stop for some milliseconds to tidy up."""


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(worker)
    app.command()(migrate)


def worker(
    config: Path | None = ConfigOption,
    processors: str = typer.Option(
        "enrich,execute",
        help="Which to run here, by comma: enrich, execute, usage.",
        autocompletion=among("enrich", "execute", "usage"),
    ),
    bootstrap_servers: str | None = typer.Option(None, help="Kafka's bootstrap servers."),
    database_url: str | None = typer.Option(None, help="PostgreSQL's URL."),
    routes_file: Path | None = typer.Option(None, help="The route table (TOML)."),
) -> None:
    """Run stream processors until SIGTERM or Ctrl-C, then drain and exit 0."""
    settings = configure(
        config, bootstrap_servers=bootstrap_servers, database_url=database_url, routes_file=routes_file
    )

    async def serve() -> None:
        from stratarouter_runtime import collector
        from stratarouter_runtime.telemetry.logs import configure_logging
        from stratarouter_runtime.worker import Worker

        configure_logging(settings.log_level)
        process = Worker(settings, [name.strip() for name in processors.split(",") if name.strip()])
        collector.settle()
        tidying = asyncio.create_task(collector.tidy_up(lambda: process.in_flight < FEW), name="tidy up")
        try:
            await process.run()
        finally:
            tidying.cancel()

    run(serve())


def migrate(
    config: Path | None = ConfigOption,
    database_url: str | None = typer.Option(None, help="PostgreSQL's URL."),
    *,
    as_json: bool = typer.Option(False, "--json", help="Print JSON."),
) -> None:
    """Bring the journal's schema up to this version."""
    from stratarouter_runtime.journal.migrations import migrate as apply_migrations

    settings = configure(config, database_url=database_url)
    applied = run(apply_migrations(settings.database_url))
    if as_json:
        typer.echo(json_bytes({"applied": applied}).decode())
        return
    console = Console()
    for name in applied:
        console.print(f"applied {name}")
    if not applied:
        console.print("the schema is up to date")
