"""The worker's image: no root, a read-only file system, no capability; it answers a thousand requests and drains."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import orjson
import pytest

from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.testing.simulator import Simulator, SimulatorSettings
from support import engine
from support.fleet import Watch, free_port, produce, request, write_routes

REQUESTS = 1000
HARDENED = ("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--network", "host")


DOCKER = engine.client()

pytestmark = [
    pytest.mark.stack,
    pytest.mark.skipif(
        not engine.has(engine.IMAGE), reason="no engine with the image (ops/ci/engine start, and its DOCKER_HOST)"
    ),
]


async def _run(*arguments: str) -> tuple[int, str]:
    """One docker command: its exit code and all it said."""
    assert DOCKER is not None
    code, out, err = await engine.run(DOCKER, *arguments)
    return code, out + err


def _environment(config: RuntimeConfig, **more: str) -> list[str]:
    values = {
        "KAFKA_BOOTSTRAP_SERVERS": config.bootstrap_servers,
        "DATABASE_URL": config.database_url,
        "STRATAROUTER_TOPIC_PREFIX": config.topic_prefix,
        "STRATAROUTER_GROUP_ID": config.group_id,
        "STRATAROUTER_CACHE_BACKEND": "memory",
        **more,
    }
    return [part for name, value in values.items() for part in ("--env", f"{name}={value}")]


async def _once(config: RuntimeConfig, *command: str) -> tuple[int, str]:
    return await _run("run", "--rm", *HARDENED, *_environment(config), engine.IMAGE, *command)


@asynccontextmanager
async def _worker(config: RuntimeConfig, routes: Path) -> AsyncIterator[str]:
    """A running worker's container; gone at the end, whatever happens."""
    name = f"worker-{uuid.uuid4().hex[:8]}"
    environment = _environment(
        config, PROMETHEUS_PORT=str(free_port()), STRATAROUTER_ROUTES="/routes.toml", STRATAROUTER_HTTP_HOST="127.0.0.1"
    )
    mount = ("--volume", f"{routes}:/routes.toml:ro")
    code, said = await _run("run", "--detach", "--name", name, *HARDENED, *mount, *environment, engine.IMAGE)
    assert code == 0, said
    try:
        yield name
    finally:
        await _run("rm", "--force", name)


async def test_the_image_holds_nothing_it_does_not_need(config: RuntimeConfig) -> None:
    code, said = await _once(config, "--version")
    assert (code, said.strip()) == (0, "0.1.0")
    python = ("run", "--rm", *HARDENED, "--entrypoint", "python", engine.IMAGE, "-c")
    code, said = await _run(*python, "import os; print(os.getuid(), os.getgid() != 0)")
    assert (code, said.split()) == (0, ["10001", "True"])
    code, said = await _run(*python, "open('/opt/venv/x', 'w')")
    assert code != 0
    assert "Read-only file system" in said
    # What tests alone need is not in it, nor what could install more.
    for absent in ("pytest", "pip"):
        code, _ = await _run(*python, f"import {absent}")
        assert code != 0, absent
    code, said = await _run(*python, "print(open('/opt/venv/share/sbom/runtime.cdx.json').read())")
    listed = {part["name"] for part in orjson.loads(said)["components"]}
    assert {"aiokafka", "asyncpg", "redis"} <= listed


async def test_a_thousand_requests_are_answered_once_by_the_image(config: RuntimeConfig, tmp_path: Path) -> None:
    for command in (("topics", "apply"), ("migrate",)):
        code, said = await _once(config, *command)
        assert code == 0, said
    async with Simulator(SimulatorSettings(latency_ms=50)) as simulator, Watch(config) as watch:
        routes = write_routes(tmp_path / "routes.toml", simulator.base_url)
        routes.chmod(0o644)
        for folder in (tmp_path, *list(tmp_path.parents)[:2]):
            folder.chmod(0o755)  # the container's user has to reach the file
        async with _worker(config, routes) as name:
            await produce(config, [request(f"r{n}", f"what is {n}") for n in range(REQUESTS)])
            seen = await watch.until(REQUESTS, 180)
            _, log = await _run("logs", name)
            assert len(seen.by_id) == REQUESTS, log[-3000:]
            assert set(seen.by_id.values()) == {1}
            assert len(simulator.paid_calls) == REQUESTS
            code, said = await _run("stop", "--time", "80", name)
            assert code == 0, said
            code, said = await _run("inspect", "--format", "{{.State.ExitCode}}", name)
            assert said.strip() == "0", log[-3000:]
