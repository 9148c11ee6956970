"""The results as a picture: each ratio over what was asked of it, on a scale of powers of two."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from bench.result import Result, machine

ROW_INCHES = 0.32
HELD, MISSED = "#2a7f62", "#b23a48"


def draw(path: Path, results: Sequence[Result]) -> None:
    """Write a PNG: a bar a benchmark; right of 1 it is held, and the line on it is the spread of its rounds."""
    mpl.use("agg")
    figure = Figure(figsize=(12, 1.6 + ROW_INCHES * len(results)), layout="constrained")
    axes = figure.subplots()
    places = range(len(results), 0, -1)
    for place, one in zip(places, results, strict=True):
        share = one.ratio / one.at_least
        low, high = (bound / one.at_least for bound in one.spread)
        axes.barh(place, share - 1, left=1, height=0.6, color=HELD if one.held else MISSED)
        axes.plot([low, high], [place, place], color="black", linewidth=1)
        axes.annotate(f" {one.ratio:g}", (max(share, high, 1), place), va="center", fontsize=7)
    axes.set_xscale("log", base=2)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_yticks(list(places), [f"{one.name} (at least {one.at_least:g})" for one in results], fontsize=7)
    axes.set_xlabel("ratio measured, in multiples of the ratio asked for")
    on = machine()
    axes.set_title(f"{on['cpu']}, {on['cores']} cores, {on['memory_gb']} GB, Python {on['python']}", fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
