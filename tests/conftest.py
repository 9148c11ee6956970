"""Fixtures: one stack of servers for the whole run, fresh databases and topics for each test."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest
from hypothesis import HealthCheck, settings

from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.embedded import EmbeddedStack, StackAddresses
from stratarouter_runtime.version import modules
from support import containers
from support.containers import Stack
from support.fleet import STARTED


def pytest_addoption(parser: pytest.Parser) -> None:
    """--slow runs everything, --stack chooses the servers."""
    parser.addoption("--slow", action="store_true", help="run the slow tests too")
    parser.addoption(
        "--stack",
        choices=("auto", "containers", "embedded"),
        default="auto",
        help="Kafka, PostgreSQL and Redis in containers or embedded; auto: in containers where an engine answers",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the slow tests to ``make chaos``."""
    if not config.getoption("--slow"):
        kept = [item for item in items if item.get_closest_marker("slow") is None]
        config.hook.pytest_deselected(items=[item for item in items if item.get_closest_marker("slow") is not None])
        items[:] = kept


def pytest_collection_finish() -> None:
    """Leave what was collected out of searches for cycles: four thousand tests stop whichever one runs for 0.5 s."""
    gc.collect()
    gc.freeze()


def pytest_configure(config: pytest.Config) -> None:
    """The tests must not pick up the developer's own settings or keys."""
    for name in list(os.environ):
        if name.startswith("STRATAROUTER_") or name in {"DATABASE_URL", "REDIS_URL", "KAFKA_BOOTSTRAP_SERVERS"}:
            del os.environ[name]
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "OTEL_EXPORTER_OTLP_ENDPOINT"):
        os.environ.pop(name, None)
    # By default an example that takes 0.2 s fails: a search for cycles, or a busy machine.
    settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("untimed")


@pytest.fixture(autouse=True)
def no_worker_left() -> Iterator[None]:
    """A failed test's workers must not go on beside the next test."""
    yield
    while STARTED:
        worker = STARTED.pop()
        if worker.process is not None and worker.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker.process.pid, signal.SIGKILL)


@pytest.fixture(scope="session")
def bench_data() -> Path:
    """Public data sets; tests that need them are skipped where they are missing."""
    folder = Path(os.environ.get("BENCH_DATA", Path(__file__).parents[1] / ".." / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no public data at {folder} (set BENCH_DATA)")
    return folder


def _chosen(config: pytest.Config) -> tuple[bool, str]:
    """Whether the servers run in containers, and why."""
    wanted = config.getoption("--stack")
    version = None if wanted == "embedded" else containers.engine()
    if wanted == "containers" and version is None:
        raise pytest.UsageError("--stack containers: no container engine answers (ops/ci/engine start, DOCKER_HOST)")
    if version is None:
        return False, "embedded" if wanted == "embedded" else "embedded (no container engine answers)"
    return True, f"containers {', '.join(containers.images().values())} (engine {version})"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """What the tests ran on, and as what."""
    terminalreporter.write_line(f"The modules that every request passes: {modules()}")
    terminalreporter.write_line(f"Kafka, PostgreSQL and Redis: {_chosen(config)[1]}")


@pytest.fixture(scope="session")
def stack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A real Kafka, PostgreSQL and Redis for the whole run: the same tests on both kinds."""
    servers: Stack
    if _chosen(request.config)[0]:
        servers = containers.ContainerStack()
    else:
        servers = EmbeddedStack(tmp_path_factory.mktemp("stack"), redis=True)
    try:
        servers.start_sync()
        yield servers
    finally:
        servers.stop_sync()


@pytest.fixture
def addresses(stack: Stack) -> StackAddresses:
    """Where the stack's servers listen."""
    return stack.start_sync()


@pytest.fixture
async def postgres_url(addresses: StackAddresses) -> AsyncIterator[str]:
    """An empty database of the test's own."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    await _administer(addresses, f"CREATE DATABASE {name}")
    base, _, _ = addresses.database_url.partition("?")
    yield f"{base.rsplit('/', 1)[0]}/{name}"
    await _administer(addresses, f"DROP DATABASE {name} WITH (FORCE)")


async def _administer(addresses: StackAddresses, statement: str) -> None:
    """On a connection of its own each time: a test may have killed the server in between."""
    admin = await asyncpg.connect(addresses.database_url)
    try:
        await admin.execute(statement)
    finally:
        await admin.close()


@pytest.fixture
def redis_url(addresses: StackAddresses) -> str:
    """A real Redis, shared by the run: tests use keys of their own."""
    assert addresses.redis_url is not None
    return addresses.redis_url


@pytest.fixture
def config(addresses: StackAddresses, postgres_url: str) -> RuntimeConfig:
    """Settings for the stack, with topics and a group of the test's own."""
    run = uuid.uuid4().hex[:8]
    return RuntimeConfig(
        bootstrap_servers=addresses.bootstrap_servers,
        database_url=postgres_url,
        redis_url=addresses.redis_url,
        cache_backend="memory",
        # Redis is not late because the machine is busy; tests of a late one set what workers have.
        cache_timeout_ms=5000,
        topic_prefix=f"t{run}.",
        group_id=f"g{run}",
        session_timeout_ms=6000,
        heartbeat_ttl_s=3,
        metrics_enabled=False,
    )
