"""The dashboard is as Grafana's documentation describes one, and hangs together with what is provisioned beside it."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from stratarouter_runtime.telemetry import tracing

GRAFANA = Path(__file__).parents[2] / "ops" / "grafana"
DASHBOARDS = sorted((GRAFANA / "dashboards").glob("*.json"))
UNITS = {"reqps", "ops", "percentunit", "s", "currencyUSD", "short", "none"}
"""Of Grafana's, by their identifiers; others may be added as they are needed."""
COLUMNS = 24


def _dashboards() -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in DASHBOARDS]


def _sources() -> dict[str, dict[str, Any]]:
    page = yaml.safe_load((GRAFANA / "provisioning" / "datasources" / "stratarouter.yml").read_text())
    return {source["uid"]: source for source in page["datasources"]}


def _overlap(one: dict[str, int], other: dict[str, int]) -> bool:
    return all(one[at] < other[at] + other[length] and other[at] < one[at] + one[length] for at, length in ("xw", "yh"))


@pytest.mark.parametrize("dashboard", _dashboards(), ids=[path.stem for path in DASHBOARDS])
def test_a_dashboard_is_whole(dashboard: dict[str, Any]) -> None:
    assert 8 <= len(dashboard["uid"]) <= 40
    assert dashboard["title"]
    assert isinstance(dashboard["schemaVersion"], int)
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len({panel["title"] for panel in panels}) == len(panels)
    for panel in panels:
        place = panel["gridPos"]
        assert 0 <= place["x"] <= place["x"] + place["w"] <= COLUMNS, panel["title"]
    for one, other in combinations(panels, 2):
        assert not _overlap(one["gridPos"], other["gridPos"]), (one["title"], other["title"])


@pytest.mark.parametrize("dashboard", _dashboards(), ids=[path.stem for path in DASHBOARDS])
def test_a_panel_says_what_it_asks_whom_and_in_which_unit(dashboard: dict[str, Any]) -> None:
    for panel in dashboard["panels"]:
        if panel["type"] == "row":
            continue
        assert panel["type"] == "timeseries", panel["title"]
        assert panel["datasource"]["uid"] in _sources(), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS, panel["title"]
        references = [target["refId"] for target in panel["targets"]]
        assert references == sorted(set(references)), panel["title"]
        for target in panel["targets"]:
            assert target["legendFormat"], panel["title"]
            # A quantile is in the unit of its metric.
            assert ("_seconds" in target["expr"]) == (panel["fieldConfig"]["defaults"]["unit"] == "s"), panel["title"]


def test_an_exemplar_leads_to_the_trace_store() -> None:
    sources = _sources()
    [destination] = sources["prometheus"]["jsonData"]["exemplarTraceIdDestinations"]
    assert sources[destination["datasourceUid"]]["type"] == "jaeger"
    labels = tracing.exemplar(f"00-{'ab' * 16}-{'cd' * 8}-01")
    assert labels is not None
    assert destination["name"] in labels
    asked = [target for page in _dashboards() for panel in page["panels"] for target in panel.get("targets", ())]
    assert any(target.get("exemplar") for target in asked)
