"""Memory: a worker that the kernel kills for want of it loses nothing, and one that works on does not grow."""

from __future__ import annotations

import asyncio
import faulthandler
import os
import signal
import statistics
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from faults.conftest import Bench
from support.fleet import Watch, WorkerProcess, ambiguous_calls, produce, request

pytestmark = pytest.mark.stack

CGROUPS = Path("/sys/fs/cgroup")
LIMIT_BYTES = 4 * 1024 * 1024
"""What a worker may take from the moment that it is limited; the load below makes it want several times as much."""
QUERY_BYTES = 20_000
WAIT_S = 60.0


class MemoryGroup:
    """A control group of the kernel's below our own, of the first or the second version, with a limit on memory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        first = (folder / "memory.limit_in_bytes").exists()
        limit, self._events = ("limit_in_bytes", "oom_control") if first else ("max", "events")
        (folder / f"memory.{limit}").write_text(str(LIMIT_BYTES))
        swap = folder / ("memory.memsw.limit_in_bytes" if first else "memory.swap.max")
        if swap.exists():
            swap.write_text(str(LIMIT_BYTES if first else 0))

    def take(self, pid: int) -> None:
        """Charge what ``pid`` takes from now on to this group."""
        (self.folder / "cgroup.procs").write_text(str(pid))

    @property
    def kills(self) -> int:
        """Processes of this group that the kernel has killed for want of memory."""
        lines = (self.folder / f"memory.{self._events}").read_text().splitlines()
        return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))


def _own_group() -> Path:
    """The folder of the control group that this process stands in and that governs memory; skips where none does."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, name = line.split(":", 2)
        if "memory" in controllers.split(","):
            return CGROUPS / "memory" / name.lstrip("/")
        if controllers == "" and (CGROUPS / "cgroup.controllers").exists():
            folder = CGROUPS / name.lstrip("/")
            if "memory" not in (folder / "cgroup.subtree_control").read_text().split():
                pytest.skip("this process's control group passes no limit on memory to groups below it")
            return folder
    pytest.skip("the kernel has no control groups for memory here")


@pytest.fixture
def memory_group() -> Iterator[MemoryGroup]:
    """A group of the test's own; skips where none can be made."""
    if os.geteuid() != 0:
        pytest.skip("making a control group needs root")
    folder = _own_group() / f"stratarouter-test-{uuid.uuid4().hex[:12]}"
    try:
        folder.mkdir()
    except OSError as exc:
        pytest.skip(f"no control group can be made here: {exc.strerror}")
    try:
        yield MemoryGroup(folder)
    finally:
        _remove(folder)


def _remove(folder: Path) -> None:
    """A group whose last process has just ended is busy for a moment yet."""
    for pid in (folder / "cgroup.procs").read_text().split():
        os.kill(int(pid), signal.SIGKILL)
    deadline = time.monotonic() + WAIT_S
    while True:
        try:
            return folder.rmdir()
        except OSError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.05)


def _resident_bytes(worker: WorkerProcess) -> int:
    assert worker.process is not None
    status = Path(f"/proc/{worker.process.pid}/status").read_text()
    [line] = [line for line in status.splitlines() if line.startswith("VmRSS:")]
    return int(line.split()[1]) * 1024


@pytest.mark.row(37)
async def test_a_worker_that_the_kernel_kills_for_want_of_memory_loses_and_repeats_nothing(
    bench: Bench, memory_group: MemoryGroup
) -> None:
    requests = 1000
    values = [
        request(f"r{n}", f"question {n}: {'word ' * (QUERY_BYTES // 5)}", tenant=f"t{n}") for n in range(requests)
    ]
    starved = await bench.worker()
    assert starved.process is not None
    async with Watch(bench.config) as watch:
        producing = asyncio.create_task(produce(bench.config, values, rate_per_s=150))
        await watch.until(50, timeout_s=WAIT_S)
        memory_group.take(starved.process.pid)
        assert await asyncio.wait_for(starved.process.wait(), WAIT_S) == -signal.SIGKILL
        assert memory_group.kills == 1
        assert len((await watch.settle(0)).responses) < requests
        await bench.worker()
        await producing
        await watch.until(requests, timeout_s=WAIT_S)
        await watch.settle(2)
    bench.check(watch, requests)
    assert requests <= len(bench.simulator.paid_calls) <= requests + await ambiguous_calls(bench.config)


MAX_GROWTH = 0.10
SOAK_RATE_PER_S = 60
QUESTIONS = 500
"""Different ones in a soak: what the cache keeps is complete long before the half of it."""


def _soak(count: int) -> list[bytes | None]:
    """Hits and calls in turn: every other request is answered from the cache once that knows all questions."""
    values: list[bytes | None] = []
    for n in range(count):
        cache = {"mode": ("bypass", "default")[n % 2]}
        values.append(request(f"r{n}", f"question {n % QUESTIONS}", tenant=f"t{n % 7}", cache=cache))
    return values


@pytest.mark.slow
@pytest.mark.row(37)
async def test_a_workers_memory_is_flat_under_steady_load(bench: Bench) -> None:
    # As long as SOAK_SECONDS says, which may be longer than the run's bound for a test that hangs.
    faulthandler.cancel_dump_traceback_later()
    seconds = float(os.environ.get("SOAK_SECONDS", "60"))
    requests = int(seconds * SOAK_RATE_PER_S)
    worker = await bench.worker()
    sizes = []
    async with Watch(bench.config) as watch:
        producing = asyncio.create_task(produce(bench.config, _soak(requests), rate_per_s=SOAK_RATE_PER_S))
        while not producing.done():
            await watch.settle(0.5)
            sizes.append(_resident_bytes(worker))
        await producing
        await watch.until(requests, timeout_s=WAIT_S)
        await watch.settle(1)
    bench.check(watch, requests)
    half = sizes[len(sizes) // 2 :]
    few = max(1, len(half) // 10)
    before, after = statistics.median(half[:few]), statistics.median(half[-few:])
    assert after < before * (1 + MAX_GROWTH), f"from {before:.0f} to {after:.0f} bytes in the last half"
    # Every request that had to be paid for was paid for once.
    assert bench.simulator.log.paid >= requests // 2
    assert set(bench.simulator.paid_by_request_id.values()) == {1}
