"""A pytest plug-in: writes each test's outcome with the rows it shows."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

ROWS = "rows"
RANK = {"passed": 0, "skipped": 1, "failed": 2}
_outcomes: dict[str, dict[str, object]] = {}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Where the outcomes go."""
    parser.addoption("--rows", type=Path, required=True, help="file for the outcomes, JSON")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Note which rows each test shows, where its reports carry it along from whichever process ran it."""
    for item in items:
        item.user_properties.append((ROWS, [row for mark in item.iter_markers("row") for row in mark.args]))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Keep the worst of a test's phases."""
    reason = report.longrepr[2] if report.skipped and isinstance(report.longrepr, tuple) else ""
    known = _outcomes.get(report.nodeid)
    if known is None or RANK[report.outcome] > RANK[str(known["outcome"])]:
        rows = dict(report.user_properties).get(ROWS, [])
        _outcomes[report.nodeid] = {"outcome": report.outcome, "reason": reason, "rows": rows}


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write them, once: the processes that share the tests report to one."""
    if not hasattr(session.config, "workerinput"):
        session.config.getoption("--rows").write_bytes(orjson.dumps([*_outcomes.values()]))
