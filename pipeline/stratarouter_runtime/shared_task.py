"""One attempt for all who wait for what it brings."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from stratarouter_runtime.errors import ShuttingDownError

T = TypeVar("T")


class SharedTask(Generic[T]):
    """Runs ``make`` once for all who ask while it runs; who asks after its end begins it anew.

    A caller that gives up does not end it; ``end`` does, and is to be called by its owner.
    """

    def __init__(self, make: Callable[[], Coroutine[Any, Any, T]], name: str) -> None:
        self._make = make
        self._name = name
        self._task: asyncio.Task[T] | None = None

    async def result(self) -> T:
        """What ``make`` returns or raises; ShuttingDownError where ``end`` came first."""
        task = self._task
        if task is None or not _runs(task):
            task = self._task = asyncio.create_task(self._make(), name=self._name)
            task.add_done_callback(_look_at)
        await asyncio.wait([task])
        if task.cancelled():
            raise ShuttingDownError(f"{self._name}: ended before it was done")
        return task.result()

    async def end(self) -> None:
        """Cancel what runs, and wait for its end."""
        task = self._task
        if task is not None and _runs(task):
            task.cancel()
            await asyncio.wait([task])

    def forget(self) -> None:
        """Let go of what was made last, where nobody can wait for its end."""
        self._task = None


def _runs(task: asyncio.Task[Any]) -> bool:
    """Whether ``task`` will end: what a closed event loop left behind never does."""
    return not task.done() and not task.get_loop().is_closed()


def _look_at(task: asyncio.Task[Any]) -> None:
    """All who waited may have given up: then nobody else looks at its error."""
    if not task.cancelled():
        task.exception()
