"""Answers already paid for, kept for reuse: exact words first, then likeness under a guard."""

from __future__ import annotations

from hashlib import blake2b
from typing import Protocol

from stratarouter_runtime.cache.controlled import ControllableCache
from stratarouter_runtime.cache.guard import create_guard
from stratarouter_runtime.cache.memory import MemoryCache
from stratarouter_runtime.cache.redis import TIMEOUT_S, RedisCache
from stratarouter_runtime.clock import SystemClock
from stratarouter_runtime.ports import Clock, Guard

__all__ = ["CacheConfig", "create_cache"]

PREFIX = "stratarouter:cache"


class CacheConfig(Protocol):
    """The settings that choose and shape the cache (``RuntimeConfig`` has them)."""

    @property
    def cache_backend(self) -> str:
        """``memory`` or ``redis``."""

    @property
    def redis_url(self) -> str:
        """Where Redis is."""

    @property
    def embedder(self) -> str:
        """Whose vectors are compared."""

    @property
    def embedder_model(self) -> str | None:
        """And of which model."""


def create_cache(
    config: CacheConfig, *, clock: Clock | None = None, guard: Guard | None = None, timeout_s: float = TIMEOUT_S
) -> ControllableCache:
    """The cache that ``config.cache_backend`` names, not started. Clock and guard default to the real ones.

    ``timeout_s`` is the deadline of a round trip to Redis.
    """
    clock = clock or SystemClock()
    guard = guard or create_guard()
    if config.cache_backend == "memory":
        return MemoryCache(clock=clock, guard=guard)
    return RedisCache(config.redis_url, clock=clock, guard=guard, prefix=_prefix(config), timeout_s=timeout_s)


def _prefix(config: CacheConfig) -> str:
    """One name space for each embedder: the likeness of two models' vectors means nothing."""
    space = f"{config.embedder}\0{config.embedder_model or ''}".encode()
    return f"{PREFIX}:{blake2b(space, digest_size=4).hexdigest()}"
