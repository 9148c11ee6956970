"""A deadline for talking to Redis under which no cancellation gets lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


@asynccontextmanager
async def deadline(seconds: float) -> AsyncIterator[None]:
    """``asyncio.timeout``, after which a cancellation that the awaited code swallowed is raised.

    redis-py sends through ``asyncio.wait_for``, which before Python 3.12 returns normally where a cancellation meets
    the end of what it waits for (python/cpython#86296): a task cancelled then would run on for good.
    Raises TimeoutError, and CancelledError in place of any error of a cancelled task.
    """
    task = asyncio.current_task()
    assert task is not None, "a deadline needs a task"
    before = task.cancelling()
    try:
        async with asyncio.timeout(seconds):
            yield
    except Exception as exc:
        if task.cancelling() > before:
            raise asyncio.CancelledError from exc
        raise
    if task.cancelling() > before:
        raise asyncio.CancelledError
