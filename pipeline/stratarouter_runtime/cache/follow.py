"""Keeps a worker's shelf in step with what all workers put into Redis.

At the start, and after every failure, the whole of Redis is scanned; between, a stream names each new entry. Missing
one costs a hit, never a wrong answer: what the shelf finds is read from Redis before it is served.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

from redis.asyncio import Redis

from stratarouter_runtime.cache.deadline import deadline
from stratarouter_runtime.cache.keys import Keys
from stratarouter_runtime.cache.shelf import Item, Shelf, size_of
from stratarouter_runtime.cache.values import GarbageError, decode_findable
from stratarouter_runtime.ports import Clock
from stratarouter_runtime.telemetry.logs import event

log = logging.getLogger("stratarouter.cache")

BLOCK_MS = 1_000
"""How long one read of the stream waits for news. Stopping waits for it at most once, where redis-py lost the
cancellation (``deadline``)."""

READ_TIMEOUT_S = 3.0
"""Deadline of one read or scan step, in the background: BLOCK_MS and room for a busy server."""

RETRY_S = 1.0
"""Pause after a failure before Redis is scanned anew."""

READ_COUNT = 500
"""Stream entries taken at once."""

CHUNK = 16
"""Entries read in one round trip."""

SLICE_S = 0.005
"""Of adopting before lookups get their turn. One entry may cost 6 ms in the graph, and a lookup has 150 ms."""

START_OF_STREAM = b"0-0"


class Follower:
    """Adopts every worker's new entries. One task, owned and joined by ``start`` and ``stop``.

    Args:
        client: a client of the follower's own; a blocked read holds its connection.
        keys: the cache's key names.
        shelf: what to keep in step.
        clock: monotonic and wall time.
        worker: this worker's name on the stream: its own entries are on its shelf already.

    Attributes:
        in_step: set while the shelf holds what Redis held when it was last scanned.
        adopted: entries taken over.
        garbage: records passed over because they could not be read.
        failures: how often Redis failed and the scan began anew.
    """

    def __init__(self, client: Redis, keys: Keys, shelf: Shelf, clock: Clock, worker: str) -> None:
        self._client = client
        self._keys = keys
        self._shelf = shelf
        self._clock = clock
        self._worker = worker.encode()
        self._task: asyncio.Task[None] | None = None
        self.in_step = asyncio.Event()
        self.adopted = 0
        self.garbage = 0
        self.failures = 0

    def start(self) -> None:
        """Begin to follow."""
        self._task = asyncio.create_task(self._run(), name="cache-follower")

    async def stop(self) -> None:
        """End the task and join it. Idempotent."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    async def _run(self) -> None:
        while True:
            try:
                await self._follow()
            except Exception as exc:  # noqa: BLE001 - the outermost loop: any end of it would leave the shelf behind for good
                self.failures += 1
                event(log, logging.WARNING, "cache index fell behind", cause=type(exc).__name__)
            self.in_step.clear()
            await self._clock.sleep(RETRY_S)

    async def _follow(self) -> None:
        """Scan, then follow the stream from where it stood before the scan; returns where the stream lost entries."""
        position = await self._end_of_stream()
        await self._scan()
        self.in_step.set()
        while True:
            news = await self._read(position)
            await self._adopt([fields[b"key"] for _, fields in news if _is_news(fields, self._worker)])
            if len(news) == READ_COUNT and await self._lost_after(position):
                return
            position = news[-1][0] if news else position

    async def _end_of_stream(self) -> bytes:
        last = await self._ask("XREVRANGE", self._keys.stream, "+", "-", "COUNT", 1)
        return _id_of(last[0]) if last else START_OF_STREAM

    async def _lost_after(self, position: bytes) -> bool:
        """Whether the stream's cap took entries away before this worker had read them."""
        first = await self._ask("XRANGE", self._keys.stream, "-", "+", "COUNT", 1)
        return bool(first) and position != START_OF_STREAM and _order(_id_of(first[0])) > _order(position)

    async def _read(self, position: bytes) -> list[tuple[bytes, dict[bytes, bytes]]]:
        block = ("COUNT", READ_COUNT, "BLOCK", BLOCK_MS)
        streams = await self._ask("XREAD", *block, "STREAMS", self._keys.stream, position)
        return [(_id_of(entry), entry[1]) for _, entries in streams or [] for entry in entries]

    async def _scan(self) -> None:
        cursor: Any = 0
        while True:
            pattern = ("MATCH", self._keys.findable_pattern, "COUNT", READ_COUNT)
            cursor, names = await self._ask("SCAN", cursor, *pattern)
            await self._adopt(names)
            if int(cursor) == 0:
                return

    async def _ask(self, *command: Any) -> Any:
        execute: Any = self._client.execute_command  # the client's own type says nothing
        async with deadline(READ_TIMEOUT_S):
            return await execute(*command)

    async def _adopt(self, names: Sequence[bytes]) -> None:
        for chunk in _chunks(names, CHUNK):
            async with deadline(READ_TIMEOUT_S), self._client.pipeline(transaction=False) as pipeline:
                for name in chunk:
                    pipeline.get(name)
                raws = await pipeline.execute(raise_on_error=False)
            began = self._clock.monotonic()
            for name, raw in zip(chunk, raws, strict=True):
                self._take(name, raw)
                if self._clock.monotonic() - began >= SLICE_S:
                    await asyncio.sleep(0)
                    began = self._clock.monotonic()

    def _take(self, name: bytes, raw: object) -> None:
        if raw is None:
            return
        if not isinstance(raw, bytes):
            self.garbage += 1
            return
        try:
            found = decode_findable(raw)
        except GarbageError:
            self.garbage += 1
            return
        place = (found.scope, found.content_hash)
        if self._keys.findable(place).encode() != name:
            self.garbage += 1
        elif not self._shelf.holds(place, found.entry_id):
            now = self._clock.monotonic()
            expires_at = now + (found.expires_ms - self._clock.wall_ms()) / 1000
            size = size_of(found.text, found.vector)
            says = found.says
            item = Item(found.entry_id, found.scope, found.content_hash, found.text, expires_at, size, says=says)
            self.adopted += self._shelf.put(item, found.vector, now)


def _id_of(entry: Any) -> bytes:
    """A stream entry's id, from (id, fields) as Redis gives them."""
    return bytes(entry[0])


def _is_news(fields: dict[bytes, bytes], worker: bytes) -> bool:
    return b"key" in fields and fields.get(b"worker") != worker


def _order(stream_id: bytes) -> tuple[int, int]:
    milliseconds, _, sequence = stream_id.partition(b"-")
    return int(milliseconds), int(sequence or 0)


def _chunks(names: Iterable[bytes], size: int) -> Iterable[list[bytes]]:
    rest = iter(names)
    while chunk := list(islice(rest, size)):
        yield chunk
