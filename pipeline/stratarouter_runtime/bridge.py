"""CoreRuntimeBridge: executes a routing decision and returns its answer, in-process or through Kafka."""

from __future__ import annotations

import asyncio
import logging
import math
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

from stratarouter_runtime.collector import SELDOM
from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.drafts import Draft
from stratarouter_runtime.errors import (
    ConfigurationError,
    InvalidRecordError,
    SchemaViolationError,
    ShuttingDownError,
)
from stratarouter_runtime.feedback import Feedback
from stratarouter_runtime.ports import Comparer
from stratarouter_runtime.records import CacheCommand, Response
from stratarouter_runtime.results import ExecutionResult, RequestFailedError, ResponseStream
from stratarouter_runtime.room import Room
from stratarouter_runtime.routes import RouteTable
from stratarouter_runtime.shared_task import SharedTask
from stratarouter_runtime.telemetry.logs import event
from stratarouter_runtime.validation import shown

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

T = TypeVar("T")

log = logging.getLogger("stratarouter.bridge")

ONE_LOOP = "one bridge for each event loop, or asyncio.run_coroutine_threadsafe(bridge.execute(...), loop)"
CLOSE_FIRST = "close the bridge in the event loop that started it, as `async with` does"
LONGEST_S = 7 * 86_400.0
"""Whoever would wait for ever waits so long."""


class Carrier(Protocol):
    """One way to have a request executed."""

    @property
    def registry(self) -> CollectorRegistry | None:
        """Of the metrics of this process, where it executes."""

    @property
    def http_port(self) -> int | None:
        """Where they are served, if they are."""

    async def start(self) -> None:
        """Make it ready."""

    async def stop(self, grace_s: float) -> None:
        """Let what runs end within ``grace_s`` seconds."""

    async def abandon(self) -> None:
        """Release what can be without the event loop it was started in, which is closed."""

    async def carry(self, draft: Draft, bound_s: float, on_text: Callable[[str], None] | None = None) -> Response:
        """Execute the request. Raises InvalidRecordError, ExecutionError, InfrastructureError, and after ``bound_s``
        seconds DeadlineExceededError.

        ``on_text`` hears the answer in pieces where this way has them.
        """

    async def command(self, command: CacheCommand) -> None:
        """Invalidate, correct or mark kept answers. Raises SchemaViolationError, InfrastructureError."""

    async def response_to(self, request_id: str, tenant: str | None = None) -> Response | None:
        """The response to an earlier request (of ``tenant``, where given), where this way can tell."""


class CoreRuntimeBridge(Feedback):
    """From a decision of Core's to an answer.

    Args:
        config: the settings; ``config.transport`` chooses ``inline`` (this process calls the provider) or ``kafka``
            (a worker does, and this process waits for its response). By default from the environment.
        routes: the route table for ``inline``, if not the configured one.
        comparer: for ``inline`` and ``cache_max_error_rate``: judges answers, if not the configured one.

    Use it as an async context manager, or let the first ``execute`` start it and call ``close`` at the end.

    It belongs to the event loop that starts it, as its connections do. In another one (a second ``asyncio.run``, a
    thread's own) everything raises ConfigurationError, before anything is sent.
    """

    def __init__(
        self,
        config: RuntimeConfig | None = None,
        routes: RouteTable | None = None,
        *,
        comparer: Comparer | None = None,
    ) -> None:
        super().__init__()
        self._comparer = comparer
        self.config = config or RuntimeConfig()
        self._routes = routes
        self._carrier: Carrier | None = None
        self._starting = SharedTask(self._start, "starting the bridge")
        self._closing = SharedTask(self._stop, "closing the bridge")
        self._closed = False
        self._loop: asyncio.AbstractEventLoop | None = None
        """Whose it is; None before the first call, and once it is closed."""
        self._settling = threading.Lock()
        self._room = Room(self.config.max_in_flight)

    @property
    def registry(self) -> CollectorRegistry | None:
        """The metrics of this process: ``prometheus_client.REGISTRY.register(bridge.registry)`` shows them beside your
        own.

        None before ``start`` and after ``close``, and over Kafka, where each worker has its own.
        """
        return None if self._carrier is None else self._carrier.registry

    @property
    def http_port(self) -> int | None:
        """The port of ``/metrics``, ``/healthz`` and ``/readyz`` at ``http_host``, where ``prometheus_port`` was set.

        None where it was not or is taken (which is a warning), with ``metrics_enabled = false``, before ``start``,
        after ``close``, and over Kafka.
        """
        return None if self._carrier is None else self._carrier.http_port

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except asyncio.CancelledError:
            # Nobody else is going to.
            await self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def start(self) -> None:
        """Connect to what the transport needs. Idempotent.

        All who wait share one attempt, and its failure; who comes later begins the next. Giving up does not end it,
        ``close`` does.

        Raises ConfigurationError, InfrastructureError, ShuttingDownError.
        """
        await self._started()

    async def _start(self) -> Carrier:
        carrier = self._new_carrier()
        await carrier.start()
        self._carrier = carrier
        if self.config.gc_threshold:
            SELDOM.hold(self.config.gc_threshold)
        return carrier

    async def close(self) -> None:
        """Let running executions end within ``drain_timeout_s`` seconds and release everything. Idempotent.

        A start under way is ended. All who close share one end, and its failure; giving up does not break it off, and
        who calls again waits for it. Where the event loop that started it is closed, what can be released without it
        is, with a warning: connections go with the bridge itself, and what was not journaled yet is lost.

        Raises ConfigurationError in another event loop than the one that started it.
        """
        loop = self._loop
        if loop is not None and loop is not asyncio.get_running_loop():
            await self._abandon(loop)
            return
        self._closed = True
        await self._closing.result()

    async def _stop(self) -> None:
        await self._starting.end()
        if self._carrier is not None:
            try:
                await self._carrier.stop(self.config.drain_s)
            except Exception:
                self._let_go()
                raise
            # Not where it is cancelled: its event loop ends first, and what is left is for ``_abandon``.
            self._let_go()
        self._loop = None

    async def _abandon(self, loop: asyncio.AbstractEventLoop) -> None:
        if not loop.is_closed():
            raise _elsewhere(loop)
        with self._settling:
            carrier = self._carrier
            if carrier is not None:
                self._let_go()
            self._loop, self._closed = None, True
            self._starting.forget()
            self._closing.forget()
        if carrier is not None:
            event(log, logging.WARNING, "the bridge's event loop was closed before the bridge", remedy=CLOSE_FIRST)
            await carrier.abandon()

    def _let_go(self) -> None:
        self._carrier = None
        if self.config.gc_threshold:
            SELDOM.let_go()

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
            request_id: makes the call idempotent: the same id is never paid for twice, and its start is durable before
                the call. By default a new one, which nobody can ask for again: it is journaled a tenth of a second
                after the answer.
            timeout_s: seconds to wait; by default ``execution_timeout``. Where none are left nothing is done.
            cache: ``{"mode": "default|bypass|refresh|read_only", "ttl": seconds, "threshold": similarity}``.

        Raises:
            InvalidRecordError: the request cannot be executed as it is.
            RequestFailedError: it was executed and has no answer; ``.code`` says why.
            InfrastructureError: the journal or the broker is away.
            ConfigurationError: the first call could not start the bridge, or it belongs to another event loop.
        """
        given = {"query": query, "messages": messages, "embedding": embedding, "params": params, "cache": cache}
        return await self._carry(decision, context, request_id, given, timeout_s)

    def stream(
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
    ) -> ResponseStream:
        """As ``execute``, with the answer's text in pieces as the provider sends them.

        A hit, a recorded result and an answer over Kafka come in one piece. A failure in the middle of an answer is
        final: what was heard is not taken back, and no other target goes on in its place. Leaving the stream early
        does not end the call: it is paid for, so its answer is recorded and cached.

        Returns:
            An asynchronous iterator of text; ``result`` once it is exhausted. Errors as ``execute``'s, while iterating.
        """
        given = {"query": query, "messages": messages, "embedding": embedding, "params": params, "cache": cache}
        return ResponseStream(lambda on_text: self._carry(decision, context, request_id, given, timeout_s, on_text))

    async def _carry(
        self,
        decision: object,
        context: Mapping[str, Any] | None,
        request_id: str | None,
        given: dict[str, Any],
        timeout_s: float | None,
        on_text: Callable[[str], None] | None = None,
    ) -> ExecutionResult:
        self._belongs_here()
        draft = Draft.of(decision, context, request_id, given)
        bound = _checked(self.config.execution_timeout if timeout_s is None else timeout_s)
        if not self._room.take_now():
            _, bound = await self._within(draft, bound, self._room.take())
        try:
            carrier = self._carrier
            if carrier is None or self._closed:
                started = await self._within(draft, bound, self._started())
                carrier, bound = started
            if bound <= 0:
                # Nobody would hear the answer, and it would be paid for.
                raise draft.late(bound)
            response = await carrier.carry(draft, bound, on_text)
        finally:
            self._room.give_back()
        result = ExecutionResult(response)
        self._remember(response)
        if response.error is not None:
            raise RequestFailedError(result)
        return result

    async def _within(self, draft: Draft, bound_s: float, waiting: Awaitable[T]) -> tuple[T, float]:
        """What ``waiting`` gives, and what is left of ``bound_s``. Raises DeadlineExceededError where nothing is."""
        clock = asyncio.get_running_loop()
        due = clock.time() + bound_s
        try:
            async with asyncio.timeout_at(due):
                found = await waiting
        except TimeoutError as exc:
            raise draft.late(bound_s) from exc
        return found, due - clock.time()

    async def execute_many(
        self, requests: Sequence[Mapping[str, Any]], *, return_exceptions: bool = False
    ) -> list[ExecutionResult | BaseException]:
        """Execute many at once; each is a mapping of ``execute``'s arguments. Results in the same order.

        With ``return_exceptions``, a failed one's exception stands in its place; else the first is raised once all
        have ended. In another event loop than the bridge's it raises ConfigurationError in any case.
        """
        self._belongs_here()
        done = await asyncio.gather(*(self._execute_one(request) for request in requests), return_exceptions=True)
        if not return_exceptions:
            for item in done:
                if isinstance(item, BaseException):
                    raise item
        return list(done)

    async def _execute_one(self, request: Mapping[str, Any]) -> ExecutionResult:
        """A request with an argument that ``execute`` does not know fails by itself."""
        return await self.execute(**request)

    def _belongs_here(self) -> None:
        """Raise ConfigurationError where the running event loop is not the bridge's; of several the first one is."""
        loop = asyncio.get_running_loop()
        if loop is self._loop:
            return
        with self._settling:
            if self._closed:
                raise ShuttingDownError("the bridge is closed")
            before = self._loop
            # Where a start failed, nothing is left in the loop that it was tried in.
            if before is not None and not (before.is_closed() and self._carrier is None):
                raise _elsewhere(before)
            self._loop = loop

    async def _started(self) -> Carrier:
        self._belongs_here()
        carrier = self._carrier
        if carrier is None and not self._closed:
            carrier = await self._starting.result()
        if carrier is None or self._closed:
            raise ShuttingDownError("the bridge is closed")
        return carrier

    def _new_carrier(self) -> Carrier:
        if self.config.transport == "kafka":
            from stratarouter_runtime.processors.request_reply import KafkaCarrier  # noqa: PLC0415

            if self._routes is not None or self._comparer is not None:
                raise ConfigurationError(
                    "routes= and comparer= have no effect over Kafka", remedy="configure the workers instead"
                )
            return KafkaCarrier(self.config)
        from stratarouter_runtime.inline import InlineCarrier  # noqa: PLC0415

        return InlineCarrier(self.config, self._room, self._routes, self._comparer)


def _elsewhere(loop: asyncio.AbstractEventLoop) -> ConfigurationError:
    """The error for a call outside ``loop``, which is the bridge's."""
    closed = ", which is closed" if loop.is_closed() else ""
    return ConfigurationError(f"the bridge belongs to another event loop{closed}", remedy=ONE_LOOP)


def _checked(timeout_s: float) -> float:
    try:
        valid = not math.isnan(timeout_s)
    except (TypeError, OverflowError):
        valid = False
    if not valid:
        raise SchemaViolationError(f"timeout_s = {shown(timeout_s)} is no number", remedy="pass seconds, as 30 or 0.5")
    return min(float(timeout_s), LONGEST_S)


__all__ = ["CoreRuntimeBridge", "ExecutionResult", "InvalidRecordError", "RequestFailedError", "ResponseStream"]
