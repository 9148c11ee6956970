"""Responses and dead letters as bytes and back: what the runtime answers. ``wire`` offers all of it."""

from __future__ import annotations

from typing import Any, cast

import orjson
import pybase64

from stratarouter_runtime import validation as check
from stratarouter_runtime.errors import SchemaViolationError
from stratarouter_runtime.json_bytes import json_bytes
from stratarouter_runtime.plain import field_names
from stratarouter_runtime.records import (
    Attempt,
    BatchRole,
    BatchVerdict,
    CacheVerdict,
    CacheVerdictKind,
    Coordinates,
    DeadLetter,
    ErrorInfo,
    Response,
    Status,
    Usage,
)

CACHE_VERDICTS = frozenset(("exact", "semantic", "miss", "bypass"))
BATCH_ROLES = frozenset(("none", "leader", "follower"))
STATUSES = frozenset(("ok", "error"))
OWN_MAX_DEPTH = 256
"""Nesting bound for what the runtime wrote itself: more than ``max_nesting_depth`` may allow a request (200)."""


def coordinates(value: object, path: str) -> Coordinates | None:
    """Where a record stands; None where nothing is said."""
    if value is None:
        return None
    get = check.mapping(value, path).get
    timestamp_ms = get("timestamp_ms")
    return Coordinates(
        topic=check.topic_name(get("topic"), f"{path}.topic"),
        partition=check.whole(get("partition"), f"{path}.partition"),
        offset=check.whole(get("offset"), f"{path}.offset"),
        # Kafka writes -1 where a record has no timestamp.
        timestamp_ms=0 if timestamp_ms is None else check.whole(timestamp_ms, f"{path}.timestamp_ms", -1),
    )


def source_object(source: Coordinates) -> dict[str, Any]:
    """Where a record stands, as JSON has it."""
    return {
        "topic": source.topic,
        "partition": source.partition,
        "offset": source.offset,
        "timestamp_ms": source.timestamp_ms,
    }


def attempt_object(attempt: Attempt) -> dict[str, Any]:
    """A call to a target, as JSON has it."""
    return {
        "provider": attempt.provider,
        "model": attempt.model,
        "outcome": attempt.outcome,
        "duration_ms": attempt.duration_ms,
        "status": attempt.status,
        "waited_ms": attempt.waited_ms,
    }


def usage_object(usage: Usage) -> dict[str, Any]:
    """Tokens, as JSON has them."""
    return {
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cached_tokens": usage.cached_tokens,
        "reasoning_tokens": usage.reasoning_tokens,
    }


# --- response --------------------------------------------------------------------------------------------------


def encode_response(response: Response) -> bytes:
    """A response as its record's value."""
    cache, batch, source = response.cache, response.batch, response.source
    fields = {
        "request_id": response.request_id,
        "status": response.status,
        "text": response.text,
        "provider": response.provider,
        "model": response.model,
        "finish_reason": response.finish_reason,
        "tool_calls": response.tool_calls,
        "usage": usage_object(response.usage),
        "cost_usd": response.cost_usd,
        "saved_usd": response.saved_usd,
        "cache": {
            "kind": cache.kind,
            "similarity": cache.similarity,
            "entry_id": cache.entry_id,
            "reason": cache.reason,
            "key": cache.key,
        },
        "batch": {
            "role": batch.role,
            "leader_id": batch.leader_id,
            "similarity": batch.similarity,
            "leader_key": batch.leader_key,
        },
        "attempts": [attempt_object(attempt) for attempt in response.attempts],
        "timings_ms": response.timings_ms,
        "error": response.error,
        "route_id": response.route_id,
        "tenant": response.tenant,
        "source": None if source is None else source_object(source),
        "from_journal": response.from_journal,
        "replay_id": response.replay_id,
    }
    return dumps(fields)


def decode_response(value: bytes | None) -> Response:
    """A response from its record. Raises the subclasses of InvalidRecordError."""
    get = check.json_object(value, None, OWN_MAX_DEPTH).get
    tenant = check.optional(get("tenant"), "$.tenant", check.identifier)
    attempts = check.objects(get("attempts"), "$.attempts")
    return Response(
        request_id=check.identifier(get("request_id"), "$.request_id"),
        status=cast("Status", check.one_of(get("status"), "$.status", STATUSES)),
        text=check.optional(get("text"), "$.text", check.string),
        provider=check.optional(get("provider"), "$.provider", check.string),
        model=check.optional(get("model"), "$.model", check.string),
        finish_reason=check.optional(get("finish_reason"), "$.finish_reason", check.string),
        tool_calls=check.objects(get("tool_calls"), "$.tool_calls"),
        usage=_usage(get("usage"), "$.usage"),
        cost_usd=check.optional(get("cost_usd"), "$.cost_usd", check.not_negative),
        saved_usd=check.optional(get("saved_usd"), "$.saved_usd", check.not_negative),
        cache=_cache_verdict(get("cache"), "$.cache"),
        batch=_batch_verdict(get("batch"), "$.batch"),
        attempts=tuple(_attempt(item, f"$.attempts[{index}]") for index, item in enumerate(attempts)),
        timings_ms=check.numbers(get("timings_ms"), "$.timings_ms"),
        error=_error(get("error"), "$.error"),
        route_id=check.or_else("", get("route_id"), "$.route_id", check.string),
        tenant="default" if tenant is None else tenant,
        source=coordinates(get("source"), "$.source"),
        from_journal=check.or_else(False, get("from_journal"), "$.from_journal", check.flag),
        replay_id=check.optional(get("replay_id"), "$.replay_id", check.string),
    )


def _usage(value: object, path: str) -> Usage:
    found = check.mapping(value, path)
    return Usage(
        **{name: check.or_else(0, found.get(name), f"{path}.{name}", check.whole) for name in field_names(Usage)}
    )


def _cache_verdict(value: object, path: str) -> CacheVerdict:
    get = check.required_mapping(value, path).get
    return CacheVerdict(
        kind=cast("CacheVerdictKind", check.one_of(get("kind"), f"{path}.kind", CACHE_VERDICTS)),
        similarity=check.optional(get("similarity"), f"{path}.similarity", check.number),
        entry_id=check.optional(get("entry_id"), f"{path}.entry_id", check.string),
        reason=check.optional(get("reason"), f"{path}.reason", check.string),
        key=check.optional(get("key"), f"{path}.key", check.string),
    )


def _batch_verdict(value: object, path: str) -> BatchVerdict:
    get = check.required_mapping(value, path).get
    return BatchVerdict(
        role=cast("BatchRole", check.one_of(get("role"), f"{path}.role", BATCH_ROLES)),
        leader_id=check.optional(get("leader_id"), f"{path}.leader_id", check.string),
        similarity=check.optional(get("similarity"), f"{path}.similarity", check.number),
        leader_key=check.optional(get("leader_key"), f"{path}.leader_key", check.string),
    )


def _attempt(found: dict[str, Any], path: str) -> Attempt:
    get = found.get
    return Attempt(
        provider=check.string(get("provider"), f"{path}.provider"),
        model=check.string(get("model"), f"{path}.model"),
        outcome=check.string(get("outcome"), f"{path}.outcome"),
        duration_ms=check.number(get("duration_ms"), f"{path}.duration_ms"),
        status=check.optional(get("status"), f"{path}.status", check.whole),
        waited_ms=check.or_else(0.0, get("waited_ms"), f"{path}.waited_ms", check.number),
    )


def _error(value: object, path: str) -> ErrorInfo | None:
    if value is None:
        return None
    get = check.mapping(value, path).get
    return ErrorInfo(
        code=check.string(get("code"), f"{path}.code"),
        message=check.string(get("message"), f"{path}.message"),
        remedy=check.or_else("", get("remedy"), f"{path}.remedy", check.string),
        retryable=check.or_else(False, get("retryable"), f"{path}.retryable", check.flag),
    )


# --- dead letter -----------------------------------------------------------------------------------------------


def encode_dead_letter(letter: DeadLetter) -> bytes:
    """A dead letter as its record's value; key, value and headers go as base64, whatever bytes they are."""
    return dumps(
        {
            "code": letter.code,
            "reason": letter.reason,
            "remedy": letter.remedy,
            "source": source_object(letter.source),
            "processor": letter.processor,
            "key": None if letter.key is None else to_base64(letter.key),
            "value": None if letter.value is None else to_base64(letter.value),
            "headers": [{"name": name, "value": to_base64(value or b"")} for name, value in letter.headers],
            "failed_at": check.rfc3339(letter.failed_at_ms),
            "request_id": letter.request_id,
        }
    )


def decode_dead_letter(value: bytes | None) -> DeadLetter:
    """A dead letter from its record. Raises the subclasses of InvalidRecordError."""
    get = check.json_object(value, None, OWN_MAX_DEPTH).get
    source = coordinates(get("source"), "$.source")
    if source is None:
        raise check.missing("$.source")
    headers = check.objects(get("headers"), "$.headers")
    return DeadLetter(
        code=check.string(get("code"), "$.code"),
        reason=check.string(get("reason"), "$.reason"),
        remedy=check.or_else("", get("remedy"), "$.remedy", check.string),
        source=source,
        processor=check.string(get("processor"), "$.processor"),
        key=check.optional(get("key"), "$.key", check.base64_bytes),
        value=check.optional(get("value"), "$.value", check.base64_bytes),
        headers=tuple(_header(item, f"$.headers[{index}]") for index, item in enumerate(headers)),
        failed_at_ms=check.time_ms(get("failed_at"), "$.failed_at"),
        request_id=check.optional(get("request_id"), "$.request_id", check.identifier),
    )


def _header(found: dict[str, Any], path: str) -> tuple[str, bytes]:
    return check.string(found.get("name"), f"{path}.name"), check.base64_bytes(found.get("value"), f"{path}.value")


# --- shared with the other records ------------------------------------------------------------------------------


def to_base64(raw: bytes) -> str:
    """Bytes as base64 text with padding."""
    return pybase64.b64encode_as_string(raw)


def dumps(value: object) -> bytes:
    """``value`` as JSON. Raises SchemaViolationError for what JSON lacks (a lone surrogate, a foreign object)."""
    try:
        return json_bytes(value)
    except orjson.JSONEncodeError as exc:
        raise SchemaViolationError(f"the record cannot be written as JSON: {exc}") from exc
