"""``console`` serves the console alone, beside the workers: it outlives them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer
from rich.console import Console as Terminal

from stratarouter_runtime.cli.common import ConfigOption, configure, run, stop_signal
from stratarouter_runtime.json_bytes import json_bytes


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(console)


def console(
    config: Path | None = ConfigOption,
    host: str = typer.Option("127.0.0.1", help="Address to bind; reading is open on loopback only."),
    port: int = typer.Option(9100, min=0, max=65_535, help="Port; 0 takes a free one."),
    bootstrap_servers: str | None = typer.Option(None, help="Kafka's bootstrap servers."),
    database_url: str | None = typer.Option(None, help="PostgreSQL's URL."),
    routes_file: Path | None = typer.Option(None, help="The route table (TOML)."),
    *,
    as_json: bool = typer.Option(False, "--json", help="Print the address as one line of JSON."),
) -> None:
    """Serve the console until Ctrl-C. Every worker serves it too, on its HTTP port."""
    settings = configure(
        config, bootstrap_servers=bootstrap_servers, database_url=database_url, routes_file=routes_file
    )

    async def serve() -> None:
        from stratarouter_runtime.console import Console
        from stratarouter_runtime.telemetry.http import HttpEndpoint
        from stratarouter_runtime.telemetry.metrics import Metrics

        stop = stop_signal()
        pages = Console(settings, host)
        ready: tuple[bool, dict[str, Any]] = (True, {})
        endpoint = HttpEndpoint(host, port, Metrics(), lambda: {"status": "alive"}, lambda: ready, pages.answer)
        await endpoint.start()
        try:
            url = f"http://{host}:{endpoint.port}/"
            if as_json:
                typer.echo(json_bytes({"url": url}).decode())
            else:
                Terminal().print(f"console on {url}", highlight=False)
            await stop.wait()
        finally:
            await endpoint.stop()
            await pages.stop()

    run(serve())
