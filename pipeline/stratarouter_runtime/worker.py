"""A worker process: the chosen processors, their engine, health and metrics, and an orderly end."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from aiokafka import TopicPartition

from stratarouter_runtime import topics
from stratarouter_runtime.assembly import GAUGE_INTERVAL_S, Assembly
from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.console import Console
from stratarouter_runtime.errors import BrokerError, ConfigurationError, InfrastructureError
from stratarouter_runtime.port_values import Checkpoint
from stratarouter_runtime.processors.enrich import Enrich
from stratarouter_runtime.processors.execute import Execute
from stratarouter_runtime.processors.intake import Intake
from stratarouter_runtime.processors.lane import Lane
from stratarouter_runtime.processors.own_executions import OwnExecutions
from stratarouter_runtime.processors.placement import witness
from stratarouter_runtime.processors.usage_supervisor import UsageSupervisor
from stratarouter_runtime.routes import RouteTable
from stratarouter_runtime.state.offsets import encode
from stratarouter_runtime.telemetry.http import HttpEndpoint
from stratarouter_runtime.telemetry.logs import event
from stratarouter_runtime.telemetry.spans import SCOPE, Spans
from stratarouter_runtime.telemetry.tracing import configure_tracing
from stratarouter_runtime.version import __version__

log = logging.getLogger("stratarouter.worker")

PROCESSORS = ("enrich", "execute", "usage")
DEFAULT_PROCESSORS = ("enrich", "execute")
START_FIRST_BACKOFF_S = 0.2
START_MAX_BACKOFF_S = 3.0
"""Waits between tries to reach what is away at the start."""
HANDOVER_AFTER_S = 5.0
"""A stopping worker gives its partitions to others after this, even if calls are still in flight."""
COMMIT_GRACE_S = 5.0
"""Time for the last commits once everything taken is answered."""
TRACES_GRACE_S = 2.0
"""For the last spans to leave; an exporter that is away holds no shutdown up."""


class Worker:
    """Runs processors until told to stop.

    Args:
        config: the settings.
        processors: which of ``PROCESSORS`` to run here.
        routes: the route table, if not the configured one.
    """

    def __init__(
        self, config: RuntimeConfig, processors: Sequence[str] = DEFAULT_PROCESSORS, routes: RouteTable | None = None
    ) -> None:
        unknown = set(processors) - set(PROCESSORS)
        if unknown or not processors:
            raise ConfigurationError(
                f"unknown processors {sorted(unknown)}", remedy=f"choose from {', '.join(PROCESSORS)}"
            )
        self.config = config
        self.assembly = Assembly(config, routes, needs_engine="execute" in processors)
        self.intakes: list[Intake] = []
        self._handlers: list[Enrich | Execute] = []
        endpoint = config.otel_exporter_otlp_endpoint
        self._tracing = configure_tracing(
            enabled=config.tracing_enabled, endpoint=None if endpoint is None else str(endpoint), version=__version__
        )
        self._spans = Spans(self._tracing)
        self.assembly.metrics.export_calls(self._tracing.meter(SCOPE))
        self._build(processors)
        self.usage = UsageSupervisor(config, self.assembly.metrics) if "usage" in processors else None
        self._stop = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self.http: HttpEndpoint | None = None
        self._waiting_for: str | None = None
        self.console = Console(config, config.http_host, self.live) if config.console_enabled else None

    def _build(self, processors: Sequence[str]) -> None:
        assembly, config = self.assembly, self.config
        own = OwnExecutions() if {"enrich", "execute"} <= set(processors) else None
        if "enrich" in processors:
            enrich = Enrich(
                config,
                acceptor=assembly.acceptor,
                cache=assembly.cache,
                embedder=assembly.embedder,
                metrics=assembly.metrics,
                list_topics=lambda: self.intakes[0].topics(),  # noqa: PLW0108 - the intake is made below
                spans=self._spans,
                trials=assembly.trials,
                own=own,
            )
            self._add(enrich, config.requests_topic)
        if "execute" in processors:
            execute = Execute(config, engine=assembly.engine, metrics=assembly.metrics, spans=self._spans, own=own)
            self._add(execute, config.executions_topic)

    def _add(self, handler: Enrich | Execute, topic: str) -> None:
        intake = Intake(
            self.config,
            processor=handler.name,
            topic=self.config.topic(topic),
            handle=handler.handle,
            room=lambda: self.config.max_in_flight - handler.in_flight,
            checkpoints=self.assembly.journal,
            metrics=self.assembly.metrics,
            committed=self._spans.committed if self._spans.enabled else None,
        )
        self._handlers.append(handler)
        self.intakes.append(intake)

    # -- life --------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Start, serve until SIGTERM, SIGINT or ``request_stop``, then drain."""
        loop = asyncio.get_running_loop()
        for name in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(name, self.request_stop)
        loop.add_signal_handler(signal.SIGHUP, self.reload)
        starting, told = asyncio.create_task(self.start()), asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait([starting, told], return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                await starting
                await told
        finally:
            for task in (starting, told):
                task.cancel()
            await asyncio.gather(starting, told, return_exceptions=True)
            await self.stop()

    def reload(self) -> None:
        """Take a changed route table up; one that is wrong changes nothing and is said."""
        try:
            self.assembly.reload()
        except ConfigurationError as exc:
            event(log, logging.ERROR, "route table not reloaded", cause=exc.message, remedy=exc.remedy)
        else:
            event(log, logging.INFO, "route table reloaded", routes=len(self.assembly.routes.routes))

    def request_stop(self) -> None:
        """Ask ``run`` to drain and return."""
        self._stop.set()

    async def start(self) -> None:
        """Start everything; what is away is waited for, up to ``start_timeout_s`` each.

        Raises ConfigurationError or InfrastructureError.
        """
        if self.config.metrics_enabled:
            self.http = HttpEndpoint(
                self.config.http_host,
                self.config.prometheus_port,
                self.assembly.metrics,
                self.health,
                self.ready,
                None if self.console is None else self.console.answer,
            )
            await self.http.start()
        if self.usage is not None:
            if not self.intakes:
                await self._patiently(self._require_deltas)
            await self.usage.start()
        if self.intakes:
            await self._start_intakes()
        self._waiting_for = None
        event(
            log, logging.INFO, "worker started", owner=self.assembly.owner, processors=[h.name for h in self._handlers]
        )

    async def _start_intakes(self) -> None:
        await self._patiently(self.assembly.start)
        learnt = [self._require_deltas]
        if self.config.cache_control != "off":
            learnt.append(self.assembly.follow_control)
        await asyncio.gather(*(self._patiently(learn) for learn in learnt))
        await asyncio.gather(*(self._patiently(intake.start) for intake in self.intakes))
        self._tasks = [
            asyncio.create_task(self._checkpoint_loop(), name="checkpoints"),
            asyncio.create_task(self._gauge_loop(), name="gauges"),
        ]

    async def _require_deltas(self) -> None:
        """An older version's topics lack the deltas', and a commit that writes to a missing topic waits for ever; who
        reads it has nothing to count. Where no topic of an intake's is there yet, whoever makes them makes this too.
        """
        if not self.config.usage_enabled:
            return
        present, wanted = await topics.names(self.config), self.config.topic(self.config.usage_deltas_topic)
        fed = {intake.topic for intake in self.intakes}
        if wanted not in present and (not fed or present & fed):
            raise BrokerError(f"topic {wanted} does not exist", remedy="run `stratarouter-runtime topics apply`")

    async def _patiently(self, start: Callable[[], Awaitable[None]]) -> None:
        """A whole cluster often comes up at once, and a worker is restarted while its broker is."""
        deadline = time.monotonic() + self.config.start_timeout_s
        backoff = START_FIRST_BACKOFF_S
        while True:
            try:
                return await start()
            except InfrastructureError as exc:
                if time.monotonic() + backoff >= deadline:
                    raise
                self._waiting_for = str(exc)
                event(log, logging.WARNING, "waiting to start", cause=str(exc), wait_s=backoff)
            await asyncio.sleep(backoff)
            backoff = min(START_MAX_BACKOFF_S, backoff * 2)

    async def stop(self) -> None:
        """Drain within ``drain_s``: take nothing more, answer what is held, commit, leave the groups.

        Calls that take longer than ``HANDOVER_AFTER_S`` do not hold their partitions up: others take these, and wait
        for the results, which this worker still writes to the journal.
        """
        deadline = time.monotonic() + self.config.drain_s
        # 1. Nothing new.
        for intake in self.intakes:
            intake.stop_taking()
        # 2. What ends soon is answered and committed here.
        drained = [asyncio.ensure_future(intake.drained()) for intake in self.intakes]
        if drained:
            _, late = await asyncio.wait(drained, timeout=min(HANDOVER_AFTER_S, self.config.drain_s))
            for task in late:
                task.cancel()
            held = self.assembly.engine.in_flight
            event(log, logging.INFO, "drained" if not late else "handing over", in_flight=held)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        # 3. What has not begun is left to the next owner, and the partitions with it.
        self.assembly.engine.close()
        for handler in self._handlers:
            if isinstance(handler, Enrich):
                await handler.stop()
        await asyncio.gather(*(intake.stop(COMMIT_GRACE_S) for intake in self.intakes))
        # 4. Calls in flight end, and their results are recorded; what is broken off then, the journal knows.
        await self.assembly.stop(max(0.0, deadline - time.monotonic()))
        if self.usage is not None:
            await self.usage.stop()
        await asyncio.to_thread(self._tracing.stop, TRACES_GRACE_S)
        await self._stop_http()

    async def _stop_http(self) -> None:
        if self.http is not None:
            await self.http.stop()
        if self.console is not None:
            await self.console.stop()

    # -- health ------------------------------------------------------------------------------------------------

    def health(self) -> dict[str, Any]:
        """Alive: this answers from the event loop, so a blocked loop fails it."""
        return {"status": "alive", "owner": self.assembly.owner}

    def ready(self) -> tuple[bool, dict[str, Any]]:
        """Whether every processor does its work, with the reason where one does not."""
        if self._waiting_for is not None:
            return False, {"start": self._waiting_for}
        states = {intake.processor: intake.ready() for intake in self.intakes}
        # Only execute works with the journal; enrich goes on without it.
        away = self.assembly.journal.problem if Execute.name in states else None
        if away is not None:
            states["journal"] = (False, away)
        # Beside others, the accounts take no part in this: while they are behind, responses go on.
        alone = {"usage": self.usage.ready()} if self.usage is not None and not states else {}
        ok = bool(states or alone) and all(state for state, _ in (states | alone).values())
        if self.usage is not None:
            states["usage"] = self.usage.ready()
        return ok, {name: reason for name, (_, reason) in states.items()}

    @property
    def in_flight(self) -> int:
        """Records read and not yet answered or passed on."""
        return sum(handler.in_flight for handler in self._handlers)

    def live(self) -> dict[str, Any]:
        """What this process alone knows: its lanes' states, what it holds, breakers, and its cache."""
        lanes = [
            {"processor": intake.processor, "partition": place.partition, "state": lane.state}
            for intake in self.intakes
            for place, lane in intake.lanes.items()
        ]
        cache = self.assembly.cache
        ready, reasons = self.ready()
        return {
            "owner": self.assembly.owner,
            "ready": ready,
            "reasons": reasons,
            "lanes": lanes,
            "in_flight": {handler.name: handler.in_flight for handler in self._handlers},
            "breakers": [
                {"target": f"{target.provider}/{target.model}", "state": state}
                for target, state in self.assembly.gates.breakers()
            ],
            "cache": None if cache is None else {"entries": getattr(cache.backend, "entries", None)},
        }

    # -- checkpoints and gauges --------------------------------------------------------------------------------

    async def _checkpoint_loop(self) -> None:
        while True:
            await asyncio.sleep(self.config.checkpoint_interval)
            items = [
                _checkpoint(intake.group, tp, lane)
                for intake in self.intakes
                for tp, lane in intake.lanes.items()
                if lane.state == "running"
            ]
            try:
                await self.assembly.journal.save_checkpoints(items)
            except InfrastructureError as exc:
                event(log, logging.WARNING, "checkpoint failed", cause=str(exc))

    async def _gauge_loop(self) -> None:
        metrics = self.assembly.metrics
        while True:
            for handler, intake in zip(self._handlers, self.intakes, strict=True):
                metrics.in_flight.labels(handler.name).set(handler.in_flight)
                metrics.lag_records.labels(handler.name).set(intake.lag())
                for state in ("opening", "running", "fenced", "halted"):
                    count = sum(lane.state == state for lane in intake.lanes.values())
                    metrics.lanes.labels(handler.name, state).set(count)
            lanes = [lane for intake in self.intakes for lane in intake.lanes.values()]
            metrics.watermark_gap.set(max((lane.watermark_gap for lane in lanes), default=0))
            await asyncio.sleep(GAUGE_INTERVAL_S)


def _checkpoint(group: str, place: TopicPartition, lane: Lane) -> Checkpoint:
    committed, last = lane.committed, lane.last_record
    seen = None if last is None else witness(last)
    return Checkpoint(group, place.topic, place.partition, committed.watermark, encode(committed), seen)
