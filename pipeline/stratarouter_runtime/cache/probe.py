"""Asks a Redis once how it is, for the operator."""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple

from redis.asyncio import Redis
from redis.exceptions import RedisError

from stratarouter_runtime.errors import ConfigurationError, InfrastructureError

TIMEOUT_S = 5.0


class RedisHealth(NamedTuple):
    """Version (empty where the user may not ask) and clock in epoch seconds (None likewise)."""

    version: str
    now_s: float | None


async def probe(url: str) -> RedisHealth:
    """Ping it. Raises ConfigurationError for a URL that is none, InfrastructureError where it does not answer."""
    try:
        client = Redis.from_url(url, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S, protocol=2)
    except ValueError as exc:
        raise ConfigurationError("REDIS_URL cannot be read", remedy="write redis://host:6379") from exc
    try:
        async with asyncio.timeout(TIMEOUT_S):
            await client.ping()
            return RedisHealth(await _version(client), await _now(client))
    except (RedisError, OSError) as exc:
        raise InfrastructureError(f"Redis does not answer: {type(exc).__name__}") from exc
    finally:
        await client.aclose()


async def _version(client: Redis) -> str:
    try:
        info: dict[str, Any] = await client.info("server")
    except RedisError:
        return ""  # a least-privilege user may not ask
    return str(info.get("redis_version", ""))


async def _now(client: Redis) -> float | None:
    try:
        seconds, microseconds = await client.time()
    except RedisError:
        return None  # likewise
    return float(seconds) + microseconds / 1e6
