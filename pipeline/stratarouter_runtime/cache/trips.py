"""Round trips to Redis: what is asked while some are under way leaves together in the next.

A round trip takes redis-py some 0.3 ms of processor time, a command in it a tenth of that. A thousand callers that made
a trip each would keep this process too busy to read the replies in time, and every one would be counted as late.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from redis.asyncio import Redis
from redis.exceptions import RedisError

log = logging.getLogger("stratarouter.cache")

Result = TypeVar("Result")
Command = tuple[Any, ...]
Asked = tuple[Sequence[Command], "asyncio.Future[list[Any] | None]"]
"""One caller's commands, and where their replies go."""

AT_ONCE = 4
"""Trips under way. What one is long in coming holds up nobody who comes after it; more would share less."""
MAX_COMMANDS = 512
"""In one trip; those of one caller stay together, whatever their number."""
MAX_WAIT = 10
"""Deadlines that a trip may take in all, however busy this process was meanwhile."""


class Trips:
    """All round trips of one client. Whoever waits holds a request's place, so no more wait than are in flight.

    Args:
        client: what sends them; its own timeouts are to be longer than ``timeout_s``.
        timeout_s: of one trip, not counting what this thread worked meanwhile: a reply that lies here unread is not
            late.
        failed: told why a trip came to nothing.
    """

    def __init__(self, client: Redis, timeout_s: float, failed: Callable[[Exception], None]) -> None:
        self._client = client
        self._timeout_s = timeout_s
        self._failed = failed
        self._waiting: deque[Asked] = deque()
        self._under_way: set[asyncio.Task[None]] = set()

    async def ask(self, commands: Sequence[Command]) -> list[Any] | None:
        """The replies to ``commands``, errors among them; None where the trip failed."""
        if not commands:
            return []
        replies: asyncio.Future[list[Any] | None] = asyncio.get_running_loop().create_future()
        self._waiting.append((commands, replies))
        if len(self._under_way) < AT_ONCE:
            self._set_out()
        return await replies

    async def stop(self) -> None:
        """Break off what is under way; whoever waits gets None. Idempotent."""
        tasks = list(self._under_way)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._turn_away()

    def _set_out(self) -> None:
        task = asyncio.create_task(self._go(), name="cache trip")
        self._under_way.add(task)
        task.add_done_callback(self._back)

    def _back(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        if task.cancelled():
            return
        if task.exception() is not None:
            log.error("cache trip failed", exc_info=task.exception())
        if self._waiting:
            self._set_out()

    def _turn_away(self) -> None:
        while self._waiting:
            _answer(self._waiting.popleft()[1], None)

    async def _go(self) -> None:
        together = self._next()
        if not together:
            return
        found: list[Any] | None = None
        try:
            found = await self._in_time(self._send([command for commands, _ in together for command in commands]))
        except (RedisError, OSError) as exc:
            self._failed(exc)
            self._turn_away()
        finally:
            start = 0
            for commands, replies in together:
                _answer(replies, None if found is None else found[start : start + len(commands)])
                start += len(commands)

    def _next(self) -> list[Asked]:
        together: list[Asked] = []
        room = MAX_COMMANDS
        while self._waiting and (not together or len(self._waiting[0][0]) <= room):
            commands, replies = self._waiting.popleft()
            if not replies.done():
                together.append((commands, replies))
                room -= len(commands)
        return together

    async def _send(self, commands: Sequence[Command]) -> list[Any]:
        async with self._client.pipeline(transaction=False) as pipeline:
            for command in commands:
                pipeline.execute_command(*command)
            return list(await pipeline.execute(raise_on_error=False))

    async def _in_time(self, work: Coroutine[Any, Any, Result]) -> Result:
        """What ``work`` comes to. Raises TimeoutError, and what it raises."""
        task = asyncio.ensure_future(work)
        latest, waited = time.monotonic() + MAX_WAIT * self._timeout_s, 0.0
        try:
            while waited < self._timeout_s and time.monotonic() < latest:
                began, worked = time.monotonic(), time.thread_time()
                await asyncio.wait([task], timeout=self._timeout_s - waited)
                if task.done():
                    return task.result()
                waited += max(0.0, time.monotonic() - began - (time.thread_time() - worked))
            raise TimeoutError(f"no reply within {self._timeout_s} s")
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait([task])
                if not task.cancelled():
                    task.exception()


def _answer(replies: asyncio.Future[list[Any] | None], found: list[Any] | None) -> None:
    if not replies.done():
        replies.set_result(found)
