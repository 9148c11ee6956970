"""Answers already paid for, kept for reuse: exact words first, then likeness under a guard."""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, Literal, Protocol

from stratarouter_runtime.cache.controlled import ControllableCache
from stratarouter_runtime.cache.guard import SETTINGS, create_guard
from stratarouter_runtime.cache.keys import Keys
from stratarouter_runtime.cache.memory import MemoryCache
from stratarouter_runtime.clock import SystemClock
from stratarouter_runtime.ports import Clock, Guard

if TYPE_CHECKING:
    from stratarouter_runtime.cache.evidence import RedisEvidence

__all__ = ["CacheConfig", "create_cache", "create_evidence"]

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
    def cache_guard(self) -> Literal["strict", "lenient"]:
        """How much may differ between two texts of one answer."""

    @property
    def cache_max_entries(self) -> int:
        """Entries in this process at most."""

    @property
    def cache_max_bytes(self) -> int:
        """Their bytes at most."""

    @property
    def cache_timeout_ms(self) -> int:
        """Of a round trip to Redis."""

    @property
    def cache_eviction(self) -> Literal["lru", "cost"]:
        """Who goes first when room is short."""

    @property
    def embedder(self) -> str:
        """Whose vectors are compared."""

    @property
    def embedder_model(self) -> str | None:
        """And of which model."""


def create_cache(config: CacheConfig, *, clock: Clock | None = None, guard: Guard | None = None) -> ControllableCache:
    """The cache that ``config.cache_backend`` names, not started. Clock and guard default to the real ones."""
    clock = clock or SystemClock()
    guard = guard or create_guard(SETTINGS[config.cache_guard])
    if config.cache_backend == "memory":
        return MemoryCache(
            clock=clock,
            guard=guard,
            max_entries=config.cache_max_entries,
            max_bytes=config.cache_max_bytes,
            eviction=config.cache_eviction,
        )
    from stratarouter_runtime.cache.redis import RedisCache  # noqa: PLC0415 - slow import

    return RedisCache(
        config.redis_url,
        clock=clock,
        guard=guard,
        prefix=_prefix(config),
        timeout_s=config.cache_timeout_ms / 1000,
        local_entries=config.cache_max_entries,
        local_bytes=config.cache_max_bytes,
    )


def create_evidence(config: CacheConfig, *, clock: Clock, eager: bool) -> RedisEvidence | None:
    """Where workers share what they learn of hits, beside the cache they share; None where they share none."""
    if config.cache_backend == "memory":
        return None
    from stratarouter_runtime.cache.evidence import RedisEvidence  # noqa: PLC0415 - slow import

    return RedisEvidence(config.redis_url, Keys(_prefix(config)).evidence, clock, eager=eager)


def _prefix(config: CacheConfig) -> str:
    """One name space for each embedder: the likeness of two models' vectors means nothing."""
    space = f"{config.embedder}\0{config.embedder_model or ''}".encode()
    return f"{PREFIX}:{blake2b(space, digest_size=4).hexdigest()}"
