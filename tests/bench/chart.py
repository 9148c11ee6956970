"""The results as pictures: each ratio over what was asked of it, and the curves, on scales of powers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from bench.curves.curve import Curve
from bench.result import Result, machine

ROW_INCHES = 0.32
PANELS_A_ROW = 4
SPARE = 3.0
"""Room above and below a curve, so that what is nearly flat looks so."""
HELD, MISSED = "#2a7f62", "#b23a48"


def draw(path: Path, results: Sequence[Result]) -> None:
    """Write a PNG: a bar a benchmark; right of 1 it is held, and the line on it is the spread of its rounds.

    Rows of which nothing is asked have none.
    """
    asked = [(one, one.at_least) for one in results if one.at_least is not None]
    mpl.use("agg")
    figure = Figure(figsize=(12, 1.6 + ROW_INCHES * len(asked)), layout="constrained")
    axes = figure.subplots()
    places = range(len(asked), 0, -1)
    for place, (one, at_least) in zip(places, asked, strict=True):
        share = one.ratio / at_least
        low, high = (bound / at_least for bound in one.spread)
        axes.barh(place, share - 1, left=1, height=0.6, color=HELD if one.held else MISSED)
        axes.plot([low, high], [place, place], color="black", linewidth=1)
        axes.annotate(f" {one.ratio:g}", (max(share, high, 1), place), va="center", fontsize=7)
    axes.set_xscale("log", base=2)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_yticks(list(places), [f"{one.name} (at least {at_least:g})" for one, at_least in asked], fontsize=7)
    axes.set_xlabel("ratio measured, in multiples of the ratio asked for")
    axes.set_title(_where(), fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)


def draw_curves(path: Path, drawn: Sequence[Curve]) -> None:
    """Write a PNG: a panel a curve, both scales in powers of ten, rounds from their lowest to their highest."""
    mpl.use("agg")
    rows = math.ceil(len(drawn) / PANELS_A_ROW)
    figure = Figure(figsize=(4 * PANELS_A_ROW, 0.6 + 3.2 * rows), layout="constrained")
    for place, one in enumerate(drawn, 1):
        axes = figure.add_subplot(rows, PANELS_A_ROW, place)
        along, values = [point.x for point in one.points], [point.value for point in one.points]
        reach = [[point.value - point.low for point in one.points], [point.high - point.value for point in one.points]]
        axes.errorbar(along, values, yerr=reach, marker="o", capsize=3, color=HELD if one.held else MISSED)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_ylim(min(values) / SPARE, max(values) * SPARE)
        for x, value in zip(along, values, strict=True):
            axes.annotate(
                f"{value:.3g}", (x, value), xytext=(0, 7), textcoords="offset points", ha="center", fontsize=7
            )
        axes.set_xlabel(one.along, fontsize=8)
        axes.set_ylabel(one.unit, fontsize=8)
        axes.set_title(one.name if one.held else f"{one.name}: CLIFF", fontsize=9)
        axes.tick_params(labelsize=7)
    figure.suptitle(_where(), fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def _where() -> str:
    on = machine()
    return f"{on['cpu']}, {on['cores']} cores, {on['memory_gb']} GB, Python {on['python']}, {on['modules']}"
