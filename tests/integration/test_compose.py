"""docker-compose.yml as a user starts it: everything comes up healthy, a thousand requests get a thousand responses."""

from __future__ import annotations

import asyncio
import sys
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
import yaml

from support import engine
from support.fleet import free_port

FILE = Path(__file__).parents[2] / "docker-compose.yml"
SERVICES: dict[str, Any] = yaml.safe_load(FILE.read_text())["services"]
VENDORS_ALONE = {"grafana", "otel-collector", "jaeger"}
"""Their programs come from registries only: where their images are missing, the rest is started without them."""

HEALTHY_WITHIN_S = 180.0
REQUESTS = 1000
PORTS = (
    *("KAFKA_PORT", "POSTGRES_PORT", "REDIS_PORT", "CONSOLE_PORT"),
    *("PROMETHEUS_HOST_PORT", "GRAFANA_PORT", "JAEGER_PORT"),
)

COMPOSE = engine.compose()
OURS = "${RUNTIME_IMAGE:-stratarouter-runtime}"
IMAGES = {name: service["image"].replace(OURS, engine.IMAGE) for name, service in SERVICES.items()}
MISSING = {name for name, image in IMAGES.items() if not engine.has(image)}

needs_engine = pytest.mark.skipif(
    COMPOSE is None or bool(MISSING - VENDORS_ALONE),
    reason="no engine with compose and the images (ops/ci/engine start, and its DOCKER_HOST)",
)


@dataclass
class Project:
    """One project of its own, with ports of its own."""

    name: str = field(default_factory=lambda: f"strata{uuid.uuid4().hex[:8]}")
    ports: dict[str, str] = field(default_factory=lambda: {name: str(free_port()) for name in PORTS})

    async def __call__(self, *words: str, timeout_s: float = 120.0) -> str:
        """A compose command's output; it must succeed."""
        assert COMPOSE is not None
        environment = dict(self.ports)
        if "otel-collector" in MISSING:
            environment["TRACES_ENDPOINT"] = ""
        code, out, err = await engine.run(*COMPOSE, "-p", self.name, *words, timeout_s=timeout_s, **environment)
        assert code == 0, f"{words}: {out[-2000:]}\n{err[-4000:]}"
        return out

    async def state(self, service: str) -> dict[str, Any]:
        """What the engine says of the service's one container."""
        docker = engine.client()
        assert docker is not None
        _, out, err = await engine.run(docker, "inspect", (await self("ps", "-q", service)).strip())
        found: list[dict[str, Any]] = orjson.loads(out or "[]")
        assert found, err
        state: dict[str, Any] = found[0]["State"]
        return state

    async def healthy(self, service: str) -> None:
        """Until the service's own health check says so."""
        deadline = time.monotonic() + HEALTHY_WITHIN_S
        while (state := await self.state(service))["Health"]["Status"] != "healthy":
            if time.monotonic() > deadline:
                pytest.fail(f"{service}: {state}\n{(await self('logs', '--tail', '40', service))[-4000:]}")
            await asyncio.sleep(0.5)


@asynccontextmanager
async def _up() -> AsyncIterator[Project]:
    project = Project()
    wanted = [name for name, service in SERVICES.items() if not service.get("profiles") and name not in MISSING]
    try:
        await project("up", "-d", *wanted, timeout_s=300.0)
        yield project
    finally:
        await project("down", "--volumes", "--timeout", "5")


def _panels() -> list[tuple[str, str]]:
    """Every query of the dashboard, by its panel's title."""
    dashboard = orjson.loads((FILE.parent / "ops" / "grafana" / "dashboards" / "overview.json").read_bytes())
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    return [(panel["title"], target["expr"]) for panel in panels for target in panel["targets"]]


WITHOUT_HEALTH_CHECK = {"otel-collector", "jaeger"}
"""Whose images may hold nothing that could ask."""
NOTHING_TO_SHOW = {"Similarity of the nearest entry", "Waits under a rate limit, p99"}
"""Without an embedder, and without a limit in the route table."""


def _loopback_only(port: str) -> bool:
    return port.startswith("127.0.0.1:")


def test_images_are_pinned_ports_are_local_and_what_lasts_has_a_volume() -> None:
    ours = {name for name, service in SERVICES.items() if service["image"] == OURS}
    assert ours == {"topics", "migrate", "enrich", "execute", "usage", "simulator", "smoke"}
    for name, service in SERVICES.items():
        version = service["image"].partition(":")[2]
        assert name in ours or any(digit.isdigit() for digit in version), name
        assert all(_loopback_only(port) for port in service.get("ports", ())), name
        if name in ours:
            assert service["read_only"], name
            assert service["cap_drop"] == ["ALL"], name
        runs_on = service.get("restart") != "no"
        assert runs_on == ("disable" not in service.get("healthcheck", {})), name
        assert not runs_on or "healthcheck" in service or name in WITHOUT_HEALTH_CHECK, name
    volumes = yaml.safe_load(FILE.read_text())["volumes"]
    used = {volume.partition(":")[0] for service in SERVICES.values() for volume in service.get("volumes", ())}
    assert set(volumes) == {name for name in used if not name.startswith((".", "$"))}
    assert set(volumes) == {f"{name}-data" for name in ("kafka", "postgres", "redis", "prometheus", "grafana")}


@pytest.mark.stack
@needs_engine
async def test_a_thousand_requests_get_a_thousand_responses() -> None:
    async with _up() as project:
        await asyncio.gather(*(project.healthy(name) for name in ("enrich", "execute", "usage", "prometheus")))
        for once in ("topics", "migrate"):
            assert (await project.state(once))["ExitCode"] == 0
        command = ("run", "--rm", "-T", "smoke", "smoke", "--requests", str(REQUESTS), "--json")
        report = orjson.loads(await project(*command, timeout_s=240.0))
        assert report["responses"] == REQUESTS, report
        assert (report["lost"], report["duplicates"], report["errors"], report["dead_letters"]) == (0, 0, {}, {})
        # Paid for are the requests that no entry and no leader answered, each once.
        free = sum(report["hits"].values()) + report["coalesced"]
        ask = "import urllib.request; print(urllib.request.urlopen('http://127.0.0.1:8080/sim/calls').read().decode())"
        paid = orjson.loads(await project("exec", "-T", "simulator", "python", "-c", ask))["paid_calls"]
        assert paid == REQUESTS - free
        await _seen_by_prometheus(project, report)
        async with httpx.AsyncClient(timeout=10.0) as client:
            page = await client.get(f"http://127.0.0.1:{project.ports['CONSOLE_PORT']}/")
        assert page.status_code == httpx.codes.OK


async def _seen_by_prometheus(project: Project, report: dict[str, Any]) -> None:
    """Every worker is scraped, the rules are loaded, and its sums are the responses'."""
    base = f"http://127.0.0.1:{project.ports['PROMETHEUS_HOST_PORT']}/api/v1"
    query = {"query": "sum(stratarouter_responses_total)"}
    deadline = time.monotonic() + 60.0
    async with httpx.AsyncClient(timeout=10.0) as client:
        while True:
            targets = (await client.get(f"{base}/targets")).json()["data"]["activeTargets"]
            found = (await client.get(f"{base}/query", params=query)).json()["data"]["result"]
            if found and float(found[0]["value"][1]) == report["responses"]:
                break
            assert time.monotonic() < deadline, (targets, found)
            await asyncio.sleep(1.0)
        groups = (await client.get(f"{base}/rules")).json()["data"]["groups"]
        # A rate needs two scrapes of its series.
        empty = {title for title, _ in _panels()} - NOTHING_TO_SHOW
        while empty and time.monotonic() < deadline:
            await asyncio.sleep(1.0)
            empty -= {
                title for title, query_of in _panels() if title in empty and await _answered(client, base, query_of)
            }
        assert not empty, "panels of the dashboard without a single series"
        await _rendered(base.removesuffix("/api/v1"))
        targets = (await client.get(f"{base}/targets")).json()["data"]["activeTargets"]
    assert len(targets) == 3
    assert {target["health"] for target in targets} == {"up"}
    assert sum(len(group["rules"]) for group in groups) >= 16


async def _rendered(prometheus: str) -> None:
    """The dashboard is drawn, for somebody to look at: build/dashboard.png."""
    picture = FILE.parent / "build" / "dashboard.png"
    picture.parent.mkdir(exist_ok=True)
    picture.unlink(missing_ok=True)
    script = FILE.parent / "ops" / "grafana" / "render.py"
    code, out, err = await engine.run(sys.executable, str(script), prometheus, str(picture), "--minutes", "2")
    assert code == 0, err
    assert len(out.splitlines()) == len({title for title, _ in _panels()})
    assert picture.stat().st_size > 0


async def _answered(client: httpx.AsyncClient, base: str, query: str) -> bool:
    """Whether Prometheus has something to show; the query must be one that it understands. What shows only what
    happened (``> 0``) is asked whether it would.
    """
    reply = (await client.get(f"{base}/query", params={"query": query.removesuffix(" > 0")})).json()
    assert reply["status"] == "success", (query, reply)
    return bool(reply["data"]["result"])
