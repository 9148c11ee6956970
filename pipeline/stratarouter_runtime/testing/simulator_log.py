"""What the simulated provider remembers of its calls: counts of all, the latest in memory, the paid ones in a file."""

from __future__ import annotations

import os
from collections import Counter, deque
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from stratarouter_runtime.json_bytes import json_bytes

KEPT_CALLS = 200_000
"""Calls kept in memory, about 100 MB at the most; counts and the file go on beyond it."""


class CallRecord(NamedTuple):
    """One call as the provider saw it. A tuple of plain values, as the collector of cycles leaves those out: it would
    stop the server the longer the more of them are kept.

    ``time_ms`` is in epoch milliseconds; ``effect`` is ``ok``, ``refused`` or a fault's effect; ``client_gone`` says
    that nobody was left to read the reply.
    """

    number: int
    time_ms: int
    model: str
    path: str
    request_id: str | None
    messages_sha256: str
    status: int
    paid: bool
    effect: str = "ok"
    input_tokens: int = 0
    output_tokens: int = 0
    client_gone: bool = False


class CallLog:
    """Counts every call; appends each paid one to ``path`` as a JSON line, by one write before its reply is sent."""

    def __init__(self, path: Path | None, kept: int = KEPT_CALLS) -> None:
        self._path = path
        self._file: int | None = None
        self.calls: deque[CallRecord] = deque(maxlen=kept)
        self.total = 0
        self.paid = 0
        self.by_status: Counter[int] = Counter()
        self.paid_by_model: Counter[str] = Counter()
        self.input_tokens = 0
        self.output_tokens = 0

    def open(self) -> None:
        """Open the file for appending."""
        if self._path is not None and self._file is None:
            self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def close(self) -> None:
        """Close the file. Idempotent."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def add(self, call: CallRecord) -> None:
        """Remember ``call``."""
        self.total += 1
        self.calls.append(call)
        self.by_status[call.status] += 1
        if call.paid:
            self.paid += 1
            self.paid_by_model[call.model] += 1
            self.input_tokens += call.input_tokens
            self.output_tokens += call.output_tokens
            if self._file is not None:
                os.write(self._file, _line(call))

    def summary(self) -> dict[str, Any]:
        """The counts as JSON."""
        return {
            "calls": self.total,
            "paid_calls": self.paid,
            "by_status": {str(status): count for status, count in self.by_status.items()},
            "paid_by_model": dict(self.paid_by_model),
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
        }

    def lines(self) -> bytes:
        """The kept calls, paid or not, as JSON lines."""
        return b"".join(map(_line, self.calls))


def _line(call: CallRecord) -> bytes:
    return json_bytes(call._asdict(), option=orjson.OPT_APPEND_NEWLINE)
