"""One world of a what-if: the product's own lookup, guard and coalescing over recorded requests, in recorded time.

What it leaves out: several workers' caches are one here, fallbacks and retries do not happen, a provider always has
room, and nothing is invalidated.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Literal

from stratarouter_runtime import wire
from stratarouter_runtime.cache.guard import SETTINGS, create_guard
from stratarouter_runtime.cache.memory import MemoryCache
from stratarouter_runtime.cache.normalise import conversation_text
from stratarouter_runtime.cache.votes import UNSAID
from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.engine import lookup
from stratarouter_runtime.engine.accept import Acceptor
from stratarouter_runtime.engine.coalesce import Candidate, Leaders
from stratarouter_runtime.errors import RuntimeSystemError
from stratarouter_runtime.port_values import CacheEntry, CacheHit, JournalKey
from stratarouter_runtime.records import Answer, Execution, Request, Usage
from stratarouter_runtime.routes import RouteTable
from stratarouter_runtime.state.cache_control import Origin

Kind = Literal["exact", "semantic", "coalesced", "replayed", "paid", "refused"]
"""``replayed``: a request id that was paid for or coalesced before, answered again out of the journal."""

Price = Callable[[str, str, Usage], float | None]
"""US dollars by provider, model and tokens; None where the price is unknown."""


@dataclass(frozen=True, slots=True)
class Observed:
    """One request as it was written, and what came of it then.

    Attributes:
        request: without its deadline, which is over.
        at_s: when it was written, in epoch seconds.
        kind: what it became; None where no response is known.
        provider, model, usage: of its answer.
        cost_usd: what a call for it costs: its own, or that of the answer it was given; None: unknown.
        duration_s: how long its call took; None where it made none.
        says: ``cache.votes.said`` of the answer.
        counts: False for one that only warms the cache up.
    """

    request: Request
    at_s: float
    kind: Kind | None = None
    provider: str = ""
    model: str = ""
    usage: Usage = field(default_factory=Usage)
    cost_usd: float | None = None
    duration_s: float | None = None
    says: int = UNSAID
    counts: bool = True


@dataclass(slots=True)
class Sums:
    """What a range came to: requests by kind, calls and US dollars by ``provider/model``, dollars saved."""

    kinds: Counter[Kind] = field(default_factory=Counter)
    calls: Counter[str] = field(default_factory=Counter)
    paid_usd: dict[str, float] = field(default_factory=dict)
    saved_usd: float = 0.0
    unpriced: int = 0

    @property
    def requests(self) -> int:
        """All of them."""
        return sum(self.kinds.values())

    def add(self, kind: Kind, name: str, usd: float | None) -> None:
        """One request that a call to ``name`` answers, or would have answered."""
        self.kinds[kind] += 1
        if kind == "refused":
            return
        if kind == "paid":
            self.calls[name] += 1
        if usd is None:
            self.unpriced += 1
        elif kind == "paid":
            self.paid_usd[name] = self.paid_usd.get(name, 0.0) + usd
        else:
            self.saved_usd += usd


@dataclass(frozen=True, slots=True)
class Pair:
    """Two questions that one answer serves: what is asked, what was answered, how alike they are."""

    asked: str
    answered: str
    similarity: float
    tenant: str
    route: str


@dataclass(frozen=True, slots=True)
class _Call:
    execution: Execution
    candidate: Candidate
    answer: Answer
    followers: list[Execution] = field(default_factory=list)


class _Clock:
    """Recorded time."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def wall_ms(self) -> int:
        return int(self.now * 1000)

    async def sleep(self, seconds: float) -> None:
        raise AssertionError(f"nothing waits in a model (asked to sleep {seconds} s)")


class World:
    """One configuration and route table.

    Args:
        config: the settings.
        routes: the route table.
        price: what tokens cost.
        duration_s: how long a call takes that was not made then, by ``provider/model``.
    """

    def __init__(
        self, config: RuntimeConfig, routes: RouteTable, price: Price, duration_s: Callable[[str], float]
    ) -> None:
        guard = create_guard(SETTINGS[config.cache_guard])
        self._clock = _Clock()
        self._cache = None
        if config.cache_enabled:
            self._cache = MemoryCache(
                clock=self._clock,
                guard=guard,
                max_entries=config.cache_max_entries,
                max_bytes=config.cache_max_bytes,
                eviction=config.cache_eviction,
            )
        self._acceptor = Acceptor(config, routes)
        self._leaders = Leaders(guard)
        self._calls: dict[object, _Call] = {}
        self._ending: list[tuple[float, int, _Call]] = []
        self._number = count()
        self._price = price
        self._duration_s = duration_s
        self._texts: dict[str, str] = {}
        self._answered: dict[JournalKey, tuple[str, Answer]] = {}
        """The payload and the answer, as the journal has them."""
        self.sums = Sums()
        self.pairs: Counter[tuple[str, str]] = Counter()
        """How often a question (by its key) was served the answer to another one."""
        self.shown: dict[tuple[str, str], Pair] = {}

    async def take(self, seen: Observed) -> None:
        """The next request, in the order of time."""
        await self._until(seen.at_s)
        try:
            execution = self._acceptor.accept(seen.request, None)
        except RuntimeSystemError:
            self._count(seen, "refused", "", None)
            return
        # The text is for the guard; without a vector nobody asks it.
        likened = execution.request.embedding is not None
        text = conversation_text(execution.request.messages) if likened else ""
        if await self._hit(seen, execution, text):
            return
        if not (self._replay(seen, execution) or self._join(seen, execution, text)):
            self._call(seen, execution, text)

    async def _until(self, now: float) -> None:
        """What ends by ``now`` ends, and is kept."""
        while self._ending and self._ending[0][0] <= now:
            at, _, call = heapq.heappop(self._ending)
            self._clock.now = max(self._clock.now, at)
            self._leaders.remove(call.candidate)
            del self._calls[call.candidate.key]
            await self._keep(call)
        self._clock.now = max(self._clock.now, now)

    async def _keep(self, call: _Call) -> None:
        entries: list[CacheEntry] = []
        source = lookup.origin(call.execution, 0)
        if lookup.may_write(call.execution):
            entries.append(lookup.entry(call.execution, call.answer, 0))
        entries += [self._alias(one, call.answer, call.execution.content_hash, source) for one in call.followers]
        if self._cache is not None:
            await self._cache.store(entries)

    def _alias(self, execution: Execution, answer: Answer, source_id: str, source: Origin) -> CacheEntry:
        # How alike they are is for a bound on wrong hits, which is not modelled.
        return lookup.alias(execution, answer, source_id, source, 1.0)

    async def _hit(self, seen: Observed, execution: Execution, text: str) -> bool:
        if self._cache is None or not lookup.may_read(execution):
            return False
        [found] = self._cache.lookup_now([lookup.query(execution, text)])
        if not isinstance(found, CacheHit):
            return False
        self._count(seen, found.kind, _name(found.answer), found.answer.cost_usd)
        self._alike(seen, execution, text, found.entry_id, found.similarity)
        if found.kind == "semantic" and lookup.may_write(execution):
            await self._cache.store([self._alias(execution, found.answer, found.entry_id, found.origin)])
        return True

    def _replay(self, seen: Observed, execution: Execution) -> bool:
        """Whether the id was answered before; with another payload it is refused."""
        known = self._answered.get(JournalKey.of(execution.request))
        if known is None:
            return False
        payload, answer = known
        if payload == wire.hashed(execution).payload_hash:
            self._count(seen, "replayed", _name(answer), answer.cost_usd)
        else:
            self._count(seen, "refused", "", None)
        return True

    def _join(self, seen: Observed, execution: Execution, text: str) -> bool:
        threshold = execution.batch_threshold
        if threshold is None or execution.request.cache.mode in {"bypass", "refresh"}:
            return False
        match = self._leaders.find(Candidate.of(execution, text), threshold)
        if match is None:
            return False
        call = self._calls[match.leader]
        self._count(seen, "coalesced", _name(call.answer), call.answer.cost_usd)
        self._answered[JournalKey.of(execution.request)] = wire.hashed(execution).payload_hash, call.answer
        self._alike(seen, execution, text, call.execution.content_hash, match.similarity)
        if lookup.may_write(execution):
            call.followers.append(execution)
        return True

    def _call(self, seen: Observed, execution: Execution, text: str) -> None:
        target = execution.targets[0]
        name = f"{target.provider}/{target.model}"
        same = (seen.provider, seen.model) == (target.provider, target.model)
        usd = seen.cost_usd if same else self._price(target.provider, target.model, seen.usage)
        self._count(seen, "paid", name, usd)
        self._texts[execution.content_hash] = text
        candidate = Candidate.of(execution, text)
        # Whether two answers say the same is all that matters of their words; what is not known never does.
        words = seen.request.request_id if seen.says == UNSAID else f"{seen.says:x}"
        answer = Answer(words, target.provider, target.model, seen.usage, cost_usd=usd)
        self._answered[JournalKey.of(execution.request)] = wire.hashed(execution).payload_hash, answer
        call = _Call(execution, candidate, answer)
        # Nobody else has its id: whoever comes with it again is told what stands, or refused.
        self._calls[candidate.key] = call
        self._leaders.add(candidate)
        took = seen.duration_s if same and seen.duration_s is not None else self._duration_s(name)
        heapq.heappush(self._ending, (seen.at_s + took, next(self._number), call))

    def _count(self, seen: Observed, kind: Kind, name: str, usd: float | None) -> None:
        if seen.counts:
            self.sums.add(kind, name, usd)

    def _alike(self, seen: Observed, execution: Execution, text: str, answered_by: str, similarity: float) -> None:
        """Note that other words were answered with the same answer."""
        pair = execution.content_hash, answered_by
        if not seen.counts or pair[0] == pair[1]:
            return
        self.pairs[pair] += 1
        if pair not in self.shown:
            request = execution.request
            who = request.context.tenant, request.decision.route_id
            self.shown[pair] = Pair(text, self._texts.get(answered_by, ""), similarity, *who)


def without_deadline(request: Request) -> Request:
    """``request`` as it can be asked again."""
    return request if request.deadline_ms is None else replace(request, deadline_ms=None)


def _name(answer: Answer) -> str:
    return f"{answer.provider}/{answer.model}"
