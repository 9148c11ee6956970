"""Alerts and dashboards ask for what there is; every alert has its page and is tried."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import generate_latest

from stratarouter_runtime.telemetry.metrics import DEFINITIONS, MetricDef, Metrics

OPS = Path(__file__).parents[2] / "ops"
RULES = OPS / "prometheus" / "alerts.yml"
RUNBOOKS = OPS / "runbooks"
DASHBOARDS = sorted((OPS / "grafana" / "dashboards").glob("*.json"))
BY_NAME = {definition.full_name: definition for definition in DEFINITIONS}
TARGET_LABELS = {"instance", "job", "le"}


def _rules() -> list[dict[str, Any]]:
    [group] = yaml.safe_load(RULES.read_text())["groups"]
    rules: list[dict[str, Any]] = group["rules"]
    return rules


def _panels() -> list[tuple[str, str]]:
    return [
        (f"{path.name}: {panel['title']}", target["expr"])
        for path in DASHBOARDS
        for panel in json.loads(path.read_text())["panels"]
        if panel["type"] != "row"
        for target in panel["targets"]
    ]


EXPRESSIONS = [(rule["alert"], rule["expr"]) for rule in _rules()] + _panels()


def _definition(name: str) -> MetricDef:
    """The metric behind a series; KeyError where there is none. A quantile needs buckets, a rate a counter."""
    plain = re.sub(r"_(bucket|sum|count)$", "", name)
    definition = BY_NAME[plain]
    assert (name == plain) == (definition.kind != "histogram"), name
    return definition


@pytest.mark.parametrize(("where", "expression"), EXPRESSIONS, ids=[where for where, _ in EXPRESSIONS])
def test_expressions_name_metrics_labels_and_values_that_there_are(where: str, expression: str) -> None:
    definitions = [_definition(name) for name in re.findall(r"\bstratarouter_\w+", expression)]
    assert definitions, where
    values: dict[str, set[str]] = {}
    for label in (label for definition in definitions for label in definition.labels):
        values.setdefault(label.name, set()).update(label.values)
    grouped = {label.strip() for group in re.findall(r"by \(([^)]*)\)", expression) for label in group.split(",")}
    assert grouped <= TARGET_LABELS | set(values)
    for label, wanted in re.findall(r'(\w+)=~?"([^"]*)"', expression):
        assert set(wanted.split("|")) <= values[label], (where, label)


def test_every_alert_has_its_page_and_every_page_its_alert() -> None:
    names = [rule["alert"] for rule in _rules()]
    assert len(names) == len(set(names))
    assert {path.stem for path in RUNBOOKS.glob("*.md")} == set(names)
    for rule in _rules():
        assert rule["annotations"]["runbook"] == f"ops/runbooks/{rule['alert']}.md"
        assert rule["labels"]["severity"] in {"warning", "critical"}
        page = (RUNBOOKS / f"{rule['alert']}.md").read_text()
        assert page.startswith(f"# {rule['alert']}\n")
        assert "\n- " in page, "what to do"


def test_pages_name_metrics_that_there_are() -> None:
    for page in RUNBOOKS.glob("*.md"):
        for name in re.findall(r"\bstratarouter_\w+", page.read_text()):
            assert name in BY_NAME, (page.name, name)


def test_every_alert_is_tried() -> None:
    tests = yaml.safe_load((OPS / "prometheus" / "alerts.test.yml").read_text())["tests"]
    fired = {case["alertname"] for test in tests for case in test["alert_rule_test"] if case.get("exp_alerts")}
    quiet = {case["alertname"] for test in tests for case in test["alert_rule_test"] if not case.get("exp_alerts")}
    assert fired == quiet == {rule["alert"] for rule in _rules()}


def test_the_alerts_fire_where_they_should_and_nowhere_else() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("no promtool (it is in Debian's prometheus package)")
    for arguments in (("check", "rules", RULES.name), ("test", "rules", "alerts.test.yml")):
        done = subprocess.run(
            [promtool, *arguments], cwd=RULES.parent, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_names_and_units_are_as_prometheus_wants_them() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("no promtool (it is in Debian's prometheus package)")
    shown = generate_latest(Metrics().registry)
    done = subprocess.run([promtool, "check", "metrics"], input=shown, capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")


def test_a_counter_stands_at_zero_before_its_first_step() -> None:
    shown = generate_latest(Metrics().registry).decode()
    assert 'stratarouter_dead_letters_total{code="unknown_route"} 0.0' in shown
    assert 'stratarouter_intake_paused_total{reason="metadata_full"} 0.0' in shown


def test_series_stay_as_many_over_a_hundred_thousand_ids() -> None:
    metrics = Metrics()
    for number in range(100_000):
        metrics.dead_letters_total.labels(f"code-{number}").inc()
        metrics.responses_total.labels("ok", f"code-{number}").inc()
        metrics.provider_call_seconds.labels(f"provider-{number}").observe(0.1)
        if number == 0:
            before = len(generate_latest(metrics.registry).splitlines())
    assert len(generate_latest(metrics.registry).splitlines()) == before
