"""``request`` sends one request and prints its response; ``tail`` follows a topic."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import orjson
import typer
from rich.console import Console

from stratarouter_runtime.cli.common import ConfigOption, among, configure, run, stop_signal
from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.json_bytes import json_bytes

TOPICS = ("requests", "executions", "responses", "dead-letter", "cache-control", "usage-deltas", "usage")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(request)
    app.command()(tail)


def request(
    query: str = typer.Argument(help="What to ask."),
    config: Path | None = ConfigOption,
    route: str = typer.Option("default", help="The decision's route id."),
    tenant: str = typer.Option("default", help="Whose request it is."),
    bootstrap_servers: str | None = typer.Option(None, help="Kafka's bootstrap servers."),
    timeout_s: float = typer.Option(60.0, help="Seconds to wait for the response."),
    inline: bool = typer.Option(False, "--inline", help="Execute in this process, without Kafka."),
    as_json: bool = typer.Option(False, "--json", help="Print the whole response record."),
) -> None:
    """Send one request to the requests topic and wait for its response."""
    settings = configure(config, bootstrap_servers=bootstrap_servers, transport="inline" if inline else "kafka")
    response = run(_ask(settings, query, route, tenant, timeout_s))
    if as_json:
        typer.echo(response)
    else:
        typer.echo(orjson.loads(response)["text"])


async def _ask(settings: RuntimeConfig, query: str, route: str, tenant: str, timeout_s: float) -> str:
    from stratarouter_runtime import wire
    from stratarouter_runtime.bridge import CoreRuntimeBridge

    async with CoreRuntimeBridge(settings) as bridge:
        result = await bridge.execute(route, {"tenant": tenant}, query=query, timeout_s=timeout_s)
    return wire.encode_response(result.record).decode()


def tail(
    topic: str = typer.Argument(
        "responses", help=f"One of {', '.join(TOPICS)}, or a topic's name.", autocompletion=among(*TOPICS)
    ),
    config: Path | None = ConfigOption,
    bootstrap_servers: str | None = typer.Option(None, help="Kafka's bootstrap servers."),
    from_beginning: bool = typer.Option(False, "--from-beginning", help="Start at the first record, not at the end."),
    limit: int = typer.Option(0, min=0, help="Stop after so many records; 0 for no limit."),
) -> None:
    """Print a topic's committed records as JSON lines until Ctrl-C."""
    settings = configure(config, bootstrap_servers=bootstrap_servers)
    names = dict(
        zip(
            TOPICS,
            (
                settings.requests_topic,
                settings.executions_topic,
                settings.responses_topic,
                settings.dead_letter_topic,
                settings.cache_control_topic,
                settings.usage_deltas_topic,
                settings.usage_topic,
            ),
            strict=True,
        )
    )
    name = settings.topic(names[topic]) if topic in names else topic
    run(_follow(settings, name, from_beginning=from_beginning, limit=limit))


async def _follow(settings: RuntimeConfig, topic: str, *, from_beginning: bool, limit: int) -> None:
    from stratarouter_runtime.processors import tail as reading

    stop = stop_signal()
    printed = 0
    async with reading.Tail(settings, topic, from_beginning=from_beginning) as records:
        while not stop.is_set():
            for record in await _or_stop(records.poll(), stop):
                typer.echo(json_bytes(_shown(record)).decode())
                printed += 1
                if limit and printed >= limit:
                    return
    Console(stderr=True).print(f"{printed} records")


async def _or_stop(poll: Any, stop: asyncio.Event) -> list[Any]:
    """The poll's records, or none once told to stop."""
    task, stopped = asyncio.ensure_future(poll), asyncio.ensure_future(stop.wait())
    await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if not task.done():
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return []
    records: list[Any] = task.result()
    return records


def _shown(record: Any) -> dict[str, Any]:
    try:
        value = orjson.loads(record.value or b"null")
    except orjson.JSONDecodeError:
        value = (record.value or b"").decode(errors="replace")
    key = (record.key or b"").decode(errors="replace")
    return {"partition": record.partition, "offset": record.offset, "key": key, "value": value}
