"""How this package talks to Redis: one client for each purpose, without retries of its own."""

from __future__ import annotations

import logging
from collections.abc import Awaitable

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from stratarouter_runtime.cache.deadline import deadline
from stratarouter_runtime.telemetry.logs import event

log = logging.getLogger("stratarouter.cache")

CLOSE_TIMEOUT_S = 1.0


def connect(url: str, timeout_s: float, connections: int, *, bounded: bool = True) -> Redis:
    """A client that opens connections when they are needed, so Redis may be away.

    ``bounded``: ``timeout_s`` bounds each read and write, not only the wait for a connection; without, the caller does.
    """
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=connections,
        timeout=timeout_s,
        socket_timeout=timeout_s if bounded else None,
        socket_connect_timeout=timeout_s,
        # A retry would outlast the deadline; the pause after a failure stands in for it.
        retry=Retry(NoBackoff(), 0),
        # Redis 6.2 knows both; this one's replies look the same in every version of the client.
        protocol=2,
    )
    return Redis.from_pool(pool)


async def close(client: Redis) -> None:
    """Let a client's connections go."""
    await _in_time(client.aclose())


async def disconnect(*connections: AbstractConnection) -> None:
    """Let connections go that nobody uses."""
    for connection in connections:
        await _in_time(connection.disconnect())


async def _in_time(closing: Awaitable[None]) -> None:
    try:
        async with deadline(CLOSE_TIMEOUT_S):
            await closing
    except (RedisError, OSError) as exc:
        event(log, logging.INFO, "cache connection did not close cleanly", cause=type(exc).__name__)
