"""CoreRuntimeBridge: executes a routing decision and returns its answer, in-process or through Kafka."""

from __future__ import annotations

import asyncio
import base64
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
import orjson

from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.decisions import to_decision
from stratarouter_runtime.engine.embed import with_vectors
from stratarouter_runtime.errors import (
    ConfigurationError,
    DeadlineExceededError,
    ExecutionError,
    InvalidRecordError,
    SchemaViolationError,
    ShuttingDownError,
)
from stratarouter_runtime.records import BatchVerdict, CacheVerdict, Decision, Response, Usage
from stratarouter_runtime.routes import RouteTable

QUERY_PLACES = "pass query= or messages=, or put 'query' or 'messages' into context"


class RequestFailedError(ExecutionError):
    """The request was executed and has no answer. ``result`` tells all that is known.

    ``code`` is that of the error in the response.
    """

    def __init__(self, result: ExecutionResult) -> None:
        """Build from a result whose status is ``error``."""
        error = result.record.error
        assert error is not None
        super().__init__(error.message, remedy=error.remedy)
        self.code = error.code  # type: ignore[misc]  # one class for every code a response can carry
        self.retryable = error.retryable  # type: ignore[misc]
        self.result = result


@dataclass(frozen=True, slots=True)
class ExecutionResult:
    """What ``execute`` returns. ``record`` is the whole response as it stands on the responses topic."""

    record: Response

    @property
    def response(self) -> str:
        """The answer's text ('' where the answer is tool calls alone)."""
        return self.record.text or ""

    @property
    def request_id(self) -> str:
        """The request's id."""
        return self.record.request_id

    @property
    def provider(self) -> str | None:
        """Who answered."""
        return self.record.provider

    @property
    def model(self) -> str | None:
        """Which model answered."""
        return self.record.model

    @property
    def usage(self) -> Usage:
        """Tokens as the provider counted them."""
        return self.record.usage

    @property
    def cost_usd(self) -> float | None:
        """What this request cost; None where the price is unknown."""
        return self.record.cost_usd

    @property
    def cache(self) -> CacheVerdict:
        """What the cache said."""
        return self.record.cache

    @property
    def batch(self) -> BatchVerdict:
        """Whether the request led, followed or stood alone."""
        return self.record.batch

    @property
    def timings_ms(self) -> dict[str, float]:
        """Each step's duration in milliseconds."""
        return self.record.timings_ms


class Carrier(Protocol):
    """One way to have a request executed."""

    async def start(self) -> None:
        """Make it ready."""

    async def stop(self, grace_s: float) -> None:
        """Let what runs end within ``grace_s`` seconds."""

    async def carry(self, value: bytes, request_id: str) -> Response:
        """Execute the request record ``value``. Raises InvalidRecordError, ExecutionError, InfrastructureError."""


class CoreRuntimeBridge:
    """From a decision of Core's to an answer.

    Args:
        config: the settings; ``config.transport`` chooses ``inline`` (this process calls the provider) or ``kafka``
            (a worker does, and this process waits for its response). By default from the environment.
        routes: the route table for ``inline``, if not the configured one.

    Use it as an async context manager, or let the first ``execute`` start it and call ``close`` at the end.
    """

    def __init__(self, config: RuntimeConfig | None = None, routes: RouteTable | None = None) -> None:
        self.config = config or RuntimeConfig()
        self._routes = routes
        self._carrier: Carrier | None = None
        self._starting = asyncio.Lock()
        self._closed = False
        self._slots = asyncio.Semaphore(self.config.max_in_flight)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def start(self) -> None:
        """Connect to what the transport needs. Raises ConfigurationError or InfrastructureError. Idempotent."""
        async with self._starting:
            if self._closed:
                raise ShuttingDownError("the bridge is closed")
            if self._carrier is None:
                carrier = self._new_carrier()
                await carrier.start()
                self._carrier = carrier

    async def close(self) -> None:
        """Let running executions end within ``drain_timeout_s`` seconds and release everything. Idempotent."""
        async with self._starting:
            self._closed = True
            carrier, self._carrier = self._carrier, None
            if carrier is not None:
                await carrier.stop(self.config.drain_s)

    async def execute(
        self,
        decision: object,
        context: Mapping[str, Any] | None = None,
        *,
        query: str | None = None,
        messages: Sequence[Mapping[str, Any]] | None = None,
        embedding: object = None,
        params: Mapping[str, Any] | None = None,
        request_id: str | None = None,
        timeout_s: float | None = None,
        cache: Mapping[str, Any] | None = None,
    ) -> ExecutionResult:
        """Execute one decision and return its answer.

        Args:
            decision: Core's ``RouteResult``, ``RouteChoice`` or raw dict, our ``Decision``, or a route id.
            context: ``tenant``, ``user`` (or ``user_id``), ``session``, whatever else is to be carried along, and
                ``query``, ``messages`` or ``embedding`` where they are not given as arguments.
            query: the user's words; or
            messages: a conversation of ``{"role", "content"}``.
            embedding: the query's vector, shape (dimension,), any float type; used for likeness only.
            params: ``temperature``, ``max_tokens`` and so on.
            request_id: makes the call idempotent: the same id is never paid for twice. By default a new one.
            timeout_s: seconds to wait; by default ``execution_timeout``.
            cache: ``{"mode": "default|bypass|refresh|read_only", "ttl": seconds, "threshold": similarity}``.

        Raises:
            InvalidRecordError: the request cannot be executed as it is.
            RequestFailedError: it was executed and has no answer; ``.code`` says why.
            InfrastructureError: the journal or the broker is away.
        """
        request_id = request_id or str(uuid.uuid4())
        value = _record(
            to_decision(decision),
            dict(context or {}),
            request_id,
            {"query": query, "messages": messages, "embedding": embedding, "params": params, "cache": cache},
        )
        await self.start()
        carrier = self._carrier
        if carrier is None:
            raise ShuttingDownError("the bridge is closed")
        bound = self.config.execution_timeout if timeout_s is None else timeout_s
        async with self._slots:
            response = await _within(carrier.carry(value, request_id), bound, request_id)
        result = ExecutionResult(response)
        if response.error is not None:
            raise RequestFailedError(result)
        return result

    async def execute_many(
        self, requests: Sequence[Mapping[str, Any]], *, return_exceptions: bool = False
    ) -> list[ExecutionResult | BaseException]:
        """Execute many at once; each is a mapping of ``execute``'s arguments. Results in the same order.

        With ``return_exceptions``, a failed one's exception stands in its place; else the first is raised once all
        have ended.
        """
        done = await asyncio.gather(*(self.execute(**request) for request in requests), return_exceptions=True)
        if not return_exceptions:
            for item in done:
                if isinstance(item, BaseException):
                    raise item
        return list(done)

    def _new_carrier(self) -> Carrier:
        if self.config.transport == "kafka":
            from stratarouter_runtime.processors.request_reply import KafkaCarrier  # noqa: PLC0415

            if self._routes is not None:
                raise ConfigurationError(
                    "routes= has no effect over Kafka", remedy="configure the workers' route table"
                )
            return KafkaCarrier(self.config)
        return InlineCarrier(self.config, self._routes)


class InlineCarrier:
    """Executes in this process, with the same engine as a worker's."""

    def __init__(self, config: RuntimeConfig, routes: RouteTable | None) -> None:
        from stratarouter_runtime.assembly import Assembly  # noqa: PLC0415

        self._assembly = Assembly(config, routes)

    async def start(self) -> None:
        """Start the engine and its edges."""
        await self._assembly.start()

    async def stop(self, grace_s: float) -> None:
        """Stop them."""
        await self._assembly.stop(grace_s)

    async def carry(self, value: bytes, request_id: str) -> Response:  # noqa: ARG002 - it stands in the value
        """Decode like any record, embed, execute."""
        assembly = self._assembly
        request = assembly.acceptor.decode(value, (), None)
        execution = assembly.acceptor.accept(request, None)
        [execution] = await with_vectors(assembly.embedder, [execution])
        return await asyncio.shield(assembly.engine.submit(execution))


async def _within(carried: Any, bound_s: float, request_id: str) -> Response:
    try:
        async with asyncio.timeout(bound_s):
            response: Response = await carried
    except TimeoutError as exc:
        raise DeadlineExceededError(f"no answer to {request_id!r} within {bound_s} s") from exc
    return response


def _record(decision: Decision, context: dict[str, Any], request_id: str, given: dict[str, Any]) -> bytes:
    """The request as a record, so that one validation serves every way in."""
    for name in ("query", "messages", "embedding"):
        found = context.pop(name, None)
        if given[name] is None:
            given[name] = found
    if given["query"] is None and given["messages"] is None:
        raise SchemaViolationError("the request has neither a query nor messages", remedy=QUERY_PLACES)
    if "user_id" in context:
        context.setdefault("user", context.pop("user_id"))
    if "session_id" in context:
        context.setdefault("session", context.pop("session_id"))
    payload = {name: value for name, value in given.items() if value is not None}
    if "embedding" in payload:
        payload["embedding"] = _base64_vector(payload["embedding"])
    payload |= {"request_id": request_id, "decision": _decision(decision), "context": context}
    try:
        return orjson.dumps(payload)
    except TypeError as exc:
        raise SchemaViolationError(f"the request cannot be written as JSON: {exc}") from exc


def _decision(decision: Decision) -> dict[str, Any]:
    fields = {
        "route_id": decision.route_id,
        "confidence": decision.confidence,
        "scores": decision.scores or None,
        "provider": decision.provider,
        "model": decision.model,
    }
    return {name: value for name, value in fields.items() if value is not None}


def _base64_vector(embedding: object) -> object:
    """Any array as base64 of little-endian float32; text is taken to be that already."""
    if isinstance(embedding, str):
        return embedding
    try:
        return base64.b64encode(np.asarray(embedding, dtype="<f4").tobytes()).decode()
    except (TypeError, ValueError) as exc:
        raise SchemaViolationError(f"embedding is not a vector of numbers: {exc}") from exc


__all__ = ["CoreRuntimeBridge", "ExecutionResult", "InvalidRecordError", "RequestFailedError"]
