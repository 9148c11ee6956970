"""An engine on the memory journal and a provider that does as it is told, for unit tests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np

from stratarouter_runtime.clock import SystemClock
from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.engine.budgets import Budgets
from stratarouter_runtime.engine.calls import Caller
from stratarouter_runtime.engine.engine import Engine
from stratarouter_runtime.engine.gates import Gates, Limits
from stratarouter_runtime.engine.perform import Performer
from stratarouter_runtime.engine.together import Together
from stratarouter_runtime.engine.trials import Trials
from stratarouter_runtime.journal.grouped import GroupedJournal
from stratarouter_runtime.journal.memory import MemoryJournal, MemoryStore
from stratarouter_runtime.port_values import ProviderCall
from stratarouter_runtime.ports import Cache, Clock
from stratarouter_runtime.records import (
    Answer,
    Context,
    Decision,
    Execution,
    Request,
    Target,
    Usage,
    Vector,
)
from stratarouter_runtime.route_file import Budget, RouteHedge
from stratarouter_runtime.state.cache_control import CacheControl
from stratarouter_runtime.state.retry import RetryPolicy
from stratarouter_runtime.telemetry.metrics import Metrics

FIRST = "11111111-1111-4111-8111-111111111111"
SECOND = "22222222-2222-4222-8222-222222222222"


class Provider:
    """Answers each call by its script, else with the last message; holds calls while ``gate`` is closed."""

    def __init__(self, *script: Exception) -> None:
        self.script = list(script)
        self.calls: list[ProviderCall] = []
        self.gate = asyncio.Event()
        self.gate.set()

    def keys(self, _provider: str) -> int:
        return 1

    def takes_many(self, _provider: str) -> bool:
        return False

    def check(self, provider: str, call: ProviderCall) -> None:
        """Every call is well-formed."""

    async def call_many(self, provider: str, calls: Sequence[ProviderCall], **_: Any) -> list[Answer]:
        return [await self.call(provider, call) for call in calls]

    async def call(
        self, provider: str, call: ProviderCall, *, on_text: Callable[[str], None] | None = None, **_: Any
    ) -> Answer:
        self.calls.append(call)
        for piece in ("answer ", "to ") if on_text is not None else ():
            assert on_text is not None
            on_text(piece)
        await self.gate.wait()
        if self.script:
            raise self.script.pop(0)
        return Answer(f"answer to {call.messages[-1]['content']}", provider, call.model, Usage(10, 5), cost_usd=0.01)


class SteppedClock(SystemClock):
    """Time that passes by sleeping alone."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        await asyncio.sleep(0)


class EqualGuard:
    """Refuses where the digits differ."""

    def differs(self, asked: str, stored: str, _similarity: float = 0.9) -> str | None:
        digits: Callable[[str], list[str]] = lambda text: [c for c in text if c.isdigit()]  # noqa: E731
        return None if digits(asked) == digits(stored) else "guard:number"


class Bench:
    """An engine with its parts in reach."""

    def __init__(
        self,
        provider: Provider,
        *,
        store: MemoryStore | None = None,
        owner: str = FIRST,
        slots: int = 100,
        limits: dict[str, Limits] | None = None,
        hedge: RouteHedge | None = None,
        budgets: Sequence[Budget] = (),
        clock: Clock | None = None,
        journal: type[MemoryJournal] = MemoryJournal,
        **settings: Any,
    ) -> None:
        config = RuntimeConfig(state_backend="memory", cache_enabled=False, retry_delay_ms=0, **settings)
        self.provider = provider
        self.metrics = Metrics()
        self.journal = journal(store or MemoryStore(), owner=owner, heartbeat_ttl_s=5)
        self.grouped = GroupedJournal(self.journal)
        self._clock = clock = clock or SystemClock()
        self.gates = Gates(
            clock=clock, metrics=self.metrics, keys=provider.keys, limits=limits or {}, default=Limits(slots),
            seats=lambda name: config.batch_max_size if provider.takes_many(name) else 1,
        )  # fmt: skip
        self.together = Together(
            providers=provider, gates=self.gates, clock=clock, metrics=self.metrics,
            window_s=config.batch_window_ms / 1000, max_size=config.batch_max_size,
        )  # fmt: skip
        caller = Caller(
            providers=provider, gates=self.gates, together=self.together, clock=clock, metrics=self.metrics,
            retry=RetryPolicy(config.max_retries, 0.0), may_repeat=config.on_ambiguous == "retry",
            hedge_of=lambda _: hedge,
        )  # fmt: skip
        self.budgets = Budgets(
            budgets, journal=self.grouped, clock=clock, is_priced=lambda _, model: model != "unpriced",
            cost_usd=lambda _, __, usage: (usage.input_tokens + usage.output_tokens) / 1000, metrics=self.metrics,
        )  # fmt: skip
        self._config = config
        self._performer = Performer(
            journal=self.grouped, caller=caller, gates=self.gates, budgets=self.budgets, clock=clock,
            metrics=self.metrics, owner=owner, on_ambiguous=config.on_ambiguous,
        )  # fmt: skip
        self.engine = self.engine_with(None)

    def engine_with(
        self, cache: Cache | None, *, control: CacheControl | None = None, trials: Trials | None = None
    ) -> Engine:
        """The engine of this bench, with another cache."""
        self.engine = Engine(
            self._config, cache=cache, performer=self._performer, guard=EqualGuard(), clock=self._clock,
            metrics=self.metrics, control=control, trials=trials,
        )  # fmt: skip
        return self.engine

    async def __aenter__(self) -> Self:
        await self.journal.start()
        await self.grouped.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.engine.stop(0.0)
        await self.together.stop()
        await self.grouped.stop()
        await self.journal.stop()


def vector(*parts: float) -> Vector:
    vector = np.array(parts, dtype=np.float32)
    return vector / np.linalg.norm(vector)


def execution(
    request_id: str,
    query: str,
    *,
    embedding: Vector | None = None,
    scope: str = "s",
    threshold: float | None = 0.95,
    targets: Sequence[tuple[str, str]] = (("openai", "small"), ("openai", "large")),
    **changes: Any,
) -> Execution:
    request = Request(
        request_id, Decision("support"), ({"role": "user", "content": query},), context=Context("acme"),
        embedding=embedding, **changes,
    )  # fmt: skip
    named = tuple(Target(*target) for target in targets)
    return Execution(request, named, None, scope, f"{scope}:{query}", f"hash of {query}", batch_threshold=threshold)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0)
