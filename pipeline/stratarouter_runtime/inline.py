"""Executes requests in this process, with the same engine as a worker's: how a bridge works without a broker."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from stratarouter_runtime.assembly import Assembly
from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.deadlines import Deadlines
from stratarouter_runtime.drafts import Draft
from stratarouter_runtime.engine.asking import Looked
from stratarouter_runtime.engine.embed import lacks_vector, with_vectors
from stratarouter_runtime.errors import ConfigurationError, ShuttingDownError
from stratarouter_runtime.ports import Comparer
from stratarouter_runtime.records import CacheCommand, Execution, Response
from stratarouter_runtime.room import Room
from stratarouter_runtime.routes import RouteTable
from stratarouter_runtime.telemetry.http import HttpEndpoint
from stratarouter_runtime.telemetry.logs import event
from stratarouter_runtime.telemetry.responses import count_response, log_texts
from stratarouter_runtime.telemetry.spans import SCOPE, Spans, current_traceparent
from stratarouter_runtime.telemetry.tracing import Tracing, configure_tracing, trace_headers
from stratarouter_runtime.version import __version__

log = logging.getLogger("stratarouter.bridge")

GIVE_WAY_EVERY = 16
"""Answers given at once between two turns of the event loop: under a millisecond of them."""


class InlineCarrier:
    """The bridge's way without Kafka. ``room`` is the bridge's, in which a caller has its place."""

    def __init__(
        self, config: RuntimeConfig, room: Room, routes: RouteTable | None = None, comparer: Comparer | None = None
    ) -> None:
        self._room = room
        self._assembly = Assembly(config, routes, comparer=comparer)
        self.registry = self._assembly.metrics.registry
        # What a worker's execute is over Kafka, this process is by itself.
        self._assembly.metrics.in_flight.labels("execute").set_function(lambda: room.taken)
        self._http: HttpEndpoint | None = None
        self._tracing = Tracing()
        self._spans = Spans()
        self._deadlines = Deadlines()
        self._at_once = 0

    @property
    def http_port(self) -> int | None:
        """Where metrics and health are served; None where they are not."""
        return None if self._http is None else self._http.port

    async def start(self) -> None:
        """Start the engine and its edges; where one fails, what was started is stopped again."""
        try:
            await self._assembly.start()
            if self._assembly.config.cache_control == "everywhere":
                await self._assembly.follow_control()
            await self._serve()
            self._export()
        except BaseException:
            await self.stop(0.0)
            raise

    def _export(self) -> None:
        """Traces. Last: an export has threads and a connection from its first moment on, and most starts that fail do
        so before.
        """
        config = self._assembly.config
        endpoint = config.otel_exporter_otlp_endpoint
        self._tracing = configure_tracing(
            enabled=config.tracing_enabled, endpoint=None if endpoint is None else str(endpoint), version=__version__
        )
        self._spans = Spans(self._tracing)
        self._assembly.metrics.export_calls(self._tracing.meter(SCOPE))

    async def _serve(self) -> None:
        """Metrics and health. Where the port is taken, as by another process of the same application, answers go on."""
        config, metrics = self._assembly.config, self._assembly.metrics
        if config.bridge_port is None:
            return
        http = HttpEndpoint(config.http_host, config.bridge_port, metrics, self._health, self._ready)
        try:
            await http.start()
        except ConfigurationError as exc:
            event(log, logging.WARNING, "metrics not served", cause=exc.message, remedy=exc.remedy)
        else:
            self._http = http

    def _health(self) -> dict[str, Any]:
        return {"status": "alive", "owner": self._assembly.owner}

    def _ready(self) -> tuple[bool, dict[str, Any]]:
        away = self._assembly.journal.problem
        return away is None, {} if away is None else {"journal": away}

    async def stop(self, grace_s: float) -> None:
        """Stop them, each whatever became of the others. Idempotent."""
        try:
            await self._assembly.stop(grace_s)
        finally:
            try:
                await asyncio.to_thread(self._tracing.stop)
            finally:
                if self._http is not None:
                    await self._http.stop()

    async def abandon(self) -> None:
        """Release what is not its loop's: the port, the embedder's thread, the export of traces.

        Connections close once nothing refers to them any more.
        """
        http, embedder = self._http, self._assembly.embedder
        endings = [asyncio.to_thread(self._tracing.stop)]
        endings += [part.stop() for part in (http, embedder) if part is not None]
        for failure in await asyncio.gather(*endings, return_exceptions=True):
            if isinstance(failure, BaseException):
                event(log, logging.WARNING, "not released", cause=repr(failure))

    async def carry(self, draft: Draft, bound_s: float, on_text: Callable[[str], None] | None = None) -> Response:
        """Decode like any record, embed, execute."""
        assembly = self._assembly
        due = assembly.clock.monotonic() + bound_s
        execution = assembly.acceptor.accept_draft(draft, self._trace_headers())
        looked: Response | Looked | None = None
        lacking = lacks_vector(assembly.embedder, execution)
        if not lacking:
            if execution.request.embedding is not None:
                await assembly.engine.give_way()
            looked = assembly.engine.look_now(execution)
        if looked is None:
            try:
                async with asyncio.timeout(bound_s):
                    if lacking:
                        looked, execution = await self._embedded(execution, due)
                    looked = looked or await assembly.engine.look(execution)
            except TimeoutError as exc:
                raise draft.late(bound_s) from exc
        if isinstance(looked, Response):
            response = looked
            await self._give_way()
        else:
            response = await self._executed(draft, execution, looked, due, bound_s, on_text)
        request = execution.request
        self._spans.executed(request, None, response)
        count_response(assembly.metrics, response, request.traceparent)
        if assembly.config.log_texts:
            log_texts(request, response)
        return response

    async def _executed(
        self,
        draft: Draft,
        execution: Execution,
        looked: Looked | None,
        due: float,
        bound_s: float,
        on_text: Callable[[str], None] | None,
    ) -> Response:
        """Follow, or have the engine do it. Raises DeadlineExceededError at ``due``, after ``bound_s`` seconds."""
        engine, clock = self._assembly.engine, self._assembly.clock
        # The engine is at it so long at least, whoever gives up: a call that was begun is worth its answer.
        until = due + max(0.0, self._assembly.config.execution_timeout - bound_s)
        failed_leaders = 0
        if draft.made_up and on_text is None and engine.knows_leader(execution):
            try:
                async with asyncio.timeout(due - clock.monotonic()):
                    followed = await engine.follow(execution, looked, until)
            except TimeoutError as exc:
                raise draft.late(bound_s) from exc
            if isinstance(followed, Response):
                return followed
            failed_leaders = followed
        # The work belongs to the engine: it goes on where its caller is late or gives up.
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        task = engine.submit(
            execution,
            deferred=draft.made_up,
            on_text=on_text,
            looked=looked,
            ended=ended,
            due=until,
            failed_leaders=failed_leaders,
        )
        try:
            await self._deadlines.wait(ended, due - clock.monotonic())
        except TimeoutError as exc:
            self._keep_place(task)
            raise draft.late(bound_s) from exc
        except asyncio.CancelledError:
            self._keep_place(task)
            raise
        if task.cancelled():
            raise ShuttingDownError("the bridge was closed before the answer came")
        return task.result()

    def _keep_place(self, task: asyncio.Task[Response]) -> None:
        """Work that goes on without its caller keeps a place, or callers that give up would bound nothing."""
        self._room.take_more()
        task.add_done_callback(lambda _: self._room.give_back())

    async def _embedded(self, execution: Execution, due: float) -> tuple[Response | None, Execution]:
        """The answer to the same words, where there is one; else ``execution`` with a vector, unless it needs none."""
        engine = self._assembly.engine
        response = await engine.same_words(execution)
        if response is None and not engine.is_led(execution):
            left_s = due - self._assembly.clock.monotonic()
            [execution] = await with_vectors(self._assembly.embedder, [execution], left_s)
        return response, execution

    async def _give_way(self) -> None:
        """Let the event loop have its turn now and then: a caller who gets hit after hit never waits for anything."""
        self._at_once += 1
        if self._at_once % GIVE_WAY_EVERY == 0:
            await asyncio.sleep(0)

    def _trace_headers(self) -> tuple[tuple[str, bytes], ...]:
        """The caller's own span is the parent of what happens here."""
        return trace_headers(current_traceparent() if self._spans.enabled else None)

    async def command(self, command: CacheCommand) -> None:
        """Here, and on the topic where ``cache_control`` is ``everywhere``."""
        await self._assembly.execute_command(command)

    async def response_to(self, request_id: str, tenant: str | None = None) -> Response | None:
        """None: only the bridge remembers."""
        del request_id, tenant
        return None
