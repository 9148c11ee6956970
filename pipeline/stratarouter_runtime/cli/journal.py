"""``journal purge``: delete old results by hand; workers and bridges in-process do the same by themselves."""

from __future__ import annotations

import uuid
from pathlib import Path

import typer
from rich.console import Console

from stratarouter_runtime.cli.common import ConfigOption, configure, run
from stratarouter_runtime.json_bytes import json_bytes

app = typer.Typer(help="Look after the journal.", no_args_is_help=True)

DAY_S = 86_400.0
MAX_AGE_DAYS = 36_500.0


@app.callback()
def root() -> None:
    """Look after the journal."""


@app.command()
def purge(
    config: Path | None = ConfigOption,
    database_url: str | None = typer.Option(None, help="PostgreSQL's URL."),
    older_than_days: float | None = typer.Option(
        None,
        min=0.0,
        max=MAX_AGE_DAYS,
        help="Delete results that were finished so long ago; by default journal_retention_s.",
    ),
    *,
    as_json: bool = typer.Option(False, "--json", help="Print JSON."),
) -> None:
    """Delete old results, in batches. A request whose result is gone is paid for again if its record comes again."""
    from stratarouter_runtime.journal.postgres import PostgresJournal

    settings = configure(config, database_url=database_url)
    age_s = settings.journal_retention_s if older_than_days is None else older_than_days * DAY_S

    async def delete() -> int:
        journal = PostgresJournal(settings.database_url, owner=str(uuid.uuid4()))
        await journal.start()
        try:
            return await journal.purge(age_s)
        finally:
            await journal.stop()

    kept = older_than_days is None and age_s == 0
    gone = 0 if kept else run(delete())
    if as_json:
        typer.echo(json_bytes({"deleted": gone}).decode())
    elif kept:
        Console().print("journal_retention_s = 0 keeps results for ever; give --older-than-days to delete some")
    else:
        Console().print(f"{gone} rows deleted")
