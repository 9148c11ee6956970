"""Makes a request ready to be executed: decodes it, resolves its route, computes its scope and hashes."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from stratarouter_runtime import validation as check
from stratarouter_runtime import wire
from stratarouter_runtime.cache.normalise import content_key
from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.drafts import Draft, Words
from stratarouter_runtime.errors import DeadlineExceededError
from stratarouter_runtime.records import Context, Coordinates, Execution, Header, Request, Target, Vector
from stratarouter_runtime.routes import (
    Route,
    RouteTable,
    check_confidence,
    chooses_a_model,
    order_targets,
    params_over,
)
from stratarouter_runtime.telemetry.logs import event

log = logging.getLogger("stratarouter.accept")

MAX_SCOPES = 10_000
"""Digests kept, one for each route and tenant, and patterns of requests: some 20 MB."""
MAX_KNOWN = 4_096
"""Questions noted, and kept as they were read (some 3 kB) when they have come twice. When there is no room they are all
forgotten: one that comes often is back at once, and keeping count of the others would cost more than reading them."""
ROOMY_BYTES = 16_384
"""A request of plain words (``drafts.Draft.words``) is smaller than this, however it is written."""


class Acceptor:
    """Holds the route table and the limits against which requests are checked."""

    def __init__(self, config: RuntimeConfig, routes: RouteTable) -> None:
        self._config = config
        self._routes = routes
        self._limits = wire.Limits.of(config)
        self._scopes: dict[tuple[str, str, int], str] = {}
        self._known: dict[Words, Execution | None] = {}
        self._patterns: dict[Words, Execution] = {}
        self._has_patterns = config.max_request_bytes >= ROOMY_BYTES
        self._tells_of_vectors = config.expects_vectors

    def update(self, routes: RouteTable) -> None:
        """Resolve by another table from now on."""
        self._routes = routes
        self._scopes.clear()
        self._known.clear()
        self._patterns.clear()

    def accept_draft(self, draft: Draft, headers: tuple[tuple[str, bytes], ...]) -> Execution:
        """As ``decode`` and ``accept``, for a caller in this process.

        Of a question in plain words only the words are read: what a route and a tenant have in common is read once,
        and words that came twice not at all.
        """
        words = draft.words
        if words is None:
            return self._read(draft, headers)
        known = self._known.get(words)
        if known is not None:
            return self._like(known, draft, headers, known.request.messages, known.content_hash)
        pattern = self._patterns.get(_pattern(words))
        if pattern is None or not _is_plain(words.query):
            execution = self._read(draft, headers)
            self._keep_pattern(_pattern(words), execution)
        else:
            messages = ({"role": "user", "content": words.query},)
            execution = self._like(pattern, draft, headers, messages, content_key(pattern.scope, messages))
        self._know(words, execution)
        return execution

    def _read(self, draft: Draft, headers: tuple[tuple[str, bytes], ...]) -> Execution:
        return self.accept(self.decode(draft.body(), headers, None, draft.vector), None)

    def _keep_pattern(self, place: Words, execution: Execution) -> None:
        """A weighted route's first target hangs on the request's id, so there is no pattern for it."""
        if self._has_patterns and not self._routes.resolve(execution.request.decision).weighted:
            if len(self._patterns) >= MAX_SCOPES:
                self._patterns.clear()
            self._patterns[place] = replace(execution, request=replace(execution.request, messages=(), embedding=None))

    def _know(self, words: Words, execution: Execution) -> None:
        """The first time only the words are noted: most never come again."""
        if words not in self._known:
            if len(self._known) >= MAX_KNOWN:
                self._known.clear()
            self._known[words] = None
        elif _pattern(words) in self._patterns:
            self._known[words] = replace(wire.hashed(execution), request=replace(execution.request, embedding=None))

    def _like(
        self,
        known: Execution,
        draft: Draft,
        headers: tuple[tuple[str, bytes], ...],
        messages: tuple[dict[str, Any], ...],
        content_hash: str,
    ) -> Execution:
        """``draft`` asks ``messages``, and is else as ``known`` but for its id, vector and context."""
        asked, vector, around = known.request, draft.vector, draft.fields["context"]
        context = wire.context_from(around, "$.context") if around else Context()
        request = Request(
            draft.request_id if draft.made_up else check.identifier(draft.request_id, "$.request_id"),
            asked.decision,
            messages,
            asked.params,
            context,
            None if vector is None else check.embedding(vector, "$.embedding", self._limits.dimension),
            cache=asked.cache,
            traceparent=check.traceparent(headers) if headers else None,
        )
        same_payload = messages is asked.messages and context.user == asked.context.user
        return Execution(
            request,
            known.targets,
            known.system_prompt,
            known.scope,
            content_hash,
            known.payload_hash if same_payload else "",
            None,
            known.cache_ttl,
            known.cache_threshold,
            known.batch_threshold,
            known.spread,
            {},
            known.cache_tags,
            known.max_error_rate,
        )

    def decode(
        self,
        value: bytes | None,
        headers: Iterable[Header],
        source: Coordinates | None,
        vector: Vector | None = None,
    ) -> Request:
        """A request from its bytes, and its vector where that comes beside them. Raises InvalidRecordError.

        A request without an id gets one from its coordinates and content: a topic made anew never meets old answers.
        """
        return wire.decode_request(value, headers=headers, limits=self._limits, source=source, vector=vector)

    def accept(self, request: Request, source: Coordinates | None) -> Execution:
        """Resolve and prepare. Raises UnknownRouteError, LowConfidenceError, DeadlineExceededError."""
        deadline = request.deadline_ms
        if deadline is not None and deadline <= time.time() * 1000:
            raise DeadlineExceededError(f"the deadline had passed before the request was read ({deadline} ms)")
        route = self._routes.resolve(request.decision)
        check_confidence(route, request.decision)
        if self._tells_of_vectors and request.embedding is None:
            self._tell_of_vectors()
        targets = order_targets(route, request.request_id)
        scope = self._scope(route, request, targets[0] if chooses_a_model(route) else None)
        return Execution(
            request=request,
            targets=_with_route_params(route, targets),
            system_prompt=route.system_prompt,
            scope=scope,
            content_hash=content_key(scope, request.messages),
            source=source,
            cache_ttl=self._ttl(route, request),
            cache_threshold=self._threshold(route, request),
            batch_threshold=self._batch_threshold(route, request),
            cache_tags=tuple(dict.fromkeys(route.cache.tags + request.cache.tags)),
            spread=route.batch.spread,
            max_error_rate=route.cache.max_error_rate or self._config.cache_max_error_rate,
        )

    def _tell_of_vectors(self) -> None:
        """Once: who never chose an embedder may take a cache that finds the same words alone for a broken one."""
        self._tells_of_vectors = False
        event(
            log,
            logging.WARNING,
            "no vectors: only the same words hit, or share a call",
            remedy="set embedder to 'local' or 'openai', give requests their embedding, or set embedder to 'none'",
        )

    def _scope(self, route: Route, request: Request, drawn: Target | None) -> str:
        """Made once for all requests of a tenant, a route and its ``drawn`` target that bring neither parameters nor a
        target of their own.
        """
        if request.params or request.decision.provider is not None:
            return wire.scope_of(route, request, drawn)
        arm = -1 if drawn is None else route.targets.index(drawn)
        key = (request.decision.route_id, request.context.tenant, arm)
        scope = self._scopes.get(key)
        if scope is None:
            if len(self._scopes) >= MAX_SCOPES:
                self._scopes.clear()
            scope = self._scopes[key] = wire.scope_of(route, request, drawn)
        return scope

    def _ttl(self, route: Route, request: Request) -> int:
        """Seconds an answer may be kept; 0 where the route or the configuration says not at all."""
        if not self._config.cache_enabled or not route.cache.enabled:
            return 0
        return request.cache.ttl or route.cache.ttl or self._config.cache_ttl

    def _batch_threshold(self, route: Route, request: Request) -> float | None:
        """None where the route or the configuration says that nobody follows.

        A request that wants no answer to less than its own threshold wants none of a call under way either.
        """
        if not self._config.batch_enabled or not route.batch.enabled:
            return None
        threshold = route.batch.threshold or self._config.batch_similarity_threshold
        return max(threshold, request.cache.threshold or 0.0)

    def _threshold(self, route: Route, request: Request) -> float:
        return request.cache.threshold or route.cache.threshold or self._config.least_similarity


def _pattern(words: Words) -> Words:
    """What has a pattern of its own: ``words`` without the question."""
    return words._replace(query="")


def _is_plain(query: str) -> bool:
    """Whether ``query`` says something and can be written as JSON, which half a surrogate pair cannot."""
    return query.isprintable() and bool(query.strip())


def _with_route_params(route: Route, targets: tuple[Target, ...]) -> tuple[Target, ...]:
    """The route's parameters stand below each target's own."""
    if not route.params:
        return targets
    return tuple(replace(target, params=params_over(route.params, target.params)) for target in targets)
