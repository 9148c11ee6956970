"""``doctor`` checks what a worker needs; ``status`` shows how the pipeline stands."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from stratarouter_runtime.cli.common import ConfigOption, configure, plain_console, run, wide_console
from stratarouter_runtime.json_bytes import json_bytes

if TYPE_CHECKING:
    from stratarouter_runtime.tools.status import Status

FAILED = 1
"""Exit code where a check failed, or a lane's committed map cannot be read."""
MARKS = {"ok": "[green]ok[/]", "warning": "[yellow]warning[/]", "failed": "[red]failed[/]", "skipped": "skipped"}


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(doctor)
    app.command()(status)


def doctor(
    config: Path | None = ConfigOption,
    bootstrap_servers: str | None = typer.Option(None, help="Kafka's bootstrap servers."),
    database_url: str | None = typer.Option(None, help="PostgreSQL's URL."),
    routes_file: Path | None = typer.Option(None, help="The route table (TOML)."),
    *,
    as_json: bool = typer.Option(False, "--json", help="Print each check as a JSON line."),
) -> None:
    """Check the broker, topics, journal, schema, cache, embedder, providers, keys and clocks. Pays for nothing.

    Exits 1 where a check failed.
    """
    from stratarouter_runtime.tools.doctor import examine

    settings = configure(
        config, bootstrap_servers=bootstrap_servers, database_url=database_url, routes_file=routes_file
    )
    checks = run(examine(settings))
    console = plain_console()
    for check in checks:
        if as_json:
            typer.echo(json_bytes(asdict(check)).decode())
            continue
        console.print(f"{MARKS[check.state]:>20} {escape(check.name)}: {escape(check.detail)}", highlight=False)
        if check.remedy and check.state != "ok":
            console.print(f"{'':8} {escape(check.remedy)}", highlight=False)
    if any(check.state == "failed" for check in checks):
        raise typer.Exit(FAILED)


def status(
    config: Path | None = ConfigOption,
    bootstrap_servers: str | None = typer.Option(None, help="Kafka's bootstrap servers."),
    database_url: str | None = typer.Option(None, help="PostgreSQL's URL."),
    *,
    as_json: bool = typer.Option(False, "--json", help="Print JSON."),
) -> None:
    """Show lag, unfinished records and checkpoint of every lane, the workers, and what waits as dead letters."""
    from stratarouter_runtime.tools.status import look

    settings = configure(config, bootstrap_servers=bootstrap_servers, database_url=database_url)
    found = run(look(settings))
    if as_json:
        typer.echo(json_bytes(asdict(found) | {"lag": found.lag}, default=str).decode())
    else:
        _print(found)
    if any(lane.problem for lane in found.lanes):
        raise typer.Exit(FAILED)


def _print(found: Status) -> None:
    console = wide_console()
    table = Table("processor", "lane", box=SIMPLE_HEAD)
    for name in ("committed", "end", "lag", "unfinished", "ahead", "checkpoint"):
        table.add_column(name, justify="right")
    for lane in found.lanes:
        committed = "-" if lane.committed is None else str(lane.committed)
        numbers = (str(number) for number in (lane.end, lane.lag, lane.unfinished, lane.finished_ahead))
        saved = "-" if lane.checkpoint is None else f"{lane.checkpoint}, {lane.checkpoint_age_s:.0f} s old"
        table.add_row(lane.processor, f"{lane.topic}-{lane.partition}", committed, *numbers, saved)
    console.print(table)
    behind = ", ".join(f"{name} {lag}" for name, lag in found.lag.items())
    meant = "ahead: finished beyond what is committed; checkpoint: what the journal has of it"
    console.print(f"behind: {behind}; {meant}", highlight=False)
    for lane in found.lanes:
        if lane.problem:
            console.print(f"[red]{lane.topic}-{lane.partition}[/]: {escape(lane.problem)}")
    if found.workers is None:
        console.print(f"workers: not known (journal: {escape(found.journal)})")
    else:
        for worker in found.workers:
            name = f"{worker['host']} pid {worker['pid']}"
            console.print(f"worker {escape(name)}: last heard of {worker['silent_s']:.1f} s ago", highlight=False)
        if not found.workers:
            console.print("no worker is registered")
    held = f"{found.responses} responses and {found.dead_letters} dead letters are held (markers among them)"
    console.print(held, highlight=False)
