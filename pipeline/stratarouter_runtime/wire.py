"""Records as bytes and back: UTF-8 JSON as ``schemas/`` describes it.

Requests come from strangers: an unknown field is refused, because it is a typo more often than an extension. What the
runtime writes itself (executions, responses, dead letters) may carry fields that a later version has added.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self, cast

import orjson

from stratarouter_runtime import validation as check
from stratarouter_runtime.config import MAX_REQUEST_BYTES, RuntimeConfig
from stratarouter_runtime.errors import (
    InvalidRecordError,
    RecordTooLargeError,
    ReplyTopicNotAllowedError,
    SchemaViolationError,
)
from stratarouter_runtime.json_bytes import json_bytes
from stratarouter_runtime.plain import field_names
from stratarouter_runtime.records import (
    CacheMode,
    CacheOptions,
    Context,
    Coordinates,
    Decision,
    Execution,
    Header,
    Request,
    Target,
    Vector,
)
from stratarouter_runtime.routes import Route
from stratarouter_runtime.wire_results import (
    OWN_MAX_DEPTH,
    coordinates,
    decode_dead_letter,
    decode_response,
    dumps,
    encode_dead_letter,
    encode_response,
    source_object,
    to_base64,
)

__all__ = [
    "Limits",
    "decision_from",
    "decode_dead_letter",
    "decode_execution",
    "decode_request",
    "decode_response",
    "encode_dead_letter",
    "encode_execution",
    "encode_request",
    "encode_response",
    "hashed",
    "kept_headers",
    "payload_hash",
    "peek_request_id",
    "scope_of",
]

Headers = Iterable[Header]

REQUEST_FIELDS = frozenset(
    ("request_id", "decision", "query", "messages", "embedding", "params", "context", "deadline", "cache", "reply_to")
)
DECISION_FIELDS = frozenset(
    ("route_id", "confidence", "scores", "alternatives", "provider", "model", "latency_ms", "metadata")
)
"""``latency_ms`` and ``metadata`` are Core's; they are let through so that its result can be sent as it is."""
CACHE_FIELDS = frozenset(("mode", "ttl", "threshold", "tags"))
MAX_TAGS = 32
"""Of one request: each is a label that every invalidation is held against."""
MAX_HEADERS = 128
MAX_HEADER_BYTES = 65_536
"""Of one record, names and values together: a broker bounds a record as it is compressed, which says little."""
CACHE_MODES = frozenset(("default", "bypass", "refresh", "read_only"))
ROLES = frozenset(("system", "user", "assistant", "tool"))
_TENANT_ALONE = {"tenant"}
_OPTIONAL_OF_DECISION = ("provider", "model", "confidence", "scores", "alternatives")
_OPTIONAL_FIELDS = ("params", "context", "embedding", "deadline", "cache", "reply_to")
_NOTHING: tuple[object, ...] = (None, {}, ())
_SELDOM_SAID = ("system_prompt", "batch_threshold", "cache_tags", "max_error_rate", "shadow")
_CACHE_AS_USUAL = CacheOptions()
_PLAIN_MESSAGE = {"role", "content"}
HASH_BYTES = 16
"""128 bits: no accidental collision below 2^60 records."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a request is held to. ``reply_prefix`` None allows any topic; ``strict`` refuses unknown fields."""

    max_bytes: int | None = None
    max_depth: int = 32
    dimension: int | None = None
    reply_prefix: str | None = None
    strict: bool = True

    @classmethod
    def of(cls, config: RuntimeConfig) -> Self:
        """The limits that ``config`` sets."""
        prefix = config.topic(config.reply_topic_prefix)
        return cls(config.max_request_bytes, config.max_nesting_depth, config.embedding_dimension, prefix)


OWN_LIMITS = Limits(max_depth=OWN_MAX_DEPTH, strict=False)
"""For a request inside an execution: it was checked when it came in."""


# --- request ---------------------------------------------------------------------------------------------------


def decode_request(
    value: bytes | None,
    *,
    headers: Headers = (),
    limits: Limits | None = None,
    source: Coordinates | None = None,
    default_id: str | None = None,
    vector: Vector | None = None,
) -> Request:
    """A request from its record; ``vector``, where it comes beside it, is its embedding.

    One without an id gets ``default_id``, or an id made of ``source`` and the bytes: the same record read again gets
    the same id. Raises the subclasses of InvalidRecordError.
    """
    limits = limits or Limits()
    found = check.json_object(value, limits.max_bytes, limits.max_depth)
    headers = tuple(headers)
    if len(kept_headers(headers)) < len(headers):
        raise RecordTooLargeError(
            f"the record has {len(headers)} headers; {MAX_HEADERS} of {MAX_HEADER_BYTES} bytes together are taken",
            remedy="send fewer headers",
        )
    if found.get("request_id") is None:
        found["request_id"] = default_id or _derived_id(cast("bytes", value), source)
    if vector is not None:
        found["embedding"] = vector
    return _request(found, "$", limits, check.traceparent(headers))


def _derived_id(value: bytes, source: Coordinates | None) -> str | None:
    if source is None:
        return None
    digest = hashlib.blake2b(value, digest_size=8, key=hashlib.sha256(source.topic.encode()).digest()).hexdigest()
    return f"auto-{source.partition}-{source.offset}-{digest}"


def kept_headers(headers: Headers) -> tuple[Header, ...]:
    """The first of ``headers``, within the bounds: what a dead letter carries of them."""
    kept: list[Header] = []
    size = 0
    for name, value in headers:
        size += len(name) + len(value or b"")
        if len(kept) == MAX_HEADERS or size > MAX_HEADER_BYTES:
            break
        kept.append((name, value))
    return tuple(kept)


def peek_request_id(value: bytes | None) -> str | None:
    """The request id in a record that may be wrong elsewhere, for its dead letter; None where there is none."""
    if value is not None and len(value) > MAX_REQUEST_BYTES:
        return None  # nobody's limit lets it through, and reading it would hold everything up
    try:
        return check.identifier(check.json_object(value, None, OWN_MAX_DEPTH).get("request_id"), "$.request_id")
    except InvalidRecordError:
        return None  # its own error is being reported already; this is only for the letter's address


def _request(found: dict[str, Any], path: str, limits: Limits, traceparent: str | None) -> Request:
    if limits.strict and not found.keys() <= REQUEST_FIELDS:
        check.refuse_unknown(found, REQUEST_FIELDS, path)
    # What is left out, as most fields are, costs no call: this runs for every record.
    get = found.get
    params, context, embedding, deadline, cache, reply_to = map(get, _OPTIONAL_FIELDS)
    return Request(
        request_id=check.identifier(get("request_id"), f"{path}.request_id"),
        decision=decision_from(get("decision"), f"{path}.decision", strict=limits.strict),
        messages=_messages(found, path),
        params={} if params is None else check.mapping(params, f"{path}.params"),
        context=Context() if context is None else context_from(context, f"{path}.context"),
        embedding=None if embedding is None else check.embedding(embedding, f"{path}.embedding", limits.dimension),
        deadline_ms=None if deadline is None else check.time_ms(deadline, f"{path}.deadline"),
        cache=CacheOptions() if cache is None else _cache_options(cache, f"{path}.cache", strict=limits.strict),
        reply_to=None if reply_to is None else _reply_to(reply_to, f"{path}.reply_to", limits.reply_prefix),
        traceparent=traceparent,
    )


def decision_from(value: object, path: str, *, strict: bool = True) -> Decision:
    """A decision from parsed JSON: a route id or an object. Raises SchemaViolationError naming ``path``."""
    if type(value) is str:
        return Decision(check.identifier(value, path))
    found = check.required_mapping(value, path)
    if strict and not found.keys() <= DECISION_FIELDS:
        check.refuse_unknown(found, DECISION_FIELDS, path)
    get = found.get
    provider, model, confidence, scores, alternatives = map(get, _OPTIONAL_OF_DECISION)
    if provider is not None or model is not None:
        provider = check.optional(provider, f"{path}.provider", check.identifier)
        model = check.optional(model, f"{path}.model", check.identifier)
        if provider is None or model is None:
            raise SchemaViolationError(f"{path}.provider and {path}.model must be named together")
    return Decision(
        route_id=check.identifier(get("route_id"), f"{path}.route_id"),
        confidence=None if confidence is None else check.fraction(confidence, f"{path}.confidence"),
        scores={} if scores is None else check.numbers(scores, f"{path}.scores"),
        alternatives=() if alternatives is None else _alternatives(alternatives, f"{path}.alternatives"),
        provider=provider,
        model=model,
    )


def _alternatives(value: object, path: str) -> tuple[str, ...]:
    items = check.listing(value, path)
    return tuple(check.identifier(item, f"{path}[{index}]") for index, item in enumerate(items))


def _messages(found: dict[str, Any], path: str) -> tuple[dict[str, Any], ...]:
    query, messages = found.get("query"), found.get("messages")
    if query is not None and messages is not None:
        raise SchemaViolationError(f"{path}.query and {path}.messages stand side by side; send one of them")
    if query is not None:
        return ({"role": "user", "content": check.visible_text(query, f"{path}.query")},)
    if messages is None:
        raise SchemaViolationError(f"{path}.query is missing, and so is {path}.messages; send one of them")
    items = check.listing(messages, f"{path}.messages")
    if not items:
        raise check.violation(f"{path}.messages", items, "must hold at least one message")
    return tuple([_message(item, f"{path}.messages[{index}]") for index, item in enumerate(items)])


def _message(value: object, path: str) -> dict[str, Any]:
    found = check.required_mapping(value, path)
    role, content = found.get("role"), found.get("content")
    if type(content) is str and found.keys() == _PLAIN_MESSAGE and type(role) is str and role in ROLES:
        return found  # nothing but text: most messages
    role = check.one_of(role, f"{path}.role", ROLES)
    tool_calls = check.objects(found.get("tool_calls"), f"{path}.tool_calls")
    if type(content) is list:
        for index, part in enumerate(content):
            at = f"{path}.content[{index}]"
            check.identifier(check.required_mapping(part, at).get("type"), f"{at}.type")
        if not content:
            raise check.violation(f"{path}.content", content, "must hold at least one part")
    elif type(content) is not str and not (content is None and role == "assistant" and tool_calls):
        rule = "must be a string or an array of parts (it may be left out beside an assistant's tool_calls)"
        raise check.violation(f"{path}.content", content, rule)
    return found


def context_from(value: object, path: str) -> Context:
    """Whose request it is, from parsed JSON. Raises SchemaViolationError naming ``path``."""
    found = check.mapping(value, path)
    if found.keys() == _TENANT_ALONE and found["tenant"] is not None:
        return Context(check.identifier(found["tenant"], f"{path}.tenant"))  # most contexts
    tenant = check.optional(found.get("tenant"), f"{path}.tenant", check.identifier)
    return Context(
        tenant="default" if tenant is None else tenant,
        user=check.optional(found.get("user"), f"{path}.user", check.identifier),
        session=check.optional(found.get("session"), f"{path}.session", check.identifier),
        extra={name: item for name, item in found.items() if name not in ("tenant", "user", "session")},
    )


def _cache_options(value: object, path: str, *, strict: bool) -> CacheOptions:
    found = check.mapping(value, path)
    if not found:
        return CacheOptions()
    if strict:
        check.refuse_unknown(found, CACHE_FIELDS, path)
    mode = found.get("mode")
    return CacheOptions(
        mode="default" if mode is None else cast("CacheMode", check.one_of(mode, f"{path}.mode", CACHE_MODES)),
        ttl=check.optional(found.get("ttl"), f"{path}.ttl", check.seconds_to_live),
        threshold=check.optional(found.get("threshold"), f"{path}.threshold", check.similarity),
        tags=_tags(found.get("tags"), f"{path}.tags", MAX_TAGS if strict else None),
    )


def _tags(value: object, path: str, limit: int | None) -> tuple[str, ...]:
    items = check.listing(value, path)
    if limit is not None and len(items) > limit:
        raise check.violation(path, items, f"must hold at most {limit} tags")
    return tuple(check.identifier(item, f"{path}[{index}]") for index, item in enumerate(items))


def _reply_to(value: object, path: str, prefix: str | None) -> str:
    topic = check.topic_name(value, path)
    if prefix is None or topic == prefix or topic.startswith((prefix + ".", prefix + "-")):
        return topic
    raise ReplyTopicNotAllowedError(
        f"{path} = {check.shown(topic)}: must be {prefix!r}, or begin with '{prefix}.' or '{prefix}-'"
    )


def encode_request(request: Request) -> bytes:
    """A request as its record's value (the traceparent goes into the headers)."""
    return dumps(_request_object(request))


def _request_object(request: Request) -> dict[str, Any]:
    """What is left out says nothing: a reader has the same default for it."""
    context = request.context
    around = context.extra | {"tenant": context.tenant}
    fields: dict[str, Any] = {
        "request_id": request.request_id,
        "decision": _present(request.decision),
        "messages": request.messages,
        "context": around,
    }
    if context.user is not None:
        around["user"] = context.user
    if context.session is not None:
        around["session"] = context.session
    if request.params:
        fields["params"] = request.params
    if request.embedding is not None:
        fields["embedding"] = to_base64(request.embedding.astype("<f4", copy=False).tobytes())
    if request.deadline_ms is not None:
        fields["deadline"] = check.rfc3339(request.deadline_ms)
    if request.cache != _CACHE_AS_USUAL:
        fields["cache"] = _present(request.cache)
    if request.reply_to is not None:
        fields["reply_to"] = request.reply_to
    return fields


_NAMES = {record: field_names(record) for record in (Decision, CacheOptions)}


def _present(record: Decision | CacheOptions) -> dict[str, Any]:
    """The fields of ``record`` that say something."""
    return {name: value for name in _NAMES[type(record)] if (value := getattr(record, name)) not in _NOTHING}


# --- execution -------------------------------------------------------------------------------------------------


def encode_execution(execution: Execution) -> bytes:
    """An execution as its record's value (the traceparent goes into the headers, the spread is in the key).

    By hand, and without what says nothing: every request that misses is written and read here.
    """
    execution = hashed(execution)
    fields: dict[str, Any] = {
        "request": _request_object(execution.request),
        "targets": [_target_object(target) for target in execution.targets],
        "scope": execution.scope,
        "content_hash": execution.content_hash,
        "payload_hash": execution.payload_hash,
        "cache_ttl": execution.cache_ttl,
        "cache_threshold": execution.cache_threshold,
        "enriched_ms": execution.enriched_ms,
    }
    if execution.source is not None:
        fields["source"] = source_object(execution.source)
    for name in _SELDOM_SAID:
        value = getattr(execution, name)
        if value is not None and value is not False and value != ():
            fields[name] = value
    return dumps(fields)


def decode_execution(value: bytes | None, headers: Headers = ()) -> Execution:
    """An execution from its record. Raises the subclasses of InvalidRecordError."""
    found = check.json_object(value, None, OWN_MAX_DEPTH)
    get = found.get
    request = check.required_mapping(get("request"), "$.request")
    targets = check.objects(get("targets"), "$.targets")
    if not targets:
        raise check.violation("$.targets", get("targets"), "must hold at least one target")
    system_prompt, batch_threshold, cache_tags, max_error_rate, shadow = map(get, _SELDOM_SAID)
    return Execution(
        _request(request, "$.request", OWN_LIMITS, check.traceparent(headers)),
        tuple([_target(item, "$.targets") for item in targets]),
        None if system_prompt is None else check.string(system_prompt, "$.system_prompt"),
        check.identifier(get("scope"), "$.scope"),
        check.identifier(get("content_hash"), "$.content_hash"),
        check.identifier(get("payload_hash"), "$.payload_hash"),
        coordinates(get("source"), "$.source"),
        check.whole(get("cache_ttl"), "$.cache_ttl", 0, check.MAX_TTL_S),
        check.similarity(get("cache_threshold"), "$.cache_threshold"),
        None if batch_threshold is None else check.similarity(batch_threshold, "$.batch_threshold"),
        enriched_ms=check.numbers(get("enriched_ms"), "$.enriched_ms"),
        cache_tags=() if cache_tags is None else _tags(cache_tags, "$.cache_tags", None),
        max_error_rate=None if max_error_rate is None else check.similarity(max_error_rate, "$.max_error_rate"),
        shadow=shadow is not None and check.flag(shadow, "$.shadow"),
    )


def _target_object(target: Target) -> dict[str, Any]:
    fields: dict[str, Any] = {"provider": target.provider, "model": target.model}
    if target.params:
        fields["params"] = target.params
    if target.weight != 1.0:
        fields["weight"] = target.weight
    return fields


def _target(found: dict[str, Any], path: str) -> Target:
    params, weight = found.get("params"), found.get("weight")
    return Target(
        check.identifier(found.get("provider"), f"{path}[].provider"),
        check.identifier(found.get("model"), f"{path}[].model"),
        {} if params is None else check.mapping(params, f"{path}[].params"),
        1.0 if weight is None else check.not_negative(weight, f"{path}[].weight"),
    )


# --- hashes ----------------------------------------------------------------------------------------------------


def payload_hash(request: Request) -> str:
    """Hex digest of what is asked, of whom and for whom: the same id with another digest is a conflict.

    Left out is what a client may change on sending again: deadline, embedding, confidence, cache options, reply topic.
    """
    decision, context = request.decision, request.context
    return _digest(
        [
            decision.route_id,
            decision.provider,
            decision.model,
            context.tenant,
            context.user,
            request.messages,
            request.params,
        ]
    )


def hashed(execution: Execution) -> Execution:
    """``execution``, whose payload hash is there from now on."""
    if not execution.payload_hash:
        execution.payload_hash = payload_hash(execution.request)  # type: ignore[misc]  # filled in, never changed
    return execution


def scope_of(route: Route, request: Request, drawn: Target | None = None) -> str:
    """Hex digest of everything an answer depends on besides the user's words.

    Tenant (unless the route shares its answers), route, targets, system prompt and parameters; and of a route whose
    weights choose among models the one that is ``drawn``, so that the answers of its arms are not mixed.
    """
    tenant = None if route.cache.share_across_tenants else request.context.tenant
    targets = [[target.provider, target.model, target.params] for target in route.targets]
    parts = [tenant, route.route_id, targets, route.system_prompt, route.params | request.params]
    return _digest(parts if drawn is None else [*parts, drawn.model, drawn.params])


def _digest(parts: list[Any]) -> str:
    canonical = json_bytes(parts, option=orjson.OPT_SORT_KEYS)
    return hashlib.blake2b(canonical, digest_size=HASH_BYTES).hexdigest()
