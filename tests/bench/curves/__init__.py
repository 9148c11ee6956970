"""Cost as work grows, as curves: ``make bench ARGS=curves``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bench.curves import cache, flight, journal, kafka
from bench.curves.curve import Curve
from bench.result import Outcome
from stratarouter_runtime.embedded import StackAddresses

__all__ = ["CURVES", "Curve", "show"]

CURVES: dict[str, tuple[Callable[[StackAddresses], Awaitable[Sequence[Outcome | Curve]]], float]] = {
    "partitions": (kafka.partitions, 600.0),
    "payload": (kafka.payload, 600.0),
    "cache": (cache.measure, 900.0),
    "journal": (journal.measure, 900.0),
    "in_flight": (flight.measure, 600.0),
}
"""Each with its time limit in seconds."""


def show(console: Console, drawn: Sequence[Curve]) -> None:
    """A table of all points; under it what the curves say in words."""
    table = Table(title="cost as work grows (worse than linear: a cliff)")
    for heading in ("curve", "along", "points", "unit", ""):
        table.add_column(heading)
    for one in drawn:
        points = "  ".join(f"{point.x:g}: {point.value:.4g}" for point in one.points)
        verdict = "[green]held[/]" if one.held else "[bold red]CLIFF[/]"
        table.add_row(one.name, one.along, points, one.unit, verdict)
    console.print(table)
    for one in drawn:
        for said in (one.cliff, one.note):
            if said:
                console.print(f"[dim]{escape(one.name)}: {escape(said)}[/]", highlight=False)
