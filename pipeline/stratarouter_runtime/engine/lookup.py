"""Asks the cache for an execution, and says what is kept of an answer. Pure."""

from __future__ import annotations

from stratarouter_runtime.cache.normalise import conversation_text
from stratarouter_runtime.ports import CacheEntry, CacheHit, CacheMiss, CacheQuery
from stratarouter_runtime.records import Answer, CacheVerdict, Execution
from stratarouter_runtime.telemetry.metrics import Metrics


def may_read(execution: Execution) -> bool:
    """Whether this request may be answered from the cache."""
    return execution.cache_ttl > 0 and execution.request.cache.mode in {"default", "read_only"}


def may_write(execution: Execution) -> bool:
    """Whether this request's answer may be kept."""
    return execution.cache_ttl > 0 and execution.request.cache.mode in {"default", "refresh"}


def query(execution: Execution, text: str | None = None) -> CacheQuery:
    """The lookup for ``execution``; ``text`` is its conversation, where it is at hand."""
    return CacheQuery(
        scope=execution.scope,
        content_hash=execution.content_hash,
        text=conversation_text(execution.request.messages) if text is None else text,
        vector=execution.request.embedding,
        threshold=execution.cache_threshold,
    )


def entry(execution: Execution, answer: Answer, *, alias: bool = False) -> CacheEntry:
    """What to keep. An alias makes exact repeats of a paraphrase find the answer it was served; it has no vector,
    so that likeness is never measured against a paraphrase of a paraphrase.
    """
    return CacheEntry(
        entry_id=execution.content_hash,
        scope=execution.scope,
        content_hash=execution.content_hash,
        text=conversation_text(execution.request.messages),
        answer=answer,
        vector=None if alias else execution.request.embedding,
        ttl=execution.cache_ttl,
        tenant=execution.request.context.tenant,
        route_id=execution.request.decision.route_id,
    )


def count(metrics: Metrics, found: CacheHit | CacheMiss) -> None:
    """Count one lookup: what it came to, and why a near entry was refused or the backend not asked."""
    metrics.cache_lookups_total.labels(verdict(found).kind).inc()
    if isinstance(found, CacheMiss):
        if found.bypassed:
            metrics.cache_bypass_total.labels(found.reason or "unavailable").inc()
        elif found.reason is not None and found.reason.startswith("guard:"):
            metrics.guard_refusals_total.labels(found.reason).inc()


def verdict(found: CacheHit | CacheMiss) -> CacheVerdict:
    """What a response says of its lookup."""
    if isinstance(found, CacheHit):
        return CacheVerdict(found.kind, round(found.similarity, 4), found.entry_id)
    similarity = None if found.similarity is None else round(found.similarity, 4)
    return CacheVerdict("bypass" if found.bypassed else "miss", similarity, found.entry_id, found.reason)
