"""What the commands share: running a coroutine on uvloop, options, progress."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import typer
from rich.console import Console

from stratarouter_runtime.config import RuntimeConfig

T = TypeVar("T")

ConfigOption = typer.Option(None, "--config", help="Configuration file (TOML).", envvar="STRATAROUTER_CONFIG")


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run ``work`` to its end on uvloop where there is one."""
    try:
        import uvloop
    except ImportError:  # Windows has none
        return asyncio.run(work)
    return uvloop.run(work)


def configure(config: Path | None, **settings: Any) -> RuntimeConfig:
    """The configuration: options given > environment > file."""
    return RuntimeConfig.load(config, **{name: value for name, value in settings.items() if value is not None})


def among(*names: str) -> Callable[[str], list[str]]:
    """What a shell completes an argument to: those of ``names`` that begin with what is written, after a last comma,
    and are not there already.
    """

    def complete(incomplete: str) -> list[str]:
        before, comma, begun = incomplete.rpartition(",")
        there = before.split(",")
        return [f"{before}{comma}{name}" for name in names if name.startswith(begun) and name not in there]

    return complete


def stop_signal() -> asyncio.Event:
    """An event that SIGINT and SIGTERM set."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(name, stop.set)
    return stop


def plain_console(*, stderr: bool = False) -> Console:
    """Standard output, or standard error: long lines whole, and ids such as ``a:x:b`` as they are."""
    return Console(stderr=stderr, soft_wrap=True, emoji=False)


def wide_console() -> Console:
    """Standard output; wide enough for every column where it is no terminal."""
    console = plain_console()
    return console if console.is_terminal else Console(width=240, soft_wrap=True, emoji=False)
