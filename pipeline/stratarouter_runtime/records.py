"""The records that move through the topics, as plain data. How they look as bytes is ``wire``'s business.

A request on its topic (JSON object, UTF-8)::

    {"request_id": "r-1",
     "decision": {"route_id": "billing", "confidence": 0.93, "scores": {"billing": 0.93}, "alternatives": [...],
                  "provider": "openai", "model": "gpt-4o-mini"},
     "query": "Where is my invoice?",            # or "messages": [{"role": "user", "content": "..."}]
     "embedding": [0.1, ...],                    # or base64 of little-endian float32
     "params": {"temperature": 0, "max_tokens": 256},
     "context": {"tenant": "acme", "user": "u1", "session": "s1"},
     "deadline": "2026-01-01T00:00:00Z",         # RFC 3339
     "cache": {"mode": "default", "ttl": 3600, "threshold": 0.95, "tags": ["doc-7"]},
     "reply_to": "responses.team-a"}
"""

from __future__ import annotations

from dataclasses import field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from stratarouter_runtime.plain import dataclass

Vector = NDArray[np.float32]
"""A unit-length embedding, shape (dimension,), float32."""

Header = tuple[str, bytes | None]
"""Of a record as it was read: Kafka has headers without a value."""
CacheMode = Literal["default", "bypass", "refresh", "read_only"]
CacheAction = Literal["invalidate", "correct", "mark_wrong"]
CacheVerdictKind = Literal["exact", "semantic", "miss", "bypass"]
BatchRole = Literal["none", "leader", "follower"]
Status = Literal["ok", "error"]


def milliseconds(seconds: float) -> float:
    """As responses, attempts and spans carry durations: to the microsecond."""
    return round(seconds * 1_000_000) / 1000  # round() to a number of decimals takes four times as long


@dataclass(frozen=True, slots=True)
class Coordinates:
    """Where a record stands: topic, partition, offset, and its timestamp in epoch milliseconds."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int = 0


@dataclass(frozen=True, slots=True)
class Decision:
    """A routing decision. ``provider`` and ``model`` are set where the caller has chosen the target."""

    route_id: str
    confidence: float | None = None
    scores: dict[str, float] = field(default_factory=dict)
    alternatives: tuple[str, ...] = ()
    provider: str | None = None
    model: str | None = None


@dataclass(frozen=True, slots=True)
class CacheOptions:
    """What one request asks of the cache. ``ttl`` in seconds; ``threshold`` a cosine similarity.

    ``tags`` are what its answer can be invalidated by later: a document, a version.
    """

    mode: CacheMode = "default"
    ttl: int | None = None
    threshold: float | None = None
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Context:
    """Whose request it is. ``extra`` is carried through untouched."""

    tenant: str = "default"
    user: str | None = None
    session: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Request:
    """A valid request. ``messages`` is never empty: a ``query`` becomes one user message.

    ``deadline_ms`` is in epoch milliseconds (wall clock), or None.
    """

    request_id: str
    decision: Decision
    messages: tuple[dict[str, Any], ...]
    params: dict[str, Any] = field(default_factory=dict)
    context: Context = field(default_factory=Context)
    embedding: Vector | None = None
    deadline_ms: int | None = None
    cache: CacheOptions = field(default_factory=CacheOptions)
    reply_to: str | None = None
    traceparent: str | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """One provider and model to call, with the parameters the route adds (the request's own win)."""

    provider: str
    model: str
    params: dict[str, Any] = field(default_factory=dict)
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Execution:
    """A request made ready to be executed: route resolved, scope and hashes computed.

    Attributes:
        request: the request.
        targets: in the order they are tried; never empty.
        system_prompt: the route's, or None.
        scope: hex digest of everything an answer depends on besides the user's words
            (tenant, route, targets, system prompt, parameters); never crossed by cache or coalescing.
        content_hash: hex digest of scope and normalised messages: the exact-match key.
        payload_hash: hex digest of what the client sent: tells a redelivery from a conflict. Empty until somebody needs
            it (``wire.hashed``): a hit needs none.
        source: the request's own coordinates (None in-process).
        cache_ttl: seconds an answer may be served, after route and request had their say.
        cache_threshold: cosine similarity for a semantic hit, likewise.
        batch_threshold: cosine similarity from which it follows a leader in flight; None: it follows nobody.
        spread: over how many buckets its scope's executions go (``engine/spread.py``); not part of the record.
        enriched_ms: what earlier steps took, by step name, in milliseconds.
        cache_tags: what the answer can be invalidated by: the route's tags and the request's.
        max_error_rate: the share of hits by likeness that may be wrong; None: nobody bounds it.
        shadow: its request was answered by a hit; the fresh answer is for comparing with that one, and goes to nobody.
    """

    request: Request
    targets: tuple[Target, ...]
    system_prompt: str | None
    scope: str
    content_hash: str
    payload_hash: str = ""
    source: Coordinates | None = None
    cache_ttl: int = 3600
    cache_threshold: float = 0.95
    batch_threshold: float | None = None
    spread: int = 1
    enriched_ms: dict[str, float] = field(default_factory=dict)
    cache_tags: tuple[str, ...] = ()
    max_error_rate: float | None = None
    shadow: bool = False


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens as the provider counted them."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """What a provider generated, in one form for all of them.

    ``cost_usd`` is None where the price is unknown; never zero for that reason.
    """

    text: str
    provider: str
    model: str
    usage: Usage = field(default_factory=Usage)
    finish_reason: str = "stop"
    cost_usd: float | None = None
    tool_calls: tuple[dict[str, Any], ...] = ()

    @property
    def called(self) -> list[object]:
        """Which functions with which arguments; the ids of calls are made up anew each time."""
        return [call.get("function", {name: call[name] for name in call if name != "id"}) for call in self.tool_calls]

    def priced(self, cost_usd: float | None) -> Answer:
        """The same answer with its price; ``dataclasses.replace`` takes ten times as long."""
        return Answer(self.text, self.provider, self.model, self.usage, self.finish_reason, cost_usd, self.tool_calls)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One call to one target: how it ended and how long it took."""

    provider: str
    model: str
    outcome: str
    duration_ms: float
    status: int | None = None
    waited_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class CacheVerdict:
    """What the cache said: kind, the similarity and entry behind it, and why (guard, mode, failure).

    ``key`` is the question's own: under it an answer to these very words is kept, corrected or invalidated.
    """

    kind: CacheVerdictKind
    similarity: float | None = None
    entry_id: str | None = None
    reason: str | None = None
    key: str | None = None


@dataclass(frozen=True, slots=True)
class BatchVerdict:
    """Whether the request led, followed or stood alone; ``leader_id`` and similarity for a follower.

    ``leader_key`` is the key of the leader's question in the cache.
    """

    role: BatchRole = "none"
    leader_id: str | None = None
    similarity: float | None = None
    leader_key: str | None = None


@dataclass(frozen=True, slots=True)
class ErrorInfo:
    """An error as records carry it: stable code, what was wrong, what to do."""

    code: str
    message: str
    remedy: str = ""
    retryable: bool = False


@dataclass(frozen=True, slots=True)
class Response:
    """The one response to a request.

    ``timings_ms`` holds each step's duration; ``cost_usd`` is what this response cost (0.0 for a hit or a
    follower), ``saved_usd`` what it would have cost. Both None where the price is unknown. ``replay_id`` is set where a
    replay wrote it: it repeats an earlier response, and its money was counted then.
    """

    request_id: str
    status: Status
    text: str | None = None
    provider: str | None = None
    model: str | None = None
    finish_reason: str | None = None
    tool_calls: tuple[dict[str, Any], ...] = ()
    usage: Usage = field(default_factory=Usage)
    cost_usd: float | None = None
    saved_usd: float | None = None
    cache: CacheVerdict = field(default_factory=lambda: CacheVerdict("bypass"))
    batch: BatchVerdict = field(default_factory=BatchVerdict)
    attempts: tuple[Attempt, ...] = ()
    timings_ms: dict[str, float] = field(default_factory=dict)
    error: ErrorInfo | None = None
    route_id: str = ""
    tenant: str = "default"
    source: Coordinates | None = None
    from_journal: bool = False
    replay_id: str | None = None


@dataclass(frozen=True, slots=True)
class CacheCommand:
    """A record of the cache-control topic: what to do with answers that are kept, who wants it and why.

    Attributes:
        action: ``invalidate`` what one of key, request id, tag, route, tenant or everything names; ``correct`` the
            answer under a key; ``mark_wrong``: the answer that the question ``key`` got.
        by: who asks for it.
        reason: why.
        at_ms: when it was asked for, in epoch milliseconds.
        key: an entry's key (``CacheVerdict.key``).
        request_id: whose answer; with ``tenant``.
        tag: what answers were tagged with.
        route_id: whose answers.
        tenant: whose answers.
        everything: all answers of all tenants.
        answered_by: for ``mark_wrong``: the key of the entry that answered, where it is another one.
        text: for ``correct``: the right answer.
        ttl: for ``correct``: seconds that it is served for; None: ``cache_ttl``.
        asked: the question, for people; nothing depends on it.
        stored: the question of the entry that answered, likewise.
    """

    action: CacheAction
    by: str
    reason: str
    at_ms: int
    key: str | None = None
    request_id: str | None = None
    tag: str | None = None
    route_id: str | None = None
    tenant: str | None = None
    everything: bool = False
    answered_by: str | None = None
    text: str | None = None
    ttl: int | None = None
    asked: str | None = None
    stored: str | None = None


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record that could not become a response, with its bytes as they came."""

    code: str
    reason: str
    remedy: str
    source: Coordinates
    processor: str
    key: bytes | None
    value: bytes | None
    headers: tuple[Header, ...] = ()
    failed_at_ms: int = 0
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class UsageLine:
    """What one response means for the accounts.

    ``kind``: exact, semantic, paid, coalesced or error. ``nano_usd``: what it cost or saved, in thousand-millionths of
    a US dollar; None where the price is unknown. ``request_id`` where the journal may know the request too.
    """

    tenant: str
    route: str
    model: str
    kind: str
    request_id: str | None
    nano_usd: int | None
    input_tokens: int = 0
    output_tokens: int = 0
    code: str | None = None
    source: Coordinates | None = None


@dataclass(frozen=True, slots=True)
class Outbound:
    """Bytes to publish: topic, key, value, headers; and what they mean for the accounts, for a response."""

    topic: str
    key: bytes | None
    value: bytes
    headers: tuple[tuple[str, bytes], ...] = ()
    usage: UsageLine | None = None
