"""How the cache's entries look as bytes in Redis: JSON, versioned. Whatever does not read as ours is refused."""

from __future__ import annotations

import base64
from dataclasses import asdict
from typing import Any

import numpy as np
import orjson

from stratarouter_runtime.cache.shelf import Place
from stratarouter_runtime.cache.votes import UNSAID, said
from stratarouter_runtime.json_bytes import json_bytes
from stratarouter_runtime.plain import dataclass
from stratarouter_runtime.port_values import CacheEntry
from stratarouter_runtime.records import Answer, Usage, Vector
from stratarouter_runtime.state.cache_control import BEFORE_ALL, Origin

FORMAT = 1
"""Version of both forms; a reader refuses others, so that workers of two versions can share a Redis."""


class GarbageError(ValueError):
    """Bytes that are no entry of this cache, or another entry's."""


class UnstorableError(ValueError):
    """An entry that JSON cannot hold: a lone surrogate, an integer beyond 64 bits, an object of no JSON type."""


@dataclass(frozen=True, slots=True)
class Found:
    """What an entry's value says; ``likeness`` as ``CacheEntry``'s.

    ``expires_ms`` by the wall; 0 where whoever wrote it did not say.
    """

    entry_id: str
    answer: Answer
    origin: Origin
    likeness: float = 1.0
    expires_ms: int = 0


@dataclass(frozen=True, slots=True)
class Findable:
    """What a worker needs to find an entry by likeness; the answer lies beside it. ``expires_ms`` by the wall, ``says``
    as ``votes.said``; UNSAID where whoever wrote it did not say.
    """

    entry_id: str
    scope: str
    content_hash: str
    text: str
    expires_ms: int
    vector: Vector
    says: int = UNSAID


def encode_answer(entry: CacheEntry, expires_ms: int) -> bytes:
    """The value of an entry. Raises UnstorableError."""
    return _dumps(
        {
            "v": FORMAT,
            "entry_id": entry.entry_id,
            "scope": entry.scope,
            "content_hash": entry.content_hash,
            "tenant": entry.tenant,
            "route_id": entry.route_id,
            "tags": entry.tags,
            "text": entry.text,
            "begun": entry.origin.begun,
            "labels": entry.origin.labels,
            "likeness": entry.likeness,
            "expires_ms": expires_ms,
            "answer": asdict(entry.answer),
        }
    )


def decode_answer(raw: bytes, place: Place) -> Found:
    """The entry at ``place``. Raises GarbageError."""
    fields = _loads(raw)
    if (fields.get("scope"), fields.get("content_hash")) != place:
        raise GarbageError("another entry's")
    try:
        entry_id, answer = _text(fields["entry_id"]), _answer(fields["answer"])
        likeness, expires_ms = float(fields.get("likeness", 1.0)), int(fields.get("expires_ms", 0))
        return Found(entry_id, answer, origin_of(fields), likeness, expires_ms)
    except (KeyError, TypeError, ValueError) as exc:
        raise GarbageError(f"an entry without a readable answer: {type(exc).__name__}") from exc


def read_answer(raw: bytes) -> dict[str, Any]:
    """The fields of an entry, wherever it lies. Raises GarbageError."""
    return _loads(raw)


def origin_of(fields: dict[str, Any]) -> Origin:
    """Where the answer comes from; one written before origins were counts as older than every invalidation."""
    labels = fields.get("labels") or ()
    return Origin(int(fields.get("begun", BEFORE_ALL)), tuple(_text(one) for one in labels))


def encode_findable(entry: CacheEntry, vector: Vector, expires_ms: int) -> bytes:
    """What finds an entry by likeness, ``vector`` as float32. Raises UnstorableError."""
    row = np.ascontiguousarray(vector, dtype="<f4")
    return _dumps(
        {
            "v": FORMAT,
            "entry_id": entry.entry_id,
            "scope": entry.scope,
            "content_hash": entry.content_hash,
            "text": entry.text,
            "expires_ms": expires_ms,
            "says": said(entry.answer),
            "vector": base64.b64encode(row.tobytes()).decode("ascii"),
        }
    )


def decode_findable(raw: bytes) -> Findable:
    """What finds an entry. Raises GarbageError; whether it lay under its own key is the caller's to check."""
    fields = _loads(raw)
    try:
        packed = base64.b64decode(fields["vector"], validate=True)
        return Findable(
            entry_id=_text(fields["entry_id"]),
            scope=_text(fields["scope"]),
            content_hash=_text(fields["content_hash"]),
            text=_text(fields["text"]),
            expires_ms=int(fields["expires_ms"]),
            vector=np.frombuffer(packed, dtype="<f4").astype(np.float32),
            says=int(fields.get("says", UNSAID)),
        )
    except (KeyError, TypeError, ValueError) as exc:
        raise GarbageError(f"an entry without a readable vector: {type(exc).__name__}") from exc


def _dumps(fields: dict[str, Any]) -> bytes:
    try:
        return json_bytes(fields)
    except (TypeError, ValueError) as exc:
        raise UnstorableError(str(exc)) from exc


def _loads(raw: bytes) -> dict[str, Any]:
    try:
        fields = orjson.loads(raw)
    except orjson.JSONDecodeError as exc:
        raise GarbageError("no JSON") from exc
    if not isinstance(fields, dict) or fields.get("v") != FORMAT:
        raise GarbageError("not of this format")
    return fields


def _answer(fields: dict[str, Any]) -> Answer:
    cost = fields["cost_usd"]
    calls, usage = fields["tool_calls"], fields["usage"]
    if not isinstance(calls, list) or not all(isinstance(call, dict) for call in calls):
        raise TypeError("tool_calls")
    if not isinstance(usage, dict):
        raise TypeError("usage")
    return Answer(
        text=_text(fields["text"]),
        provider=_text(fields["provider"]),
        model=_text(fields["model"]),
        usage=Usage(**{name: int(count) for name, count in usage.items()}),
        finish_reason=_text(fields["finish_reason"]),
        cost_usd=None if cost is None else float(cost),
        tool_calls=tuple(calls),
    )


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("not a text")
    return value
