"""Counts and times a journal's round trips, and knows whether they succeed."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Iterable, Sequence
from typing import TypeVar

from stratarouter_runtime.errors import JournalUnavailableError
from stratarouter_runtime.journal.held import Releases
from stratarouter_runtime.port_values import Begin, Begun, BudgetWindow, Checkpoint, Finish, JournalKey, Recorded, Spent
from stratarouter_runtime.ports import Journal
from stratarouter_runtime.telemetry.metrics import Metrics

T = TypeVar("T")

FAILING_S = 30.0
"""For so long a failure counts where the same operation has not been tried again; a begin or finish that fails is."""


class MeteredJournal:
    """A ``Journal`` around another; adds nothing but metrics."""

    def __init__(self, journal: Journal, metrics: Metrics) -> None:
        self._journal = journal
        self._metrics = metrics
        self._failed: dict[str, tuple[float, str]] = {}

    @property
    def problem(self) -> str | None:
        """What failed last, until it succeeds; None while all goes well. Heartbeats try it every second or so."""
        now = time.monotonic()
        return next((why for at, why in self._failed.values() if now - at < FAILING_S), None)

    async def start(self) -> None:
        """Start the journal within."""
        await self._journal.start()

    async def stop(self) -> None:
        """Stop it."""
        await self._journal.stop()

    async def begin(self, items: Sequence[Begin]) -> list[Begun]:
        """Counted as ``begin``."""
        return await self._measured("begin", len(items), self._journal.begin(items))

    async def finish(self, items: Sequence[Finish]) -> list[Recorded]:
        """Counted as ``finish``."""
        return await self._measured("finish", len(items), self._journal.finish(items))

    async def record_new(self, items: Sequence[tuple[Begin, Finish]]) -> None:
        """Counted as ``finish``."""
        await self._measured("finish", len(items), self._journal.record_new(items))

    async def lookup(self, keys: Sequence[JournalKey]) -> list[Recorded | None]:
        """Counted as ``lookup``."""
        return await self._measured("lookup", len(keys), self._journal.lookup(keys))

    async def abandoned(self, keys: Sequence[JournalKey]) -> list[bool]:
        """Counted as ``lookup``."""
        return await self._measured("lookup", len(keys), self._journal.abandoned(keys))

    async def spoken_for(self, keys: Sequence[JournalKey]) -> list[bool]:
        """Counted as ``lookup``."""
        return await self._measured("lookup", len(keys), self._journal.spoken_for(keys))

    async def spent(self, windows: Sequence[BudgetWindow]) -> list[Spent]:
        """Counted as ``spent``."""
        return await self._measured("spent", len(windows), self._journal.spent(windows))

    async def heartbeat(self) -> None:
        """Counted as ``heartbeat``."""
        await self._measured("heartbeat", 1, self._journal.heartbeat())

    async def save_checkpoints(self, items: Sequence[Checkpoint]) -> None:
        """Counted as ``save_checkpoints``."""
        await self._measured("save_checkpoints", len(items), self._journal.save_checkpoints(items))

    async def load_checkpoint(self, group: str, topic: str, partition: int) -> Checkpoint | None:
        """Counted as ``load_checkpoint``."""
        return await self._measured("load_checkpoint", 1, self._journal.load_checkpoint(group, topic, partition))

    async def drop_checkpoint(self, group: str, topic: str, partition: int) -> None:
        """Counted as ``drop_checkpoint``."""
        await self._measured("drop_checkpoint", 1, self._journal.drop_checkpoint(group, topic, partition))

    async def purge(self, older_than_s: float) -> int:
        """Counted as ``purge``."""
        return await self._measured("purge", 1, self._journal.purge(older_than_s))

    def release(self, keys: Iterable[JournalKey]) -> None:
        """Give back grants that nobody will use; no round trip."""
        if isinstance(self._journal, Releases):
            self._journal.release(keys)

    async def _measured(self, op: str, rows: int, work: Awaitable[T]) -> T:
        began = time.perf_counter()
        try:
            result = await work
        except JournalUnavailableError as exc:
            self._failed[op] = (time.monotonic(), exc.message)
            self._metrics.journal_failures_total.labels(op).inc()
            raise
        else:
            self._failed.pop(op, None)
            return result
        finally:
            self._metrics.journal_seconds.labels(op).observe(time.perf_counter() - began)
            self._metrics.journal_rows_total.labels(op).inc(rows)
