# noqa: INP001 - a script, no module of a package
"""Draw a dashboard's panels from a Prometheus into a picture: to look at its queries, units and titles without Grafana.

Only what this repository's dashboard has is drawn: rows and time series, laid out by gridPos, with the panel's unit and
legends. It is no Grafana: colours, tooltips and thresholds are not shown. Needs matplotlib (the dev lock has it). Use:
`python ops/grafana/render.py http://127.0.0.1:9091 dashboard.png --minutes 15`
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import dates
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

DASHBOARD = Path(__file__).parent / "dashboards" / "overview.json"
COLUMNS = 24
"""Of Grafana's grid."""
CELL_IN = (0.85, 0.42)
"""One cell of it, in inches: width, height."""
STEPS = 240
"""Points in each line."""
MAX_LEGENDS = 12
TIMEOUT_S = 30

Value = Callable[[float], str]
UNITS: dict[str, Value] = {
    "reqps": lambda v: f"{v:,.4g} /s",
    "ops": lambda v: f"{v:,.4g} /s",
    "percentunit": lambda v: f"{v:.3g}".rstrip("0").rstrip(".") if v == 0 else f"{100 * v:.4g} %",
    "s": lambda v: f"{v:.3g} s" if v >= 1 else f"{1000 * v:.3g} ms",
    "currencyUSD": lambda v: f"${v:,.4g}",
    "short": lambda v: f"{v:,.4g}" if abs(v) < 10_000 else f"{v / 1000:,.4g} K",
    "none": lambda v: f"{v:.3g}",
}
"""How Grafana's units are written, for those that the dashboard uses; KeyError for another."""


def ask(base: str, query: str, begin: float, end: float) -> list[dict[str, Any]]:
    """The series of ``query`` between two times. Raises OSError, ValueError where Prometheus does not answer it."""
    step = max(1.0, (end - begin) / STEPS)
    words = urllib.parse.urlencode({"query": query, "start": begin, "end": end, "step": step})
    with urllib.request.urlopen(f"{base}/api/v1/query_range?{words}", timeout=TIMEOUT_S) as reply:  # noqa: S310 - http
        answer = json.load(reply)
    if answer["status"] != "success":
        raise ValueError(f"{query}: {answer}")
    found: list[dict[str, Any]] = answer["data"]["result"]
    return found


def legend(pattern: str, labels: dict[str, str]) -> str:
    """``pattern`` with its ``{{label}}`` filled in."""
    return re.sub(r"{{\s*(\w+)\s*}}", lambda match: labels.get(match[1], ""), pattern)


def draw(axes: Axes, panel: dict[str, Any], base: str, begin: float, end: float) -> int:
    """One panel; returns how many series it shows."""
    defaults = panel["fieldConfig"]["defaults"]
    shown = 0
    for target in panel["targets"]:
        for series in ask(base, target["expr"], begin, end):
            times, values = zip(*((at / 86_400, float(value)) for at, value in series["values"]), strict=True)
            label = legend(target["legendFormat"], series["metric"])
            axes.plot(times, values, label=label, linewidth=1, marker="." if len(times) == 1 else None)
            shown += 1
    axes.set_title(f"{panel['title']}  [{defaults['unit']}]", fontsize=9, loc="left")
    axes.set_xlim(begin / 86_400, end / 86_400)
    if "min" in defaults:
        axes.set_ylim(bottom=defaults["min"])
    write = UNITS[defaults["unit"]]
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: write(value)))
    axes.xaxis.set_major_formatter(dates.DateFormatter("%H:%M"))  # type: ignore[no-untyped-call]
    axes.tick_params(labelsize=7)
    axes.grid(alpha=0.3)
    if not shown:
        axes.text(0.5, 0.5, "No data", transform=axes.transAxes, ha="center", color="grey")
    elif shown <= MAX_LEGENDS:
        axes.legend(fontsize=6, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.1), frameon=False)
    else:
        axes.text(0.5, -0.2, f"{shown} series", transform=axes.transAxes, ha="center", color="red", fontsize=8)
    return shown


def render(base: str, picture: Path, minutes: float, dashboard: Path = DASHBOARD) -> dict[str, int]:
    """Draw ``dashboard`` of the last ``minutes`` into ``picture``; returns the number of series by panel title."""
    mpl.use("Agg")
    panels: list[dict[str, Any]] = json.loads(dashboard.read_text())["panels"]
    height = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels)
    figure = plt.figure(figsize=(COLUMNS * CELL_IN[0], height * CELL_IN[1]), dpi=70)
    end = time.time()
    counts: dict[str, int] = {}
    for panel in panels:
        place = panel["gridPos"]
        left, width = place["x"] / COLUMNS, place["w"] / COLUMNS
        bottom, tall = 1 - (place["y"] + place["h"]) / height, place["h"] / height
        if panel["type"] == "row":
            figure.text(0.005, bottom + tall / 3, panel["title"], fontsize=12, weight="bold")
            continue
        axes = figure.add_axes((left + 0.16 * width, bottom + 0.28 * tall, 0.81 * width, 0.58 * tall))
        counts[panel["title"]] = draw(axes, panel, base, end - 60 * minutes, end)
    figure.savefig(picture)
    plt.close(figure)
    return counts


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Draw the dashboard from a Prometheus.")
    parser.add_argument("prometheus", help="like http://127.0.0.1:9091")
    parser.add_argument("picture", type=Path)
    parser.add_argument("--minutes", type=float, default=15)
    chosen = parser.parse_args()
    for title, series in render(chosen.prometheus.rstrip("/"), chosen.picture, chosen.minutes).items():
        sys.stdout.write(f"{series:4} {title}\n")
