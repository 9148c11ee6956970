"""Listens to what Redis says of the values that this process has read: that one changed, or that it cannot tell.

Client-side caching of Redis 6 (``CLIENT TRACKING``): the server remembers which keys some connections read, and names
each that is written, deleted, evicted or expires on one connection that listens, for as long as the one that read it
lives. A server or a user that may not is no error: then nothing is copied.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import NoPermissionError, RedisError, ResponseError

from stratarouter_runtime.cache.connect import disconnect
from stratarouter_runtime.cache.copies import Copies
from stratarouter_runtime.cache.deadline import deadline
from stratarouter_runtime.telemetry.logs import event

log = logging.getLogger("stratarouter.cache")

CHANNEL = b"__redis__:invalidate"
HEARTBEAT_S = 1.0
"""How often the listening connection, and those that read, must give a sign of life. A cut that nobody notices leaves
copies that may be outdated for twice this long."""
RETRY_S = 1.0
"""Pause after a failure before it is tried again."""


class Watch:
    """Keeps ``copies`` true. One task, owned and joined by ``start`` and ``stop``.

    Args:
        client: opens the connection that listens.
        copies: cleared whenever this cannot be told what changed.

    Attributes:
        listener: the id of the listening connection, to which those that read have their keys told; None while there
            is none. Another one means that what was read before is not told of.
    """

    def __init__(self, client: Redis, copies: Copies) -> None:
        self._pool = client.connection_pool
        self._copies = copies
        self._task: asyncio.Task[None] | None = None
        self._end: asyncio.Future[None] | None = None
        self._has_heard = False
        self._beat_too: Callable[[], None] = lambda: None
        self.listener: int | None = None

    def start(self, beat: Callable[[], None]) -> None:
        """Begin to listen. ``beat`` is called every HEARTBEAT_S meanwhile: it asks the connections that read."""
        self._beat_too = beat
        self._task = asyncio.create_task(self._run(), name="cache watch")

    async def stop(self) -> None:
        """End the task and join it. Idempotent."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    def refused(self, listener: int, reason: Exception) -> None:
        """A connection that reads could not have its keys told to ``listener``: there may be none any more."""
        if listener == self.listener:
            self._lost(reason)

    def lost(self) -> None:
        """A connection that read is gone: what it read is told of no more. All copies go, none knows its reader."""
        self._copies.clear()

    async def _run(self) -> None:
        while True:
            connection: Any = self._pool.make_connection()  # type: ignore[no-untyped-call]
            try:
                await self._listen(connection)
            except (RedisError, OSError) as exc:
                if _stands(exc):
                    event(log, logging.INFO, "cache copies off", cause=str(exc))
                    return
                event(log, logging.INFO, "cache copies dropped", cause=type(exc).__name__)
            except Exception:
                # What nobody foresaw costs the copies, not the cache.
                log.exception("cache copies dropped")
            finally:
                self._lost(None)
                await disconnect(connection)
            await asyncio.sleep(RETRY_S)

    async def _listen(self, connection: Any) -> None:
        """Until nothing is heard any more, which is raised."""
        async with deadline(HEARTBEAT_S):
            await connection.connect()
            listener = await _ask(connection, "CLIENT", "ID")
            await _ask(connection, "SUBSCRIBE", CHANNEL)
        self._end = asyncio.get_running_loop().create_future()
        self.listener = int(listener)
        tasks = [
            asyncio.create_task(self._read(connection), name="cache watch reader"),
            asyncio.create_task(self._beat(connection), name="cache watch heartbeat"),
        ]
        ends = [*tasks, self._end]
        try:
            ended, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for end in ends:
                end.cancel()
            # Several may have failed of one cause, of which one is told.
            await asyncio.gather(*ends, return_exceptions=True)
        ended.pop().result()

    async def _read(self, connection: Any) -> None:
        while True:
            message = await connection.read_response(timeout=math.inf)
            self._has_heard = True
            if message[0] != b"message":
                continue  # the answer to a heartbeat
            if message[2] is None:
                self._copies.clear()  # all keys are gone
            else:
                for name in message[2]:
                    self._copies.changed(name)

    async def _beat(self, connection: Any) -> None:
        self._has_heard = True
        while self._has_heard:
            self._has_heard = False
            await connection.send_command("PING", check_health=False)
            self._beat_too()
            await asyncio.sleep(HEARTBEAT_S)
        raise TimeoutError(f"nothing heard for {HEARTBEAT_S} s")

    def _lost(self, reason: Exception | None) -> None:
        """From now on nothing that was copied can be relied on."""
        self.listener = None
        self._copies.clear()
        if reason is not None and self._end is not None and not self._end.done():
            self._end.set_exception(reason)


async def _ask(connection: Any, *command: Any) -> Any:
    await connection.send_command(*command, check_health=False)
    return await connection.read_response(timeout=math.inf)


def _stands(refusal: Exception) -> bool:
    """Whether it would be refused again: the server is older than 6, or this user may not."""
    return isinstance(refusal, NoPermissionError) or (
        isinstance(refusal, ResponseError) and "unknown" in str(refusal).lower()
    )
