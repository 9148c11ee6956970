"""Executions that this process wrote and will perhaps read: by their bytes, so that they need not be decoded.

The same bytes are the same execution, wherever they come from. With one worker all of them come back, with several as
many as it has partitions; the rest is forgotten.
"""

from __future__ import annotations

from collections import OrderedDict

from stratarouter_runtime import validation as check
from stratarouter_runtime.processors.kafka_client import Record
from stratarouter_runtime.records import Execution

MAX_KEPT = 8_192
"""More than a worker has under way by default (``max_in_flight``), so that what comes back is still here."""
MAX_BYTES = 32 * 1024 * 1024
"""Of their records; decoded they take about as much again."""
LARGE_BYTES = 65_536
"""A larger one is not kept: it would drive out many, and costs more than its decoding elsewhere."""


class OwnExecutions:
    """The last executions written, the oldest of which goes first."""

    def __init__(self) -> None:
        self._kept: OrderedDict[bytes, Execution] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._kept)

    def keep(self, value: bytes, execution: Execution) -> None:
        """``execution`` is written as ``value``."""
        if len(value) > LARGE_BYTES or value in self._kept:
            return
        self._kept[value] = execution
        self._bytes += len(value)
        while len(self._kept) > MAX_KEPT or self._bytes > MAX_BYTES:
            oldest, _ = self._kept.popitem(last=False)
            self._bytes -= len(oldest)

    def take(self, record: Record) -> Execution | None:
        """The execution that ``record`` holds, if this process wrote it and has not taken it yet."""
        value = record.value
        execution = None if value is None else self._kept.pop(value, None)
        if value is None or execution is None:
            return None
        self._bytes -= len(value)
        # The one thing that stands beside the value.
        return execution if execution.request.traceparent == check.traceparent(record.headers) else None
