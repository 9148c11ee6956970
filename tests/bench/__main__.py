"""The command: ``python -m bench [name ...]``. Writes JSON and PNGs to ``bench-results``; exit code 1 if missed.

Each part has a time limit of its own. One that goes wrong is a row of the table, and the others go on.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import tempfile
import traceback
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console

from bench import (
    batching,
    bridge_rate,
    cache_peers,
    cache_speed,
    curves,
    in_flight,
    journal,
    kafka_hits,
    kafka_latency,
    kafka_misses,
    latency_table,
    overhead,
    worker_life,
)
from bench.chart import draw, draw_curves
from bench.curves import Curve
from bench.result import NotRun, Outcome, Result, machine, show, write
from stratarouter_runtime import collector
from stratarouter_runtime.embedded import EmbeddedStack, StackAddresses

Found = Sequence[Outcome | Curve]


@dataclass(frozen=True, slots=True)
class Part:
    """A benchmark and how long it may take: about three times what it takes on two shared cores."""

    measure: Callable[[StackAddresses], Awaitable[Found]]
    limit_s: float


PARTS: dict[str, Part] = {
    "latency_table": Part(latency_table.measure, 600),
    "overhead": Part(overhead.measure, 300),
    "bridge_rate": Part(bridge_rate.measure, 900),
    "in_flight": Part(in_flight.measure, 300),
    "cache_exact": Part(cache_peers.exact, 300),
    "cache_semantic": Part(cache_peers.semantic, 600),
    "cache_redis": Part(cache_peers.in_redis, 600),
    "cache_speed": Part(cache_speed.measure, 300),
    "journal": Part(journal.measure, 300),
    "kafka_hits": Part(kafka_hits.measure, 600),
    "kafka_latency": Part(kafka_latency.measure, 600),
    "kafka_misses": Part(kafka_misses.measure, 900),
    "kafka_crowd": Part(kafka_misses.crowd, 400),
    "worker_life": Part(worker_life.measure, 400),
    "batching": Part(batching.measure, 600),
    **{f"curve_{name}": Part(measure, limit_s) for name, (measure, limit_s) in curves.CURVES.items()},
}


def main() -> int:
    """Run those that were named, or all."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="name", help=f"any of {', '.join(PARTS)}; curves for all of those; all by default"
    )
    parser.add_argument("--report", type=Path, default=Path("bench-results/latest.json"))
    given = parser.parse_args()
    names = [one for name in given.names for one in _expanded(name)] or list(PARTS)
    unknown = set(names) - set(PARTS)
    if unknown:
        parser.error(f"no benchmark is named {', '.join(sorted(unknown))}")
    logging.getLogger().addHandler(logging.NullHandler())
    console = Console(width=150)
    console.print(f"on {machine()}", highlight=False)
    collector.settle()  # as a worker does: some benchmarks run the product in this process
    found = asyncio.run(_run(names, console, given.report))
    _show(console, found)
    return 0 if all(one.held for one in found) else 1


def _expanded(name: str) -> list[str]:
    return [one for one in PARTS if one.startswith("curve_")] if name == "curves" else [name]


def _parted(found: Found) -> tuple[list[Outcome], list[Curve]]:
    return [one for one in found if not isinstance(one, Curve)], [one for one in found if isinstance(one, Curve)]


def _show(console: Console, found: Found) -> None:
    outcomes, drawn = _parted(found)
    if outcomes:
        show(console, outcomes)
    if drawn:
        curves.show(console, drawn)


def _write(path: Path, found: Found) -> None:
    outcomes, drawn = _parted(found)
    write(path, outcomes, curves=[asdict(one) | {"cliff": one.cliff} for one in drawn])
    results = [one for one in outcomes if isinstance(one, Result)]
    if results:
        draw(path.with_suffix(".png"), results)
    if drawn:
        draw_curves(path.with_name(f"{path.stem}-curves.png"), drawn)


async def _run(names: list[str], console: Console, report: Path) -> list[Outcome | Curve]:
    """Each part's rows are written and shown when they are there: a run that is stopped keeps what it has."""
    found: list[Outcome | Curve] = []
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        async with EmbeddedStack(Path(folder)) as stack:
            addresses = await stack.start()
            for name in names:
                console.rule(name)
                part = await _part(name, addresses)
                found += part
                _write(report, found)
                if len(names) > 1:
                    _show(console, part)
    return found


async def _part(name: str, addresses: StackAddresses) -> Found:
    part = PARTS[name]
    try:
        async with asyncio.timeout(part.limit_s):
            return await part.measure(addresses)
    except TimeoutError:
        traceback.print_exc()
        return [NotRun(name, f"took longer than {part.limit_s:g} s, or waited in vain", peer=False)]
    except Exception as exc:  # noqa: BLE001 - the outermost loop: one part that breaks must not cost the figures of the others
        traceback.print_exc()
        return [NotRun(name, f"{type(exc).__name__}: {exc}", peer=False)]


if __name__ == "__main__":
    if sys.platform != "win32":
        import uvloop

        uvloop.install()
    sys.exit(main())
