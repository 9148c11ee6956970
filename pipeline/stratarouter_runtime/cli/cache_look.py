"""``cache stats``, ``cache find`` and ``cache explain``: what is kept, and what would happen to a question and why."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from stratarouter_runtime.cli.cache_control import samples
from stratarouter_runtime.cli.common import ConfigOption, configure, plain_console, run
from stratarouter_runtime.json_bytes import json_bytes

if TYPE_CHECKING:
    from stratarouter_runtime.cache.sweep import Kept

SHOWN_METRICS = ("stratarouter_cache_", "stratarouter_guard_", "stratarouter_saved_usd")

BootstrapOption = typer.Option(None, help="Kafka's bootstrap servers.")
RedisOption = typer.Option(None, help="Redis's URL.")
JsonOption = typer.Option(False, "--json", help="Print the result as JSON.")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(stats)
    app.command()(find)
    app.command()(explain)


def stats(
    config: Path | None = ConfigOption,
    redis_url: str | None = RedisOption,
    worker: str | None = typer.Option(None, help="A worker's HTTP address, for what it has counted."),
    as_json: bool = JsonOption,
) -> None:
    """Count what is kept in Redis, or show what one worker has counted."""
    from stratarouter_runtime.tools.cache_look import count

    settings = configure(config, redis_url=redis_url)
    if worker is not None:
        counted = {name: value for name, value in run(samples(worker)).items() if name.startswith(SHOWN_METRICS)}
        found: dict[str, Any] = {"worker": worker, "metrics": counted}
    else:
        found = run(count(settings))
    if as_json:
        typer.echo(json_bytes(found))
        return
    console = plain_console()
    for name, value in found.items():
        inner = value.items() if isinstance(value, dict) else None
        console.print(name if inner is not None else f"{name}: {value}", highlight=False, markup=False)
        for part, number in inner or ():
            console.print(f"  {part}: {number:g}", highlight=False, markup=False)


def find(
    text: str | None = typer.Argument(None, help="Words of the question; by default any."),
    config: Path | None = ConfigOption,
    redis_url: str | None = RedisOption,
    key: str | None = typer.Option(None, help="Only the entry of this key."),
    tag: str | None = typer.Option(None, help="Only entries with this tag."),
    route: str | None = typer.Option(None, help="Only entries of this route."),
    tenant: str | None = typer.Option(None, help="Only entries of this tenant."),
    limit: int = typer.Option(20, min=1, help="Entries shown at most."),
    answers: bool = typer.Option(False, "--answers", help="Show the answers too."),
    as_json: bool = JsonOption,
) -> None:
    """Show entries in Redis: their key, tenant, route, tags, seconds left, question."""
    from stratarouter_runtime.tools.cache_look import search, shown, values

    wanted = {"key": key, "tag": tag, "route_id": route, "tenant": tenant}

    def fits(kept: Kept) -> bool:
        if text is not None and text.casefold() not in kept.text.casefold():
            return False
        return all(value is None or value in values(kept, name) for name, value in wanted.items())

    found = [shown(kept, answers=answers) for kept in run(search(configure(config, redis_url=redis_url), fits, limit))]
    if as_json:
        typer.echo(json_bytes(found))
        return
    console = plain_console()
    for entry in found:
        tags = f" [{', '.join(entry['tags'])}]" if entry["tags"] else ""
        line = f"{entry['key']} {entry['tenant']}/{entry['route_id']}{tags} {entry['ttl_s']} s: {entry['text']}"
        console.print(line, highlight=False, markup=False)
        if answers:
            console.print(f"  {entry['answer']}", highlight=False, markup=False)
    if not found:
        console.print("nothing of that kind is kept")


def explain(
    asked: str = typer.Argument(help="The question that would be asked."),
    stored: str = typer.Argument(help="The question whose answer would be kept."),
    config: Path | None = ConfigOption,
    routes_file: Path | None = typer.Option(None, help="The route table (TOML)."),
    route: str = typer.Option("default", help="The route of both."),
    tenant: str = typer.Option("default", help="The tenant of both."),
    stored_route: str | None = typer.Option(None, help="The route of the second, where it is another one."),
    stored_tenant: str | None = typer.Option(None, help="The tenant of the second, where it is another one."),
    threshold: float | None = typer.Option(None, min=0.0, max=1.0, help="The request's own threshold, above 0."),
    bootstrap_servers: str | None = BootstrapOption,
    topic: bool = typer.Option(True, help="Read the cache-control topic for counter-examples."),
    as_json: bool = JsonOption,
) -> None:
    """Say whether an answer to STORED would be served to ASKED, and why."""
    from stratarouter_runtime.tools.cache_look import judge, question

    settings = configure(config, bootstrap_servers=bootstrap_servers, routes_file=routes_file)
    ours = question(settings, asked, route, tenant, threshold)
    theirs = question(settings, stored, stored_route or route, stored_tenant or tenant, threshold)
    found = run(judge(settings, ours, theirs, read_topic=topic))
    if as_json:
        typer.echo(json_bytes(found))
        return
    console = plain_console()
    for name, value in found.items():
        console.print(f"{name}: {'-' if value is None else value}", highlight=False, markup=False)
