"""The commands as an operator types them, from an empty folder to an answer, and Ctrl-C at the end."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import orjson
import pytest

from stratarouter_runtime import contracts
from support.fleet import free_port, write_routes

pytestmark = pytest.mark.stack

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "stratarouter_runtime.cli"]


class Background:
    """A command that runs until it is interrupted."""

    def __init__(self, log: Path, *arguments: str, environment: dict[str, str] | None = None) -> None:
        self.log = log
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                [*COMMAND, *arguments], stdout=out, stderr=out, env={**os.environ, **(environment or {})}
            )

    def wait_for(self, pattern: str, timeout_s: float = 60.0) -> str:
        """The log, once it holds ``pattern``."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            text = self.log.read_text()
            if re.search(pattern, text):
                return text
            assert self.process.poll() is None, text
            time.sleep(0.05)
        raise AssertionError(f"{pattern} not seen in:\n{self.log.read_text()}")

    def interrupt(self) -> int:
        """Ctrl-C, and the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        return self.process.wait(timeout=45)


def _run(*arguments: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
        env={**os.environ, **(environment or {})},
    )


@pytest.fixture
def background() -> Iterator[Callable[..., Background]]:
    """Starts commands, and ends what a failed test leaves running."""
    with contextlib.ExitStack() as cleanup:

        def start(log: Path, *arguments: str, environment: dict[str, str] | None = None) -> Background:
            command = Background(log, *arguments, environment=environment)
            cleanup.callback(command.interrupt)
            return command

        yield start


def test_from_nothing_to_an_answer_and_back(background: Callable[..., Background], tmp_path: Path) -> None:
    up = background(tmp_path / "up.log", "up", "--data-dir", str(tmp_path / "data"))
    printed = re.findall(r"^export (\w+)=(\S+)", up.wait_for("Ctrl-C stops it"), re.MULTILINE)
    environment: dict[str, str] = dict(printed)
    simulator = background(tmp_path / "simulator.log", "simulator", "--port", "0", "--latency-ms", "5")
    found = re.search(r"http://127\.0\.0\.1:\d+/v1", simulator.wait_for(r"/v1"))
    assert found is not None
    environment |= {
        "STRATAROUTER_ROUTES": str(write_routes(tmp_path / "routes.toml", found.group())),
        "STRATAROUTER_CACHE_BACKEND": "memory",
        "PROMETHEUS_PORT": str(free_port()),
    }
    missing = _run("topics", "check", environment=environment)
    assert missing.returncode == 1
    assert "requests" in missing.stdout
    assert _run("topics", "apply", environment=environment).returncode == 0
    checked = _run("topics", "check", environment=environment)
    assert checked.returncode == 0, checked.stdout
    unmigrated = _run("worker", environment=environment)
    assert unmigrated.returncode == 2
    assert "migrate" in unmigrated.stderr
    assert _run("migrate", environment=environment).returncode == 0
    worker = background(tmp_path / "worker.log", "worker", environment=environment)
    worker.wait_for("lane ready")
    answer = _run("request", "Where is invoice 12?", "--route", "support", "--json", environment=environment)
    assert answer.returncode == 0, answer.stderr
    response = orjson.loads(answer.stdout)
    assert "Where is invoice 12?" in response["text"]
    refused = _run("request", "Where to?", "--route", "nowhere", environment=environment)
    assert refused.returncode == 5
    assert "unknown_route" in refused.stderr
    tail = _run("tail", "responses", "--from-beginning", "--limit", "1", environment=environment)
    assert orjson.loads(tail.stdout)["value"]["request_id"] == response["request_id"]
    dead = _run("tail", "dead-letter", "--from-beginning", "--limit", "1", environment=environment)
    assert orjson.loads(dead.stdout)["value"]["code"] == "unknown_route"
    assert worker.interrupt() == 0
    assert simulator.interrupt() == 0
    assert up.interrupt() == 0


def test_a_wrong_setting_stops_the_start_and_names_itself() -> None:
    done = _run("worker", environment={"STRATAROUTER_MAX_RETRIES": "many"})
    assert done.returncode == 2
    assert "max_retries" in done.stderr
    assert "many" in done.stderr


def test_a_broker_that_is_away_is_said_plainly() -> None:
    done = _run("topics", "check", environment={"KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{free_port()}"})
    assert done.returncode == 3
    assert "broker" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_installed_wheel_carries_the_contracts_and_the_demo(tmp_path: Path) -> None:
    built = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    [wheel] = tmp_path.glob("*.whl")
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    code = (
        "import stratarouter_runtime, sys; from stratarouter_runtime import contracts, topics; "
        "from stratarouter_runtime.demo.stream import read_records; "
        "from stratarouter_runtime.journal import queries; queries.load(); "
        "counts = len(topics.load()), len(contracts.schema_names()), len(list(read_records())); "
        "print(stratarouter_runtime.__file__, *counts)"
    )
    environment = {**os.environ, "PYTHONPATH": str(site)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    origin, declared, schemas, records = done.stdout.split()
    assert origin.startswith(str(site))
    assert int(declared) >= 4
    assert int(schemas) == len(contracts.schema_names())
    assert int(records) == 600


def test_the_example_with_cores_own_package_runs() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "core_decisions.py")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split()[:2] for line in lines[1:]] == [["billing", "miss"], ["support", "miss"], ["billing", "exact"]]
