"""The command line: ``stratarouter-runtime``. One file a command group; exit codes in ``main``."""

from __future__ import annotations

import logging
import sys

import typer
from rich.markup import escape

from stratarouter_runtime import __version__
from stratarouter_runtime.cli import (
    cache,
    cache_control,
    cache_look,
    console,
    dead_letters,
    doctor,
    journal,
    replay,
    requests,
    stack,
    topics,
    usage,
    what_if,
    worker,
)
from stratarouter_runtime.cli.common import plain_console
from stratarouter_runtime.errors import (
    ConfigurationError,
    ExecutionError,
    InfrastructureError,
    InvalidRecordError,
    RuntimeSystemError,
)

EXIT_CODES: tuple[tuple[type[RuntimeSystemError], int], ...] = (
    (ConfigurationError, 2),
    (InfrastructureError, 3),
    (ExecutionError, 4),
    (InvalidRecordError, 5),
)
"""Anything else of ours is 1."""
MEANINGS = {
    0: "done",
    1: "done, and something is not well: a check failed, a ledger differs, a letter was not sent",
    2: "the configuration or the command is wrong",
    3: "something is away",
    4: "no answer",
    5: "the input is wrong",
}
EXITS = "Exit codes: " + "; ".join(f"{code} {meaning}" for code, meaning in MEANINGS.items()) + "."

app = typer.Typer(
    name="stratarouter-runtime",
    help="Executes LLM routing decisions from Kafka: one request in, exactly one response out.",
    epilog=EXITS,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(topics.app, name="topics")
app.add_typer(journal.app, name="journal")
for group in (cache_look, cache_control):
    group.register(cache.app)
app.add_typer(cache.app, name="cache")
app.add_typer(dead_letters.app, name="dead-letters")
for group in (stack, worker, requests, console, doctor, replay, what_if, usage):
    group.register(app)


@app.callback(invoke_without_command=True)
def root(*, version: bool = typer.Option(False, "--version", help="Print the version and exit.")) -> None:
    """Executes LLM routing decisions from Kafka: one request in, exactly one response out."""
    if version:
        typer.echo(__version__)
        raise typer.Exit


def main() -> None:
    """Run the command line; an error of ours is one message on stderr and an exit code, not a traceback."""
    # Libraries warn on stderr of what they retry by themselves; what fails reaches the user as an error of ours, and
    # a worker sets its own logging up.
    logging.getLogger().addHandler(logging.NullHandler())
    try:
        app()
    except RuntimeSystemError as exc:
        console = plain_console(stderr=True)
        console.print(f"[bold red]error[/] ({exc.code}) {escape(exc.message)}")
        if exc.remedy:
            console.print(f"[bold]remedy[/] {escape(exc.remedy)}", highlight=False)
        sys.exit(next((code for kind, code in EXIT_CODES if isinstance(exc, kind)), 1))
