"""What workers have learnt of hits by likeness, in Redis beside the answers: one stream that everybody reads from its
beginning and then follows. So it outlives every worker, and all come to the same state in the same order.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from redis.exceptions import RedisError

from stratarouter_runtime.cache.connect import close, connect
from stratarouter_runtime.cache.deadline import deadline
from stratarouter_runtime.ports import Clock
from stratarouter_runtime.state.error_bound import Observation
from stratarouter_runtime.telemetry.logs import event

log = logging.getLogger("stratarouter.cache")

LENGTH = 50_000
"""Comparisons kept, about 8 MB: all that 25 busy scopes remember at a bound of 0.01. The oldest are forgotten."""
READ_COUNT = 200
"""Taken in at once: 0.1 ms each at worst, so lookups wait 20 ms at most."""
BLOCK_MS = 1_000
TIMEOUT_S = 3.0
"""Deadline of a read, BLOCK_MS among it. Nobody waits for it."""
RETRY_S = 1.0
MAX_LIKENESS = 1.01
"""A cosine, and what rounding may add to it."""
CONNECTIONS = 2
"""One reads and blocks, one writes."""


class RedisEvidence:
    """The evidence of all who share a Redis and an embedder.

    Args:
        url: redis://, rediss:// or unix:// address.
        stream: the stream's key; the only one touched.
        clock: sleeps after failures.
        eager: follow from the start; else from this process's first comparison on, before which nothing is trusted.

    Attributes:
        in_step: set once everything that was there has been read.
        failures: writes and reads that failed.
        garbage: records passed over because they could not be read.
    """

    def __init__(self, url: str, stream: str, clock: Clock, *, eager: bool = True) -> None:
        self._url = url
        self._stream = stream
        self._clock = clock
        self._eager = eager
        self._client: Any = None
        self._learn: Callable[[Observation], None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._position = b"0-0"
        self.in_step = asyncio.Event()
        self.failures = 0
        self.garbage = 0

    async def start(self, learn: Callable[[Observation], None]) -> None:
        """As the port says; Redis may be away."""
        if self._client is None:
            self._client = connect(self._url, TIMEOUT_S, CONNECTIONS)
            self._learn = learn
            if self._eager:
                self._follow()

    async def stop(self) -> None:
        """As the port says."""
        task, self._task = self._task, None
        client, self._client = self._client, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        if client is not None:
            await close(client)

    async def note(self, seen: Observation) -> None:
        """As the port says. This process hears of it like all others, so that every state is the same."""
        if self._client is None:
            return
        self._follow()
        fields = ("scope", seen.scope, "likeness", seen.likeness, "bound", seen.bound)
        flags = ("right", int(seen.right), "served", int(seen.served))
        try:
            async with deadline(TIMEOUT_S):
                await self._client.execute_command("XADD", self._stream, "MAXLEN", "~", LENGTH, "*", *fields, *flags)
        except (RedisError, OSError) as exc:
            self.failures += 1
            event(log, logging.WARNING, "evidence not kept", cause=type(exc).__name__)

    def _follow(self) -> None:
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="cache-evidence")

    async def _run(self) -> None:
        while True:
            try:
                await self._read()
            except Exception as exc:  # noqa: BLE001 - the outermost loop: any end of it would leave the bound unlearnt
                self.failures += 1
                event(log, logging.WARNING, "evidence not read", cause=type(exc).__name__)
                await self._clock.sleep(RETRY_S)

    async def _read(self) -> None:
        block = ("COUNT", READ_COUNT, "BLOCK", BLOCK_MS)
        async with deadline(TIMEOUT_S):
            streams = await self._client.execute_command("XREAD", *block, "STREAMS", self._stream, self._position)
        entries = [(bytes(entry[0]), entry[1]) for _, found in streams or [] for entry in found]
        for entry_id, fields in entries:
            # Before it is taken in: one that fails there is passed over like one that cannot be read, by everybody.
            self._position = entry_id
            self._take(fields)
        if len(entries) < READ_COUNT:
            self.in_step.set()

    def _take(self, fields: dict[bytes, bytes]) -> None:
        try:
            seen = _observation(fields)
        except (KeyError, ValueError):
            self.garbage += 1
            return
        if self._learn is not None:
            self._learn(seen)


def _observation(fields: dict[bytes, bytes]) -> Observation:
    """One comparison. Raises KeyError or ValueError for anything else."""
    likeness, bound = float(fields[b"likeness"]), float(fields[b"bound"])
    if not abs(likeness) <= MAX_LIKENESS or not 0 < bound < 1:
        raise ValueError("no likeness, or no bound")
    right, served = (bool(int(fields[name])) for name in (b"right", b"served"))
    return Observation(fields[b"scope"].decode(), likeness, right, served, bound)
