"""Builds the engine and its edges from the configuration, starts them in order, and stops them in reverse."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import uuid
from collections import Counter
from functools import partial
from itertools import product
from typing import Protocol, get_args

from stratarouter_runtime.cache import create_cache, create_evidence
from stratarouter_runtime.cache.controlled import ControlledCache
from stratarouter_runtime.cache.guard import SETTINGS, create_guard
from stratarouter_runtime.cache.shelf import Held
from stratarouter_runtime.cache.statements import contradiction
from stratarouter_runtime.clock import SystemClock
from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.embedders import create_embedder
from stratarouter_runtime.embedders.gathered import GatheredEmbedder
from stratarouter_runtime.embedders.patient import PatientEmbedder
from stratarouter_runtime.engine.accept import Acceptor
from stratarouter_runtime.engine.budgets import Budgets
from stratarouter_runtime.engine.calls import Caller
from stratarouter_runtime.engine.compare import AnswerComparer, load
from stratarouter_runtime.engine.engine import Engine
from stratarouter_runtime.engine.gates import Gates, Limits
from stratarouter_runtime.engine.perform import Performer
from stratarouter_runtime.engine.together import Together
from stratarouter_runtime.engine.trials import OwnEvidence, Trials
from stratarouter_runtime.errors import ConfigurationError, InfrastructureError
from stratarouter_runtime.journal import create_journal
from stratarouter_runtime.journal.grouped import GroupedJournal
from stratarouter_runtime.journal.metered import MeteredJournal
from stratarouter_runtime.ports import Comparer, Embedder
from stratarouter_runtime.processors.cache_control import ControlDesk, ControlReader, ControlWriter
from stratarouter_runtime.processors.control_resolve import Resolver
from stratarouter_runtime.processors.find_response import find_response
from stratarouter_runtime.providers import check_targets, create_adapters, create_pricer, create_providers
from stratarouter_runtime.records import CacheCommand
from stratarouter_runtime.routes import RouteHedge, RouteTable
from stratarouter_runtime.state.breaker import BreakerState
from stratarouter_runtime.state.cache_control import CacheControl
from stratarouter_runtime.state.error_bound import ErrorBound
from stratarouter_runtime.state.retry import RetryPolicy
from stratarouter_runtime.telemetry.logs import event
from stratarouter_runtime.telemetry.metrics import Metrics

log = logging.getLogger("stratarouter.assembly")

BEATS_PER_TTL = 5
"""Heartbeats within ``heartbeat_ttl_s``: some may be late before a living worker is taken for dead."""
GAUGE_INTERVAL_S = 1.0
PURGE_INTERVAL_S = 300.0
"""Between two rounds of deleting results that are older than ``journal_retention_s``."""


class Part(Protocol):
    """Something with a life."""

    async def start(self) -> None:
        """Begin it."""

    async def stop(self) -> None:
        """End it. Idempotent."""


class Assembly:
    """Everything one process needs to execute requests, whatever carries them.

    Args:
        config: the settings.
        routes: the route table; by default the one that ``config`` names.
        needs_engine: False for a worker that only enriches: it begins, finishes and deletes nothing in the journal,
            which it opens for its heartbeat and its lanes' checkpoints alone, and calls no provider.
        comparer: judges kept answers against fresh ones; by default the one that ``config`` names.
    """

    def __init__(
        self,
        config: RuntimeConfig,
        routes: RouteTable | None = None,
        *,
        needs_engine: bool = True,
        comparer: Comparer | None = None,
    ) -> None:
        self.config = config
        self.routes = routes or RouteTable.for_config(config)
        check_targets(self.routes)
        self.owner = str(uuid.uuid4())
        self.metrics = Metrics(providers=self.routes.providers)
        self.clock = SystemClock()
        self.control = CacheControl()
        self.cache = self._new_cache()
        self._held = Held(0, 0, 0)
        self._told: set[str] = set()
        self.control_writer = ControlWriter(config)
        self._max_prompts = config.batch_max_size if config.batch_enabled else 1
        self.embedder = self._gathered(create_embedder(config))
        self.trials = self._new_trials(comparer)
        self.acceptor = Acceptor(config, self.routes)
        self.journal = MeteredJournal(create_journal(config, owner=self.owner), self.metrics)
        self.grouped = GroupedJournal(self.journal)
        self.providers = create_providers(config, self.routes)
        self._needs_engine = needs_engine
        self._parts = contextlib.AsyncExitStack()
        self._tasks: list[asyncio.Task[None]] = []
        self.gates = Gates(
            clock=self.clock,
            metrics=self.metrics,
            keys=self.providers.keys,
            limits=_limits(config, self.routes),
            default=Limits(config.provider_concurrency),
            seats=lambda provider: self._max_prompts if self.providers.takes_many(provider) else 1,
        )
        self.together = Together(
            providers=self.providers,
            gates=self.gates,
            clock=self.clock,
            metrics=self.metrics,
            window_s=config.batch_window_ms / 1000,
            max_size=self._max_prompts,
        )
        self.budgets = self._new_budgets()
        self.engine = Engine(
            config,
            cache=self.cache,
            performer=self._performer(),
            guard=create_guard(SETTINGS[config.cache_guard]),
            clock=self.clock,
            metrics=self.metrics,
            control=self.control,
            trials=self.trials,
        )

    def _new_budgets(self) -> Budgets:
        return Budgets(
            self.routes.budgets,
            journal=self.grouped,
            clock=self.clock,
            is_priced=self.providers.is_priced,
            cost_usd=self.providers.cost_usd,
            metrics=self.metrics,
        )

    def _new_trials(self, comparer: Comparer | None) -> Trials:
        config = self.config
        if comparer is None:
            own = config.cache_comparer is None
            comparer = AnswerComparer(self.embedder, contradiction) if own else load(config)
        shared = None
        if config.cache_enabled:
            shared = create_evidence(config, clock=self.clock, eager=self.routes.is_bounded(config))
        evidence = OwnEvidence() if shared is None else shared
        return Trials(
            ErrorBound(), evidence=evidence, comparer=comparer, metrics=self.metrics, share=config.cache_shadow_share
        )

    def _new_cache(self) -> ControlledCache | None:
        if not self.config.cache_enabled:
            return None
        return ControlledCache(create_cache(self.config, clock=self.clock), self.control, self.clock)

    async def follow_control(self) -> None:
        """Learn what was said on the cache-control topic, and follow it until ``stop``. After ``start``, and before
        anything is served; may be tried again where it fails. Raises BrokerError, TopicContractError.
        """
        if self.cache is not None:
            reader = ControlReader(
                self.config,
                control=self.control,
                cache=self.cache,
                clock=self.clock,
                metrics=self.metrics,
                resolver=Resolver(partial(find_response, self.config), self.control_writer.send),
            )
            await reader.start()
            self._parts.push_async_callback(reader.stop)

    async def execute_command(self, command: CacheCommand) -> None:
        """Invalidate, correct or mark kept answers, and say it on the cache-control topic where that is followed.

        Raises SchemaViolationError, BrokerError, and ConfigurationError where there is no cache.
        """
        if self.cache is None:
            raise ConfigurationError("the cache is off", remedy="set cache_enabled = true")
        await ControlDesk(self.config, self.control, self.cache, writer=self.control_writer).execute(command)

    def _gathered(self, embedder: Embedder | None) -> Embedder | None:
        if embedder is not None and self.config.embedder != "local":
            # What runs in this process may be slow, but does not hang.
            embedder = PatientEmbedder(embedder, clock=self.clock)
        if embedder is None or self._max_prompts == 1:
            return embedder
        # The local model has one thread; a server takes what the bulkheads' default lets through.
        max_calls = 1 if self.config.embedder == "local" else self.config.provider_concurrency
        window_s = self.config.batch_window_ms / 1000
        return GatheredEmbedder(
            embedder, clock=self.clock, window_s=window_s, max_size=self._max_prompts, max_calls=max_calls
        )

    def _performer(self) -> Performer:
        return Performer(
            journal=self.grouped,
            caller=self._caller(),
            gates=self.gates,
            budgets=self.budgets,
            clock=self.clock,
            metrics=self.metrics,
            owner=self.owner,
            on_ambiguous=self.config.on_ambiguous,
        )

    def _caller(self) -> Caller:
        return Caller(
            providers=self.providers,
            gates=self.gates,
            together=self.together,
            clock=self.clock,
            metrics=self.metrics,
            retry=RetryPolicy(self.config.max_retries, self.config.retry_delay_ms / 1000),
            may_repeat=self.config.on_ambiguous == "retry",
            hedge_of=self._hedge_of,
        )

    async def start(self) -> None:
        """Start every part; what was started is stopped again where a later one fails."""
        async with contextlib.AsyncExitStack() as parts:
            await _enter(parts, self.journal)
            if self._needs_engine:
                await _enter(parts, self.grouped)
                await _enter(parts, self.providers)
            parts.push_async_callback(self.control_writer.stop)
            for part in (self.embedder, self.cache, self.trials):
                if part is not None:
                    await _enter(parts, part)
            self._parts = parts.pop_all()
        self._tasks = [
            asyncio.create_task(self._beat(), name="heartbeat"),
            asyncio.create_task(self._tell(), name="gauges of the engine"),
        ]
        if self._needs_engine:
            self._tasks.append(asyncio.create_task(self._purge(), name="purge"))

    def _hedge_of(self, route_id: str) -> RouteHedge | None:
        return self.routes.hedge_of(route_id)

    def reload(self) -> None:
        """Take the configured route table up anew; requests resolved before go on as they were.

        Raises ConfigurationError, and leaves everything as it was, where the table or a key is wrong.
        """
        routes = RouteTable.for_config(self.config)
        check_targets(routes)
        adapters = create_adapters(self.config, routes) if self._needs_engine else {}
        self.routes = routes
        self.metrics.add_providers(routes.providers)
        self.acceptor.update(routes)
        self.providers.update(adapters, create_pricer(routes))
        self.gates.update(_limits(self.config, routes))
        self.budgets.update(routes.budgets)

    async def stop(self, grace_s: float) -> None:
        """Let running executions end within ``grace_s`` seconds, then stop every part. Idempotent."""
        await self.engine.stop(grace_s)
        await self.together.stop()
        # Results still waiting to be written are this process's: it lives as long as they do.
        await self.grouped.stop()
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._parts.aclose()

    async def _beat(self) -> None:
        while True:
            try:
                await self.journal.heartbeat()
            except InfrastructureError as exc:
                event(log, logging.WARNING, "heartbeat failed", cause=str(exc))
            await asyncio.sleep(self.config.heartbeat_ttl_s / BEATS_PER_TTL)

    async def _purge(self) -> None:
        """Delete what ``journal_retention_s`` has passed; several processes at once do no harm."""
        while self.config.journal_retention_s > 0:
            # Spread over the fleet; chance protects nothing here.
            await asyncio.sleep(PURGE_INTERVAL_S * (0.5 + random.random()))  # noqa: S311
            try:
                gone = await self.journal.purge(self.config.journal_retention_s)
            except InfrastructureError as exc:
                event(log, logging.WARNING, "purge failed", cause=str(exc))
            else:
                if gone:
                    event(log, logging.INFO, "journal purged", rows=gone)

    async def _tell(self) -> None:
        while True:
            self._tell_of_cache()
            self._tell_of_breakers()
            await asyncio.sleep(GAUGE_INTERVAL_S)

    def _tell_of_breakers(self) -> None:
        """By the label's closed value, as several providers may be ``other``; one that is there no more has none."""
        gauge = self.metrics.breakers
        states = Counter(gauge.close((target.provider, state)) for target, state in self.gates.breakers())
        self._told |= {provider for provider, _ in states}
        for provider, state in product(self._told, get_args(BreakerState)):
            gauge.labels(provider, state).set(states[provider, state])

    def _tell_of_cache(self) -> None:
        if self.cache is None:
            return
        held, before = self.cache.backend.held, self._held
        self.metrics.cache_entries.set(held.entries)
        self.metrics.cache_bytes.set(held.bytes)
        self.metrics.cache_evicted_total.inc(held.evicted - before.evicted)
        self.metrics.cache_copied_hits_total.inc(held.copied - before.copied)
        self._held = held


def _limits(config: RuntimeConfig, routes: RouteTable) -> dict[str, Limits]:
    return {
        name: Limits(
            spec.max_concurrency or config.provider_concurrency, spec.requests_per_minute, spec.tokens_per_minute
        )
        for name, spec in routes.providers.items()
    }


async def _enter(parts: contextlib.AsyncExitStack, part: Part) -> None:
    parts.push_async_callback(part.stop)
    await part.start()
