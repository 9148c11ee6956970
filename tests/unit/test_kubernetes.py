"""The manifests hold together, name only settings that exist, and ask for no more than a worker needs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from stratarouter_runtime import topics
from stratarouter_runtime.config import RuntimeConfig, environment_name
from stratarouter_runtime.routes import RouteTable

FOLDER = Path(__file__).parents[2] / "ops" / "kubernetes"
KEYS_OF_PROVIDERS = {"OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY"}
DEFAULTS = RuntimeConfig()

Manifest = dict[str, Any]


def _all() -> list[Manifest]:
    names = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())["resources"]
    return [one for name in names for one in yaml.safe_load_all((FOLDER / name).read_text()) if one]


def _of(kind: str) -> dict[str, Manifest]:
    return {one["metadata"]["name"]: one for one in _all() if one["kind"] == kind}


def _pods() -> Iterator[tuple[str, Manifest]]:
    for one in _all():
        if one["kind"] in {"StatefulSet", "Deployment", "Job"}:
            yield one["metadata"]["name"], one["spec"]["template"]


def _containers() -> Iterator[tuple[str, Manifest]]:
    for name, pod in _pods():
        for container in (*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"]):
            yield name, container


def test_every_file_is_in_the_kustomization() -> None:
    listed = set(yaml.safe_load((FOLDER / "kustomization.yaml").read_text())["resources"])
    assert listed == {path.name for path in FOLDER.glob("*.yaml")} - {"kustomization.yaml"}


def test_only_settings_that_exist_are_named() -> None:
    known = {environment_name(field) for field in RuntimeConfig.model_fields} | KEYS_OF_PROVIDERS
    named = set(_of("ConfigMap")["stratarouter-settings"]["data"])
    for _, container in _containers():
        named |= {variable["name"] for variable in container.get("env", ())}
    assert named <= known, named - known


def test_the_settings_and_the_routes_are_ones_that_a_worker_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in _of("ConfigMap")["stratarouter-settings"]["data"].items():
        if not name.endswith("CAFILE"):
            monkeypatch.setenv(name, value)
    monkeypatch.setenv("STRATAROUTER_SASL_PASSWORD", "one")
    assert RuntimeConfig(routes_file=FOLDER / "routes.toml").security_protocol == "SASL_SSL"
    assert RouteTable.load(FOLDER / "routes.toml").fallback is not None


def test_each_processor_runs_and_stops_with_time_to_drain() -> None:
    ran = {tuple(container["args"]) for _, container in _containers()}
    processors = {args[2] for args in ran if args[0] == "worker"}
    assert processors == {"enrich", "execute", "usage"}
    assert {("topics", "apply"), ("migrate",)} <= ran
    for name, pod in _pods():
        if name != "prepare":
            assert pod["spec"]["terminationGracePeriodSeconds"] >= DEFAULTS.drain_s + 40


def test_selectors_find_their_pods() -> None:
    labels = {name: pod["metadata"]["labels"] for name, pod in _pods()}
    for name, one in {**_of("StatefulSet"), **_of("Deployment"), **_of("PodDisruptionBudget")}.items():
        assert one["spec"]["selector"]["matchLabels"].items() <= labels[name].items()
    for name, service in _of("Service").items():
        assert service["spec"]["selector"].items() <= labels[name].items()
    assert set(_of("PodDisruptionBudget")) == set(_of("StatefulSet")) == set(_of("ScaledObject"))


def test_scaling_follows_the_lag_of_the_groups_and_stops_at_the_partitions() -> None:
    declared = {topic.full_name(DEFAULTS): topic for topic in topics.load()}
    for name, scaled in _of("ScaledObject").items():
        [trigger] = scaled["spec"]["triggers"]
        assert trigger["metadata"]["consumerGroup"] == f"{DEFAULTS.group_id}-{name}"
        topic = declared[trigger["metadata"]["topic"]]
        assert name in topic.read_by
        assert scaled["spec"]["maxReplicaCount"] <= topic.partitions
        assert scaled["spec"]["minReplicaCount"] >= 2


def test_workers_keep_their_names_and_no_container_may_more_than_it_needs() -> None:
    for name in _of("StatefulSet"):
        [container] = [found for owner, found in _containers() if owner == name]
        assert {
            "name": "STRATAROUTER_GROUP_INSTANCE_ID",
            "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}},
        } in (container["env"])
    for name, container in _containers():
        allowed = container["securityContext"]
        assert allowed["readOnlyRootFilesystem"], name
        assert not allowed["allowPrivilegeEscalation"], name
        assert allowed["capabilities"] == {"drop": ["ALL"]}, name
        assert container["resources"]["limits"]["memory"], name
    for name, pod in _pods():
        assert pod["spec"]["securityContext"]["runAsNonRoot"], name
        assert pod["spec"]["automountServiceAccountToken"] is False, name


def test_no_worker_has_the_secret_of_the_job_that_makes_topics_and_tables() -> None:
    for name, container in _containers():
        secrets = [source["secretRef"]["name"] for source in container["envFrom"] if "secretRef" in source]
        assert secrets == ["stratarouter-prepare-secrets" if name == "prepare" else "stratarouter-secrets"], name
        # What stands in a secret overrides the settings: the later source wins.
        assert "secretRef" in container["envFrom"][-1], name
        assert f"create secret generic {secrets[0]} " in (FOLDER / "settings.yaml").read_text()


def test_probes_ask_what_the_worker_serves() -> None:
    for name, container in _containers():
        if container["args"][0] == "worker":
            assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "http"}, name
            assert container["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": "http"}, name
            assert container["ports"] == [{"name": "http", "containerPort": 9090}], name
