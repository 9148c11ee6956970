"""Looks into the cache for people: what is kept, and what would happen to a question and why."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stratarouter_runtime.cache import create_cache, create_evidence
from stratarouter_runtime.cache.controlled import ControlledCache
from stratarouter_runtime.cache.guard import SETTINGS, create_guard
from stratarouter_runtime.cache.memory import MemoryCache
from stratarouter_runtime.clock import SystemClock
from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.embedders import create_embedder
from stratarouter_runtime.engine.accept import Acceptor
from stratarouter_runtime.engine.lookup import query
from stratarouter_runtime.errors import CacheUnavailableError, ConfigurationError, InfrastructureError
from stratarouter_runtime.processors.cache_control import ControlReader
from stratarouter_runtime.records import CacheOptions, Context, Decision, Execution, Request
from stratarouter_runtime.routes import RouteTable
from stratarouter_runtime.state.cache_control import CacheControl
from stratarouter_runtime.state.error_bound import ErrorBound, Observation
from stratarouter_runtime.telemetry.metrics import Metrics
from stratarouter_runtime.validation import similarity

if TYPE_CHECKING:
    from stratarouter_runtime.cache.redis import RedisCache
    from stratarouter_runtime.cache.sweep import Kept

TIMEOUT_S = 5.0
"""Of one step in Redis: nobody waits behind it."""
IN_MEMORY = "give --worker with a worker's HTTP address: with cache_backend = 'memory' the entries are in its memory"
EMBED_BATCH = 64
"""Texts embedded at once: half a second on one core, far below an embedder's deadline of 10 s."""


async def count(settings: RuntimeConfig) -> dict[str, Any]:
    """What is kept in Redis, by tenant and route. Raises ConfigurationError, CacheUnavailableError."""
    tenants: Counter[str] = Counter()
    routes: Counter[str] = Counter()
    keys: set[tuple[str, str]] = set()
    size = aliases = 0
    async with _redis(settings) as cache:
        async for kept in cache.kept():
            if kept.place in keys:
                continue
            keys.add(kept.place)
            tenants[kept.tenant] += 1
            routes[kept.route_id] += 1
            size += kept.size_bytes
            aliases += kept.entry_id != kept.key
    return {
        "backend": "redis",
        "entries": len(keys),
        "aliases": aliases,
        "answer_bytes": size,
        "tenants": dict(tenants.most_common()),
        "routes": dict(routes.most_common()),
        "bound": await learnt(settings),
    }


async def learnt(settings: RuntimeConfig) -> dict[str, float]:
    """What the workers know of hits by likeness: comparisons, scopes, and of the served hits that were checked last how
    many were wrong, with the interval of their share. What is not known is left out.
    """
    evidence = create_evidence(settings, clock=SystemClock(), eager=True)
    assert evidence is not None, "only asked where the cache is in Redis"
    state, compared = ErrorBound(), 0

    def learn(seen: Observation) -> None:
        nonlocal compared
        compared += 1
        state.observe(seen)

    await evidence.start(learn)
    try:
        async with asyncio.timeout(TIMEOUT_S):
            await evidence.in_step.wait()
    except TimeoutError as exc:
        raise CacheUnavailableError("Redis did not answer", remedy="check redis_url and the server") from exc
    finally:
        await evidence.stop()
    found = asdict(state.measured()) | {"compared": compared, "scopes": len(state)}
    return {name: value for name, value in found.items() if value is not None}


def values(kept: Kept, name: str) -> tuple[str, ...]:
    """What ``kept`` has for a criterion: its own values and, for an alias, those of its source."""
    kind = {"key": "key", "tag": "tag", "route_id": "route", "tenant": "tenant"}[name]
    return tuple(one.split("\x1f", 1)[1] for one in kept.origin.labels if one.startswith(f"{kind}\x1f"))


def shown(kept: Kept, *, answers: bool) -> dict[str, Any]:
    """One entry as JSON."""
    said: dict[str, Any] = {
        "key": kept.key,
        "answered_by": kept.entry_id,
        "tenant": kept.tenant,
        "route_id": kept.route_id,
        "tags": list(kept.tags),
        "position": kept.origin.begun,
        "ttl_s": kept.ttl_ms // 1000,
        "text": kept.text,
    }
    return said | {"answer": kept.answer} if answers else said


async def search(settings: RuntimeConfig, fits: Callable[[Kept], bool], limit: int) -> list[Kept]:
    """The first entries in Redis that fit. Raises as ``count``."""
    found: dict[tuple[str, str], Kept] = {}
    async with _redis(settings) as cache:
        async for kept in cache.kept():
            if fits(kept):
                found[kept.place] = kept
                if len(found) >= limit:
                    break
    return list(found.values())


@asynccontextmanager
async def _redis(settings: RuntimeConfig) -> AsyncIterator[RedisCache]:
    """The shared cache to look into. Raises ConfigurationError for another backend, CacheUnavailableError."""
    cache = create_cache(settings.model_copy(update={"cache_timeout_ms": round(TIMEOUT_S * 1000)}))
    from stratarouter_runtime.cache.redis import RedisCache  # noqa: PLC0415 - slow import

    if not isinstance(cache, RedisCache):
        raise ConfigurationError("the cache is in the workers' memory", remedy=IN_MEMORY)
    await cache.start()
    try:
        yield cache
        if cache.counters.failures:
            raise CacheUnavailableError("Redis did not answer", remedy="check redis_url and the server")
    finally:
        await cache.stop()


def question(settings: RuntimeConfig, text: str, route: str, tenant: str, threshold: float | None) -> Execution:
    """A question made ready, as a worker would. Raises UnknownRouteError, and SchemaViolationError for a ``threshold``
    that no request may have.
    """
    messages = ({"role": "user", "content": text},)
    options = CacheOptions(threshold=None if threshold is None else similarity(threshold, "--threshold"))
    request = Request("explain", Decision(route), messages, context=Context(tenant), cache=options)
    return Acceptor(settings, RouteTable.for_config(settings)).accept(request, None)


async def judge(
    settings: RuntimeConfig, ours: Execution, theirs: Execution, *, read_topic: bool = True
) -> dict[str, Any]:
    """Whether an answer to ``theirs`` would be served to ``ours``, and every judgement behind it.

    ``read_topic``: read the cache-control topic for counter-examples; ``topic`` says where that failed.
    """
    control, silent = await _known(settings) if read_topic else (None, "not read (--no-topic)")
    found = await _judged(settings, ours, theirs, control)
    return found if silent is None else found | {"topic": silent}


async def embed_texts(settings: RuntimeConfig, texts: Sequence[str]) -> dict[str, NDArray[np.float32]]:
    """Each distinct text's vector, of shape (dimension,), by the configured embedder, else the local one."""
    embedder = create_embedder(settings) or create_embedder(settings.model_copy(update={"embedder": "local"}))
    assert embedder is not None, "embedder = 'local' makes one"
    distinct = list(dict.fromkeys(texts))
    made: dict[str, NDArray[np.float32]] = {}
    await embedder.start()
    try:
        for start in range(0, len(distinct), EMBED_BATCH):
            batch = distinct[start : start + EMBED_BATCH]
            made.update(zip(batch, await embedder.embed(batch), strict=True))
    finally:
        await embedder.stop()
    return made


async def _judged(
    settings: RuntimeConfig, ours: Execution, theirs: Execution, control: CacheControl | None
) -> dict[str, Any]:
    """Every judgement a lookup would make, and what comes of them."""
    asked, stored = query(ours), query(theirs)
    vectors = await embed_texts(settings, [asked.text, stored.text])
    cosine = min(1.0, float(vectors[asked.text] @ vectors[stored.text]))
    guard = create_guard(SETTINGS[settings.cache_guard]).differs(asked.text, stored.text, cosine)
    marked = None if control is None else stored.content_hash in control.vetoed(asked.content_hash)
    same_scope, same_words = asked.scope == stored.scope, asked.content_hash == stored.content_hash
    refusals = (
        ("disabled", ours.cache_ttl == 0),
        ("scope", not same_scope),
        ("below_threshold", not same_words and cosine < asked.threshold),
        ("guard:marked_wrong", not same_words and bool(marked)),
        (guard or "", not same_words and guard is not None),
    )
    reason = next((name for name, holds in refusals if holds), None)
    would = "miss" if reason else "exact" if same_words else "semantic"
    if reason == "disabled":
        would = "bypass"
    return {
        "would": would,
        "reason": reason,
        "same_scope": same_scope,
        "same_words": same_words,
        "cosine": round(cosine, 4),
        "threshold": asked.threshold,
        "guard": guard,
        "counter_example": marked,
        "asked_key": asked.content_hash,
        "stored_key": stored.content_hash,
    }


async def _known(settings: RuntimeConfig) -> tuple[CacheControl | None, str | None]:
    """What the topic says, or why it cannot be known."""
    clock, control = SystemClock(), CacheControl()
    cache = ControlledCache(MemoryCache(clock=clock, guard=create_guard()), control, clock)
    reader = ControlReader(settings, control=control, cache=cache, clock=clock, metrics=Metrics())
    try:
        await reader.start()
    except InfrastructureError as exc:
        return None, f"not read: {exc.message}"
    await reader.stop()
    return control, None
