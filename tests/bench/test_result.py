"""How results are shown and written."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import orjson
from rich.console import Console

from bench.chart import draw
from bench.result import Result, show, write

HELD = Result("rows", 30.0, 20.0, "rows/s", 1.5, 0.8, 3, (1.2, 1.9))
MISSED = replace(HELD, name="late rows", ratio=0.5)
FOR_SCALE = replace(HELD, name="rows on two connections", ratio=0.1, at_least=None)


def test_a_row_for_scale_is_held_against_nothing() -> None:
    assert [one.held for one in (HELD, MISSED, FOR_SCALE)] == [True, False, True]
    console = Console(file=io.StringIO(), width=200)
    show(console, [HELD, MISSED, FOR_SCALE])
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    verdicts = [line for line in lines if "rows/s" in line]
    assert ["held" in verdicts[0], "MISSED" in verdicts[1], "for scale" in verdicts[2]] == [True, True, True]
    assert "held" not in verdicts[2]


def test_the_report_and_the_picture_take_rows_for_scale(tmp_path: Path) -> None:
    write(tmp_path / "latest.json", [HELD, FOR_SCALE])
    asked = [one["at_least"] for one in orjson.loads((tmp_path / "latest.json").read_bytes())["benchmarks"]]
    assert asked == [0.8, None]
    draw(tmp_path / "all.png", [HELD, MISSED, FOR_SCALE])
    draw(tmp_path / "none.png", [FOR_SCALE])
    assert all((tmp_path / name).read_bytes().startswith(b"\x89PNG") for name in ("all.png", "none.png"))
