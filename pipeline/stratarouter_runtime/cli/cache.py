"""``cache evaluate``: how many answers a semantic cache would serve rightly and wrongly, on pairs of your own."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import orjson
import typer
from rich.console import Console

from stratarouter_runtime.cli.common import ConfigOption, configure, run
from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.errors import ConfigurationError, InvalidRecordError
from stratarouter_runtime.json_bytes import json_bytes

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from stratarouter_runtime.cache.evaluate import Report, Score
    from stratarouter_runtime.cache.pairs import Pair, Question

app = typer.Typer(help="Look into the cache.", no_args_is_help=True)

SHOWN_EVERY = 5
"""Hundredths between two thresholds of the table; --json has every one."""


@app.callback()
def root() -> None:
    """Look into the cache."""


@app.command()
def evaluate(
    pairs: Path = typer.Option(..., help="CSV, TSV or JSON lines: two texts and a label, or question and answer."),
    config: Path | None = ConfigOption,
    setting: str = typer.Option("strict", help="The guard's setting: strict or lenient."),
    threshold: float | None = typer.Option(
        None, min=0.0, max=1.0, help="Cosine similarity from which the guarded cache looks; by default the setting's."
    ),
    asked: str | None = typer.Option(None, help="Column of the texts asked."),
    stored: str | None = typer.Option(None, help="Column of the texts whose answers are kept."),
    label: str | None = typer.Option(None, help="Column that says 1 where one answer serves both, else 0."),
    png: Path | None = typer.Option(None, help="Write the curves to this image (needs matplotlib)."),
    as_json: bool = typer.Option(False, "--json", help="Print the result as JSON."),
) -> None:
    """Measure right hits, wrong hits and misses on labelled pairs, by cosine alone and with the guard.

    Cosine alone is shown at the threshold of its best F1 on these very pairs, which favours it. The vectors come from
    the file (vector1 and vector2, or embedding1 and embedding2; vector or embedding beside a question), else from the
    configured embedder, else from the local one. In JSON lines a text may be a list of messages.
    """
    from stratarouter_runtime.cache.evaluate import evaluate as measure
    from stratarouter_runtime.cache.guard import SETTINGS
    from stratarouter_runtime.cache.pairs import Columns, read

    if setting not in SETTINGS:
        raise ConfigurationError(f"--setting {setting} is unknown", remedy=f"choose one of {', '.join(SETTINGS)}")
    if (asked is None) != (stored is None):
        raise ConfigurationError("--asked and --stored go together", remedy="give both or neither")
    if png is not None:
        _require_matplotlib()
    found, similarities = run(_similarities(configure(config), read(pairs, Columns(asked, stored, label))))
    report = measure(found, similarities, SETTINGS[setting], threshold)
    if png is not None:
        _draw(report, png)
    if as_json:
        typer.echo(json_bytes(report.to_json(), option=orjson.OPT_INDENT_2))
    else:
        _print(report, setting)


async def _similarities(
    settings: RuntimeConfig, rows: list[Pair] | list[Question]
) -> tuple[list[Pair], NDArray[np.float32]]:
    """The pairs and their cosines, shape (pairs,)."""
    import numpy as np

    from stratarouter_runtime.cache.evaluate import cosines, nearest_pairs
    from stratarouter_runtime.cache.pairs import Pair, Question
    from stratarouter_runtime.tools.cache_look import embed_texts

    pairs = [row for row in rows if isinstance(row, Pair)]
    vectors = [pair.vectors for pair in pairs if pair.vectors is not None]
    if pairs and len(vectors) == len(pairs):
        return pairs, cosines([both[0] for both in vectors], [both[1] for both in vectors])
    questions = [row for row in rows if isinstance(row, Question)]
    if questions:
        if len(questions) == 1:
            raise InvalidRecordError("one question has no other to be mistaken for", remedy="give at least two rows")
        own = [question.vector for question in questions if question.vector is not None]
        if len(own) == len(questions):
            return nearest_pairs(questions, np.stack(own))
        made = await embed_texts(settings, [question.text for question in questions])
        return nearest_pairs(questions, np.stack([made[question.text] for question in questions]))
    made = await embed_texts(settings, [text for pair in pairs for text in (pair.asked, pair.stored)])
    return pairs, cosines([made[pair.asked] for pair in pairs], [made[pair.stored] for pair in pairs])


def _print(report: Report, setting: str) -> None:
    from rich.table import Table

    console = Console()
    # Without lines between, the eleven columns fit 80 characters.
    title = f"{report.pairs} pairs: cosine alone, and with the guard ({setting})"
    table = Table(box=None, padding=(0, 1, 0, 0), title=title)
    for name in ("cosine", *2 * ("right", "wrong", "miss", "prec", "rec")):
        table.add_column(name, justify="right", no_wrap=True)
    for plain, guarded in report.curve:
        if round(plain.threshold * 100) % SHOWN_EVERY == 0:
            table.add_row(f"{plain.threshold:.2f}", *_cells(plain), *_cells(guarded))
    console.print(table)
    for name, score in (("cosine alone, best F1", report.plain), (f"with the guard, {setting}", report.guarded)):
        right, wrong, missed, precision, recall = _cells(score)
        console.print(
            f"{name} at {score.threshold:.2f}: {right} right, {wrong} wrong, {missed} missed, "
            f"precision {precision}, recall {recall}",
            highlight=False,
            soft_wrap=True,
        )
    for reason, (different, same) in sorted(report.refusals.items(), key=lambda item: -sum(item[1])):
        console.print(f"{reason}: refused {different} wrong, {same} right", markup=False, highlight=False, emoji=False)
    console.print(f"guard: {report.guard_us:.0f} us a candidate", highlight=False)


def _cells(score: Score) -> list[str]:
    shares = ("-" if share is None else f"{share:.3f}" for share in (score.precision, score.recall))
    return [str(score.right), str(score.wrong), str(score.missed), *shares]


def _require_matplotlib() -> None:
    if find_spec("matplotlib") is None:
        raise ConfigurationError("--png needs matplotlib, which is not installed", remedy="pip install matplotlib")


def _draw(report: Report, path: Path) -> None:
    """Precision over recall, one line without and one with the guard."""
    # Not pyplot: it keeps figures and looks for a display.
    figure_of = import_module("matplotlib.figure").Figure
    figure = figure_of(figsize=(7, 5), layout="constrained")
    axes = figure.subplots()
    for name, side, chosen in (("cosine alone", 0, report.plain), ("with the guard", 1, report.guarded)):
        points = [(point[side].recall, point[side].precision) for point in report.curve]
        drawn = [(recall, precision) for recall, precision in points if recall is not None and precision is not None]
        axes.plot([recall for recall, _ in drawn], [precision for _, precision in drawn], label=name)
        if chosen.recall is not None and chosen.precision is not None:
            axes.plot([chosen.recall], [chosen.precision], "o", label=f"{name}, threshold {chosen.threshold:.2f}")
    axes.set(xlabel="recall: share of the same pairs served", ylabel="precision: share of hits that are right")
    axes.grid(visible=True, alpha=0.3)
    axes.legend()
    try:
        figure.savefig(path, dpi=150)
    except (OSError, ValueError) as exc:
        raise ConfigurationError(f"{path} cannot be written: {exc}", remedy="give a writable path to a .png") from exc
