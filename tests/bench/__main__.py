"""The command: ``python -m bench [name ...]``. Writes ``bench-results/latest.json``; exit code 1 if one is missed."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

from rich.console import Console

from bench import (
    batching,
    bridge_rate,
    in_flight,
    journal,
    kafka_hits,
    kafka_latency,
    kafka_misses,
    latency_table,
    overhead,
)
from bench.result import Result, machine, show, write
from stratarouter_runtime.embedded import EmbeddedStack, StackAddresses

BENCHMARKS: dict[str, Callable[[StackAddresses], Awaitable[list[Result]]]] = {
    "latency_table": latency_table.measure,
    "overhead": overhead.measure,
    "bridge_rate": bridge_rate.measure,
    "in_flight": in_flight.measure,
    "journal": journal.measure,
    "kafka_hits": kafka_hits.measure,
    "kafka_latency": kafka_latency.measure,
    "kafka_misses": kafka_misses.measure,
    "batching": batching.measure,
}


def main() -> int:
    """Run those that were named, or all."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=f"any of {', '.join(BENCHMARKS)}; all by default")
    parser.add_argument("--report", type=Path, default=Path("bench-results/latest.json"))
    given = parser.parse_args()
    unknown = set(given.names) - set(BENCHMARKS)
    if unknown:
        parser.error(f"no benchmark is named {', '.join(sorted(unknown))}")
    logging.getLogger().addHandler(logging.NullHandler())
    console = Console(width=150)
    console.print(f"on {machine()}", highlight=False)
    results = asyncio.run(_run(given.names or list(BENCHMARKS), console))
    show(console, results)
    write(given.report, results)
    return 0 if all(one.held for one in results) else 1


async def _run(names: list[str], console: Console) -> list[Result]:
    results: list[Result] = []
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        async with EmbeddedStack(Path(folder)) as stack:
            addresses = await stack.start()
            for name in names:
                console.rule(name)
                results += await BENCHMARKS[name](addresses)
    return results


if __name__ == "__main__":
    if sys.platform != "win32":
        import uvloop

        uvloop.install()
    sys.exit(main())
