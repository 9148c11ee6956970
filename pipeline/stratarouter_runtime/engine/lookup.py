"""Asks the cache for an execution, and says what is kept of an answer. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from stratarouter_runtime.cache.normalise import conversation_text
from stratarouter_runtime.port_values import CacheEntry, CacheHit, CacheMiss, CacheQuery
from stratarouter_runtime.records import Answer, CacheVerdict, CacheVerdictKind, Execution, Vector
from stratarouter_runtime.state.cache_control import Origin, label
from stratarouter_runtime.telemetry.metrics import Metrics

BYPASSED = CacheMiss(reason="mode", bypassed=True)
"""Its ``cache.mode`` says so."""
DISABLED = CacheMiss(reason="disabled", bypassed=True)
"""There is no cache, or nothing may be kept."""
RECORDED = CacheMiss(reason="journal", bypassed=True)
"""The journal had the answer already."""


def may_read(execution: Execution) -> bool:
    """Whether this request may be answered from the cache."""
    return execution.cache_ttl > 0 and execution.request.cache.mode in {"default", "read_only"}


def may_write(execution: Execution) -> bool:
    """Whether this request's answer may be kept."""
    return execution.cache_ttl > 0 and execution.request.cache.mode in {"default", "refresh"}


def may_follow(execution: Execution) -> bool:
    """Whether this request may be answered by another one's call."""
    return execution.batch_threshold is not None and execution.request.cache.mode not in {"bypass", "refresh"}


def not_asked(execution: Execution) -> CacheMiss:
    """Why the cache is not asked for ``execution``, where it is not."""
    by_mode = execution.cache_ttl > 0 and execution.request.cache.mode not in {"default", "read_only"}
    return BYPASSED if by_mode else DISABLED


def query(execution: Execution, text: str | None = None) -> CacheQuery:
    """The lookup for ``execution``; ``text`` is its conversation, where it is at hand."""
    return CacheQuery(
        scope=execution.scope,
        content_hash=execution.content_hash,
        text=conversation_text(execution.request.messages) if text is None else text,
        vector=execution.request.embedding,
        threshold=execution.cache_threshold,
    )


def origin(execution: Execution, begun: int) -> Origin:
    """What an answer to ``execution`` can be invalidated by; ``begun`` is the position at which it was asked for."""
    tenant = execution.request.context.tenant
    labels = (
        label("key", execution.content_hash),
        label("request", tenant, execution.request.request_id),
        label("tenant", tenant),
        label("route", execution.request.decision.route_id),
        *(label("tag", tag) for tag in execution.cache_tags),
    )
    return Origin(begun, labels)


def entry(execution: Execution, answer: Answer, begun: int) -> CacheEntry:
    """What to keep of an answer that was asked for at position ``begun``."""
    return _entry(execution, answer, execution.content_hash, origin(execution, begun), execution.request.embedding)


def alias(execution: Execution, answer: Answer, source_id: str, source: Origin, likeness: float) -> CacheEntry:
    """What makes exact repeats of a paraphrase find the answer of ``source_id`` that it was served. It has no vector,
    so that likeness is never measured against a paraphrase of a paraphrase, and goes with what its source goes with.
    """
    own = origin(execution, source.begun)
    both = Origin(source.begun, tuple(dict.fromkeys(own.labels + source.labels)))
    return replace(_entry(execution, answer, source_id, both, None), likeness=likeness)


def alias_of(execution: Execution, hit: CacheHit) -> CacheEntry:
    """As ``alias``, for a hit that was served."""
    return alias(execution, hit.answer, hit.entry_id, hit.origin, hit.similarity)


def _entry(execution: Execution, answer: Answer, entry_id: str, origin: Origin, vector: Vector | None) -> CacheEntry:
    return CacheEntry(
        entry_id,
        execution.scope,
        execution.content_hash,
        conversation_text(execution.request.messages),
        answer,
        vector,
        execution.cache_ttl,
        execution.request.context.tenant,
        execution.request.decision.route_id,
        execution.cache_tags,
        origin,
    )


def count_all(metrics: Metrics, found: Iterable[CacheHit | CacheMiss]) -> None:
    """As ``count``, for many; what most of them are, hits by the same words, is counted at once."""
    exact = 0
    for one in found:
        if isinstance(one, CacheHit) and one.kind == "exact":
            exact += 1
        else:
            count(metrics, one)
    if exact:
        metrics.cache_lookups_total.labels("exact").inc(exact)


def count(metrics: Metrics, found: CacheHit | CacheMiss) -> None:
    """Count one lookup: what it came to, and why a near entry was refused or the backend not asked."""
    kind = _kind(found)
    metrics.cache_lookups_total.labels(kind).inc()
    if kind == "exact":
        return
    if found.similarity is not None and kind in {"semantic", "miss"}:
        metrics.cache_similarity.labels(kind).observe(round(found.similarity, 4))
    if isinstance(found, CacheMiss):
        if found.bypassed:
            metrics.cache_bypass_total.labels(found.reason or "unavailable").inc()
        elif found.reason == "invalidated":
            metrics.cache_stale_total.labels("lookup").inc()
        elif found.reason is not None and found.reason.startswith("guard:"):
            metrics.guard_refusals_total.labels(found.reason).inc()


def verdict(found: CacheHit | CacheMiss, key: str | None) -> CacheVerdict:
    """What a response says of its lookup; ``key`` is the question's own."""
    if isinstance(found, CacheHit):
        return CacheVerdict(found.kind, round(found.similarity, 4), found.entry_id, found.reason, key)
    similarity = None if found.similarity is None else round(found.similarity, 4)
    return CacheVerdict(_kind(found), similarity, found.entry_id, found.reason, key)


def _kind(found: CacheHit | CacheMiss) -> CacheVerdictKind:
    if isinstance(found, CacheHit):
        return found.kind
    return "bypass" if found.bypassed else "miss"
