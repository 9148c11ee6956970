"""Every row of the table of faults: runs the tests that name a row, slow ones too, and gathers a verdict for each."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from subprocess import run

import orjson

ROWS = 40
VERDICTS = ("failed", "passed", "skipped")
"""The worst of a row's tests is the row's; one that was skipped beside others that passed leaves it passed."""


def run_rows(tests: Path) -> dict[int, dict[str, object]]:
    """Run them in a process of their own; by row: verdict, tests, and why where some were skipped."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "rows.json"
        run(
            [
                sys.executable,
                "-m",
                "pytest",
                "-q",
                "--slow",
                "-m",
                "row",
                "-p",
                "chaos.rows_plugin",
                f"--rows={result}",
                str(tests),
            ],
            check=False,
        )
        outcomes = orjson.loads(result.read_bytes())
    return {row: _verdict([one for one in outcomes if row in one["rows"]]) for row in range(1, ROWS + 1)}


def _verdict(outcomes: list[dict[str, object]]) -> dict[str, object]:
    kinds = {str(one["outcome"]) for one in outcomes}
    verdict = next((name for name in VERDICTS if name in kinds), "no test")
    reasons = sorted({str(one["reason"]) for one in outcomes if one["reason"]})
    return {"verdict": verdict, "tests": len(outcomes), "reasons": reasons}
