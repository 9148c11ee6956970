"""The command: ``python -m chaos --seconds 300 --seed 7``; see ``--help``. Exit code 0 only if every promise held."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
import tempfile
import uuid
from pathlib import Path
from typing import Any

import orjson
from rich.console import Console
from rich.table import Table

from chaos import cost, tally
from chaos.crowd import keep_logs
from chaos.rows import run_rows
from chaos.storm import Plan, Storm
from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.embedded import EmbeddedStack

SESSION_TIMEOUT_MS = 6000
"""The broker's lower bound."""
RECOVERY_MARGIN_S = 5.0
MAX_MEMORY_GROWTH = 0.10
MIN_RATIO = 0.70
MEMORY_MIN_S = 120.0
"""A shorter storm says nothing about memory: a worker is still warming up."""


def main() -> int:
    """Run what was asked for, print the verdict, write the report."""
    given = _arguments()
    # What the clients warn of while the broker is away on purpose would bury the verdict.
    logging.getLogger().addHandler(logging.NullHandler())
    console = Console()
    report: dict[str, Any] = {}
    if not given.no_rows:
        console.rule("every row of the table of faults")
        report["rows"] = run_rows(Path(__file__).parents[1])
    plan = Plan(given.seconds, given.rate, given.workers, given.partitions, given.seed)
    with tempfile.TemporaryDirectory(prefix="chaos-") as name:
        report = asyncio.run(_storm_and_cost(plan, Path(name), given, console)) | report
    checks = _checks(report, plan)
    report["passed"] = all(held for _, _, held in checks)
    given.report.write_bytes(orjson.dumps(report, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS))
    _show(console, report, checks)
    console.print(f"report: {given.report}; the same again: --seed {plan.seed}")
    return 0 if report["passed"] else 1


async def _storm_and_cost(plan: Plan, folder: Path, given: argparse.Namespace, console: Console) -> dict[str, Any]:
    stack = EmbeddedStack(folder / "stack")
    async with stack:
        addresses = await stack.start()
        config = RuntimeConfig(
            bootstrap_servers=addresses.bootstrap_servers,
            database_url=addresses.database_url,
            cache_backend="memory",
            topic_prefix="chaos.",
            group_id=f"chaos-{uuid.uuid4().hex[:8]}",
            session_timeout_ms=SESSION_TIMEOUT_MS,
            heartbeat_ttl_s=3,
        )
        console.rule(f"a storm of {plan.seconds:.0f} s, seed {plan.seed}")
        storm = Storm(plan, stack, config, folder, console)
        try:
            report = tally.report(await storm.run(), seed=plan.seed, seconds=plan.seconds)
        finally:
            keep_logs(folder, given.logs)
        if not given.no_cost:
            console.rule("what exactly_once costs")
            report["exactly_once_cost"] = await cost.measure(config, folder)
    return report


def _checks(report: dict[str, Any], plan: Plan) -> list[tuple[str, str, bool]]:
    """What was promised, what was seen, and whether it held."""
    bound = SESSION_TIMEOUT_MS / 1000 + RECOVERY_MARGIN_S
    worst, grown = report["recovery_s"]["worst"], report["memory_growth"]
    paid, may_pay = report["provider_calls"], report["requests"] + report["ambiguous"]
    checks = [
        ("requests lost", str(report["lost"]), report["lost"] == 0),
        ("duplicates for a read_committed reader", str(report["duplicates"]), report["duplicates"] == 0),
        ("dead letters of valid requests", str(report["dead_letters"]), report["dead_letters"] == 0),
        ("calls <= requests + ambiguous", f"{paid} <= {may_pay}", paid <= may_pay),
        (
            "paid twice <= ambiguous",
            f"{report['paid_more_than_once']} <= {report['ambiguous']}",
            report["paid_more_than_once"] <= report["ambiguous"],
        ),
        ("workers left with exit code 0", str(report["exit_codes"]), set(report["exit_codes"]) == {0}),
        (f"recovery of one killed worker <= {bound:.0f} s", f"worst {worst} s", worst is not None and worst <= bound),
    ]
    if plan.seconds >= MEMORY_MIN_S:
        held = grown is not None and grown < MAX_MEMORY_GROWTH
        checks.append(("memory over the last half < +10 %", "no figure" if grown is None else f"{grown:+.1%}", held))
    if "exactly_once_cost" in report:
        ratio = report["exactly_once_cost"]["ratio"]
        checks.append((f"exactly_once / at_least_once >= {MIN_RATIO}", f"{ratio}", ratio >= MIN_RATIO))
    for row, found in report.get("rows", {}).items():
        checks.append((f"row {row}", _told(found), found["verdict"] in {"passed", "skipped"}))
    return checks


def _told(found: dict[str, Any]) -> str:
    reasons = f": {'; '.join(found['reasons'])}" if found["reasons"] else ""
    return f"{found['verdict']} ({found['tests']} tests){reasons}"


def _show(console: Console, report: dict[str, Any], checks: list[tuple[str, str, bool]]) -> None:
    figures = Table(title="counted from outside")
    figures.add_column("figure")
    figures.add_column("value", justify="right")
    for name, value in report.items():
        if name != "rows":
            figures.add_row(name, str(value))
    console.print(figures)
    verdict = Table(title="verdict")
    for name in ("promise", "seen", "held"):
        verdict.add_column(name)
    for promise, seen, held in checks:
        verdict.add_row(promise, seen, "[green]yes[/]" if held else "[bold red]NO[/]")
    console.print(verdict)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=300.0, help="length of the storm")
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(3)), help="of the schedule")
    parser.add_argument("--rate", type=float, default=80.0, help="requests a second")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--report", type=Path, default=Path("chaos-report.json"))
    parser.add_argument("--logs", type=Path, help="keep the workers' logs in this folder")
    parser.add_argument("--no-rows", action="store_true", help="the storm alone, without the rows")
    parser.add_argument("--no-cost", action="store_true", help="without comparing the two guarantees")
    given = parser.parse_args()
    if given.workers < 2:
        parser.error("a storm needs two workers: one dies, the other one answers")
    return given


if __name__ == "__main__":
    sys.exit(main())
