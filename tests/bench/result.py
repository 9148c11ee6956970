"""One benchmark's outcome, and how it is shown. A ratio is always so that larger is better."""

from __future__ import annotations

import platform
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import orjson
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from stratarouter_runtime.version import modules


@dataclass(frozen=True, slots=True)
class Result:
    """``ours`` against ``against`` in ``unit``: medians over ``rounds``; ``spread``: the lowest and highest ratio.

    ``at_least`` is None where nothing is asked: the row is there for scale.
    """

    name: str
    ours: float
    against: float
    unit: str
    ratio: float
    at_least: float | None
    rounds: int
    spread: tuple[float, float] = field(default=(0.0, 0.0))
    note: str = ""

    @property
    def held(self) -> bool:
        """Whether the ratio reaches what was asked."""
        return self.at_least is None or self.ratio >= self.at_least


@dataclass(frozen=True, slots=True)
class NotRun:
    """A benchmark that gave no figure: its peer cannot be had here (``peer``), or it went wrong."""

    name: str
    reason: str
    peer: bool = True

    @property
    def held(self) -> bool:
        """A peer that is missing is no miss; what went wrong is."""
        return self.peer


Outcome = Result | NotRun


def at_most(
    name: str, took: Sequence[float], limit: float, *, unit: str, note: str, digits: int = 3, zero: float = 1e-3
) -> Result:
    """The result of rounds of ``took`` against the most that it may be; ``zero`` stands for what is not above it."""
    ordered = sorted(max(value, zero) for value in took)
    ratios = [round(limit / value, digits) for value in (ordered[-1], statistics.median(ordered), ordered[0])]
    return Result(
        name,
        round(statistics.median(took), digits),
        limit,
        unit,
        ratios[1],
        1.0,
        len(ordered),
        (ratios[0], ratios[2]),
        f"against: the most that it may be; {note}",
    )


def compare(
    name: str,
    ours: Sequence[float],
    against: Sequence[float],
    *,
    unit: str,
    at_least: float | None,
    lower_is_better: bool = False,
    note: str = "",
) -> Result:
    """The result of rounds measured side by side: ``ours[i]`` and ``against[i]`` belong to one round."""
    ratios = [(other / mine if lower_is_better else mine / other) for mine, other in zip(ours, against, strict=True)]
    return Result(
        name,
        round(statistics.median(ours), 4),
        round(statistics.median(against), 4),
        unit,
        round(statistics.median(ratios), 3),
        at_least,
        len(ratios),
        (round(min(ratios), 3), round(max(ratios), 3)),
        note,
    )


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which ``share`` (0 to 1) of ``values`` lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def machine() -> dict[str, Any]:
    """What the figures were measured on, and whether the hot modules were machine code (``make compiled``)."""
    model = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.processor(),
    )
    memory_kb = int(Path("/proc/meminfo").read_text(encoding="ascii").split()[1])
    cores = sum(line.startswith("processor") for line in Path("/proc/cpuinfo").read_text().splitlines())
    return {
        "cpu": model,
        "cores": cores,
        "memory_gb": round(memory_kb / 1024**2, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        "modules": modules(),
    }


def show(console: Console, outcomes: Sequence[Outcome]) -> None:
    """The table."""
    table = Table(title="benchmarks (a ratio is always so that larger is better)")
    for heading in ("benchmark", "ours", "against", "unit", "ratio", "at least", "spread", "rounds", ""):
        table.add_column(heading, justify="left" if heading in {"benchmark", "unit"} else "right")
    for one in outcomes:
        table.add_row(*_row(one))
    console.print(table)
    for one in outcomes:
        said = one.reason if isinstance(one, NotRun) else one.note
        if said:
            console.print(f"[dim]{escape(one.name)}: {escape(said)}[/]", highlight=False)


def _row(one: Outcome) -> tuple[str, ...]:
    if isinstance(one, NotRun):
        return (one.name, *["-"] * 7, "[yellow]not run[/]" if one.held else "[bold red]FAILED[/]")
    asked, verdict = "-", "for scale"
    if one.at_least is not None:
        asked, verdict = f"{one.at_least:g}", "[green]held[/]" if one.held else "[bold red]MISSED[/]"
    figures = (f"{one.ours:g}", f"{one.against:g}", one.unit, f"{one.ratio:g}", asked)
    return (one.name, *figures, f"{one.spread[0]:g}..{one.spread[1]:g}", str(one.rounds), verdict)


def write(path: Path, outcomes: Sequence[Outcome], **more: Any) -> None:
    """``bench-results/latest.json``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    report = {
        "machine": machine(),
        "benchmarks": [asdict(one) for one in outcomes if isinstance(one, Result)],
        "not_run": [asdict(one) for one in outcomes if isinstance(one, NotRun)],
        **more,
    }
    path.write_bytes(orjson.dumps(report, option=orjson.OPT_INDENT_2))
