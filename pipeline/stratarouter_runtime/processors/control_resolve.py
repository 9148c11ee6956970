"""Finds out which answer a mark by request id alone means, and says it on the cache-control topic.

The response tells the question's key and the entry that answered, but the responses topic keeps it for days only. So a
worker that hears such a mark writes a second one that names both, and that one stands. Several workers may write it:
it says the same.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable

from stratarouter_runtime.errors import RuntimeSystemError
from stratarouter_runtime.feedback import wrong_answer
from stratarouter_runtime.records import CacheCommand, Response
from stratarouter_runtime.telemetry.logs import event

log = logging.getLogger("stratarouter.cache_control")

MAX_PENDING = 1_000
"""Marks waiting to be looked up; the oldest go for want of room, and are said."""
MAX_AGE_MS = 604_800_000
"""7 days: what the responses topic keeps. An older mark that nobody resolved stays without its counter-example."""
FIRST_BACKOFF_S = 1.0
MAX_BACKOFF_S = 60.0
"""Waits while the broker is away."""
MAX_LONG_SEARCHES = 3
"""A search may read all of a partition, and be broken off for taking too long: then it will be the next time, too."""

Find = Callable[[str, str | None], Awaitable[Response | None]]
"""The response to a request id, of a tenant where one is named."""
Say = Callable[[CacheCommand], Awaitable[int]]
"""Writes to the topic."""

_Asked = tuple[str, str | None]


class Resolver:
    """One task while there is something to look up, joined by ``stop``.

    Args:
        find: where responses are found.
        say: where what was found is written.
    """

    def __init__(self, find: Find, say: Say) -> None:
        self._find = find
        self._say = say
        self._pending: OrderedDict[_Asked, CacheCommand] = OrderedDict()
        self._long: Counter[_Asked] = Counter()
        self._task: asyncio.Task[None] | None = None

    def note(self, command: CacheCommand, at_ms: int, now_ms: int) -> None:
        """Take a record in, in the topic's order: one without a key is to be looked up, one with a key resolves it."""
        if command.action != "mark_wrong" or command.request_id is None:
            return
        if command.key is not None:
            for tenant in (command.tenant, None):
                self._pending.pop((command.request_id, tenant), None)
        elif now_ms - at_ms <= MAX_AGE_MS:
            self._keep((command.request_id, command.tenant), command)

    def _keep(self, asked: _Asked, command: CacheCommand) -> None:
        self._pending[asked] = command
        if len(self._pending) > MAX_PENDING:
            (request_id, _), _ = self._pending.popitem(last=False)
            _give_up(request_id, "too many at once")

    def begin(self) -> None:
        """Look up what is pending, in the background."""
        if self._pending and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self._resolve(), name="resolve marks")

    async def stop(self) -> None:
        """End the task and join it. Idempotent."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _resolve(self) -> None:
        backoff_s = FIRST_BACKOFF_S
        while self._pending:
            asked, command = self._pending.popitem(last=False)
            try:
                await self._say_again(asked, command)
            except RuntimeSystemError as exc:
                if not exc.retryable or self._takes_too_long(asked, exc):
                    _give_up(asked[0], exc.message)
                    continue
                # The others have their turn before it: it may be this one alone that cannot be looked up.
                self._keep(asked, self._pending.get(asked, command))
                cause = exc.message
                event(log, logging.WARNING, "mark waits", request_id=asked[0], cause=cause, wait_s=backoff_s)
                await asyncio.sleep(backoff_s)
                backoff_s = min(MAX_BACKOFF_S, 2 * backoff_s)
            except Exception:
                # The outermost loop: nobody looks at this task, and those behind it must not wait for the next mark.
                log.exception("mark not resolved", extra={"fields": {"request_id": asked[0]}})
            else:
                self._long.pop(asked, None)
                backoff_s = FIRST_BACKOFF_S

    def _takes_too_long(self, asked: _Asked, exc: RuntimeSystemError) -> bool:
        if not isinstance(exc.__cause__, TimeoutError):
            return False
        self._long[asked] += 1
        if self._long[asked] < MAX_LONG_SEARCHES:
            return False
        del self._long[asked]
        return True

    async def _say_again(self, asked: _Asked, command: CacheCommand) -> None:
        response = await self._find(*asked)
        if response is None:
            _give_up(asked[0], "no response found")
        else:
            await self._say(wrong_answer(response, command.by, command.reason))


def _give_up(request_id: str, cause: str) -> None:
    event(log, logging.ERROR, "mark not resolved", request_id=request_id, cause=cause)
