"""Keeps the usage processor running in a process of its own, off the path of requests: whatever becomes of it, no
response waits. It is started again when it ends, and when it stands still behind what it should count.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import time
from dataclasses import dataclass

import orjson

from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.processors import usage_process
from stratarouter_runtime.telemetry.logs import event
from stratarouter_runtime.telemetry.metrics import Metrics

log = logging.getLogger("stratarouter.usage")

STALLED_S = 60.0
"""Behind and without progress for so long, it is ended and started anew: about one join of a group in sixteen was seen
to wedge, for 85 s where nobody looked."""
JOINING_S = 90.0
"""Without partitions of its topic for so long, it is started anew too. A group gives its members 60 s to join."""
SILENT_S = 90.0
"""Without a word for so long; the start of Faust is silent."""
FIRST_BACKOFF_S, MAX_BACKOFF_S = 0.5, 30.0
STEADY_S = 60.0
"""A process that lived so long ended for a new reason: the next wait is the first again."""
STOP_TIMEOUT_S = 15.0
MAX_LINE_BYTES = 64 * 1024
SHOWN_BYTES = 200


@dataclass(slots=True)
class Progress:
    """What the process said last, and when it last got on. Times are monotonic seconds."""

    heard_at: float
    moved_at: float
    counted: int = 0
    lag: int = 0
    alerts: int = 0
    waiting: str | None = None
    joining: str | None = None

    def hear(self, line: bytes, now: float) -> None:
        """Take a line in. Raises ValueError where it is none of ours."""
        found = orjson.loads(line)
        if not _is_progress(found):
            raise ValueError(f"{line[:SHOWN_BYTES]!r} is no progress")
        self.waiting, self.joining = found["waiting"], found["joining"]
        up_to_date = found["lag"] == 0 and self.joining is None
        if found["counted"] != self.counted or up_to_date or self.waiting is not None:
            # What waits for a server that is away is not helped by a new start.
            self.moved_at = now
        self.heard_at = now
        self.counted, self.lag, self.alerts = found["counted"], found["lag"], found["alerts"]

    def problem(self, now: float) -> str | None:
        """Why it must be ended, or None."""
        if now - self.heard_at > SILENT_S:
            return f"no word for {SILENT_S:.0f} s"
        if self.joining is not None:
            return f"{self.joining} for {JOINING_S:.0f} s" if now - self.moved_at > JOINING_S else None
        if now - self.moved_at > STALLED_S and self.lag:
            return f"{self.lag} records behind and no progress for {STALLED_S:.0f} s"
        return None


def _is_progress(found: object) -> bool:
    if not isinstance(found, dict):
        return False
    if not all(isinstance(found.get(name, 0), str | None) for name in ("waiting", "joining")):
        return False
    return all(type(found.get(name)) is int for name in ("counted", "lag", "alerts"))


class UsageSupervisor:
    """One usage process, kept alive until ``stop``."""

    def __init__(self, config: RuntimeConfig, metrics: Metrics) -> None:
        self._config = config
        self._metrics = metrics
        self._process: asyncio.subprocess.Process | None = None
        self._task: asyncio.Task[None] | None = None
        self.progress: Progress | None = None

    @property
    def pid(self) -> int | None:
        """Of the present process."""
        return None if self._process is None else self._process.pid

    def ready(self) -> tuple[bool, str]:
        """Whether it counts, and what it does."""
        if self.progress is None:
            return False, "starting"
        missing = self.progress.waiting or self.progress.joining
        if missing is not None:
            return False, missing
        return True, f"{self.progress.lag} records behind"

    async def start(self) -> None:
        """Begin; does not wait for the process to be ready."""
        self._task = asyncio.create_task(self._keep_running(), name="usage supervisor")

    async def stop(self) -> None:
        """End the process within ``STOP_TIMEOUT_S``. Idempotent."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _keep_running(self) -> None:
        backoff = FIRST_BACKOFF_S
        while True:
            began = time.monotonic()
            try:
                why = await self._run_once()
            except (OSError, ValueError) as exc:
                why = repr(exc)
            self._metrics.usage_restarts_total.inc()
            backoff = FIRST_BACKOFF_S if time.monotonic() - began > STEADY_S else min(MAX_BACKOFF_S, backoff * 2)
            event(log, logging.WARNING, "usage process ended", cause=why, wait_s=backoff)
            await asyncio.sleep(backoff)

    async def _run_once(self) -> str:
        """Start a process and listen to it; why it ended."""
        process = self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", usage_process.MODULE),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=MAX_LINE_BYTES,
        )
        try:
            return await self._listen(process)
        finally:
            self.progress = None
            await _end(process)

    async def _listen(self, process: asyncio.subprocess.Process) -> str:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(usage_process.as_line(self._config))
        await process.stdin.drain()
        now = time.monotonic()
        progress = Progress(now, now)
        while True:
            try:
                async with asyncio.timeout(SILENT_S):
                    line = await process.stdout.readline()
            except TimeoutError:
                return f"no word for {SILENT_S:.0f} s"
            if not line:
                return "it ended by itself"
            alerts = progress.alerts
            progress.hear(line, time.monotonic())
            self.progress = progress
            self._metrics.budget_alerts_total.inc(progress.alerts - alerts)
            if progress.joining is None:
                self._metrics.lag_records.labels("usage").set(progress.lag)
            problem = progress.problem(time.monotonic())
            if problem is not None:
                process.kill()
                return problem


async def _end(process: asyncio.subprocess.Process) -> None:
    """Close its input, which tells it to stop; kill it where it does not."""
    if process.stdin is not None:
        process.stdin.close()
    try:
        async with asyncio.timeout(STOP_TIMEOUT_S):
            await process.wait()
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
