"""Round trips to Redis: what is asked while some are under way leaves together in the next.

A round trip takes this process ten times as long as a command in it. A thousand callers that made a trip each would
keep it too busy to read the replies in time, and every one would be counted as late.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from types import TracebackType
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import RedisError, ResponseError

from stratarouter_runtime.cache.connect import disconnect
from stratarouter_runtime.cache.watch import HEARTBEAT_S

log = logging.getLogger("stratarouter.cache")

Command = tuple[Any, ...]
Asked = tuple[Sequence[Command], "asyncio.Future[list[Any] | None]"]
"""One caller's commands, and where their replies go."""

AT_ONCE = 4
"""Trips under way. What one is long in coming holds up nobody who comes after it; more would share less."""
MAX_COMMANDS = 512
"""In one trip; those of one caller stay together, whatever their number."""
LATEST, LONGEST_IDLE = -1, 0
"""Which of the connections that wait."""
MAX_WAIT = 10
"""Deadlines that a trip may take in all, however busy this process was meanwhile."""


class Trips:
    """All round trips of one client. Whoever waits holds a request's place, so no more wait than are in flight.

    Args:
        client: opens the connections, of which each trip has one to itself. It is to have no timeout on its sockets:
            that would be a timer for each reply, and a task for each command sent.
        timeout_s: of one trip, not counting what this thread worked meanwhile: a reply that lies here unread is not
            late.
        failed: told why a trip came to nothing.
        listener: which connection is told of changes to what trips read, by its id (``cache/watch.py``); None: none is.
        refused: told of a listener that the server would not tell, and why.
        lost: told of each end of a connection whose reads the listener was told of. Redis names nobody the keys of one
            that is gone, so what was copied before can no longer be relied on.
    """

    def __init__(
        self,
        client: Redis,
        timeout_s: float,
        failed: Callable[[Exception], None],
        *,
        listener: Callable[[], int | None] = lambda: None,
        refused: Callable[[int, Exception], None] = lambda _, __: None,
        lost: Callable[[], None] = lambda: None,
    ) -> None:
        self._pool = client.connection_pool
        self._idle: list[tuple[AbstractConnection, int | None]] = []
        self._listener = listener
        self._refused = refused
        self._lost = lost
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
            self._set_out(self._go())
        return await replies

    async def settle(self) -> bool:
        """Wait until nothing that was asked before, given up or late, can be carried out any more after what is asked
        next. False where the server does not answer.

        Trips leave in the order in which they are asked for, and the server takes what has arrived over all connections
        before it reads on any of them again.
        """
        replies = await self.ask([("PING",)])
        if self._under_way:
            await asyncio.wait(self._under_way)
        return replies is not None

    def beat(self) -> None:
        """Have the connections that wait say that they live: where all hits are copies, nobody asks over them."""
        for _ in range(min(len(self._idle), AT_ONCE - len(self._under_way))):
            self._set_out(self._ping())

    async def stop(self) -> None:
        """Break off what is under way; whoever waits gets None. Idempotent."""
        tasks = list(self._under_way)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._turn_away()
        idle, self._idle = self._idle, []
        await disconnect(*(connection for connection, _ in idle))

    def _set_out(self, trip: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(trip, name="cache trip")
        self._under_way.add(task)
        task.add_done_callback(self._back)

    def _back(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        if task.cancelled():
            return
        if task.exception() is not None:
            log.error("cache trip failed", exc_info=task.exception())
        if self._waiting:
            self._set_out(self._go())

    def _turn_away(self) -> None:
        while self._waiting:
            _answer(self._waiting.popleft()[1], None)

    async def _go(self) -> None:
        together = self._next()
        if not together:
            return
        found: list[Any] | None = None
        try:
            with _Deadline(self._timeout_s):
                found = await self._send([command for commands, _ in together for command in commands])
        except (RedisError, OSError) as exc:
            self._failed(exc)
            self._turn_away()
        finally:
            start = 0
            for commands, replies in together:
                _answer(replies, None if found is None else found[start : start + len(commands)])
                start += len(commands)

    async def _ping(self) -> None:
        # Nobody waits for it, so it is no failure: whoever asks next finds out by himself.
        with contextlib.suppress(RedisError, OSError), _Deadline(min(self._timeout_s, HEARTBEAT_S)):
            await self._send([("PING",)], LONGEST_IDLE)

    def _next(self) -> list[Asked]:
        together: list[Asked] = []
        room = MAX_COMMANDS
        while self._waiting and (not together or len(self._waiting[0][0]) <= room):
            commands, replies = self._waiting.popleft()
            if not replies.done():
                together.append((commands, replies))
                room -= len(commands)
        return together

    async def _send(self, commands: Sequence[Command], which: int = LATEST) -> list[Any]:
        connection: Any
        connection, told = self._idle.pop(which) if self._idle else (self._pool.make_connection(), None)  # type: ignore[no-untyped-call]
        try:
            # The server may have closed it since, or have said what nobody asked.
            if connection.is_connected and await connection.can_read():
                await connection.disconnect(nowait=True)
            if not connection.is_connected:
                self._gone(told)
                told = None
                await connection.connect()
            if told != self._listener():
                told = await self._tell(connection)
            replies = await _exchange(connection, commands)
        except BaseException:
            self._gone(told)
            # What is still to come on it would be taken for the next trip's replies.
            await connection.disconnect(nowait=True)
            raise
        self._idle.append((connection, told))
        return replies

    def _gone(self, told: int | None) -> None:
        if told is not None:
            self._lost()

    async def _tell(self, connection: Any) -> int | None:
        """Have the listener told of changes to what ``connection`` reads from now on; which listener that is."""
        listener = self._listener()
        state = ("OFF",) if listener is None else ("ON", "REDIRECT", listener)
        [reply] = await _exchange(connection, [("CLIENT", "TRACKING", *state)])
        if isinstance(reply, Exception) and listener is not None:
            self._refused(listener, reply)
        return listener


async def _exchange(connection: Any, commands: Sequence[Command]) -> list[Any]:
    """The replies to ``commands``, refusals among them. Any: what redis-py says of its connections' types is not so."""
    await connection.send_packed_command(connection.pack_commands(commands), check_health=False)
    replies: list[Any] = []
    for _ in commands:
        try:
            replies.append(await connection.read_response())
        except ResponseError as exc:
            replies.append(exc)
    return replies


class _Deadline:
    """Ends the task within with TimeoutError after ``timeout_s`` seconds in which this thread had nothing to do.

    What this thread works is added, up to MAX_WAIT deadlines: a reply that lies here unread is not late.
    """

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._waited = 0.0
        self._expired = False
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None, "a deadline needs a task"
        self._task, self._cancelling = task, task.cancelling()
        self._latest = time.monotonic() + MAX_WAIT * self._timeout_s
        self._wait()

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._expired and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError(f"no reply within {self._timeout_s} s") from exc

    def _wait(self) -> None:
        self._began, self._worked = time.monotonic(), time.thread_time()
        self._timer = asyncio.get_running_loop().call_later(self._timeout_s - self._waited, self._look)

    def _look(self) -> None:
        now = time.monotonic()
        self._waited += max(0.0, now - self._began - (time.thread_time() - self._worked))
        if self._waited < self._timeout_s and now < self._latest:
            self._wait()
        else:
            self._expired = True
            self._task.cancel()


def _answer(replies: asyncio.Future[list[Any] | None], found: list[Any] | None) -> None:
    if not replies.done():
        replies.set_result(found)
