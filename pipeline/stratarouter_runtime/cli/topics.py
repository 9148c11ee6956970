"""``topics apply``, ``check`` and ``acls``: the contract in topics.toml against the broker."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import typer
from rich.console import Console

from stratarouter_runtime import topics
from stratarouter_runtime.acls import check_principal, required
from stratarouter_runtime.cli.common import ConfigOption, configure, run
from stratarouter_runtime.json_bytes import json_bytes

app = typer.Typer(help="Create and check the topics.", no_args_is_help=True)


@app.command()
def apply(
    config: Path | None = ConfigOption,
    bootstrap_servers: str | None = typer.Option(None, help="Kafka's bootstrap servers."),
    partitions: int | None = typer.Option(None, min=1, help="Partitions of each topic, instead of the contract's."),
    *,
    dry_run: bool = typer.Option(False, help="Say what would change and change nothing."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON."),
) -> None:
    """Create missing topics, add partitions, correct settings. Never removes anything."""
    settings = configure(config, bootstrap_servers=bootstrap_servers)
    changes = run(topics.apply(settings, partitions=partitions, dry_run=dry_run))
    if as_json:
        typer.echo(json_bytes({"changes": [str(change) for change in changes], "dry_run": dry_run}).decode())
        return
    console = Console()
    for change in changes:
        console.print(f"{'would ' if dry_run else ''}{change}")
    if not changes:
        console.print("every topic is as declared")


@app.command()
def check(
    config: Path | None = ConfigOption,
    bootstrap_servers: str | None = typer.Option(None, help="Kafka's bootstrap servers."),
    partitions: int | None = typer.Option(None, min=1, help="Partitions of each topic, as they were applied."),
    *,
    as_json: bool = typer.Option(False, "--json", help="Print JSON."),
) -> None:
    """Exit 1 where a topic is missing or differs from its declaration."""
    differences = run(topics.check(configure(config, bootstrap_servers=bootstrap_servers), partitions=partitions))
    if as_json:
        typer.echo(json_bytes({"differences": [str(difference) for difference in differences]}).decode())
    else:
        console = Console()
        for difference in differences:
            console.print(str(difference))
        if not differences:
            console.print("every topic is as declared")
    if differences:
        raise typer.Exit(1)


@app.command()
def acls(
    config: Path | None = ConfigOption,
    principal: str = typer.Option(..., help="Whom to allow, such as User:worker."),
    part: list[str] = typer.Option(["enrich", "execute"], help="A processor or client, as topics.toml names it."),
    bootstrap_servers: str | None = typer.Option(None, help="Kafka's bootstrap servers."),
    *,
    as_json: bool = typer.Option(False, "--json", help="As JSON lines instead of kafka-acls.sh commands."),
) -> None:
    """Print the least that a principal must be allowed on the broker. Changes nothing."""
    settings = configure(config, bootstrap_servers=bootstrap_servers)
    check_principal(principal)
    for acl in required(settings, part):
        if as_json:
            typer.echo(json_bytes({"principal": principal, **asdict(acl)}).decode())
        else:
            typer.echo(acl.command(principal, settings.bootstrap_servers))
